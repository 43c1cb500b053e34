"""Variances between blocks and between rounds, and the best number of rounds.

Sources: [1] Searle, Casella and McCulloch (1992), "Variance components", chapter 3 and appendix F.
[2] Kalibera and Jones (2013), "Rigorous benchmarking in reasonable time", ISMM, section 6.
"""

from __future__ import annotations

import numpy as np

from levelfield.harness.statistics.estimates import Floats

LEAST_ROUNDS, MOST_ROUNDS = 6, 60  # per block


def variance_components(values: Floats) -> Floats:
    """Variance of each level of a nested design, one per axis, outermost first; NaN is missing.

    values[block, round(, step)]. The estimates solve equations of moments [1, appendix F]. Let T_l
    be the sum over groups g of level l of n_g mean_g^2. Then E[T_l] is a constant plus the sum over
    levels k of c_lk sigma_k^2. For k <= l, c_lk is N. For k beyond l, c_lk is the sum over g of the
    sum of n_h^2 / n_g over the groups h of level k in g. Negative solutions are set to 0; a level
    without degrees of freedom is NaN.
    """
    levels = values.ndim
    sizes = [(~np.isnan(values)).astype(float)]
    sums = [np.nan_to_num(values - np.nansum(values) / max(sizes[0].sum(), 1))]
    for _ in range(levels):
        sizes.insert(0, sizes[0].sum(axis=-1))
        sums.insert(0, sums[0].sum(axis=-1))
    safe = [np.maximum(size, 1) for size in sizes]
    moments = np.array([np.sum(total**2 / n) for total, n in zip(sums, safe, strict=True)])
    factors = np.empty((levels + 1, levels))
    for at in range(levels + 1):
        for inner in range(levels):
            squares = np.sum(sizes[inner + 1] ** 2, axis=tuple(range(at, inner + 1)))
            factors[at, inner] = sizes[0] if inner < at else np.sum(squares / safe[at])
    system, known = np.diff(factors, axis=0), np.diff(moments)
    components = np.full(levels, np.nan)
    for at in reversed(range(levels)):  # triangular: the innermost first
        if system[at, at] > 0:
            rest = system[at, at + 1 :] @ np.maximum(components[at + 1 :], 0)
            components[at] = max((known[at] - rest) / system[at, at], 0)
    return components


def rounds_per_block(
    *, block_seconds: float, round_seconds: float, within: float, between: float
) -> int:
    """Rounds that give the most precision for the time [2]: sqrt(c_block / c_round s2_w / s2_b).

    ``block_seconds`` and ``round_seconds`` are the costs of starting a block and of a round.
    ``within`` is the variance of a round within a block, ``between`` the variance of the blocks
    themselves. The result is rounded up to an even number from 6 to 60.
    """
    if within <= 0 or between <= 0:
        return LEAST_ROUNDS if within <= 0 else MOST_ROUNDS
    best = np.sqrt(block_seconds / round_seconds * within / between)
    return int(np.clip(2 * np.ceil(best / 2), LEAST_ROUNDS, MOST_ROUNDS))
