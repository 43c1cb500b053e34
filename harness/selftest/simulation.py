"""Tests verdicts by simulation, where the truth is known thousands of times.

The simulation calls the functions that real runs use (:mod:`levelfield.harness.statistics`). Seeds
are fixed. The Monte Carlo standard error of a rate p over n sessions is sqrt(p (1 - p) / n).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import special, stats  # type: ignore[import-untyped]

from levelfield.harness.selftest.goals import Finding, at_least, at_most
from levelfield.harness.selftest.worlds import (
    EVERYTHING,
    WORLDS,
    machine,
    pairs_of,
    sessions,
    slices,
)
from levelfield.harness.statistics.corrections import holm
from levelfield.harness.statistics.decisions import ALPHA_PER_LOOK
from levelfield.harness.statistics.estimates import Floats, estimate
from levelfield.harness.statistics.levels import LOOKS

PART = "simulation"
NOMINAL = 0.05
# Percent -> (blocks, share of slowdowns that must be detected).
SIMULATED_SLOWDOWNS = {5: (6, 1.0), 3: (10, 0.99), 2: (15, 0.98)}


def simulated(*, sessions_per_world: int) -> Iterator[Finding]:
    """Coverage, false verdicts and planted slowdowns; 600 sessions take some seconds."""
    yield from coverage(sessions_per_world)
    for arms in (2, 5, 8):
        rate = false_verdicts(sessions_per_world, arms)
        yield at_most(
            PART,
            f"{arms} identical arms called different, over five looks",
            rate,
            NOMINAL + 4 * _error(NOMINAL, sessions_per_world),
            note=f"nominal 5 % and four standard errors of {sessions_per_world} sessions",
        )
    for rounds in (6, 30):
        for percent in SIMULATED_SLOWDOWNS:
            yield from planted(sessions_per_world, percent, rounds)
    for world in ("drift", "process", "everything"):
        welch, ranks = one_after_the_other(sessions_per_world, world)
        yield Finding(
            PART,
            f"A completely, then B (60 slices each), identical, world '{world}'",
            "shown for comparison",
            f"called different: Welch {welch:.0%}, Mann-Whitney {ranks:.0%}",
            max(welch, ranks),
            met=True,
        )


def coverage(count: int) -> Iterator[Finding]:
    """Coverage of the 95 % interval over worlds and looks."""
    rates = np.array([_coverage(world, count) for world in WORLDS])
    allowance = 4 * _error(0.95, count)
    inside = float(np.mean((rates >= 0.94 - allowance) & (rates <= 0.965 + allowance)))
    note = f"{rates.size} combinations of world and look, {count} sessions each"
    yield at_least(
        PART, "combinations in which intervals cover 94 to 96.5 %", inside, 0.9, note=note
    )
    lowest = float(rates.min())
    yield at_least(PART, "lowest coverage of a 95 % interval", lowest, 0.92 - allowance, note=note)


def _coverage(world: str, count: int) -> list[float]:
    truth = np.log1p(0.03)
    values = pairs_of(sessions(11, WORLDS[world], count=count, effect=0.03))[:, 0]
    ends = [estimate(values[:, :blocks]).interval() for blocks in LOOKS]
    return [float(np.mean((low <= truth) & (truth <= high))) for low, high in ends]


def false_verdicts(count: int, arms: int) -> float:
    """Share of sessions of identical arms in which any pair differs at any look."""
    values = pairs_of(sessions(20 + arms, EVERYTHING, count=count, arms=arms))
    return float(np.mean(_differs_at_a_look(values, LOOKS[-1])[0]))


def _differs_at_a_look(values: Floats, last: int) -> tuple[Floats, Floats]:
    """[session] -> whether any pair was called different; the sign of the first pair's verdict."""
    differs, sign = np.zeros(len(values), bool), np.zeros(len(values))
    for look in (look for look in LOOKS if look <= last):
        estimates = estimate(values[..., :look])
        verdicts = holm(estimates.p_value()) <= ALPHA_PER_LOOK
        differs |= verdicts.any(axis=-1)
        sign = np.where((sign == 0) & verdicts[:, 0], np.sign(estimates.log_ratio[:, 0]), sign)
    return differs, sign


def planted(count: int, percent: int, rounds: int) -> Iterator[Finding]:
    """A slowdown of one arm of a pair: detected, never with the wrong sign, of the right size."""
    last, share = SIMULATED_SLOWDOWNS[percent]
    effect = percent / 100
    logs = sessions(
        40 + percent, EVERYTHING, count=count, blocks=last, rounds=rounds, effect=effect
    )
    values = pairs_of(logs)
    _, sign = _differs_at_a_look(values, last)
    errors = special.stdtrit(last - 1, 1 - ALPHA_PER_LOOK / 2)
    note = (
        f"{count} sessions, process sd 1 %; at {last} blocks the verdict asks for {errors:.1f}"
        " standard errors"
    )
    what = f"planted {percent} %, {rounds} rounds a block"
    yield at_least(
        PART, f"{what}: found by {last} blocks", float(np.mean(sign > 0)), share, note=note
    )
    yield at_most(PART, f"{what}: wrong sign", float(np.mean(sign < 0)), 0.0, note=note)
    bias = float(np.mean(np.exp(estimate(values[:, 0]).log_ratio))) - 1 - effect
    yield at_most(PART, f"{what}: bias of its size", abs(bias), 0.003, note=note)


def one_after_the_other(count: int, world: str) -> tuple[float, float]:
    """Shares of false verdicts of Welch's t and Mann-Whitney's test on 60 slices after 60."""
    generator = np.random.default_rng(30)
    logs = machine(generator, WORLDS[world], (count, 120)).reshape(count, 2, 60)
    logs = logs + slices(generator, WORLDS[world], logs.shape)
    if "process" in WORLDS[world]:
        logs += generator.normal(0, 0.01, (count, 2, 1))
    welch = stats.ttest_ind(logs[:, 0], logs[:, 1], equal_var=False, axis=-1).pvalue
    ranks = stats.mannwhitneyu(logs[:, 0], logs[:, 1], axis=-1).pvalue
    return float(np.mean(welch <= NOMINAL)), float(np.mean(ranks <= NOMINAL))


def _error(rate: float, count: int) -> float:
    return float(np.sqrt(rate * (1 - rate) / count))
