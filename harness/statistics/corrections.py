"""Corrects p-values for several hypotheses.

Sources: [1] Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J.
Statistics 6. [2] Benjamini and Hochberg (1995), "Controlling the false discovery rate",
J. R. Stat. Soc. B 57.
"""

from __future__ import annotations

import numpy as np

from levelfield.harness.statistics.estimates import Floats


def holm(p_values: Floats) -> Floats:
    """Adjusted p-values of the step-down procedure [1] over the last axis."""
    order = np.argsort(p_values, axis=-1)
    factors = np.arange(p_values.shape[-1], 0, -1)
    steps = np.take_along_axis(p_values, order, axis=-1) * factors
    adjusted = np.minimum(np.maximum.accumulate(steps, axis=-1), 1)
    return np.take_along_axis(adjusted, np.argsort(order, axis=-1), axis=-1)


def holm_levels(p_values: Floats, alpha: float) -> Floats:
    """The level at which the step-down procedure [1] tests each hypothesis of the last axis.

    The k-th smallest p-value of m is tested at alpha / (m - k + 1). All hypotheses that remain
    after r rejections are tested at alpha / (m - r). An interval of confidence 1 - level excludes
    the null exactly if Holm rejects it. The interval concerns that null alone: such intervals are
    no simultaneous bounds (Strassburger and Bretz 2008, Statistics in Medicine 27).
    """
    count = p_values.shape[-1]
    rank = np.argsort(np.argsort(p_values, axis=-1), axis=-1)
    rejected = np.sum(holm(p_values) <= alpha, axis=-1, keepdims=True)
    return np.asarray(alpha / np.maximum(count - np.minimum(rank, rejected), 1))


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted p-values of the step-up procedure [2] over the last axis, for many comparisons."""
    order = np.argsort(-p_values, axis=-1)
    factors = p_values.shape[-1] / np.arange(p_values.shape[-1], 0, -1)
    steps = np.take_along_axis(p_values, order, axis=-1) * factors
    adjusted = np.minimum(np.minimum.accumulate(steps, axis=-1), 1)
    return np.take_along_axis(adjusted, np.argsort(order, axis=-1), axis=-1)
