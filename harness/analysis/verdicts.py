"""Verdicts of every comparison of a run at its last look, with the error bar of the session.

All random numbers come from the run's own seed, so the same records give the same verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]

from levelfield.harness.analysis.roofline import IMPOSSIBLE_SHARE
from levelfield.harness.analysis.summary import summary
from levelfield.harness.machine.describe import difference, recorded
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.columns import COLUMNS
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.statistics.decisions import (
    ComparisonVerdicts,
    PairVerdict,
    comparison_verdicts,
    effective_margin,
)
from levelfield.harness.statistics.estimates import (
    Estimate,
    Floats,
    clean_blocks,
    estimate,
    paired_blocks,
    welch_freedom,
)
from levelfield.harness.statistics.levels import LEVELS, LOOKS

SLICE_STATISTICS = ("throughput", "latency", "first_token", "further_token")
NO_CONTROL = "no A/A control: no arm ran twice"
LEAST_AUDITS = 2  # with fewer, a carry-over has no interval
_USED = (
    *("run", "comparison", "statistic", "arm", "residency"),
    *("block", "round", "step_seconds", "quarantined"),
)
CARRY_OVER_ALPHA = 0.01  # over all pairs of a comparison together


@dataclass(frozen=True)
class Logs:
    """log seconds of a step, ``values[arm, block, round]``; NaN where nothing was measured."""

    arms: tuple[str, ...]
    values: Floats
    quarantined: NDArray[np.bool_]  # [block, round]

    @property
    def twin(self) -> tuple[str, str] | None:
        """The A/A pair, if both of its arms were measured."""
        second = next((arm for arm in self.arms if arm.endswith(TWIN)), None)
        first = second.removesuffix(TWIN) if second else None
        return (first, second) if first in self.arms and first and second else None


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
    number of rounds that it put into quarantine.
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
    # Copying all columns of a million slices takes longer than all statistics.
    narrow = frames.slices[[*_USED]].astype(dict.fromkeys(_USED[:3], "category"))
    parts = {key: part for key, part in narrow.groupby([*_USED[:3]], sort=False, observed=True)}
    for run in frames.runs.to_dict("records"):
        if not LEVELS.get(run["level"]):
            continue
        rounds = frames.rounds[frames.rounds["run"] == run["run"]]
        seed = 0 if pandas.isna(run["seed"]) else int(run["seed"])
        plan = frames.cells[frames.cells["run"] == run["run"]]
        for comparison in dict.fromkeys(plan["comparison"]):
            arms = plan.loc[plan["comparison"] == comparison, "arm"]
            rounds_of_comparison = rounds[rounds["comparison"] == comparison]
            for number, statistic in enumerate(SLICE_STATISTICS):
                slices = parts.get((run["run"], comparison, statistic))
                if slices is not None:
                    generator = np.random.default_rng([seed, number])
                    judgements.append(
                        _judged(
                            run,
                            comparison,
                            statistic,
                            slices=slices,
                            rounds=rounds_of_comparison,
                            plan=[*arms],
                            impossible=impossible.get((run["run"], comparison), []),
                            generator=generator,
                        )
                    )
    return _agreed(judgements, frames)


def _judged(
    run: dict[Any, Any],
    comparison: str,
    statistic: str,
    *,
    slices: pandas.DataFrame,
    rounds: pandas.DataFrame,
    plan: Sequence[str],
    impossible: Sequence[str],
    generator: np.random.Generator,
) -> Judged:
    logs = logs_of(slices[slices["residency"] != AUDIT], plan)
    audits = logs_of(slices[slices["residency"] == AUDIT], plan)
    margin = float(run["margin"])
    control = _control(logs)
    limit = effective_margin(margin, control[1] if control else None)
    carried, failed = carry_over(logs, audits, limit)
    # Without an arm that is compared with itself, nothing shows which differences are real.
    uncontrolled = [NO_CONTROL] if control is None and len(logs.arms) > 1 else []
    clean = int(clean_blocks(logs.values, logs.quarantined).sum())
    verdicts = comparison_verdicts(
        logs.values,
        logs.arms,
        margin=margin,
        level=run["level"],
        quarantined=logs.quarantined,
        twin=logs.twin,
        failed_checks=[*uncontrolled, *impossible, *failed],
        # With fewer blocks bootstrap-t is too erratic to say anything (statistics.disputed).
        generator=generator if clean >= LOOKS[1] else None,
    )
    counted = rounds[rounds["residency"] != AUDIT]
    rules = counted.loc[counted["rule"] != "", "rule"].value_counts()
    return Judged(
        run=run["run"],
        comparison=comparison,
        statistic=statistic,
        level=run["level"],
        arms=logs.arms,
        verdicts=verdicts,
        control=control[0] if control else None,
        rounds=len(counted),
        rules={str(rule): int(rules[rule]) for rule in sorted(rules.index)},
        audits=audits.values.shape[1],
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


def logs_of(slices: pandas.DataFrame, plan: Sequence[str]) -> Logs:
    """The slices of one comparison and statistic; arms by the plan, blocks and rounds by number."""
    codes, measured = pandas.factorize(slices["arm"])
    arms = tuple(arm for arm in plan if arm in set(measured))
    blocks, at_block = np.unique(slices["block"], return_inverse=True)
    rounds_of_block = 1 + int(slices["round"].max()) if len(slices) else 0
    values = np.full((len(arms), len(blocks), rounds_of_block), np.nan)
    number = np.array([arms.index(arm) for arm in measured], int)[codes]
    rounds = slices["round"].to_numpy(int)
    values[number, at_block, rounds] = np.log(slices["step_seconds"].to_numpy(float))
    bad = np.zeros(values.shape[1:], bool)
    bad[at_block, rounds] = slices["quarantined"].to_numpy(bool)
    return Logs(arms, values, bad)


def _control(logs: Logs) -> tuple[Control, Estimate] | None:
    if logs.twin is None:
        return None
    clean = np.where(logs.quarantined, np.nan, logs.values)
    difference_of_twins = estimate(paired_blocks(clean, *map(logs.arms.index, logs.twin)))
    control = Control(
        arm=logs.twin[0],
        ratio=float(np.exp(difference_of_twins.log_ratio)),
        half_width=float(np.expm1(difference_of_twins.half_width())),
        blocks=int(difference_of_twins.blocks),
    )
    return control, difference_of_twins


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
        clean = np.where(logs.quarantined, np.nan, logs.values)
        return estimate(paired_blocks(clean, at[first], at[second]))

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


def _machines(frames: Frames) -> dict[str, int]:
    """Run -> the number of its machine; runs on one machine share a number."""
    known: list[dict[str, Any]] = []
    numbers = {}
    for run, text in zip(frames.runs["run"], frames.runs["machine"], strict=True):
        machine = recorded(text)
        number = next((n for n, other in enumerate(known) if not difference(other, machine)), None)
        if number is None:
            number = len(known)
            known.append(machine)
        numbers[run] = number
    return numbers


def _agreed(judgements: list[Judged], frames: Frames) -> list[Judged]:
    """Unmark as provisional the verdicts that a second session on the same machine repeats."""
    cells = frames.cells.drop_duplicates(["run", "comparison"]).set_index(["run", "comparison"])
    names = ["model", "preset", "phase", "batch", "optimizer", "numeric", "device", "threads"]
    machines = _machines(frames)
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


def settled(frames: Frames) -> set[str]:
    """Comparisons in which no kind of slice has an inconclusive pair left."""
    comparisons: dict[str, bool] = {}
    for judged in judge(frames):
        comparisons[judged.comparison] = (
            comparisons.get(judged.comparison, True) and judged.verdicts.settled
        )
    return {comparison for comparison, done in comparisons.items() if done}


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
