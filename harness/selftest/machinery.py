"""Runs the real engine with arms whose truth is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from levelfield.harness.engine import session
from levelfield.harness.engine.time_left import Left
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Effort, Suite, validated
from levelfield.harness.records import store
from levelfield.harness.records.frames import Frames, load

Say = Callable[[str], None]


@dataclass
class Told:
    """Reports the progress of a run in words: at most one line in ten seconds."""

    name: str
    say: Say
    _said: float = 0.0

    def stage(self, text: str, done: float, left: Left | None) -> None:
        """Report the current stage."""
        if time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            self.say(f"{self.name}, {done:.0%}: {text}")

    def cell_done(self, cell: Cell) -> None:
        """Report nothing."""


def run_suite(
    folder: Path,
    suite: Suite,
    say: Say,
    *,
    cells: Sequence[Cell] | None = None,
    only_gate: bool = False,
) -> Path:
    """Run a suite below ``folder`` and return the run's folder.

    ``cells`` are the cells of the plan to run; None for all. ``only_gate``: prove and stop.
    """
    suite = validated(suite)
    resolutions = session.resolve_arms(suite.arms, {})
    all_cells, resolutions = session.planned(suite, resolutions)
    cells = all_cells if cells is None else cells
    description = session.describe_run(suite, cells, resolutions)
    with store.create(folder, suite.name, description) as run:
        session.measure(
            run,
            suite,
            cells,
            resolutions=resolutions,
            progress=Told(suite.name, say),
            only_gate=only_gate,
        )
    return run.path


def mutant_suite(name: str, arms: Sequence[str], *, effort: Effort, **changes: Any) -> Suite:
    """A suite over the misbehaving framework; the default model is a multilayer perceptron."""
    return Suite(
        name=name,
        title="arms that misbehave in one known way each",
        arms=tuple(arms),
        level="smoke",
        twin="none",
        effort=effort,
        **{
            "models": ("mlp",),
            "presets": ("tiny",),
            "phases": ("training",),
            "optimizers": ("sgd",),
            "batches": (8,),
        }
        | changes,
    )


def frames_of(path: Path) -> Frames:
    """Load the frames of one run."""
    return load(path)
