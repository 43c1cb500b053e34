"""Judges recorded slices by the rules of other tools, to compare them with the verdicts here.

The rules are those of the tools' comparisons of two benchmarks, with their default settings. A
sample is all slices of an arm in a comparison. The tools take their samples one benchmark after the
other; here both come from interleaved rounds, which is in their favour.

Sources, read on 2026-11-27: pyperf, ``_utils.is_significant`` and ``_compare``
(github.com/psf/pyperf). hyperfine, ``scripts/welch_ttest.py`` (github.com/sharkdp/hyperfine).
criterion.rs, "Analysis process" of its book and ``src/analysis/compare.rs``
(github.com/bheisler/criterion.rs). nanobench, release notes of v4.6.0 on ``Bench::compare``
(github.com/martinus/nanobench). Google Benchmark, ``tools/compare.py``: Mann and Whitney's U test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from scipy import stats  # type: ignore[import-untyped]

from levelfield.harness.statistics.estimates import Floats

LEVEL = 0.05  # of all rules
INSIGNIFICANT = 0.01  # pyperf's and criterion's share below which a change does not count
BOOTSTRAPS = 5000

# (seconds of one arm, of the other; slices in the same order) -> whether they are called different.
Rule = Callable[[Floats, Floats, Generator], bool]


def pyperf(first: Floats, second: Floats, generator: Generator) -> bool:
    """Student's t test with equal variances; a change of the mean below 1 % does not count."""
    change = abs(second.mean() / first.mean() - 1)
    return bool(change >= INSIGNIFICANT and stats.ttest_ind(first, second).pvalue <= LEVEL)


def hyperfine(first: Floats, second: Floats, generator: Generator) -> bool:
    """Welch's t test."""
    return bool(stats.ttest_ind(first, second, equal_var=False).pvalue < LEVEL)


def criterion(first: Floats, second: Floats, generator: Generator) -> bool:
    """Welch's t by a bootstrap of the pooled sample, then the interval of the change beyond 1 %."""
    pooled = np.concatenate([first, second])
    size, count = len(first), len(pooled)
    drawn = pooled[generator.integers(count, size=(BOOTSTRAPS, count))]
    scores = _welch(drawn[:, :size], drawn[:, size:])
    own = float(_welch(first[None], second[None])[0])
    above = float(np.mean(scores >= own))
    if 2 * min(above, 1 - above) >= LEVEL:
        return False
    means = [
        sample[generator.integers(len(sample), size=(BOOTSTRAPS, len(sample)))].mean(axis=1)
        for sample in (first, second)
    ]
    low, high = np.quantile(means[1] / means[0] - 1, [LEVEL / 2, 1 - LEVEL / 2])
    return bool(low > INSIGNIFICANT or high < -INSIGNIFICANT)


def nanobench(first: Floats, second: Floats, generator: Generator) -> bool:
    """A sign test on the paired log ratios of rounds."""
    above, below = int(np.sum(first > second)), int(np.sum(first < second))
    return bool(above + below and stats.binomtest(above, above + below).pvalue <= LEVEL)


def mann_whitney(first: Floats, second: Floats, generator: Generator) -> bool:
    """Mann and Whitney's U test."""
    return bool(stats.mannwhitneyu(first, second).pvalue < LEVEL)


RULES: Mapping[str, Rule] = {
    "pyperf": pyperf,
    "hyperfine": hyperfine,
    "criterion.rs": criterion,
    "nanobench compare": nanobench,
    "Mann-Whitney (Google Benchmark)": mann_whitney,
}


def _welch(first: Floats, second: Floats) -> Floats:
    """Welch's t of samples [..., slice]."""
    errors = first.var(axis=-1, ddof=1) / first.shape[-1]
    errors = errors + second.var(axis=-1, ddof=1) / second.shape[-1]
    return np.asarray((first.mean(axis=-1) - second.mean(axis=-1)) / np.sqrt(errors))
