"""Small runs of the engine: their effort, their silent progress, and their statuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from levelfield.harness.engine.time_left import Left
from levelfield.harness.plan.arms import PACKAGE_FOLDER
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Effort, Limits
from levelfield.harness.records import frames

MISBEHAVING = PACKAGE_FOLDER / "harness" / "selftest" / "misbehaving"
TINY_EFFORT = Effort(
    rounds=2,
    slice_seconds=0.002,
    rewarm_seconds=0.001,
    warm_up_seconds=0.001,
    warm_up_cap_seconds=1.0,
    quiet_seconds=0.0,
    ceilings=False,
    memory_processes=1,
    memory_steps=2,
    accuracy_epochs=1,
)
NO_LIMITS = Limits()
RunModes = Callable[..., Path]  # the fixture run_modes


class Silent:
    """Progress without a reader."""

    def stage(self, text: str, done: float, left: Left | None) -> None:
        pass

    def cell_done(self, cell: Cell) -> None:
        pass


def quiet(text: str) -> None:
    """Drop the progress of the self-test."""


def statuses(folder: Path) -> dict[str, tuple[str, str]]:
    """mode -> (status, reason)."""
    cells = frames.load(folder).cells
    return {row["mode"]: (row["status"], row["reason"]) for row in cells.to_dict("records")}
