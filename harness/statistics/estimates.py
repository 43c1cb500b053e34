"""Estimates log ratios of seconds, with errors, intervals and p-values.

Values come as v[..., block], NaN where nothing was measured: the log ratio of two arms in each
block. Blocks, fresh processes each, are the only replicates. A log ratio above 0 says that the
first arm of a pair needs more time. Intervals and p-values are those of Student's t [1] over
blocks.

Sources: [1] Student (1908), "The probable error of a mean", Biometrika 6. [2] Davison and Hinkley
(1997), "Bootstrap methods and their application", sections 2.4 and 5.2.1. [3] Schuirmann (1987),
"A comparison of the two one-sided tests procedure and the power approach", J. Pharmacokinetics and
Biopharmaceutics 15. [4] Welch (1947), "The generalization of 'Student's' problem when several
different population variances are involved", Biometrika 34.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]  # far lighter than scipy.stats

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """Mean of block values and its standard error, for as many pairs as the arrays hold.

    ``freedom``: the degrees of freedom of the standard error.
    """

    log_ratio: Floats
    standard_error: Floats
    blocks: NDArray[np.int64]
    freedom: Floats

    def half_width(self, confidence: float | Floats = 0.95) -> Floats:
        """Half the two-sided t interval; inf under 2 blocks."""
        quantile = special.stdtrit(np.maximum(self.freedom, 1), (1 + np.asarray(confidence)) / 2)
        return np.where(self.blocks > 1, quantile * self.standard_error, np.inf)

    def interval(self, confidence: float | Floats = 0.95) -> tuple[Floats, Floats]:
        """The t interval of the log ratio; its exp is the interval of the ratio."""
        half = self.half_width(confidence)
        return self.log_ratio - half, self.log_ratio + half

    def p_value(self, margin: float = 0.0) -> Floats:
        """Two-sided p-value of |log ratio| <= margin, 2 P(T > (|estimate| - margin) / error).

        At most alpha exactly if the interval of confidence 1 - alpha lies beyond the margin.
        """
        return np.minimum(1.0, 2 * self._tail(np.abs(self.log_ratio) - margin))

    def tie_p_value(self, margin: float) -> Floats:
        """Two one-sided tests [3] of |log ratio| >= margin: the greater of their p-values.

        At most 5 % exactly if the 90 % interval lies within -margin to margin.
        """
        return self._tail(margin - np.abs(self.log_ratio))

    def _tail(self, distance: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            tail = special.stdtr(np.maximum(self.freedom, 1), -distance / self.standard_error)
        return np.where((self.blocks > 1) & ~np.isnan(tail), tail, 1.0)


def estimate(block_values: Floats, weights: Floats | None = None) -> Estimate:
    """Mean over blocks (the last axis, NaN dropped) and its standard error [1].

    ``weights`` are those of the blocks: the variance of a block is taken to be inversely
    proportional to its weight.
    """
    present = ~np.isnan(block_values)
    weights = np.where(present, 1.0 if weights is None else weights, 0.0)
    blocks, total = np.sum(present, axis=-1), np.sum(weights, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nansum(weights * block_values, axis=-1) / total
        squares = np.nansum(weights * (block_values - mean[..., None]) ** 2, axis=-1)
        error = np.sqrt(squares / (blocks - 1) / total)
    return Estimate(mean, error, blocks, np.asarray(blocks - 1.0))


def welch_freedom(first: Estimate, second: Estimate) -> Floats:
    """Welch's degrees of freedom of the difference of two independent means [4], not rounded.

    NaN or infinite where an estimate has one block or where both have no error.
    """
    variances = first.standard_error**2, second.standard_error**2
    with np.errstate(all="ignore"):
        return (variances[0] + variances[1]) ** 2 / (
            variances[0] ** 2 / first.freedom + variances[1] ** 2 / second.freedom
        )


def drawn_blocks(
    blocks: int, generator: Generator, resamples: int = RESAMPLES
) -> NDArray[np.int64]:
    """[resample, block]: as many blocks as there are, drawn with replacement."""
    return generator.integers(blocks, size=(resamples, blocks))


def order_ends(values: Floats, tail: float) -> tuple[float, float]:
    """Order statistics (n + 1) tail and (n + 1) (1 - tail) [2, section 5.2.1]."""
    index = max(int((len(values) + 1) * tail + 1e-9), 1)
    ordered = np.sort(values)
    return float(ordered[index - 1]), float(ordered[-index])


def bootstrap_t(
    values: Floats, generator: Generator, *, confidence: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Studentised bootstrap interval of the mean of values[block] [2, sections 2.4 and 5.2.1]."""
    values = values[~np.isnan(values)]
    sample = estimate(values)
    mean, error = float(sample.log_ratio), float(sample.standard_error)
    if len(values) < 2 or error == 0:
        return (-np.inf, np.inf) if len(values) < 2 else (mean, mean)
    centred = (values - mean)[drawn_blocks(len(values), generator, resamples)]
    shift = centred.mean(axis=1)
    variance = np.maximum(np.mean(centred**2, axis=1) - shift**2, 0)
    # If one block was drawn throughout, the variance is 0 and the quotient infinite.
    with np.errstate(divide="ignore", invalid="ignore"):
        students = shift / np.sqrt(variance / (len(values) - 1))
    low, high = order_ends(np.where(np.isnan(students), 0, students), (1 - confidence) / 2)
    return mean - error * high, mean - error * low
