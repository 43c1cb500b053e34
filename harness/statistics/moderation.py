"""Shares what the arms of a comparison know about variances and about processes of two speeds.

A variance from few blocks is itself uncertain: from six blocks it has five degrees of freedom. The
pairs of a comparison ran on one machine in the same blocks, so their variances are of a similar
size. Each is moved towards their common value, the more the more similar they are [1]. Arms that
are unlike the others keep their own variance.

Some programs have processes of two speeds, 5 to 25 % apart from their mean, and one process keeps
its speed. If all processes of an arm drew one speed, its variance is small and its mean is wrong.
No statistic of the block values shows this; only more processes make it improbable. ``processes``
says how many.

Source: [1] Smyth (2004), "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", Statistical Applications in Genetics and Molecular Biology 3,
sections 4 to 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]  # far lighter than scipy.stats

from levelfield.harness.statistics.effects import Effects, median
from levelfield.harness.statistics.estimates import Estimate, Flags, Floats, estimate

# The probability that an arm which is like the others is called unlike them, in a comparison.
UNLIKE = 0.01
LEAST_PAIRS = 3  # of arms like each other, for their common variance
# The largest distance of a process from the mean of its arm that is provided for, as a log ratio:
# 35 %. The runs of this project have shown 25 %.
FARTHEST = 0.30
# The probability, at most, that all processes of an arm of two speeds drew one of them.
HIDDEN = 2.0**-5


@dataclass(frozen=True)
class Prior:
    """The common variance of a comparison's pairs and its degrees of freedom; 0: not known."""

    variance: Floats
    freedom: Floats


@dataclass(frozen=True)
class ComparedPairs:
    """The pairs of a comparison: ``estimate`` of each, ``values[..., pair, block]``.

    ``processes``: how many of each arm a statement on the pair needs, see the module.
    """

    values: Floats
    estimate: Estimate
    processes: Floats


def compared(
    effects: Effects, first: NDArray[np.int64], second: NDArray[np.int64]
) -> ComparedPairs:
    """Compare the arms ``first`` with the arms ``second``, both numbers of arms [pair].

    All arms of ``effects`` help to estimate variances, also those that are in no pair.
    """
    arms = effects.values.shape[-2]
    every = np.triu_indices(arms, 1)
    unlike = unlike_arms(effects.values)
    calm = ~(unlike[..., every[0]] | unlike[..., every[1]])
    prior = _prior(estimate(effects.pairs(*every), effects.weights[..., None, :]), calm)
    values = effects.pairs(first, second)
    own = estimate(values, effects.weights[..., None, :])
    pairs = moderated(own, prior, unlike[..., first] | unlike[..., second])
    return ComparedPairs(values, pairs, processes(pairs.log_ratio, deviations(effects.values)))


def deviations(values: Floats) -> Floats:
    """Deviations of arms from the median of all arms in a block, less their own median."""
    common = median(np.moveaxis(values, -1, -2))
    rest = values - common[..., None, :]
    return np.asarray(rest - median(rest)[..., None])


def unlike_arms(values: Floats) -> Flags:
    """[..., arm]: arms whose processes differ far more than those of the typical arm.

    ``values[..., arm, block]``. The variance of an arm over that of the typical arm is compared
    with the quantile of Fisher's F.
    """
    rest = deviations(values)
    freedom = np.sum(~np.isnan(rest), axis=-1) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.nansum(rest, axis=-1) / (freedom + 1)
        variance = np.nansum((rest - mean[..., None]) ** 2, axis=-1) / freedom
    variance = np.where(freedom > 0, variance, np.nan)
    typical = median(variance)[..., None]
    arms, usual = values.shape[-2], np.maximum(median(freedom * 1.0), 1)[..., None]
    of_typical = np.maximum((arms - 1) * usual / 2, 1)
    limit = special.fdtri(np.maximum(freedom, 1), of_typical, 1 - UNLIKE / arms)
    return np.asarray(variance > limit * typical)


