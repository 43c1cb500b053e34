"""Log seconds of the arms of a comparison, and the one estimate of each arm's time.

A ratio, a time per step, a chart and a table of one comparison all come from the same effects
(:mod:`levelfield.harness.statistics.effects`), so that they say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.statistics.decisions import effects_of
from levelfield.harness.statistics.effects import Effects
from levelfield.harness.statistics.estimates import Floats, estimate

_USED = (
    *("run", "comparison", "statistic", "arm", "cell", "residency"),
    *("block", "round", "step_seconds", "disturbed"),
)
Key = tuple[str, str, str]  # run, comparison, statistic


@dataclass(frozen=True)
class Logs:
    """log seconds of a step, ``values[arm, block, round]``; NaN where nothing was measured.

    ``cells``: the cell of each arm. ``blocks``: the number of each block. ``disturbed[block,
    round]``: the rounds that other programs disturbed.
    """

    arms: tuple[str, ...]
    cells: tuple[str, ...]
    blocks: tuple[int, ...]
    values: Floats
    disturbed: NDArray[np.bool_]

    @property
    def twin(self) -> tuple[str, str] | None:
        """The A/A pair, if both of its arms were measured."""
        second = next((arm for arm in self.arms if arm.endswith(TWIN)), None)
        first = second.removesuffix(TWIN) if second else None
        return (first, second) if first in self.arms and first and second else None

    def effects(self) -> Effects:
        """Separate the arms from the machine, block by block."""
        return effects_of(self.values, self.disturbed)


@dataclass(frozen=True)
class Measured:
    """The logs of a comparison and statistic, in blocks and in audits."""

    blocks: Logs
    audits: Logs


def measured(frames: Frames) -> dict[Key, Measured]:
    """Return the logs of every comparison and statistic that has slices.

    A cell that ended badly after some of its blocks has no number in any table, so it has no part
    in verdicts either. Nor have cells that somebody took out of the frame of cells.
    """
    cells = frames.cells[frames.cells["status"].isin(["ok", "unfinished"])]
    judged = pandas.Series(False, index=frames.slices.index)
    for run, cells_of_run in cells.groupby("run")["cell"]:
        judged |= (frames.slices["run"] == run) & frames.slices["cell"].isin(cells_of_run)
    # Copying all columns of a million slices takes longer than all statistics.
    narrow = frames.slices.loc[judged, [*_USED]].astype(dict.fromkeys(_USED[:3], "category"))
    plans: dict[tuple[str, str], list[str]] = {}
    for run, comparison, arm in frames.cells[["run", "comparison", "arm"]].itertuples(index=False):
        plans.setdefault((run, comparison), []).append(arm)
    result = {}
    for key, slices in narrow.groupby([*_USED[:3]], sort=False, observed=True):
        run, comparison, statistic = map(str, key if isinstance(key, tuple) else (key,))
        audit = slices["residency"] == AUDIT
        plan = plans[run, comparison]
        logs = (_logs(slices[mask], plan) for mask in (~audit, audit))
        result[run, comparison, statistic] = Measured(*logs)
    return result


def _logs(slices: pandas.DataFrame, plan: Sequence[str]) -> Logs:
    """The slices of one comparison and statistic; arms by the plan, blocks and rounds by number."""
    codes, names = pandas.factorize(slices["arm"])
    arms = tuple(dict.fromkeys([*(arm for arm in plan if arm in set(names)), *names]))
    cells = dict(zip(slices["arm"], slices["cell"], strict=True))
    blocks, at_block = np.unique(slices["block"], return_inverse=True)
    rounds_of_block = 1 + int(slices["round"].max()) if len(slices) else 0
    values = np.full((len(arms), len(blocks), rounds_of_block), np.nan)
    number = np.array([arms.index(arm) for arm in names], int)[codes]
    rounds = slices["round"].to_numpy(int)
    values[number, at_block, rounds] = np.log(slices["step_seconds"].to_numpy(float))
    disturbed = np.zeros(values.shape[1:], bool)
    disturbed[at_block, rounds] = slices["disturbed"].to_numpy(bool)
    return Logs(arms, tuple(cells[arm] for arm in arms), tuple(map(int, blocks)), values, disturbed)


def block_times(logs: Mapping[Key, Measured], statistic: str) -> pandas.DataFrame:
    """A row per cell and block: "run", "cell", "block", "log_seconds" and "weight".

    The times of an arm that left before the last block are shifted by the drift of the machine over
    the blocks that it lacks, so that its time over another arm's is their ratio.
    """
    parts: list[dict[str, Any]] = [
        {"run": [], "cell": [], "block": [], "log_seconds": [], "weight": []}
    ]
    for (run, _, kind), measured_logs in logs.items():
        if kind != statistic:
            continue
        blocks = measured_logs.blocks
        effects = blocks.effects()
        seconds = effects.log_seconds()
        twins = np.array([arm.endswith(TWIN) for arm in blocks.arms])
        seconds = seconds + _drift(seconds, effects.weights, twins)[:, None]
        arms, numbers = seconds.shape
        parts.append(
            {
                "run": [run] * seconds.size,
                "cell": np.repeat(blocks.cells, numbers),
                "block": np.tile(blocks.blocks, arms),
                "log_seconds": seconds.ravel(),
                "weight": np.tile(effects.weights, arms),
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pandas.DataFrame(columns).dropna(subset="log_seconds")


def _drift(seconds: Floats, weights: Floats, twins: NDArray[np.bool_]) -> Floats:
    """For each arm, by how much the anchor's mean over all its blocks is above that over the arm's.

    The anchor is the fastest of the arms with the most blocks, no twin. ``seconds``: logs [arm,
    block].
    """
    present = ~np.isnan(seconds)
    counts = np.where(twins, 0, present.sum(axis=1))
    most = np.flatnonzero(counts == counts.max(initial=0))
    means = [float(estimate(seconds[at], weights).log_ratio) for at in most]
    if not means:
        return np.zeros(0)
    anchor = seconds[most[int(np.argmin(means))]]
    whole = estimate(anchor, weights).log_ratio
    shared = estimate(np.where(present, anchor, np.nan), weights).log_ratio
    return np.asarray(np.nan_to_num(whole - shared))


def block_seconds(logs: Mapping[Key, Measured], statistic: str) -> Any:
    """Seconds per step by run, cell and block."""
    times = block_times(logs, statistic).set_index(["run", "cell", "block"])
    return np.exp(times["log_seconds"].sort_index())
