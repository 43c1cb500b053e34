"""Verdicts of every comparison of a run at its last look, with the error bar of the session.

All random numbers come from the run's own seed, so the same records give the same verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas
from scipy import special  # type: ignore[import-untyped]

from levelfield.harness.analysis.logs import Logs, Measured, measured
from levelfield.harness.analysis.machines import machine_numbers
from levelfield.harness.analysis.roofline import IMPOSSIBLE_SHARE
from levelfield.harness.analysis.summary import summary
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.columns import COLUMNS
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.statistics.decisions import (
    ComparisonVerdicts,
    PairVerdict,
    Verdict,
    comparison_verdicts,
    control_of,
    effective_margin,
)
from levelfield.harness.statistics.estimates import Estimate, welch_freedom
from levelfield.harness.statistics.levels import LEVELS
from levelfield.harness.statistics.moderation import compared

SLICE_STATISTICS = ("throughput", "latency", "first_token", "further_token")
NO_CONTROL = "no A/A control: no arm ran twice"
LEAST_AUDITS = 2  # with fewer, a carry-over has no interval
# The half-width of its intervals with which an arm may leave before so many blocks.
KNOWN, KNOWN_BLOCKS = 0.05, 6
CARRY_OVER_ALPHA = 0.01  # over all pairs of a comparison together


@dataclass(frozen=True)
class Control:
    """The session's own error by the A/A twin: ratio and 95 % half-width, a fraction."""

    arm: str
    ratio: float
    half_width: float
    blocks: int


@dataclass(frozen=True)
class CarryOver:
    """The pair that differs most between blocks of resident arms and audits, where arms run alone.

    ``difference``: the ratio in audits over that in resident blocks, minus 1. ``low`` and ``high``:
    its interval, of confidence 1 - ``CARRY_OVER_ALPHA`` for all pairs of the comparison together.
    """

    pair: tuple[str, str]
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """The verdicts of one comparison and kind of slice, with the data that support them.

    ``carry_over`` is None with fewer than ``LEAST_AUDITS`` audits. ``rules`` maps a rule to the
    number of rounds that were disturbed by it.
    """

    run: str
    comparison: str
    statistic: str
    level: str
    arms: tuple[str, ...]
    verdicts: ComparisonVerdicts
    control: Control | None
    rounds: int
    rules: dict[str, int]
    audits: int
    carry_over: CarryOver | None


def judge(frames: Frames, table: pandas.DataFrame | None = None) -> list[Judged]:
    """Judge every comparison that has slices, in the plan's order. A smoke run has no verdicts.

    ``table`` is the summary of the frames, for callers that have it already.
    """
    judgements = []
    impossible = _impossible(frames, table)
    logs = measured(frames)
    for run in frames.runs.to_dict("records"):
        if not LEVELS.get(run["level"]):
            continue
        rounds = frames.rounds[frames.rounds["run"] == run["run"]]
        seed = 0 if pandas.isna(run["seed"]) else int(run["seed"])
        plan = frames.cells[frames.cells["run"] == run["run"]]
        for comparison in dict.fromkeys(plan["comparison"]):
            rounds_of_comparison = rounds[rounds["comparison"] == comparison]
            for number, statistic in enumerate(SLICE_STATISTICS):
                logs_of_statistic = logs.get((run["run"], comparison, statistic))
                if logs_of_statistic is not None:
                    judgements.append(
                        _judged(
                            run,
                            comparison,
                            statistic,
                            logs=logs_of_statistic,
                            rounds=rounds_of_comparison,
                            impossible=impossible.get((run["run"], comparison), []),
                            generator=np.random.default_rng([seed, number]),
                        )
                    )
    return _agreed(judgements, frames)