def moderated(pairs: Estimate, prior: Prior, unlike: Flags) -> Estimate:
    """Move the variances of pairs towards the common one [1]; those of ``unlike`` ones only up."""
    count = np.maximum(pairs.blocks, 1)
    own = pairs.standard_error**2 * count
    common, freedom = prior.variance[..., None], prior.freedom[..., None]
    known = (freedom > 0) & (pairs.blocks > 1)
    with np.errstate(invalid="ignore"):
        shared = (freedom * common + pairs.freedom * own) / (freedom + pairs.freedom)
    variance = np.where(unlike, np.maximum(own, common), shared)
    return replace(
        pairs,
        standard_error=np.sqrt(np.where(known, variance, own) / count),
        freedom=np.where(known & ~unlike, pairs.freedom + freedom, pairs.freedom),
    )


def _prior(pairs: Estimate, calm: Flags) -> Prior:
    """Fit the common variance of the ``calm`` pairs by the moments of log variances [1, 6.2].

    Pairs that share an arm are not independent. The degrees of freedom are therefore at most half
    those of all arms together.
    """
    used = calm & (pairs.blocks > 1)
    freedom = np.where(used, pairs.freedom, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.maximum(pairs.standard_error**2 * pairs.blocks, 1e-300))
        logs = logs - special.digamma(freedom / 2) + np.log(freedom / 2)
        count = np.sum(used, axis=-1)
        mean = np.nansum(np.where(used, logs, 0.0), axis=-1) / count
        squares = np.nansum(np.where(used, (logs - mean[..., None]) ** 2, 0.0), axis=-1)
        noise = np.nansum(special.polygamma(1, freedom / 2), axis=-1) / count
        spread = squares / (count - 1) - noise
    arms = (1 + np.sqrt(1 + 8 * count)) / 2  # that have so many pairs
    most = (arms - 1) * np.nan_to_num(median(freedom)) / 2
    own = np.where(spread > 0, 2 * _trigamma_inverse(np.maximum(spread, 1e-6)), np.inf)
    own = np.where(count >= LEAST_PAIRS, np.minimum(own, most), 0.0)
    half = np.maximum(own, 1e-9) / 2
    variance = np.exp(mean + special.digamma(half) - np.log(half))
    return Prior(np.where(own > 0, variance, 1.0), own)


def processes(log_ratios: Floats, rest: Floats) -> Floats:
    """Return how many processes of each arm a statement on each pair needs.

    ``log_ratios[..., pair]``; ``rest[..., arm, block]``: deviations of processes. Let an arm of two
    speeds, both equally probable, be a distance d from its mean with each process. All n processes
    are on one side with probability 2^(1 - n), and then its ratio to the others is d off. If k arms
    show processes that are as far apart, others may hide: one of k + 1 hides with probability
    (k + 1) 2^(1 - n). Two such arms hide on opposite sides, and are 2 d apart, with probability
    2^(1 - 2 n) for each pair of arms. Both probabilities must be at most ``HIDDEN``. A difference
    that is too large for such processes, see ``FARTHEST``, needs no more than two.
    """
    size = np.abs(log_ratios)
    missing = np.isnan(rest)
    highest = np.max(np.where(missing, -np.inf, rest), axis=-1)
    lowest = np.min(np.where(missing, np.inf, rest), axis=-1)
    spread = highest - lowest
    # The two speeds are 2 d apart. Processes differ for other reasons, too, so less than all of the
    # distance counts as shown.
    one, two = (
        np.sum(spread[..., None, :] >= 0.75 * apart * size[..., None], axis=-1)
        for apart in (2.0, 1.0)
    )
    for_one = 1 + np.log2((one + 1) / HIDDEN)
    for_two = (1 + np.log2((two + 1) * (two + 2) / 2 / HIDDEN)) / 2
    needed = np.where(size < FARTHEST, np.maximum(for_one, for_two), for_two)
    return np.ceil(np.where(size < 2 * FARTHEST, needed, 2.0) - 1e-9)


def _trigamma_inverse(values: Floats) -> Floats:
    """Solve trigamma(x) = values by Newton's method [1, appendix]."""
    x = 0.5 + 1 / values
    for _ in range(50):
        slope = special.polygamma(1, x)
        step = slope * (1 - slope / values) / special.polygamma(2, x)
        x = x + step
        if np.all(-step < 1e-8 * x):
            break
    return np.asarray(x)
