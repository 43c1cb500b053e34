"""Tests verdicts on this machine: identical arms, planted slowdowns, planted noise."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
from scipy import stats  # type: ignore[import-untyped]

from levelfield.harness.machine import topology
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.plan.suite import Effort, Suite
from levelfield.harness.records.frames import Frames
from levelfield.harness.selftest import others
from levelfield.harness.selftest.goals import Finding, share_of
from levelfield.harness.statistics.decisions import (
    comparison_verdicts,
    effects_of,
)
from levelfield.harness.statistics.estimates import Flags, Floats
from levelfield.harness.statistics.levels import LOOKS

PART = "machine"
REAL_ARMS = ("torch:eager", "jax:jit", "tensorflow:function")
# Suffix -> number of blocks after which the slowdown must be detected.
PLANTED_SLOWDOWNS = {"#+5%": 6, "#+3%": 10, "#+2%": 20}
FOUND_SHARE = 0.95  # of the comparisons with a planted slowdown
SIZE_POINTS = 0.003  # largest error of the size of a planted slowdown, as a ratio
BURST_OVERLAP_SECONDS = 0.05  # a round that overlaps bursts for longer is a burst round
SEED = 20261121
BURSTS = "bursts.txt"


def copies_suite(name: str) -> Suite:
    """Three frameworks, each more than once, through the whole pipeline; one look."""
    return Suite(
        name=name,
        title="identical arms",
        models=("mlp", "lenet5"),
        arms=(*REAL_ARMS, *(f"{arm}#3" for arm in REAL_ARMS)),
        presets=("tiny",),
        phases=("inference", "training"),
        optimizers=("adam",),
        batches=(8, 64),
        threads=(1,),
        level="quick",
        twin=REAL_ARMS[0],
        seed=SEED,
        effort=_effort(),
    )


def planted_suite() -> Suite:
    """One framework, and copies made slower by known shares; looks up to 20 blocks.

    The margin is narrow, so that no planted slowdown is a tie and no comparison settles early.
    """
    return replace(
        copies_suite("planted"),
        title="arms that are slower by a known share",
        arms=(REAL_ARMS[0], *(f"{REAL_ARMS[0]}{suffix}" for suffix in PLANTED_SLOWDOWNS)),
        presets=("small",),
        batches=(64,),
        level="standard",
        margin=0.005,
    )


def sequential_suite() -> Suite:
    """One arm after the other, as in a sequential comparison: many slices of one process."""
    return replace(
        copies_suite("sequential"),
        arms=(REAL_ARMS[0],),
        residency="sequential",
        effort=_effort(rounds=30),
    )


def _effort(*, rounds: int = 6) -> Effort:
    """Effort for throughput alone: a planted slowdown is a share of the steps of a slice."""
    return Effort(
        rounds=rounds,
        warm_up_seconds=0.3,
        warm_up_cap_seconds=3.0,
        memory=False,
        accuracy=False,
        latency=False,
        quiet_seconds=30.0,
    )


@contextmanager
def bursts(folder: Path) -> Iterator[Path]:
    """Burn a measured core in bursts; yields the file that lists the bursts."""
    log = folder / BURSTS
    command = [
        sys.executable,
        "-P",
        "-m",
        "levelfield.harness.selftest.burner",
        str(SEED),
        str(log),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as burner:
        # An unpinned burner would move to an unmeasured core and disturb no arm.
        os.sched_setaffinity(burner.pid, topology.choose(available_cores(), 1))
        try:
            yield log
        finally:
            burner.kill()


def copies_of(arms: list[str]) -> list[tuple[str, str]]:
    """Pairs of names that are the same arm, which nothing but chance can make different."""
    unplanted = [name for name in arms if not get_arm(name).planted]
    return [
        pair
        for pair in itertools.combinations(unplanted, 2)
        if get_arm(pair[0]).base == get_arm(pair[1]).base
    ]


def false_verdicts(frames: Frames, what: str) -> Iterator[Finding]:
    """Count comparisons in which the whole pipeline separated identical arms at any look."""
    false, cases, voided = 0, 0, 0
    for _, arms, logs, bad in _cells(frames):
        pairs = copies_of(arms)
        twin = next(pair for pair in pairs if pair[1].endswith("#2"))
        verdict = void = False
        for look in (look for look in LOOKS if look <= logs.shape[1]):
            words = comparison_verdicts(
                logs[:, :look], arms, level="thorough", disturbed=bad[:look], twin=twin
            )
            void |= bool(words.void)
            verdict |= any(
                pair.faster is not None and (pair.first, pair.second) in pairs
                for pair in words.pairs
            )
        cases, false, voided = cases + 1, false + verdict, voided + void
    rate = false / max(cases, 1)
    yield Finding(
        PART,
        f"{what}: comparisons in which identical arms were told apart",
        "at most 5% family-wise",
        share_of(false, cases),
        rate,
        rate <= 0.05,
        note=f"{cases} comparisons, every look; {voided} of them void at some look",
    )


def planted_slowdowns(frames: Frames) -> Iterator[Finding]:
    """Check that planted slowdowns are detected in time, with the right sign and size."""
    base = REAL_ARMS[0]
    for suffix, by in PLANTED_SLOWDOWNS.items():
        slower, hits, cases, wrong = f"{base}{suffix}", 0, 0, 0
        truth, off, deviations = 1 + get_arm(slower).planted, [], []
        for _, arms, logs, bad in _cells(frames):
            if slower not in arms or logs.shape[1] < by:
                continue
            twin = (base, f"{base}#2")
            directions = set()
            for look in (look for look in LOOKS if look <= by):
                words = comparison_verdicts(
                    logs[:, :look], arms, level="thorough", disturbed=bad[:look], twin=twin
                )
                pair = next(
                    candidate
                    for candidate in words.pairs
                    if candidate.second == slower and candidate.first == base
                )
                if pair.faster is not None:
                    directions.add(pair.faster == base)
            cases, hits, wrong = (
                cases + 1,
                hits + (True in directions),
                wrong + (False in directions),
            )
            values = _block_values(arms, logs, bad, (slower, base))
            off.append(float(np.exp(np.nanmean(values))) - truth)
            deviations.append(float(np.nanstd(values, ddof=1)))
        percent = suffix.strip("#+")
        rate = hits / max(cases, 1)
        goal = FOUND_SHARE
        yield Finding(
            PART,
            f"planted {percent}: found by {by} blocks",
            f"at least {goal:.0%}",
            f"{hits} of {cases}",
            rate,
            bool(cases) and rate >= goal,
            note=(
                f"sd of a block's ratio {min(deviations):.1%} to {max(deviations):.1%} (that of two"
                " processes of sd 1 % is 1.4 %)"
                if deviations
                else ""
            ),
        )
        yield Finding(
            PART, f"planted {percent}: wrong sign", "never", f"{wrong} of {cases}", wrong, not wrong
        )
        middle = float(np.median(off)) if off else np.nan
        worst = float(np.max(np.abs(off))) if off else np.nan
        yield Finding(
            PART,
            f"planted {percent}: size found by all blocks less size planted, median",
            f"within {100 * SIZE_POINTS:.1f} percentage points",
            f"{100 * middle:+.2f} points (largest {100 * worst:.2f})",
            middle,
            abs(middle) <= SIZE_POINTS,
        )


def _block_values(arms: list[str], logs: Floats, bad: Flags, pair: tuple[str, str]) -> Floats:
    """Log ratio of a pair in every block of the session; its scatter is that of processes."""
    first, second = (np.array([arms.index(arm)]) for arm in pair)
    return np.asarray(effects_of(logs, bad).pairs(first, second)[0])


def bursts_seen(frames: Frames, log: Path) -> Iterator[Finding]:
    """Share of disturbed rounds among those with a burst, and among those without."""
    spans = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    rounds = frames.rounds
    overlap = np.zeros(len(rounds))
    ends = rounds["at_seconds"].to_numpy()
    begins = ends - rounds["wall_seconds"].to_numpy()
    for begin, end in spans:
        overlap += np.clip(np.minimum(ends, end) - np.maximum(begins, begin), 0, None)
    hit = overlap > BURST_OVERLAP_SECONDS
    caught = rounds["disturbed"].to_numpy(bool)
    share = float(np.mean(caught[hit])) if hit.any() else np.nan
    others = float(np.mean(caught[~hit])) if (~hit).any() else np.nan
    yield Finding(
        PART,
        "rounds with a planted burst that count as disturbed",
        "at least 90%",
        f"{share:.1%} of {int(hit.sum())}",
        share,
        share >= 0.9,
        note=f"of the rounds without one: {others:.1%} of {int((~hit).sum())}",
    )


def one_after_the_other(frames: Frames) -> Iterator[Finding]:
    """Verdicts of a sequential comparison on identical arms on this machine."""
    welch = ranks = cases = 0
    for _, arms, logs, _ in _cells(frames, residency="sequential"):
        for first, second in copies_of(arms):
            for block in range(logs.shape[1]):
                a, b = (_present(logs[arms.index(name), block]) for name in (first, second))
                if min(len(a), len(b)) < 10:
                    continue
                cases += 1
                welch += stats.ttest_ind(a, b, equal_var=False).pvalue <= 0.05
                ranks += stats.mannwhitneyu(a, b).pvalue <= 0.05
    yield Finding(
        PART,
        "A completely, then B: identical arms called different at a nominal 5 %",
        "shown for comparison: the false verdicts that are avoided",
        f"Welch {share_of(int(welch), cases)}; Mann-Whitney {share_of(int(ranks), cases)}",
        max(welch, ranks) / max(cases, 1),
        met=True,
    )


def judged_by_others(identical: Frames, slower: Frames) -> Iterator[Finding]:
    """False verdicts and detected slowdowns by the rules of other tools, on the same slices."""
    for name, rule in others.RULES.items():
        generator = np.random.default_rng(SEED)
        false, apart = _differing(identical, rule, generator, copies_of)
        detected, planted = _differing(slower, rule, generator, _planted_pairs)
        yield Finding(
            PART,
            f"the same slices by the rule of {name}",
            "shown for comparison",
            f"identical arms called different in {share_of(false, apart)};"
            f" planted slowdowns detected in {share_of(detected, planted)}",
            false / max(apart, 1),
            met=True,
        )


def _differing(
    frames: Frames,
    rule: others.Rule,
    generator: np.random.Generator,
    pairs_of: Callable[[list[str]], list[tuple[str, str]]],
) -> tuple[int, int]:
    """(comparisons in which a rule calls any of the pairs different, comparisons with a pair)."""
    hits = cases = 0
    for _, arms, logs, _ in _cells(frames):
        pairs = pairs_of(arms)
        called = [
            rule(*_shared_slices(logs, arms.index(one), arms.index(other)), generator)
            for one, other in pairs
        ]
        hits, cases = hits + any(called), cases + bool(pairs)
    return hits, cases


def _planted_pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [(arm, REAL_ARMS[0]) for arm in arms if get_arm(arm).planted and REAL_ARMS[0] in arms]


def _shared_slices(logs: Floats, first: int, second: int) -> tuple[Floats, Floats]:
    """Seconds of two arms in the rounds that both have."""
    one, other = np.exp(logs[first].ravel()), np.exp(logs[second].ravel())
    both = ~np.isnan(one) & ~np.isnan(other)
    return one[both], other[both]


def _present(values: Floats) -> Floats:
    return np.asarray(values[~np.isnan(values)])


SelftestCell = tuple[str, list[str], Floats, Flags]


def _cells(frames: Frames, residency: str = "resident") -> Iterator[SelftestCell]:
    """(comparison, arms, logs[arm, block, round], disturbed[block, round]) of each comparison."""
    slices = frames.slices
    slices = slices[(slices["statistic"] == "throughput") & (slices["residency"] == residency)]
    for comparison, these in slices.groupby("comparison", sort=False):
        plan = frames.cells.loc[frames.cells["comparison"] == comparison, "arm"]
        arms = [arm for arm in plan if arm in set(these["arm"])]
        table = these.pivot_table(
            index=["arm", "block"], columns="round", values="step_seconds", aggfunc="last"
        )
        bad = these.pivot_table(index="block", columns="round", values="disturbed", aggfunc="max")
        index = pandas.MultiIndex.from_product([arms, bad.index])
        logs = np.log(table.reindex(index).to_numpy()).reshape(len(arms), *bad.shape)
        yield str(comparison), arms, logs, bad.fillna(value=True).to_numpy(bool)
