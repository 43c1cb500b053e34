"""Forecasts how long a run takes, by what an earlier run on the same machine took."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas

from levelfield.harness.analysis.planning import most_blocks
from levelfield.harness.errors import BadInput
from levelfield.harness.machine.describe import difference
from levelfield.harness.plan.cells import TASK, Cell, plan
from levelfield.harness.plan.suite import Suite
from levelfield.harness.records import frames as records
from levelfield.harness.records.frames import Frames
from levelfield.harness.records.runs import run_folders
from levelfield.harness.records.store import Run, open_run

_STARTUP = [
    *("build_seconds", "compile_seconds", "first_step_seconds", "second_step_seconds"),
    "warm_up_seconds",
]
TaskKey = tuple[Any, ...]  # the fields of a task, maybe followed by the arm
LEAST_SHARE = 0.5  # of the cells, whose tasks an earlier run must know


@dataclass(frozen=True)
class Cost:
    """The cost of a cell: seconds of its proof, its closing and a block, and number of blocks."""

    proof_seconds: float
    closing_seconds: float
    block_seconds: float
    blocks: float

    @property
    def seconds(self) -> float:
        """Everything."""
        return self.proof_seconds + self.closing_seconds + self.blocks * self.block_seconds


@dataclass(frozen=True)
class Forecast:
    """The costs that are expected of cells, by their ids.

    ``run``: the earlier run that they are judged by. ``known``: how many of the cells have their
    task there; the others are expected to cost what its cells cost on average.
    """

    costs: Mapping[str, Cost]
    run: Path
    known: int

    @property
    def seconds(self) -> float:
        """How long all cells take."""
        return sum(cost.seconds for cost in self.costs.values())


def forecast(run: Run, cells: Sequence[Cell]) -> Forecast | None:
    """Judge a run by the newest other one of its folder that knows enough of its tasks.

    Returns None if there is none from this machine, of this level and with blocks.
    """
    for path, _ in sorted(run_folders([run.path.parent]), reverse=True):
        if path.resolve() == run.path.resolve():
            continue
        # A run that cannot be read forecasts nothing, and its oddities are not those of this run.
        with suppress(BadInput), warnings.catch_warnings(action="ignore"):
            if _resembles(path, run) and (costs := costs_of(records.load(path))):
                tasks = {key[:-1] for key in costs}
                known = sum(_task(vars(cell)) in tasks for cell in cells)
                made = Forecast(_expected(cells, costs), path, known)
                if known >= LEAST_SHARE * len(cells) and isfinite(made.seconds):
                    return made
    return None


def _resembles(path: Path, run: Run) -> bool:
    """Whether a folder holds a run of the same level on the same machine, with some equal tasks."""
    with open_run(path) as other:
        one, two = run.description, other.description
        tasks = [{_task(cell) for cell in description["cells"]} for description in (one, two)]
        levels = [(description.get("suite") or {}).get("level") for description in (one, two)]
        machines = [description.get("machine") or {} for description in (one, two)]
        return (
            levels[0] == levels[1]
            and all(machines)
            and not tasks[0].isdisjoint(tasks[1])
            and not difference(machines[0], machines[1])
        )


def most_seconds(frames: Frames, suite: Suite) -> float | None:
    """Return how long a suite takes at most, by the costs of a run; None if it has no blocks.

    At most: if no arm is settled before the last look of the suite's level.
    """
    costs = costs_of(frames)
    if not costs:
        return None
    blocks = most_blocks(suite.residency, suite.level)
    expected = _expected(plan(suite), costs).values()
    return sum(replace(cost, blocks=blocks).seconds for cost in expected)


def costs_of(frames: Frames) -> dict[TaskKey, Cost]:
    """Return what every cell of one run that was timed cost, by its task and arm.

    The seconds of a phase are those of the clock. They are divided among the cells by what was
    measured of each of them.
    """
    cells = frames.cells[frames.cells["status"] == "ok"].set_index("cell")
    blocks = _blocks(frames)
    proofs = _proofs(frames).reindex(cells.index)
    closings = frames.closings.groupby("cell")[["reference_seconds", "worker_seconds"]].sum()
    table = cells.assign(
        proof_seconds=proofs.fillna(proofs.mean()),
        closing_seconds=closings.sum(axis=1).reindex(cells.index).fillna(0.0),
    ).join(blocks, how="inner")
    names = [field.name for field in fields(Cost)]
    return {
        (*_task(row), str(row["arm"])): Cost(**{name: float(row[name]) for name in names})
        for row in table.to_dict("records")
    }


def _blocks(frames: Frames) -> pandas.DataFrame:
    """The columns ``block_seconds`` and ``blocks`` of every cell that was timed.

    A block is divided by the start-ups of its cells, and by its rounds, which the arms of a
    comparison share. The rest, such as starts of processes, is divided in the same ratio. The
    median block counts, because the clock of the records may step, and a run may be interrupted.
    """
    startup = frames.startup[frames.startup["block"].notna()]
    rounds = frames.rounds.groupby(["block", "comparison"], as_index=False)["wall_seconds"].sum()
    cells = startup.assign(own_seconds=startup[_STARTUP].sum(axis=1))
    cells = cells[["block", "comparison", "cell", "own_seconds"]]
    cells = cells.merge(rounds, on=["block", "comparison"])
    arms = cells.groupby(["block", "comparison"])["cell"].transform("count")
    cells["own_seconds"] += cells["wall_seconds"] / arms
    processes = frames.processes[frames.processes["block"].notna()]
    begun = processes.groupby("block")["at_seconds"].min()
    ended = frames.rounds.groupby("block")["at_seconds"].max()
    measured = cells.groupby("block")["own_seconds"].sum()
    factor = max(float(((ended - begun) / measured).median()), 1.0)
    by_cell = cells.groupby("cell")["own_seconds"]
    return pandas.DataFrame({"block_seconds": factor * by_cell.mean(), "blocks": by_cell.count()})


def _proofs(frames: Frames) -> pandas.Series[float]:
    """Seconds that the proof of every cell took, its measurements of memory included."""
    seconds = frames.calibrations.set_index("cell")["qualified_seconds"]
    timed = frames.processes["block"].notna()
    stamps = frames.processes["at_seconds"]
    whole = float(stamps[timed].min() - stamps.min())
    # An older run does not say how long a cell took.
    seconds = seconds.fillna(seconds.mean() if seconds.notna().any() else 1.0)
    return max(whole, 0.0) * seconds / seconds.sum()


def _expected(cells: Sequence[Cell], costs: Mapping[TaskKey, Cost]) -> dict[str, Cost]:
    """The costs of cells: of the same task and arm, else the mean of the task, else of all."""
    by_task: dict[TaskKey, list[Cost]] = {}
    for (*task, _), cost in costs.items():
        by_task.setdefault(tuple(task), []).append(cost)
    means = {task: _mean(members) for task, members in by_task.items()}
    mean = _mean([*costs.values()])
    return {
        cell.id: costs.get((*_task(vars(cell)), cell.arm)) or means.get(_task(vars(cell)), mean)
        for cell in cells
    }


def _mean(costs: Sequence[Cost]) -> Cost:
    names = [field.name for field in fields(Cost)]
    return Cost(**{name: fmean(getattr(cost, name) for cost in costs) for name in names})


def _task(cell: Mapping[Any, Any]) -> TaskKey:
    """The fields that all cells of a comparison share; a training alone has an optimiser."""
    return tuple(cell.get(name) or "" for name in TASK)
