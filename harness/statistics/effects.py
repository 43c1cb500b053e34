"""Separates arms from the machine within blocks: how much slower each arm is than its round.

Logs of seconds come as y[..., arm, block, round], NaN where nothing was measured. In each block the
model is y = level[round] + effect[arm] + noise. Levels are what all arms of a round share, such as
drift. Both are medians, so spikes lose their weight, and they are found by median polish [1]: the
effect of an arm is the median over rounds of what the levels leave, the level of a round the median
over arms of what the effects leave. For two arms the difference of their effects is the median over
rounds of their differences.

Sources: [1] Tukey (1977), "Exploratory data analysis", chapter 11. [2] Edgeworth (1888), "On a new
method of reducing observations relating to several quantities", Philosophical Magazine 25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from levelfield.harness.statistics.estimates import Floats

SWEEPS = 10  # of median polish, at most; it rarely needs more than four


@dataclass(frozen=True)
class Effects:
    """Log seconds of arms by block: ``values[..., arm, block]`` above ``levels[..., block]``.

    ``weights[..., block]`` are those of blocks in a mean over blocks.
    """

    values: Floats
    levels: Floats
    weights: Floats

    def pairs(self, first: Any, second: Any) -> Floats:
        """Block values of the log ratio of arms ``first`` over ``second``: [..., (pair,) block]."""
        return np.asarray(self.values[..., first, :] - self.values[..., second, :])

    def log_seconds(self) -> Floats:
        """The log seconds of each arm in each block, [..., arm, block]."""
        return np.asarray(self.values + self.levels[..., None, :])


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Weighted median [2] of the last axis without its NaN; NaN where the axis holds nothing else.

    ``weights`` has the shape of ``values``. Where a value ends exactly half of the weight, the
    result is the mean of that value and the next one, as for the usual median.
    """
    if values.shape[-1] == 0 or np.all(weights == weights.flat[0]):
        return median(values)
    order = np.argsort(values, axis=-1)  # NaN last
    values = np.take_along_axis(values, order, axis=-1)
    weights = np.take_along_axis(weights, order, axis=-1)
    weights = np.where(np.isnan(values), 0.0, weights)
    share = np.cumsum(weights, axis=-1)
    half = share[..., -1:] / 2
    # Sums of weights are rounded, and a tie must stay one.
    low = np.argmax(share >= half * (1 - 1e-9), axis=-1)[..., None]
    high = np.argmax(share > half * (1 + 1e-9), axis=-1)[..., None]
    middle = (np.take_along_axis(values, low, -1) + np.take_along_axis(values, high, -1)) / 2
    return np.asarray(np.where(half > 0, middle, np.nan)[..., 0])


def median(values: Floats) -> Floats:
    """Median of the last axis without its NaN; NaN where the axis holds nothing else."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.sum(~np.isnan(ordered), axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1), axis=-1)
    return np.asarray(((low + high) / 2)[..., 0])


def arm_effects(logs: Floats, weights: Floats, block_weights: Floats) -> Effects:
    """Effects of arms by block; ``weights[..., block, round]``, ``block_weights[..., block]``.

    An arm without a round in a block is NaN there. Raises ValueError for a slice that took no time.
    """
    if np.isinf(logs).any():
        raise ValueError("infinite log: a slice took no time; mark what is missing with NaN")
    of_arms = np.broadcast_to(weights[..., None, :, :], logs.shape)
    # Levels come first: whatever the arms share then changes no effect at all.
    effects = np.where(np.isnan(logs).all(axis=-1), np.nan, 0.0)
    levels = np.full(weights.shape, np.nan)
    for _ in range(SWEEPS):
        previous = effects
        rest = np.moveaxis(logs - effects[..., None], -3, -1)
        levels = median(rest)
        effects = weighted_median(logs - levels[..., None, :, :], of_arms)
        if np.array_equal(previous, effects, equal_nan=True):
            break
    return Effects(effects, weighted_median(levels, weights), block_weights)
