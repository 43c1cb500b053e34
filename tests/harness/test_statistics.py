"""Every formula against scipy, a textbook or a closed form; every verdict and its edges."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from levelfield.harness.statistics.across import Across, summarise
from levelfield.harness.statistics.break_even import break_even
from levelfield.harness.statistics.corrections import benjamini_hochberg, holm, holm_levels
from levelfield.harness.statistics.decisions import (
    ALPHA_PER_LOOK,
    ComparisonVerdicts,
    Verdict,
    blocks_needed,
    comparison_verdicts,
    decide,
    disputed,
    effective_margin,
    effects_of,
)
from levelfield.harness.statistics.effects import arm_effects, weighted_median
from levelfield.harness.statistics.estimates import Estimate, Floats, bootstrap_t, estimate
from levelfield.harness.statistics.moderation import (
    FARTHEST,
    Prior,
    compared,
    moderated,
    processes,
    unlike_arms,
)
from levelfield.harness.statistics.variances import rounds_per_block, variance_components

NAN = np.nan
TWO_PERCENT = float(np.log1p(0.02))


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(1979)


def flat(*ratios: float, blocks: int = 6, rounds: int = 4, deviation: float = 0.001) -> Floats:
    """Logs of arms with these ratios; block values alternate, so every pair has a small error."""
    wobble = deviation * np.resize([1.0, -1.0], blocks)
    arms = [np.log(ratio) + wobble * (1 + at) for at, ratio in enumerate(ratios)]
    return np.repeat(np.array(arms)[..., None], rounds, axis=-1)


def names(count: int) -> list[str]:
    return [f"arm{index}" for index in range(count)]


def words(result: ComparisonVerdicts) -> list[Verdict]:
    return [pair.verdict for pair in result.pairs]


# Estimates


@pytest.mark.parametrize("blocks", [2, 3, 6, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.9987])
def test_intervals_and_p_values_are_those_of_scipy(
    generator: np.random.Generator, blocks: int, confidence: float
) -> None:
    values = generator.normal(0.01, 0.02, (4, blocks))
    sample = estimate(values)
    oracle = stats.ttest_1samp(values, 0.0, axis=-1)
    np.testing.assert_allclose(sample.p_value(), oracle.pvalue, rtol=1e-10)
    low, high = stats.t.interval(
        confidence, blocks - 1, loc=values.mean(axis=-1), scale=stats.sem(values, axis=-1)
    )
    np.testing.assert_allclose(sample.interval(confidence), [low, high], rtol=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.02])
def test_tests_of_the_margin_are_one_sided_tests_of_scipy(
    generator: np.random.Generator, margin: float
) -> None:
    for values in generator.normal(0.01, 0.02, (50, 8)):
        sample = estimate(values)
        above = stats.ttest_1samp(values, margin, alternative="greater").pvalue
        below = stats.ttest_1samp(values, -margin, alternative="less").pvalue
        expected = min(1.0, 2 * (above if values.mean() > 0 else below))
        assert sample.p_value(margin) == pytest.approx(expected, rel=1e-9)
        not_above = stats.ttest_1samp(values, margin, alternative="less").pvalue
        not_below = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
        assert sample.tie_p_value(margin) == pytest.approx(max(not_above, not_below), rel=1e-9)
        low, high = sample.interval(0.90)
        assert (sample.tie_p_value(margin) <= 0.05) == (-margin <= low and high <= margin)


def test_missing_blocks_are_dropped() -> None:
    sample = estimate(np.array([1.0, NAN, 1.5]))
    assert (sample.log_ratio, sample.blocks, sample.freedom) == (1.25, 2, 1)
    assert sample.standard_error == pytest.approx(0.25)


def test_weights_of_blocks_are_those_of_least_squares(generator: np.random.Generator) -> None:
    values, weights = generator.normal(size=8), generator.uniform(0.2, 1, 8)
    sample = estimate(values, weights)
    import statsmodels.api as statsmodels  # takes a second; one of the development tools

    oracle = statsmodels.WLS(values, np.ones(8), weights=weights).fit()
    assert sample.log_ratio == pytest.approx(oracle.params[0])
    assert sample.standard_error == pytest.approx(oracle.bse[0])


# Effects of arms


def effects(logs: Floats, weights: Floats | None = None) -> Floats:
    """Effects[arm, block] of logs[arm, block, round]."""
    weights = np.ones(logs.shape[1:]) if weights is None else weights
    return arm_effects(logs, weights, np.ones(logs.shape[1])).values


def test_the_weighted_median_is_numpys_of_repeated_values(generator: np.random.Generator) -> None:
    for count in range(1, 9):
        values, weights = generator.normal(size=count), generator.integers(1, 6, count)
        repeated = np.median(np.repeat(values, weights))
        assert weighted_median(values, weights / 7) == pytest.approx(repeated, abs=1e-12)
    values = generator.normal(size=(5, 7, 9))
    values[generator.random(values.shape) < 0.4] = NAN
    values[..., 0] = 0.0
    equal = weighted_median(values, np.full(values.shape, 1 / 7))
    np.testing.assert_array_equal(equal, np.nanmedian(values, axis=-1))
    assert np.isnan(weighted_median(np.array([NAN, NAN]), np.ones(2)))


def test_two_arms_differ_by_the_median_over_rounds(generator: np.random.Generator) -> None:
    for rounds in (1, 2, 5, 6):
        logs = generator.normal(size=(2, 4, rounds)) + generator.normal(size=(1, 4, rounds))
        first, second = effects(logs)
        np.testing.assert_allclose(first - second, np.median(logs[0] - logs[1], axis=-1))


@pytest.mark.parametrize("arms", [2, 3, 6, 7])
def test_nothing_that_arms_share_changes_their_effects(
    generator: np.random.Generator, arms: int
) -> None:
    logs = generator.normal(0, 0.01, (arms, 5, 9))
    logs[0, :, ::4] += 2.0  # spikes of one arm
    moved = logs + generator.normal(0, 3, (1, 5, 9))
    before, after = effects(logs), effects(moved)
    # Rounding alone: 3e-15 was the most over 200 seeds.
    np.testing.assert_allclose(after[1:] - after[:1], before[1:] - before[:1], atol=1e-12)


def test_effects_are_near_the_truth_and_ratios_are_transitive(
    generator: np.random.Generator,
) -> None:
    truth = np.array([0.0, 0.1, 0.7, -0.3])
    drift = np.cumsum(generator.normal(0, 0.05, (6, 40)), axis=-1)
    logs = truth[:, None, None] + drift + generator.normal(0, 0.01, (4, 6, 40))
    logs[generator.random(logs.shape) < 0.05] += 1.0
    logs[2, 3, :30] = NAN
    values = effects(logs).mean(axis=-1)
    # Noise of 1 % in 240 rounds of which some are missing: 0.005 was the most over 200 seeds.
    np.testing.assert_allclose(values - values[0], truth - truth[0], atol=0.01)


def test_the_time_of_an_arm_and_its_ratio_are_one_estimate(generator: np.random.Generator) -> None:
    result = effects_of(generator.normal(0, 0.3, (3, 6, 5)))
    seconds = np.exp(result.log_seconds().mean(axis=-1))
    ratio = np.exp(estimate(result.pairs(0, 2)).log_ratio)
    assert seconds[0] / seconds[2] == pytest.approx(float(ratio), rel=1e-12)


def test_a_missing_arm_is_missing_and_infinite_logs_are_refused() -> None:
    logs = np.zeros((3, 2, 4))
    logs[1, 0] = NAN
    values = effects(logs)
    assert np.isnan(values[1, 0]) and np.isfinite(np.delete(values.ravel(), 2)).all()
    with pytest.raises(ValueError, match="took no time"):
        effects(np.full((2, 6, 2), -np.inf))


# Variances that arms share


def test_variances_move_to_the_common_one(generator: np.random.Generator) -> None:
    pairs = estimate(generator.normal(0, [[0.01], [0.02], [0.01]], (3, 6)))
    prior = Prior(np.array(0.015**2), np.array(5.0))
    shared = moderated(pairs, prior, np.array([False, False, True]))
    own = pairs.standard_error**2 * 6
    expected = (5 * 0.015**2 + 5 * own) / 10
    np.testing.assert_allclose(shared.standard_error[:2] ** 2 * 6, expected[:2])
    np.testing.assert_array_equal(shared.freedom, [10, 10, 5])
    assert shared.standard_error[2] ** 2 * 6 == pytest.approx(max(own[2], 0.015**2))
    unknown = moderated(pairs, Prior(np.array(1.0), np.array(0.0)), np.array([False] * 3))
    np.testing.assert_array_equal(unknown.standard_error, pairs.standard_error)
    np.testing.assert_array_equal(unknown.freedom, pairs.freedom)


def test_similar_arms_share_all_that_they_know(generator: np.random.Generator) -> None:
    values = generator.normal(0, 0.01, (2000, 6, 6))
    every = effects_like(values)
    pairs = compared(every, *np.triu_indices(6, 1))
    assert np.median(pairs.estimate.freedom) == 5 + 5 * 5 / 2
    assert np.mean(pairs.estimate.standard_error**2 * 6) == pytest.approx(2e-4, rel=0.05)


def effects_like(values: Floats) -> Any:
    """Effects with these values, [session, arm, block]."""
    logs = values[..., None]
    return arm_effects(
        logs, np.ones(logs.shape[:1] + logs.shape[2:]), np.ones((len(values), values.shape[2]))
    )


@pytest.mark.parametrize("arms", [3, 6, 12])
def test_an_arm_unlike_the_others_keeps_its_variance(
    generator: np.random.Generator, arms: int
) -> None:
    values = generator.normal(0, 0.01, (2000, arms, 6))
    assert unlike_arms(values).any(axis=-1).mean() <= 0.03
    values[:, 0] *= 10
    flagged = unlike_arms(values)
    assert flagged[:, 0].mean() > (0.5 if arms == 3 else 0.95)
    assert flagged[:, 1:].any(axis=-1).mean() <= 0.03


def test_two_arms_share_nothing() -> None:
    pairs = compared(effects_like(np.random.default_rng(3).normal(size=(50, 2, 6))), *ONE_PAIR)
    assert set(pairs.estimate.freedom.ravel()) == {5}


ONE_PAIR = np.array([0]), np.array([1])


# Processes of two speeds


def needed(size: float, *spreads: float) -> int:
    """Processes that a difference of ``size`` needs, where arms show these spreads."""
    rest = np.array([[-spread / 2, spread / 2] for spread in spreads])
    return int(processes(np.array([size]), rest)[0])


def test_the_number_of_processes_that_a_statement_needs() -> None:
    # None shown: one hides with probability 2^(1 - n) <= 1/32.
    assert needed(0.05, 0.001, 0.002) == 6
    assert needed(-0.05, 0.001, 0.002) == 6
    # One is shown: 2 * 2^(1 - n) <= 1/32. Three are shown: 4 * 2^(1 - n).
    assert needed(0.05, 0.001, 0.10) == 7
    assert needed(0.05, 0.10, 0.10, 0.10, 0.001) == 8
    # Beyond the distance of one arm, two must hide on opposite sides: 2^(1 - 2 n) <= 1/32.
    assert needed(FARTHEST + 0.01, 0.001) == 3
    assert needed(2 * FARTHEST + 0.01, 9.0, 9.0) == 2


def test_all_processes_may_have_drawn_one_speed() -> None:
    """An arm of two speeds, 12 % to either side, whose six processes are all slow."""
    logs = flat(1.0, 1.0, 1.0, 1.12, 1.0, blocks=6)
    logs[4, ::2] += 0.24  # another arm shows two speeds
    result = comparison_verdicts(logs, names(5))
    pair = next(pair for pair in result.pairs if (pair.first, pair.second) == ("arm0", "arm3"))
    assert pair.verdict == Verdict.INCONCLUSIVE and pair.high < 1 / 1.02
    assert pair.reason == "7 processes of each arm are needed to exclude that some have two speeds"
    assert pair.further_blocks == 1
    more = comparison_verdicts(np.concatenate([logs, logs[:, :4]], axis=1), names(5))
    pair = next(pair for pair in more.pairs if (pair.first, pair.second) == ("arm0", "arm3"))
    assert pair.verdict == Verdict.FASTER


# Estimates from few blocks


@pytest.mark.parametrize("values", [[], [NAN, NAN], [0.3], [0.3, NAN]])
def test_one_block_says_nothing(values: list[float]) -> None:
    sample = estimate(np.array(values))
    assert sample.p_value() == sample.tie_p_value(0.1) == 1
    assert sample.half_width() == np.inf


def test_no_variance_is_certainty() -> None:
    same, apart = estimate(np.zeros(6)), estimate(np.full(6, 0.5))
    assert (same.p_value(), apart.p_value(), apart.p_value(0.4)) == (1, 0, 0)
    assert apart.interval() == (0.5, 0.5)
    assert (same.tie_p_value(0.1), apart.tie_p_value(0.1)) == (0, 1)
    assert bootstrap_t(np.full(6, 0.5), np.random.default_rng(0)) == (0.5, 0.5)


# Bootstrap-t


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bootstrap_t_of_normal_values_is_near_t(
    generator: np.random.Generator, confidence: float
) -> None:
    values = generator.normal(0.1, 0.02, 60)
    ours = np.array(bootstrap_t(values, generator, confidence=confidence))
    width = np.diff(estimate(values).interval(confidence))[0]
    assert np.abs(ours - estimate(values).interval(confidence)).max() < 0.08 * width
    for method in ("percentile", "BCa"):
        oracle = stats.bootstrap(
            (values,), np.mean, confidence_level=confidence, method=method, rng=generator
        )
        assert np.abs(ours - oracle.confidence_interval).max() < 0.12 * width


def test_bootstrap_t_is_the_textbook_loop(generator: np.random.Generator) -> None:
    values = generator.exponential(size=15)
    students = []
    for _ in range(5_000):
        drawn = generator.choice(values, len(values))
        students.append((drawn.mean() - values.mean()) / stats.sem(drawn))
    low, high = np.quantile(students, [0.025, 0.975])
    expected = values.mean() - stats.sem(values) * np.array([high, low])
    ours = bootstrap_t(values, generator, resamples=19_999)
    # Monte-Carlo error of these ends: 1 % (low) and 3 % (high) of the width; four of the latter
    np.testing.assert_allclose(ours, expected, atol=0.12 * (expected[1] - expected[0]))
    assert ours[1] - values.mean() > values.mean() - ours[0]  # leans to the long tail


def test_bootstrap_t_repeats_with_its_seed_and_drops_nan() -> None:
    values = np.array([0.01, NAN, 0.02, 0.04, 0.015, 0.03, NAN, 0.012])
    draws = [bootstrap_t(value, np.random.default_rng(5)) for value in (values, values)]
    draws.append(bootstrap_t(values[~np.isnan(values)], np.random.default_rng(5)))
    assert draws[0] == draws[1] == draws[2]


def test_bootstrap_t_of_too_few_blocks_is_everything(generator: np.random.Generator) -> None:
    assert bootstrap_t(np.array([0.3, NAN]), generator) == (-np.inf, np.inf)
    low, high = bootstrap_t(np.array([0.1, 0.3]), generator)
    assert (low, high) == (-np.inf, np.inf)  # half of the resamples draw one block twice


def test_an_interval_is_disputed_from_a_quarter_of_its_width() -> None:
    assert not disputed((0.0, 1.0), (0.25, 1.0))
    assert not disputed((0.0, 1.0), (-0.25, 1.25))
    assert disputed((0.0, 1.0), (0.26, 1.0))
    assert disputed((0.0, 1.0), (0.0, 1.26))


# Many hypotheses


def test_holm_by_hand() -> None:
    # Wright (1992), "Adjusted p-values for simultaneous inference", Biometrics 48: the arithmetic
    # of Holm's procedure on four p-values; 0.01 x 4, 0.02 x 3 -> 0.06, 0.03 x 2 -> 0.06, 0.04 x 1.
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.02])), [0.02])


@pytest.mark.parametrize("count", [1, 2, 6, 28])
def test_holm_is_the_procedure_of_1979(generator: np.random.Generator, count: int) -> None:
    """Ordered p-values against alpha / m, alpha / (m - 1), ... until the first failure."""
    for p_values in generator.random((50, count)) ** 4:
        for alpha in (0.0125, 0.05):
            rejected = np.zeros(count, bool)
            for step, at in enumerate(np.argsort(p_values)):
                if p_values[at] > alpha / (count - step):
                    break
                rejected[at] = True
            np.testing.assert_array_equal(holm(p_values) <= alpha, rejected)
            np.testing.assert_array_equal(p_values <= holm_levels(p_values, alpha), rejected)


def test_holm_levels_by_hand() -> None:
    levels = holm_levels(np.array([0.001, 0.9, 0.012, 0.5]), 0.05)
    np.testing.assert_allclose(levels, [0.05 / 4, 0.05 / 2, 0.05 / 3, 0.05 / 2])


def test_benjamini_hochberg_is_that_of_scipy(generator: np.random.Generator) -> None:
    for count in (1, 2, 15, 200):
        p_values = generator.random((7, count)) ** 3
        oracle = stats.false_discovery_control(p_values, axis=-1, method="bh")
        np.testing.assert_allclose(benjamini_hochberg(p_values), oracle, rtol=1e-12)


def test_both_corrections_agree_with_statsmodels(generator: np.random.Generator) -> None:
    from statsmodels.stats import multitest  # takes a second; one of the development tools

    p_values = generator.random(40) ** 3
    for ours, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        expected = multitest.multipletests(p_values, method=method)[1]
        np.testing.assert_allclose(ours(p_values), expected)


# Looks, margins, words


def test_the_margin_is_never_below_the_twins_own_difference_and_half_width() -> None:
    def twin(log_ratio: float, error: float, blocks: int = 6) -> Estimate:
        return estimate_of(log_ratio, error, blocks)

    assert effective_margin(0.02, None) == effective_margin(0.02, twin(-0.01, 0.001)) == TWO_PERCENT
    assert effective_margin(0.02, twin(-0.03, 0.001)) == 0.03
    assert effective_margin(0.02, twin(0.0, 0.02)) == pytest.approx(0.02 * stats.t.ppf(0.975, 5))
    assert effective_margin(0.02, twin(0.5, NAN, blocks=1)) == TWO_PERCENT


def estimate_of(log_ratio: float, error: float, blocks: int) -> Estimate:
    return Estimate(
        np.array(log_ratio), np.array(error), np.array(blocks), np.array(max(blocks - 1.0, 0))
    )


def one_word(log_ratio: float, error: float, blocks: int = 10, least: int = 0) -> str:
    pair = Estimate(*(np.array([value]) for value in (log_ratio, error, blocks, blocks - 1)))
    return str(decide(pair, TWO_PERCENT, np.array([least]))[0])


def test_words() -> None:
    assert one_word(0.05, 0.002) == one_word(-0.05, 0.002) == "faster"
    assert one_word(0.03, 0.005) == "faster, size uncertain"
    assert one_word(0.001, 0.002) == "tie"
    assert one_word(0.01, 0.001) == "tie"  # measurable, immaterial
    assert one_word(0.018, 0.003) == "inconclusive"  # differs from 0, within the margin, no tie
    assert one_word(0.05, 0.05) == "inconclusive"
    assert one_word(0.05, 0.0001, blocks=2) == "inconclusive"  # before the first look
    assert one_word(0.05, 0.0001, blocks=6, least=6) == "faster"
    assert one_word(0.05, 0.0001, blocks=6, least=7) == "inconclusive"
    assert one_word(0.03, 0.004, blocks=9, least=10) == "inconclusive"
    assert one_word(0.001, 0.0001, blocks=5) == "inconclusive"  # too few processes for a tie
    assert [str(word) for word in Verdict] == [
        "faster", "faster, size uncertain", "tie", "inconclusive", "void",
    ]  # fmt: skip


@pytest.mark.parametrize("log_ratio", [0.0, 0.01, 0.019, 0.0199, 0.02, 0.03, 0.05])
@pytest.mark.parametrize("error", [0.001, 0.004, 0.01])
def test_exchanging_the_arms_changes_no_word(log_ratio: float, error: float) -> None:
    assert one_word(log_ratio, error) == one_word(-log_ratio, error)


def test_faster_is_an_interval_beyond_the_margin(generator: np.random.Generator) -> None:
    for _ in range(200):
        arms = int(generator.integers(2, 7))
        logs = generator.normal(0, 0.005, (arms, 15, 3)) + generator.normal(0, 0.02, (arms, 1, 1))
        for pair in comparison_verdicts(logs, names(arms)).pairs:
            outside = pair.low > 1.02 or pair.high < 1 / 1.02
            assert outside == (pair.verdict == Verdict.FASTER)
            if pair.verdict == Verdict.SIZE_UNCERTAIN:
                assert pair.p_value <= ALPHA_PER_LOOK
                assert abs(np.log(pair.ratio)) > TWO_PERCENT


@pytest.mark.parametrize("log_ratio", [0.001, 0.015, 0.025, 0.04])
@pytest.mark.parametrize("deviation", [0.01, 0.03])
def test_blocks_needed_is_the_first_that_would_settle(log_ratio: float, deviation: float) -> None:
    blocks, alpha = 6, 0.0125

    def settled(count: int) -> bool:
        tail = alpha / 2 if log_ratio > TWO_PERCENT else 0.05
        half = stats.t.ppf(1 - tail, count - 1) * deviation / np.sqrt(count)
        return bool(half <= abs(log_ratio - TWO_PERCENT))

    pair = estimate_of(log_ratio, deviation / np.sqrt(blocks), blocks)
    expected = next((count - blocks for count in range(7, 201) if settled(count)), None)
    assert blocks_needed(pair, TWO_PERCENT, 0, alpha=alpha) == expected


def test_blocks_needed_counts_processes() -> None:
    pair = estimate_of(0.05, 0.001, 6)
    assert blocks_needed(pair, TWO_PERCENT, 9) == 3
    assert blocks_needed(estimate_of(0.0, 0.001, 4), TWO_PERCENT, 9) == 2  # a tie needs six


def test_blocks_needed_gives_up() -> None:
    for log_ratio, error, blocks in ((TWO_PERCENT, 0.01, 6), (0.0201, 0.01, 6), (0.5, NAN, 1)):
        assert blocks_needed(estimate_of(log_ratio, error, blocks), TWO_PERCENT, 0) is None


# Cells


def test_a_cell_has_a_fastest_set() -> None:
    result = comparison_verdicts(flat(1.0, 1.001, 1.10, 1.30), names(4))
    assert result.fastest == ("arm0", "arm1")
    table = {(pair.first, pair.second): (str(pair.verdict), pair.faster) for pair in result.pairs}
    assert table["arm0", "arm1"] == ("tie", None)
    assert table["arm0", "arm2"] == ("faster", "arm0")
    assert table["arm2", "arm3"] == ("faster", "arm2")
    assert result.settled and len(result.pairs) == 6
    assert result.pairs[1].ratio == pytest.approx(1 / 1.10)
    assert result.margin == pytest.approx(0.02)


@pytest.mark.parametrize("count", range(1, 9))
def test_identical_arms_tie(count: int) -> None:
    result = comparison_verdicts(np.zeros((count, 6, 4)), names(count))
    assert words(result) == [Verdict.TIE] * (count * (count - 1) // 2)
    assert result.fastest == tuple(names(count))


def test_a_verdict_does_not_depend_on_the_order_of_arms(generator: np.random.Generator) -> None:
    logs = flat(1.0, 1.03, 1.06, deviation=0.006) + generator.normal(0, 0.004, (3, 6, 4))
    verdicts = []
    for order in itertools.permutations(range(3)):
        result = comparison_verdicts(logs[list(order)], [names(3)[at] for at in order])
        pairs = {frozenset((pair.first, pair.second)): pair for pair in result.pairs}
        verdicts.append({key: (pair.verdict, pair.faster) for key, pair in pairs.items()})
    assert all(other == verdicts[0] for other in verdicts)


def test_blocks_past_a_look_wait() -> None:
    logs = np.concatenate([flat(1.0, 1.1, blocks=6), flat(1.0, 0.5, blocks=3)], axis=1)
    result = comparison_verdicts(logs, names(2))
    assert result == replace(comparison_verdicts(logs[:, :6], names(2)), blocks=9)
    assert result.pairs[0].blocks == 6
    for level, blocks in (("standard", 20), ("thorough", 30)):
        pair = comparison_verdicts(flat(1.0, 1.1, blocks=30), names(2), level=level).pairs[0]
        assert pair.blocks == blocks


@pytest.mark.parametrize(("level", "blocks"), [("smoke", 30), ("standard", 2), ("quick", 1)])
def test_no_verdict_without_a_look(level: str, blocks: int) -> None:
    result = comparison_verdicts(flat(1.0, 2.0, blocks=blocks), names(2), level=level)
    assert words(result) == [Verdict.INCONCLUSIVE] and not result.settled
    assert result.pairs[0].reason == f"no look at {blocks} blocks"
    assert result.fastest == ("arm0", "arm1")


@pytest.mark.parametrize(
    ("ratio", "word"), [(1.0, "tie"), (1.04, "inconclusive"), (1.08, "faster")]
)
def test_a_quick_run_calls_nobody_a_little_faster(ratio: float, word: str) -> None:
    pair = comparison_verdicts(flat(1.0, ratio), names(2), level="quick").pairs[0]
    assert pair.verdict == word
    assert pair.reason == ("nothing below 5% at level quick" if word == "inconclusive" else "")


@pytest.mark.parametrize(
    ("ratio", "sessions", "provisional"),
    [(1.04, 1, True), (1.04, 2, False), (1.0, 1, True), (1.08, 1, False)],
)
def test_small_verdicts_of_one_session_are_provisional(
    ratio: float, sessions: int, provisional: bool
) -> None:
    result = comparison_verdicts(flat(1.0, ratio), names(2), sessions=sessions)
    assert result.pairs[0].provisional == provisional


def test_what_is_inconclusive_is_not_provisional_and_says_how_far() -> None:
    pair = comparison_verdicts(flat(1.0, 1.01, deviation=0.02), names(2)).pairs[0]
    assert pair.verdict == Verdict.INCONCLUSIVE and not pair.provisional
    assert pair.further_blocks is not None and pair.further_blocks > 0
    assert comparison_verdicts(flat(1.0, 1.0), names(2)).pairs[0].further_blocks is None


def test_further_blocks_are_counted_at_the_pairs_own_level() -> None:
    logs = flat(1.0, 1.04, 1.2, deviation=0.03)
    cell = comparison_verdicts(logs, names(3))
    pair = cell.pairs[0]
    pairs = compared(effects_of(logs), *ONE_PAIR)
    one = Estimate(*(getattr(pairs.estimate, name)[0] for name in vars(pairs.estimate)))
    expected = blocks_needed(one, TWO_PERCENT, pairs.processes[0], alpha=1 - pair.confidence)
    assert pair.verdict == Verdict.INCONCLUSIVE and pair.further_blocks == expected
    assert expected != blocks_needed(one, TWO_PERCENT, pairs.processes[0], alpha=0.9)


def disturbed_case(share: float, shift: float) -> dict[str, Any]:
    """In each block the first of ten rounds are bad, and slow for the second arm."""
    logs = flat(1.0, 1.1, rounds=10)
    bad = np.zeros((6, 10), bool)
    bad[:, : int(10 * share)] = True
    logs[1][bad] += shift
    return {"logs": logs, "arms": names(2), "disturbed": bad}


def test_disturbed_rounds_count_for_a_seventh() -> None:
    """Six disturbed rounds of ten weigh less than the other four, seven of eight as much as one."""
    true_ratio = comparison_verdicts(**disturbed_case(0.0, 0.0)).pairs[0].ratio
    outvoted = comparison_verdicts(**disturbed_case(0.6, 0.5)).pairs[0]
    assert outvoted.ratio == pytest.approx(true_ratio)
    unmarked = {**disturbed_case(0.6, 0.5), "disturbed": None}
    assert comparison_verdicts(**unmarked).pairs[0].ratio < 0.7 * true_ratio


def test_noise_alone_voids_nothing() -> None:
    result = comparison_verdicts(**disturbed_case(1.0, 0.0))
    assert words(result) == [Verdict.FASTER] and not result.void


def test_a_disturbed_block_counts_for_half() -> None:
    logs = flat(1.0, 1.0, deviation=0.0)
    logs[1, 0] += 0.3
    disturbed = np.zeros((6, 4), bool)
    disturbed[0] = True
    ratio = comparison_verdicts(logs, names(2), disturbed=disturbed).pairs[0].ratio
    assert np.log(ratio) == pytest.approx(-0.3 * 0.5 / 5.5)


def test_a_twin_that_differs_is_void_and_meets_nobody() -> None:
    logs = flat(1.0, 1.3, 1.001)
    twin = ("arm0", "arm2")
    result = comparison_verdicts(logs, names(3), twin=twin)
    assert [(pair.first, pair.second) for pair in result.pairs] == [("arm0", "arm1")]
    assert words(result) == [Verdict.FASTER] and result.fastest == ("arm0",)
    void = comparison_verdicts(flat(1.0, 1.3, 1.02), names(3), twin=twin)
    assert words(void) == [Verdict.VOID] and void.fastest == ()
    assert void.void == ("the A/A twin differs by -1.96%",)
    logs[2, 1:] = np.nan
    assert "only 1 block" in comparison_verdicts(logs, names(3), twin=twin).void[0]


@pytest.mark.parametrize(("p_value", "void"), [(0.009, True), (0.011, False)])
def test_a_twin_is_void_where_its_99_percent_interval_excludes_0(
    p_value: float, void: bool
) -> None:
    wobble = np.array([1.0, -1.0, 2.0, -2.0, 0.5, -0.5]) * 0.01
    shift = stats.t.ppf(1 - p_value / 2, 5) * stats.sem(wobble)
    logs = np.stack([wobble + shift, np.zeros(6)])[..., None]
    assert bool(comparison_verdicts(logs, names(2), twin=("arm0", "arm1")).void) == void


def test_a_noisy_twin_widens_the_margin() -> None:
    logs = np.concatenate([flat(1.0, 1.04), flat(1.0, deviation=0.05)])
    assert words(comparison_verdicts(logs[:2], names(2))) == [Verdict.FASTER]
    result = comparison_verdicts(logs, names(3), twin=("arm0", "arm2"))
    assert words(result) == [Verdict.TIE] and result.margin > 0.04


def test_a_failed_check_is_void() -> None:
    result = comparison_verdicts(flat(1.0, 1.3), names(2), failed_checks=["the fence is partial"])
    assert words(result) == [Verdict.VOID] and result.pairs[0].reason == "the fence is partial"
    assert result.settled and not result.pairs[0].provisional


def test_an_arm_without_data_is_not_among_the_fastest() -> None:
    logs = flat(1.0, 1.3, 1.0)
    logs[2] = np.nan
    result = comparison_verdicts(logs, names(3))
    assert words(result) == [Verdict.FASTER, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE]
    assert result.fastest == ("arm0",)


def test_bootstrap_marks_but_does_not_decide(generator: np.random.Generator) -> None:
    logs = flat(1.0, 1.1, blocks=10)
    logs[1] += np.array([0] * 9 + [0.15])[:, None]
    with_bootstrap = comparison_verdicts(logs, names(2), generator=generator)
    without = comparison_verdicts(logs, names(2))
    assert with_bootstrap.pairs[0].disputed and not without.pairs[0].disputed
    assert words(with_bootstrap) == words(without)
    again = comparison_verdicts(logs, names(2), generator=np.random.default_rng(1979))
    assert again == with_bootstrap


# Components, rounds, seconds


def test_components_of_a_balanced_design_are_the_mean_squares(
    generator: np.random.Generator,
) -> None:
    blocks, rounds, steps = 5, 4, 3
    values = generator.normal(size=(blocks, rounds, steps)) + generator.normal(size=(blocks, 1, 1))
    of_rounds, of_blocks = values.mean(axis=2), values.mean(axis=(1, 2))
    within = values.var(axis=2, ddof=1).mean()
    middle = steps * of_rounds.var(axis=1, ddof=1).mean()
    outer = rounds * steps * of_blocks.var(ddof=1)
    expected = [(outer - middle) / (rounds * steps), (middle - within) / steps, within]
    np.testing.assert_allclose(variance_components(values), np.maximum(expected, 0))
    one_way = stats.f_oneway(*values.reshape(blocks, -1)).statistic
    block, residual = variance_components(values.reshape(blocks, -1))
    assert 1 + rounds * steps * block / residual == pytest.approx(max(one_way, 1))


def test_components_of_an_unbalanced_design_by_hand() -> None:
    # One-way, groups of 1, 2 and 3: Searle et al. (1992), section 3.6: s2_a = (MSA - MSE) / n0
    # with n0 = (N - sum n_i^2 / N) / (a - 1) = (6 - 14 / 6) / 2.
    values = np.array([[1.0, NAN, NAN], [4.0, 6.0, NAN], [9.0, 10.0, 14.0]])
    within = (2.0 + 14.0) / 3
    between = (1 * (1 - 44 / 6) ** 2 + 2 * (5 - 44 / 6) ** 2 + 3 * (11 - 44 / 6) ** 2) / 2
    expected = [(between - within) / ((6 - 14 / 6) / 2), within]
    np.testing.assert_allclose(variance_components(values), expected)


def test_components_are_unbiased_however_unbalanced(generator: np.random.Generator) -> None:
    truth = np.array([9.0, 4.0, 1.0])  # far from 0, where truncation would bias
    missing = generator.random((12, 5, 4)) < 0.3
    missing[0, 1:] = True
    components = []
    for _ in range(600):
        effects = [
            generator.normal(size=(12, 5, 4)[:level] + (1,) * (3 - level)) for level in (1, 2, 3)
        ]
        values = sum(np.sqrt(truth[at]) * effect for at, effect in enumerate(effects))
        components.append(variance_components(np.where(missing, NAN, values)))
    error = np.std(components, axis=0) / np.sqrt(len(components))
    assert (np.abs(np.mean(components, axis=0) - truth) < 4 * error).all()


def test_components_without_degrees_of_freedom() -> None:
    assert np.isnan(variance_components(np.array([[1.0], [2.0]]))[1])
    assert np.isnan(variance_components(np.full((3, 2), NAN))).all()
    np.testing.assert_array_equal(variance_components(np.ones((3, 4))), [0, 0])


@pytest.mark.parametrize(
    ("start", "one", "within", "between", "rounds"),
    [
        (40.0, 1.0, 4.0, 1.0, 14),  # sqrt(160) = 12.6
        (16.0, 1.0, 4.0, 1.0, 8),  # exactly
        (1.0, 1.0, 1.0, 1.0, 6),
        (1e6, 1.0, 1.0, 1.0, 60),
        (1.0, 1.0, 1.0, 0.0, 60),
        (1.0, 1.0, 0.0, 0.0, 6),
    ],
)
def test_rounds_per_block(
    start: float, one: float, within: float, between: float, rounds: int
) -> None:
    planned = rounds_per_block(
        block_seconds=start, round_seconds=one, within=within, between=between
    )
    assert planned == rounds


def test_the_rounds_are_the_best_for_the_time() -> None:
    start, one, within, between = 30.0, 0.8, 3.0, 1.0

    def variance_for_a_second(rounds: int) -> float:
        return (between + within / rounds) * (start + rounds * one)

    best = min(range(6, 61, 2), key=variance_for_a_second)
    planned = rounds_per_block(
        block_seconds=start, round_seconds=one, within=within, between=between
    )
    assert abs(planned - best) <= 2
    assert variance_for_a_second(planned) < 1.01 * variance_for_a_second(best)


# Break-even and summaries


def arms_of(startup: tuple[float, float], step: tuple[float, float]) -> tuple[Floats, Floats]:
    wobble = 1 + 0.01 * np.array([[1, -1, 2, 0, -2, 1, 0, -1], [0, 1, -1, 2, 1, -2, -1, 0]])
    return np.array(startup)[:, None] * wobble, np.array(step)[:, None] * wobble


@pytest.mark.parametrize(
    ("startup", "step", "ahead", "steps"),
    [
        ((30.0, 10.0), (0.010, 0.020), "above", 2000),
        ((10.0, 30.0), (0.020, 0.010), "below", 2000),
        ((10.0, 30.0), (0.010, 0.020), "always", 0),
        ((30.0, 10.0), (0.020, 0.010), "never", 0),
    ],
)
def test_break_even(
    startup: tuple[float, float], step: tuple[float, float], ahead: str, steps: float
) -> None:
    point = break_even(*arms_of(startup, step), np.random.default_rng(3))
    assert point.first_ahead == ahead
    assert point.steps == pytest.approx(steps, rel=0.01)
    assert point.low <= point.steps <= point.high
    assert point == break_even(*arms_of(startup, step), np.random.default_rng(3))


def test_break_even_may_never_come(generator: np.random.Generator) -> None:
    startup, step = np.array([[30.0] * 6, [10.0] * 6]), np.array([[0.01] * 6, [0.01] * 6])
    assert break_even(startup, step, generator).first_ahead == "never"
    assert break_even(startup[::-1], step, generator).first_ahead == "always"
    step[1] += np.array([1, -1, 1, -1, 1, -0.5]) * 1e-3
    point = break_even(startup, step, generator)
    assert point.first_ahead == "above" and point.high == np.inf and point.low > 0


def test_the_break_even_interval_is_widened_for_few_blocks() -> None:
    """With equal gains it is the mean's own: Hesterberg's sqrt(6 / 5) t(5) deviations / sqrt(6)."""
    debt = stats.norm.ppf((np.arange(6) + 0.5) / 6) + 100.0
    startup, step = np.stack([debt, np.zeros(6)]), np.array([[1.0] * 6, [2.0] * 6])
    points = [break_even(startup, step, np.random.default_rng(seed)) for seed in range(30)]
    half = np.mean([point.high - point.low for point in points]) / 2
    generator = np.random.default_rng(99)
    means = debt[generator.integers(6, size=(400_000, 6))].mean(axis=1)
    tail = stats.norm.cdf(np.sqrt(6 / 5) * stats.t.ppf(0.025, 5))
    low, high = np.quantile(means, [tail, 1 - tail])
    assert half == pytest.approx((high - low) / 2, rel=0.02)


def test_break_even_needs_every_value_of_two_blocks(generator: np.random.Generator) -> None:
    for blocks in (np.ones((2, 1)), np.full((2, 6), NAN)):
        with pytest.raises(ValueError, match="two or more"):
            break_even(blocks, blocks, generator)


def summary_of(ratios: list[float], planned: int) -> Across:
    pairs = [comparison_verdicts(flat(ratio, 1.0), names(2)).pairs[0] for ratio in ratios]
    pairs.append(comparison_verdicts(flat(3.0, 1.0), names(2), failed_checks=["no fence"]).pairs[0])
    return summarise(pairs, planned, np.random.default_rng(8))


def test_summaries_count_every_cell_and_average_by_the_geometric_mean() -> None:
    ratios = [0.5, 2.0, 1.0, 0.8, 0.8, 0.9, 0.7, 1.1]
    across = summary_of(ratios, planned=12)  # one of them is void
    assert across.ratio == pytest.approx(stats.gmean(ratios))
    assert (across.wins, across.ties, across.losses) == (5, 1, 2)
    assert (across.open, across.void, across.missing) == (0, 1, 3)
    assert across.coverage == 9 / 12
    assert across.low < across.ratio < across.high


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_summary_of_few_comparisons_has_no_interval(count: int) -> None:
    across = summary_of([0.5, 2.0, 1.0, 0.8, 0.8, 0.9, 0.7][:count], planned=10)
    assert np.isnan([across.low, across.high]).all()
    assert across.wins > 0
