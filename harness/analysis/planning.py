"""Decides how many blocks and rounds a run has, and which arms need no further block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas

from levelfield.harness.analysis.verdicts import LEAST_AUDITS, settled
from levelfield.harness.records import frames as records
from levelfield.harness.records.frames import Frames
from levelfield.harness.statistics.levels import LEVELS
from levelfield.harness.statistics.variances import rounds_per_block, variance_components

BLOCKS_PER_AUDIT = 5  # resident blocks for each audit
SMOKE_BLOCKS = 1


def last_block(level: str) -> int:
    """The number of blocks at the last look of a level, without the audits."""
    looks = LEVELS[level]
    return looks[-1] if looks else SMOKE_BLOCKS


def audits_due(residency: str, blocks: int) -> int:
    """The number of audits that belong before the block after so many blocks of a residency.

    The first ones come as many at a time as have an interval. A run that ends before has none:
    fewer audits would show nothing.
    """
    due = blocks // BLOCKS_PER_AUDIT if residency == "resident" else 0
    return due if due >= LEAST_AUDITS else 0


def most_blocks(residency: str, level: str) -> int:
    """The number of blocks that a cell has at most, the audits among them."""
    last = last_block(level)
    return last + audits_due(residency, last - 1)


def look(run: Path, *, rounds: int) -> tuple[int, frozenset[tuple[str, str]]]:
    """Return (rounds of the next blocks, settled arms) from the records of a run.

    Settled arms are pairs of a comparison and an arm, see ``verdicts.settled``.
    """
    frames = records.load(run)
    return planned_rounds(frames, rounds), frozenset(settled(frames))


def planned_rounds(frames: Frames, rounds: int) -> int:
    """The median over comparisons of the rounds that give most precision for the time.

    The rule is that of Kalibera and Jones (2013), section 6. It compares the costs of a
    comparison's start in a block and of a round with the variances within and between blocks. The
    part of a round that all arms share is subtracted first, because it cancels in every pair.
    ``rounds`` is the answer where nothing is known yet.
    """
    wanted = [
        rounds_per_block(
            block_seconds=_start_seconds(frames, comparison),
            round_seconds=float(
                frames.rounds.loc[frames.rounds["comparison"] == comparison, "wall_seconds"].mean()
            ),
            within=within,
            between=between,
        )
        for comparison, between, within in _variances(frames)
    ]
    return int(np.median(wanted)) if wanted else rounds


def _variances(frames: Frames) -> list[tuple[str, float, float]]:
    """(comparison, variance of blocks, of rounds within) of log step times, mean over arms."""
    slices = frames.slices
    slices = slices[
        (slices["statistic"] == "throughput")
        & (slices["residency"] == "resident")
        & ~slices["disturbed"]
    ]
    rows = []
    for comparison, these in slices.groupby("comparison", sort=False):
        logs = np.log(these["step_seconds"])
        common = logs.groupby([these["block"], these["round"]]).transform("mean")
        table = pandas.DataFrame(
            {"arm": these["arm"], "block": these["block"], "round": these["round"]}
        ).assign(log=logs - common)
        parts = []
        for _, arm in table.groupby("arm", sort=False):
            values = arm.pivot_table(index="block", columns="round", values="log").to_numpy()
            if min(values.shape) > 1:
                parts.append(variance_components(values))
        # Noise may leave an arm one round of a block, which says nothing of the rounds' variance.
        parts = [part for part in parts if np.isfinite(part).all()]
        if parts:
            between, within = np.mean(parts, axis=0)
            rows.append((str(comparison), float(between), float(within)))
    return rows


def _start_seconds(frames: Frames, comparison: str) -> float:
    """Seconds that a comparison costs in a block before its first round, all arms together."""
    startup = frames.startup[(frames.startup["comparison"] == comparison)]
    startup = startup[startup["block"].notna()]
    own = startup[
        [
            "build_seconds",
            "compile_seconds",
            "first_step_seconds",
            "second_step_seconds",
            "warm_up_seconds",
        ]
    ].sum()
    processes = frames.processes[frames.processes["block"].notna()]
    begun = processes[["interpreter_seconds", "import_seconds", "device_seconds"]].to_numpy().sum()
    comparisons = frames.rounds["comparison"].nunique()
    blocks = max(frames.rounds["block"].nunique(), 1)
    return float((own.sum() + begun / max(comparisons, 1)) / blocks)
