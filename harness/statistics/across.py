"""Summarises the verdicts of many comparisons.

Source: [1] Davison and Hinkley (1997), "Bootstrap methods and their application", section 5.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from levelfield.harness.statistics.decisions import PairVerdict, Verdict
from levelfield.harness.statistics.estimates import bootstrap_t

# Too few values say too little about their own spread: a bootstrap-t interval of four comparisons
# once ended at a factor of a hundred million.
LEAST_COMPARISONS = 8


@dataclass(frozen=True)
class Across:
    """Two arms over many comparisons; ``open`` counts those that need more measurement.

    ``low`` and ``high`` are NaN under ``LEAST_COMPARISONS`` comparisons.
    """

    ratio: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    open: int
    void: int
    missing: int  # comparisons that one of the two could not do
    coverage: float  # comparisons that both arms could do, void or not, as a share of all planned


def summarise(pairs: Sequence[PairVerdict], planned: int, generator: Generator) -> Across:
    """Geometric mean of the ratios of one pair of arms, with the comparison as the resampling unit.

    ``pairs`` holds one verdict per comparison that has any, all with the same ``first``.
    ``planned`` counts all comparisons, so that failures lower the coverage. The interval is the
    bootstrap-t interval [1] over comparisons, because the ratios of different comparisons are not
    normally distributed.
    """
    logs = np.log([pair.ratio for pair in pairs if pair.verdict != Verdict.VOID])
    few = len(logs) < LEAST_COMPARISONS
    ends = (np.nan, np.nan) if few else bootstrap_t(logs, generator)
    ratio, low, high = (float(np.exp(end)) for end in (logs.mean(), *ends))
    wins = sum(pair.faster == pair.first for pair in pairs)
    losses = sum(pair.faster == pair.second for pair in pairs)
    ties = sum(pair.verdict == Verdict.TIE for pair in pairs)
    void = sum(pair.verdict == Verdict.VOID for pair in pairs)
    undecided = len(pairs) - wins - ties - losses - void
    return Across(
        ratio,
        low,
        high,
        wins,
        ties,
        losses,
        open=undecided,
        void=void,
        missing=planned - len(pairs),
        coverage=len(pairs) / planned,
    )
