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
    PROCESS_WORLDS,
    WORLDS,
    all_pairs,
    effects_of_sessions,
    machine,
    processes_of,
    sessions,
    slices,
)
from levelfield.harness.statistics.decisions import ALPHA_PER_LOOK, BEATEN, decide
from levelfield.harness.statistics.effects import Effects
from levelfield.harness.statistics.estimates import Flags, Floats
from levelfield.harness.statistics.levels import LOOKS

PART = "simulation"
NOMINAL = 0.05
# Percent -> (blocks, share of slowdowns that must be detected).
SIMULATED_SLOWDOWNS = {5: (6, 0.95), 3: (10, 0.95), 2: (20, 0.95)}
COUNTED_MARGIN = 0.01  # of the verdicts that are counted; a false one claims a difference beyond it
# Arms -> the share of the sessions that is simulated: many arms have many pairs.
PROCESS_ARMS = {2: 1.0, 6: 0.5, 12: 0.2, 30: 0.05}
CHUNK = 500  # sessions at a time, because of the memory of their pairs
PLANTED_ARMS = 6  # one of them slower


def simulated(*, sessions_per_world: int) -> Iterator[Finding]:
    """Coverage, false verdicts and planted slowdowns; 600 sessions take some seconds."""
    yield from coverage(sessions_per_world)
    for arms in (2, 5, 8):
        rate = false_verdicts(sessions_per_world, arms)
        yield at_most(
            PART,
            f"{arms} identical arms called different, over all looks",
            rate,
            NOMINAL + 4 * _error(NOMINAL, sessions_per_world),
            note=f"nominal 5 % and four standard errors of {sessions_per_world} sessions",
        )
    for arms, share in PROCESS_ARMS.items():
        yield two_speeds(round(share * sessions_per_world), arms)
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
    effects = effects_of_sessions(sessions(11, WORLDS[world], count=count, effect=0.03))
    ends = [all_pairs(effects, blocks).estimate.interval() for blocks in LOOKS]
    return [float(np.mean((low <= truth) & (truth <= high))) for low, high in ends]


def false_verdicts(count: int, arms: int) -> float:
    """Share of sessions of identical arms in which any pair differs at any look."""
    effects = effects_of_sessions(sessions(20 + arms, EVERYTHING, count=count, arms=arms))
    return float(np.mean(_differs_at_a_look(effects, LOOKS[-1])[0]))


def two_speeds(count: int, arms: int) -> Finding:
    """Identical arms whose processes differ in many ways, those of two speeds among them."""
    rates = {}
    for number, world in enumerate(PROCESS_WORLDS):
        generator = np.random.default_rng([60, arms, number])
        differing = 0
        for done in range(0, count, CHUNK):
            size = min(CHUNK, count - done)
            effects = processes_of(world, generator, count=size, arms=arms, blocks=LOOKS[-1])
            differing += int(np.sum(_differs_at_a_look(effects, LOOKS[-1])[0]))
        rates[world.name] = differing / count
    worst = max(rates, key=lambda name: rates[name])
    return at_most(
        PART,
        f"{arms} identical arms called different, in the worst of {len(rates)} worlds of processes",
        rates[worst],
        NOMINAL + 4 * _error(NOMINAL, count),
        note=f"{worst}; {count} sessions a world; median world {np.median([*rates.values()]):.1%}",
    )


def _differs_at_a_look(effects: Effects, last: int) -> tuple[Flags, Floats]:
    """[session] -> whether any pair was called different; the sign of the first pair's verdict."""
    count = len(effects.values)
    differs, sign = np.zeros(count, bool), np.zeros(count)
    for look in (look for look in LOOKS if look <= last):
        pairs = all_pairs(effects, look)
        words = decide(pairs.estimate, np.log1p(COUNTED_MARGIN), pairs.processes)
        verdicts = np.isin(words, [str(word) for word in BEATEN])
        differs |= verdicts.any(axis=-1)
        directions = np.sign(pairs.estimate.log_ratio[:, 0])
        sign = np.where((sign == 0) & verdicts[:, 0], directions, sign)
    return differs, sign


def planted(count: int, percent: int, rounds: int) -> Iterator[Finding]:
    """A slowdown of one arm of a pair: detected, never with the wrong sign, of the right size."""
    last, share = SIMULATED_SLOWDOWNS[percent]
    effect = percent / 100
    logs = sessions(
        *(40 + percent, EVERYTHING),
        count=count,
        arms=PLANTED_ARMS,
        blocks=last,
        rounds=rounds,
        effect=effect,
    )
    effects = effects_of_sessions(logs)
    _, sign = _differs_at_a_look(effects, last)
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
    ratios = all_pairs(effects, last).estimate.log_ratio[:, 0]
    bias = float(np.mean(np.exp(ratios))) - 1 - effect
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
