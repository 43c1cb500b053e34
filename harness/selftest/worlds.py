"""Simulated worlds with a known truth: log step times that are drawn, not measured.

A world has arm effects, a machine that drifts (AR(1) per slot, rho 0.995, sd 2 %) or jumps once in
half of the sessions (sd 3 %), a process effect per arm and block (sd 1 %), slice noise (sd 1 %) and
one-sided spikes (5 % of the slices, mean 15 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter  # type: ignore[import-untyped]

from levelfield.harness.statistics.effects import Effects, arm_effects
from levelfield.harness.statistics.estimates import Floats
from levelfield.harness.statistics.moderation import ComparedPairs, compared

EVERYTHING = frozenset({"drift", "steps", "process", "spikes"})
WORLDS: dict[str, frozenset[str]] = {
    "iid": frozenset(),
    "drift": frozenset({"drift"}),
    "process": frozenset({"process"}),
    "drift and process": frozenset({"drift", "process"}),
    "spikes": frozenset({"spikes"}),
    "heavy tails": frozenset({"heavy", "process"}),
    "bimodal processes": frozenset({"bimodal"}),
    "steps": frozenset({"steps", "process"}),
    "rounds depend": frozenset({"own drift", "process"}),
    "everything": EVERYTHING,
}


def machine(
    generator: np.random.Generator, parts: frozenset[str], shape: tuple[int, int]
) -> Floats:
    """The state that all arms share, [session, slot]."""
    state = np.zeros(shape)
    if "drift" in parts:
        rho = 0.995
        shocks = generator.normal(0, 0.02 * np.sqrt(1 - rho**2), shape)
        shocks[:, 0] = generator.normal(0, 0.02, shape[0])
        state += lfilter([1.0], [1.0, -rho], shocks, axis=-1)
    if "steps" in parts:
        at = generator.integers(0, shape[1], (shape[0], 1))
        size = generator.normal(0, 0.03, (shape[0], 1)) * (generator.random((shape[0], 1)) < 0.5)
        state += np.where(np.arange(shape[1]) >= at, size, 0)
    return state


def slices(generator: np.random.Generator, parts: frozenset[str], shape: tuple[int, ...]) -> Floats:
    """The part of each slice that it shares with no other slice."""
    noise = generator.standard_t(3, shape) if "heavy" in parts else generator.normal(size=shape)
    own = 0.01 * noise
    if "spikes" in parts:
        own += np.where(generator.random(shape) < 0.05, generator.exponential(0.15, shape), 0)
    return own


def sessions(
    seed: int,
    parts: frozenset[str],
    *,
    count: int,
    arms: int = 2,
    blocks: int = 30,
    rounds: int = 6,
    effect: float = 0.0,
    process: float = 0.01,
) -> Floats:
    """Logs[session, arm, block, round]; the first arm is slower by the fraction ``effect``."""
    generator = np.random.default_rng(seed)
    shape = (count, arms, blocks, rounds)
    slots = machine(generator, parts, (count, blocks * rounds * arms))
    slots = generator.permuted(slots.reshape(count, blocks, rounds, arms), axis=-1)
    logs = np.moveaxis(slots, -1, 1) + slices(generator, parts, shape)
    if "process" in parts:
        logs += generator.normal(0, process, (*shape[:3], 1))
    if "bimodal" in parts:
        logs += generator.choice([-0.01, 0.01], (*shape[:3], 1))
        logs += generator.normal(0, 0.002, (*shape[:3], 1))
    if "own drift" in parts:
        logs += lfilter([1.0], [1.0, -0.9], generator.normal(0, 0.005, shape), axis=-1)
    if "rare slow processes" in parts:
        logs[:, 0] += np.where(generator.random((count, blocks, 1)) < 0.1, 0.1, 0)
    logs[:, 0] += np.log1p(effect)
    return logs


def effects_of_sessions(logs: Floats) -> Effects:
    """Effects[session, arm, block] of simulated logs, in which no round is disturbed."""
    shape = logs.shape[:1] + logs.shape[2:]
    return arm_effects(logs, np.ones(shape), np.ones(shape[:-1]))


def all_pairs(effects: Effects, blocks: int) -> ComparedPairs:
    """Compare all arms of simulated sessions by their first blocks."""
    first_blocks = Effects(
        effects.values[..., :blocks], effects.levels[..., :blocks], effects.weights[..., :blocks]
    )
    first, second = np.array(np.triu_indices(effects.values.shape[-2], 1))
    return compared(first_blocks, first, second)


@dataclass(frozen=True)
class ProcessWorld:
    """How much processes of identical arms differ: ``kind`` with ``size``, in a ``share`` of them.

    "similar": normal deviations. "of any size": normal deviations, of log-normal size by arm. "two
    speeds": each process is ``size`` faster or slower. "rarely slow": one process in ten is
    ``size`` slower. "one noisy": the deviations of one arm are ten times as large.
    """

    kind: str
    size: float
    share: float = 1.0

    @property
    def name(self) -> str:
        """Words for the proof."""
        arms = f" in {self.share:.0%} of the arms" if self.share < 1 else ""
        return f"{self.kind}, {self.size:.1%}{arms}"


PROCESS_WORLDS = (
    *(ProcessWorld("similar", size) for size in (0.003, 0.01, 0.05)),
    ProcessWorld("of any size", 0.01),
    *(
        ProcessWorld("two speeds", size, share)
        for size in (0.05, 0.12, 0.25)
        for share in (0.1, 0.25, 0.5, 1.0)
    ),
    *(ProcessWorld("rarely slow", size, share) for size in (0.1, 0.25) for share in (0.25, 1.0)),
    *(ProcessWorld("one noisy", size) for size in (0.003, 0.01)),
)


def processes_of(
    world: ProcessWorld, generator: np.random.Generator, *, count: int, arms: int, blocks: int
) -> Effects:
    """Effects[session, arm, block] of identical arms: deviations of processes, and block noise."""
    shape = (count, arms, blocks)
    values = generator.normal(0, 0.004, shape)
    chosen = np.argsort(generator.random((count, arms)), axis=-1)
    affected = (chosen < max(1, round(world.share * arms)))[..., None]
    own = generator.normal(0, 0.005, shape)
    match world.kind:
        case "similar":
            values += generator.normal(0, world.size, shape)
        case "of any size":
            sizes = np.exp(generator.normal(np.log(world.size), 0.8, (count, arms, 1)))
            values += generator.normal(size=shape) * sizes.clip(0.003, 0.05)
        case "two speeds":
            speeds = generator.choice([-world.size, world.size], shape)
            values += own + np.where(affected, speeds, 0)
        case "rarely slow":
            slow = affected & (generator.random(shape) < 0.1)
            values += own + np.where(slow, world.size, 0)
        case "one noisy":
            scale = np.where(np.arange(arms) == 0, 10, 1)[:, None]
            values += scale * generator.normal(0, world.size, shape)
    return Effects(values, np.zeros((count, blocks)), np.ones((count, blocks)))
