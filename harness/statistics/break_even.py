"""The number of steps after which a slower start has paid off, with its interval.

Sources: [1] Hesterberg (2015), "What teachers should know about the bootstrap", American
Statistician 69. [2] Davison and Hinkley (1997), "Bootstrap methods and their application", section
5.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import special  # type: ignore[import-untyped]  # far lighter than scipy.stats

from levelfield.harness.statistics.estimates import Floats, drawn_blocks, order_ends


@dataclass(frozen=True)
class BreakEven:
    """The first arm is ahead "above" or "below" ``steps``, "always" or "never"."""

    first_ahead: str
    steps: float
    low: float
    high: float  # infinite: the arm of shorter steps may never be ahead


def break_even(
    startup_seconds: Floats, step_seconds: Floats, generator: Generator, *, confidence: float = 0.95
) -> BreakEven:
    """N* = (startup_i - startup_j) / (step_j - step_i) of arms i, j; both arrays [2, block].

    N* is the number of steps from which on the arm of shorter steps is ahead in total. It is 0
    where that arm also starts faster. The interval is a percentile interval over blocks drawn
    together. With few blocks a percentile interval is too short [1], so its tails are widened to
    Phi(-sqrt(B / (B - 1)) t(B - 1)).
    """
    blocks = startup_seconds.shape[1]
    if blocks < 2 or np.isnan([startup_seconds, step_seconds]).any():
        raise ValueError(f"{blocks} blocks: an interval takes two or more, and every value of each")
    gain_seconds = step_seconds[1] - step_seconds[0]
    sign = -1 if gain_seconds.mean() < 0 else 1
    # The first row holds the blocks themselves.
    drawn = np.vstack([np.arange(blocks), drawn_blocks(blocks, generator)])
    debt = sign * (startup_seconds[0] - startup_seconds[1])[drawn].mean(axis=1)
    gain = sign * gain_seconds[drawn].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        overtaken = np.where(gain > 0, np.maximum(debt / gain, 0), np.inf)
    steps = np.where((gain == 0) & (debt < 0), 0, overtaken)
    quantile = special.stdtrit(blocks - 1, (1 - confidence) / 2)
    low, high = order_ends(steps[1:], special.ndtr(np.sqrt(blocks / (blocks - 1)) * quantile))
    if steps[0] in (0, np.inf):
        ahead = "always" if (steps[0] == 0) == (sign > 0) else "never"
    else:
        ahead = "above" if sign > 0 else "below"
    return BreakEven(ahead, float(steps[0]), low, high)
