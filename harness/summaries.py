"""What is said of blocks besides verdicts: variances, rounds to take, break-even, many cells.

Sources: [1] Searle, Casella and McCulloch (1992), "Variance components", chapter 3 and appendix F.
[2] Kalibera and Jones (2013), "Rigorous benchmarking in reasonable time", ISMM, section 6.
[3] Hesterberg (2015), "What teachers should know about the bootstrap", American Statistician 69.
[4] Davison and Hinkley (1997), "Bootstrap methods and their application", section 5.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import special  # type: ignore[import-untyped]  # far lighter than scipy.stats

from harness.statistics import (
    Floats,
    PairVerdict,
    Verdict,
    bootstrap_t,
    drawn_blocks,
    estimate,
    order_ends,
)

LEAST_ROUNDS, MOST_ROUNDS = 6, 60  # per block


def variance_components(values: Floats) -> Floats:
    """Variance of each level of a nested design, one per axis, outermost first; NaN is missing.

    values[block, round(, step)]. Moments [6, appendix F]: with T_l the sum over groups g of level l
    of n_g mean_g^2, E[T_l] is a constant plus the sum over levels k of c_lk sigma_k^2, where c_lk
    is N for k <= l and the sum over g of sum of n_h^2 / n_g over the groups h of level k in g
    beyond. Negative solutions are 0; a level without degrees of freedom is NaN.
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
    found = np.full(levels, np.nan)
    for at in reversed(range(levels)):  # triangular: the innermost first
        if system[at, at] > 0:
            rest = system[at, at + 1 :] @ np.maximum(found[at + 1 :], 0)
            found[at] = max((known[at] - rest) / system[at, at], 0)
    return found


def rounds_per_block(
    *, block_seconds: float, round_seconds: float, within: float, between: float
) -> int:
    """Rounds that give the most precision for the time [2]: sqrt(c_block / c_round s2_w / s2_b).

    Costs of starting a block and of a round; variances of a round within a block and of the blocks
    themselves. Rounded up to an even number from 6 to 60.
    """
    if within <= 0 or between <= 0:
        return LEAST_ROUNDS if within <= 0 else MOST_ROUNDS
    best = np.sqrt(block_seconds / round_seconds * within / between)
    return int(np.clip(2 * np.ceil(best / 2), LEAST_ROUNDS, MOST_ROUNDS))


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

    The steps from which on the arm of shorter steps is ahead in total; 0 where it starts faster,
    too. Percentile interval over blocks drawn together, its tails widened to
    Phi(-sqrt(B / (B - 1)) t(B - 1)), because of few blocks it is too short otherwise [3].
    """
    blocks = startup_seconds.shape[1]
    if blocks < 2 or np.isnan([startup_seconds, step_seconds]).any():
        raise ValueError(f"{blocks} blocks: an interval takes two or more, and every value of each")
    gain_seconds = step_seconds[1] - step_seconds[0]
    sign = -1 if gain_seconds.mean() < 0 else 1
    drawn = np.vstack(
        [np.arange(blocks), drawn_blocks(blocks, generator)]
    )  # first the blocks themselves
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


@dataclass(frozen=True)
class Summary:
    """One arm against another over many cells; ``open`` counts cells without a verdict."""

    ratio: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    open: int
    coverage: float  # cells with a ratio as a share of the cells planned


def summarise(pairs: Sequence[PairVerdict], planned: int, generator: Generator) -> Summary:
    """Geometric mean of the ratios of one pair of arms, with the cell as the resampling unit.

    ``pairs`` holds one verdict per cell that has any, all with the same ``first``; ``planned``
    counts all cells, so that failures lower the coverage. The interval is bootstrap-t's [4] over
    cells, since ratios of unlike cells are not normal.
    """
    logs = np.log([pair.ratio for pair in pairs if pair.verdict != Verdict.VOID])
    ends = (estimate(logs).log_ratio, *bootstrap_t(logs, generator))
    ratio, low, high = (float(np.exp(end)) for end in ends)
    wins = sum(pair.faster == pair.first for pair in pairs)
    losses = sum(pair.faster == pair.second for pair in pairs)
    ties = sum(pair.verdict == Verdict.TIE for pair in pairs)
    rest = planned - wins - ties - losses
    return Summary(ratio, low, high, wins, ties, losses, rest, len(logs) / planned)