def _judged(
    run: dict[Any, Any],
    comparison: str,
    statistic: str,
    *,
    logs: Measured,
    rounds: pandas.DataFrame,
    impossible: Sequence[str],
    generator: np.random.Generator,
) -> Judged:
    blocks = logs.blocks
    margin = float(run["margin"])
    control = control_of(blocks.effects(), blocks.arms, blocks.twin)
    limit = effective_margin(margin, control)
    carried, failed = carry_over(blocks, logs.audits, limit)
    # Without an arm that is compared with itself, nothing shows which differences are real.
    uncontrolled = [NO_CONTROL] if control is None and len(blocks.arms) > 1 else []
    verdicts = comparison_verdicts(
        blocks.values,
        blocks.arms,
        margin=margin,
        level=run["level"],
        disturbed=blocks.disturbed,
        twin=blocks.twin,
        failed_checks=[*uncontrolled, *impossible, *failed],
        generator=generator,
    )
    counted = rounds[rounds["residency"] != AUDIT]
    rules = counted.loc[counted["rule"] != "", "rule"].value_counts()
    return Judged(
        run=run["run"],
        comparison=comparison,
        statistic=statistic,
        level=run["level"],
        arms=blocks.arms,
        verdicts=verdicts,
        control=_shown(control, blocks.twin),
        rounds=len(counted),
        rules={str(rule): int(rules[rule]) for rule in sorted(rules.index)},
        audits=logs.audits.values.shape[1],
        carry_over=carried,
    )


def _impossible(frames: Frames, table: pandas.DataFrame | None) -> dict[tuple[str, str], list[str]]:
    """Arms faster than the machine allows, by run and comparison: their timing must be wrong."""
    reasons: dict[tuple[str, str], list[str]] = {}
    if frames.ceilings.empty:
        return reasons
    table = summary(frames) if table is None else table
    for row in table[table["roofline_share"] > IMPOSSIBLE_SHARE].to_dict("records"):
        words = f"{row['arm']} is at {row['roofline_share']:.0%} of the roofline: measured wrongly"
        reasons.setdefault((row["run"], row["comparison"]), []).append(words)
    return reasons


def _shown(control: Estimate | None, twin: tuple[str, str] | None) -> Control | None:
    if control is None or twin is None:
        return None
    return Control(
        arm=twin[0],
        ratio=float(np.exp(control.log_ratio)),
        half_width=float(np.expm1(control.half_width())),
        blocks=int(control.blocks),
    )


def carry_over(resident: Logs, audits: Logs, margin: float) -> tuple[CarryOver | None, list[str]]:
    """The largest difference of a pair between audits and resident blocks, and reasons to void.

    Each pair has Welch's interval, and the pairs share its level. A single audit has no interval,
    so it shows and decides nothing.
    """
    arms = [arm for arm in resident.arms if arm in audits.arms]
    if len(arms) < 2 or audits.values.shape[1] < LEAST_AUDITS:
        return None, []
    first, second = np.triu_indices(len(arms), 1)

    def values(logs: Logs) -> Estimate:
        at = np.array([logs.arms.index(arm) for arm in arms])
        return compared(logs.effects(), at[first], at[second]).estimate

    here, there = values(resident), values(audits)
    difference = there.log_ratio - here.log_ratio
    quantile = special.stdtrit(welch_freedom(here, there), 1 - CARRY_OVER_ALPHA / len(first) / 2)
    half_width = quantile * np.sqrt(here.standard_error**2 + there.standard_error**2)
    pairs = [(arms[one], arms[other]) for one, other in zip(first, second, strict=True)]
    failed = [
        f"carry-over: {pairs[at][0]} against {pairs[at][1]} is"
        f" {np.expm1(difference[at]):+.1%} off when each runs alone"
        for at in np.flatnonzero(np.abs(difference) - half_width > margin)
    ]
    if np.isnan(half_width).all():
        return None, []
    worst = int(np.nanargmax(np.where(np.isnan(half_width), np.nan, np.abs(difference))))
    ends = difference[worst] + half_width[worst] * np.array([0, -1, 1])
    return CarryOver(pairs[worst], *map(float, np.expm1(ends))), failed


