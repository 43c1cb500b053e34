"""Simulated worlds with a known truth: log step times that are drawn, not measured.

A world has arm effects, a machine that drifts (AR(1) per slot, rho 0.995, sd 2 %) or jumps once in
half of the sessions (sd 3 %), a process effect per arm and block (sd 1 %), slice noise (sd 1 %) and
one-sided spikes (5 % of the slices, mean 15 %).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter  # type: ignore[import-untyped]

from levelfield.harness.statistics.estimates import Floats, paired_blocks

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


def pairs_of(logs: Floats) -> Floats:
    """Block values[session, pair, block] of all pairs."""
    return paired_blocks(logs, *np.triu_indices(logs.shape[1], 1))