def _agreed(judgements: list[Judged], frames: Frames) -> list[Judged]:
    """Unmark as provisional the verdicts that a second session on the same machine repeats."""
    cells = frames.cells.drop_duplicates(["run", "comparison"]).set_index(["run", "comparison"])
    names = ["model", "preset", "phase", "batch", "optimizer", "numeric", "device", "threads"]
    machines = machine_numbers(frames)
    runs: dict[tuple[Any, ...], set[str]] = {}

    def key(judged: Judged, pair: Any) -> tuple[Any, ...]:
        what = tuple(cells.loc[(judged.run, judged.comparison), names])
        machine = machines[judged.run]
        return (*what, machine, judged.statistic, pair.first, pair.second, pair.faster)

    for judged in judgements:
        for pair in judged.verdicts.pairs:
            if pair.faster is not None:
                runs.setdefault(key(judged, pair), set()).add(judged.run)
    return [
        replace(
            judged,
            verdicts=replace(
                judged.verdicts,
                pairs=tuple(
                    replace(pair, provisional=len(runs[key(judged, pair)]) < 2)
                    if pair.provisional and pair.faster is not None
                    else pair
                    for pair in judged.verdicts.pairs
                ),
            ),
        )
        for judged in judgements
    ]


def settled(frames: Frames) -> set[tuple[str, str]]:
    """(comparison, arm) that need no further block, for any kind of slice.

    An arm outside the fastest set leaves when its verdicts against that set are settled. Before
    ``KNOWN_BLOCKS`` blocks, its ratios to the set must also be known as well as ``KNOWN``, because
    a verdict may be clear long before its size is. The fastest set stays until all others have left
    and no pair in it is open; the A/A twin leaves last.
    """
    left: dict[str, set[str]] = {}
    for judged in judge(frames):
        leaving = _leaving(judged)
        left[judged.comparison] = left.get(judged.comparison, leaving) & leaving
    return {(comparison, arm) for comparison, arms in left.items() for arm in arms}


def _leaving(judged: Judged) -> set[str]:
    """Return the arms of a comparison that need no further block for one kind of slice."""
    verdicts = judged.verdicts
    best = set(verdicts.fastest)
    if verdicts.void:
        return set(judged.arms)
    waiting = {
        arm
        for pair in verdicts.pairs
        for arm, other in ((pair.first, pair.second), (pair.second, pair.first))
        if other in best and not _known(pair)
    }
    losers = set(judged.arms) - best - waiting
    losers -= {arm for arm in losers if arm.endswith(TWIN)}
    return losers if waiting else set(judged.arms)


def _known(pair: PairVerdict) -> bool:
    if pair.verdict == Verdict.INCONCLUSIVE:
        return False
    with np.errstate(divide="ignore"):  # an interval of two blocks may end at 0
        half_width = (np.log(pair.high) - np.log(pair.low)) / 2
    return bool(pair.blocks >= KNOWN_BLOCKS or half_width <= np.log1p(KNOWN))


def verdict_frame(judgements: Iterable[Judged]) -> pandas.DataFrame:
    """Return a row per pair: ``COLUMNS["verdicts"]``."""
    rows: list[dict[str, Any]] = []
    for judged in judgements:
        control = judged.control
        for pair in judged.verdicts.pairs:
            rows.append(
                {
                    **vars(pair),
                    "run": judged.run,
                    "comparison": judged.comparison,
                    "statistic": judged.statistic,
                    "verdict": str(pair.verdict),
                    "faster": pair.faster or "",
                    "margin": judged.verdicts.margin,
                    "control_ratio": control.ratio if control else np.nan,
                    "control_half_width": control.half_width if control else np.nan,
                }
            )
    schema = COLUMNS["verdicts"]
    frame = pandas.DataFrame(rows, columns=[*schema])
    return frame.astype({name: dtype for name, (dtype, _) in schema.items()})


def pair_of(judged: Judged, first: str, second: str) -> PairVerdict | None:
    """Return the verdict on two arms, as one of the first over the second."""
    for pair in judged.verdicts.pairs:
        if (pair.first, pair.second) == (first, second):
            return pair
        if (pair.first, pair.second) == (second, first):
            return pair.turned()
    return None


def ordered(judged: Judged, arms: Sequence[str]) -> list[str]:
    """Sort arms from the fastest: arms that no arm beats come first, then less seconds first."""
    seconds = {arm: 0.0 for arm in arms}
    for pair in judged.verdicts.pairs:
        if pair.first in seconds and pair.second in seconds and np.isfinite(pair.ratio):
            seconds[pair.first] += np.log(pair.ratio)
            seconds[pair.second] -= np.log(pair.ratio)
    return sorted(arms, key=lambda arm: (arm not in judged.verdicts.fastest, seconds[arm]))
