"""Decides the verdict of every pair of arms at a look.

``levelfield.harness.statistics.estimates`` has the intervals and p-values,
``levelfield.harness.statistics.corrections`` the corrections for several pairs at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]  # far lighter than scipy.stats

from levelfield.harness.statistics.corrections import holm, holm_levels
from levelfield.harness.statistics.estimates import (
    Estimate,
    Flags,
    Floats,
    bootstrap_t,
    clean_blocks,
    estimate,
    paired_blocks,
)
from levelfield.harness.statistics.levels import LEVELS, LOOKS

ALPHA_PER_LOOK = 0.0125  # also in quick runs, because they may be continued as longer ones
TIE_ALPHA = 0.05  # for each of the two one-sided tests
# A comparison is void if the A/A twin differs at this level, or above this share of rounds in
# quarantine.
VOID_ALPHA, VOID_SHARE = 0.01, 0.30
# A verdict below this difference is provisional after one session; a quick run does not give it.
SMALL = 0.05
DISPUTE_SHARE = 0.25  # of the t interval's width
MOST_BLOCKS = 200  # in all; no run waits longer than this for a verdict


class Verdict(StrEnum):
    """The verdict on a pair of arms."""

    FASTER = "faster"
    SIZE_UNCERTAIN = "faster, size uncertain"
    TIE = "tie"
    INCONCLUSIVE = "inconclusive"
    VOID = "void"


BEATEN = (Verdict.FASTER, Verdict.SIZE_UNCERTAIN)


def disputed(t_interval: tuple[Any, Any], boot_interval: tuple[Any, Any]) -> bool:
    """Whether an endpoint differs by more than a quarter of the t interval's width.

    A dispute is only a mark next to the verdict; the verdict always follows t. The t interval keeps
    its coverage in every simulated world, while bootstrap-t is erratic with few blocks. It disputes
    35 % of honest data at 6 blocks, 12 % at 10 and under 1 % at 20. Obeying it at 6 blocks would
    lose a sixth of planted 5 % differences.
    """
    (low, high), (boot_low, boot_high) = t_interval, boot_interval
    apart = max(abs(low - boot_low), abs(high - boot_high))
    return bool(apart > DISPUTE_SHARE * (high - low))


def effective_margin(margin: float, twin: Estimate | None) -> float:
    """Margin of the log ratio: never below the A/A twin's own difference and 95 % half-width.

    ``margin`` is a fraction. The margin is symmetric on logs (0.02 allows ratios from 1 / 1.02 to
    1.02), so that exchanging the arms of a pair cannot change its verdict.
    """
    if twin is None or twin.blocks < 2:
        return float(np.log1p(margin))
    return float(max(np.log1p(margin), np.abs(twin.log_ratio), twin.half_width()))


def decide(pairs: Estimate, margin: float, *, alpha: float = ALPHA_PER_LOOK) -> NDArray[np.str_]:
    """Words for all pairs of a comparison (the last axis) at one look; ``margin`` of the log ratio.

    ``faster``: Holm rejects |log ratio| <= margin. ``faster, size uncertain``: Holm rejects a log
    ratio of 0, and the estimate is beyond the margin. Each of the two kinds of statement is wrong
    for any pair with probability at most alpha. For identical arms this bound holds for both kinds
    together, since a ratio beyond the margin also differs from 0. Ties are tested pair by pair at
    5 %; a tie may differ from 0.
    """
    beyond = holm(pairs.p_value(margin)) <= alpha
    differs = (holm(pairs.p_value()) <= alpha) & (np.abs(pairs.log_ratio) > margin)
    tie = pairs.tie_p_value(margin) <= TIE_ALPHA
    words = [Verdict.INCONCLUSIVE, Verdict.FASTER, Verdict.TIE, Verdict.SIZE_UNCERTAIN]
    return np.select([pairs.blocks < LOOKS[0], beyond, tie, differs], words, words[0])


def blocks_needed(pair: Estimate, margin: float, *, alpha: float = ALPHA_PER_LOOK) -> int | None:
    """Further blocks that would settle one pair if its estimate stayed; None beyond 200 in all.

    The total is the smallest B for which one of two conditions holds: "faster" if
    t(1 - alpha / 2, B - 1) s / sqrt(B) <= |estimate| - margin, and "tie" if
    t(0.95, B - 1) s / sqrt(B) <= margin - |estimate|. s is the deviation of block values.
    """
    distance = float(np.abs(pair.log_ratio)) - margin
    every = np.arange(max(int(pair.blocks) + 1, LOOKS[0]), MOST_BLOCKS + 1)
    quantile = special.stdtrit(every - 1, 1 - (alpha / 2 if distance > 0 else TIE_ALPHA))
    half_width = quantile * pair.standard_error * np.sqrt(pair.blocks / every)
    settling = every[half_width <= abs(distance)] if distance else every[:0]
    return int(settling[0] - pair.blocks) if len(settling) else None


@dataclass(frozen=True)
class PairVerdict:
    """The verdict on one pair; ``ratio`` is seconds of ``first`` over seconds of ``second``.

    The interval from ``low`` to ``high`` has the pair's own level (``holm_levels``). It is beyond
    the margin exactly if the verdict on the clean rounds is "faster". ``p_value`` is Holm's p-value
    for a ratio of 1.
    """

    first: str
    second: str
    verdict: Verdict
    faster: str | None
    ratio: float
    low: float
    high: float
    confidence: float
    p_value: float
    blocks: int
    provisional: bool
    disputed: bool
    further_blocks: int | None
    reason: str

    def turned(self) -> PairVerdict:
        """Return the same verdict for the second arm over the first."""
        with np.errstate(divide="ignore"):  # an end that rounds to 0 becomes infinite
            ratio, high, low = (float(1 / np.float64(x)) for x in (self.ratio, self.low, self.high))
        return replace(self, first=self.second, second=self.first, ratio=ratio, low=low, high=high)

    def beats(self, arm: str) -> bool:
        """Whether the other arm of the pair is faster than this one."""
        return self.faster is not None and arm in (self.first, self.second) and arm != self.faster


@dataclass(frozen=True)
class ComparisonVerdicts:
    """One look at a comparison; ``margin`` is the effective one, as a fraction."""

    blocks: int
    margin: float
    pairs: tuple[PairVerdict, ...]
    fastest: tuple[str, ...]  # measured arms that no arm beats; none where void
    void: tuple[str, ...]  # reasons

    @property
    def settled(self) -> bool:
        """Whether no pair is left for further blocks to settle."""
        return all(pair.verdict != Verdict.INCONCLUSIVE for pair in self.pairs)


def _void(twin: Estimate | None, share: float) -> list[str]:
    reasons = [f"{share:.0%} of the rounds are in quarantine"] if share > VOID_SHARE else []
    if twin is not None and twin.blocks < LOOKS[0]:
        reasons.append(f"the A/A twin has only {twin.blocks} blocks")
    elif twin is not None and twin.p_value() < VOID_ALPHA:
        reasons.append(f"the A/A twin differs by {np.expm1(twin.log_ratio):+.2%}")
    return reasons


def _statements(pairs: Estimate, margin: float) -> list[tuple[Verdict, int]]:
    """Word and direction of each pair: 1 where the first is slower, 0 where no arm is slower."""
    words = [Verdict(str(word)) for word in decide(pairs, margin)]
    signs = np.sign(pairs.log_ratio)
    return [(word, int(signs[at]) if word in BEATEN else 0) for at, word in enumerate(words)]


@dataclass(frozen=True)
class _Pairs:
    """The numbers of all pairs of a comparison at one look; every array has one entry per pair."""

    names: list[tuple[str, str]]
    values: Floats  # [pair, block], of the clean rounds
    estimate: Estimate
    margin: float  # of the log ratio
    levels: Floats
    low: Floats
    high: Floats
    p_values: Floats
    small: Flags

    def one(self, at: int) -> Estimate:
        """Return the estimate of one pair."""
        every = self.estimate
        return Estimate(every.log_ratio[at], every.standard_error[at], every.blocks[at])


def comparison_verdicts(  # noqa: PLR0913 - two by position, the rest have defaults
    logs: Floats,
    arms: Sequence[str],
    *,
    margin: float = 0.02,
    level: str = "standard",
    quarantined: Flags | None = None,
    twin: tuple[str, str] | None = None,
    failed_checks: Sequence[str] = (),
    sessions: int = 1,
    generator: Generator | None = None,
) -> ComparisonVerdicts:
    """Return verdicts on all pairs of a comparison at the last look of its level.

    ``logs`` has shape [arm, block, round]. ``margin`` is a fraction. ``quarantined`` [block, round]
    applies to all arms. A verdict must be the same with and without those rounds. ``twin`` is the
    A/A pair; its second arm is compared with no other arm. ``sessions`` is the number of sessions
    that agree. With a ``generator``, bootstrap-t may dispute 95 % intervals. Blocks after a look
    wait for the next look: a verdict on them would be one look more. A look uses as many blocks
    with a clean round as its number says, if there are so many.
    """
    bad = np.zeros(logs.shape[1:], bool) if quarantined is None else quarantined
    look, end = _last_look(logs, bad, level)
    logs, bad = logs[:, :end], bad[:end]
    clean = np.where(bad, np.nan, logs)
    control = estimate(paired_blocks(clean, *map(list(arms).index, twin))) if twin else None
    void = (*failed_checks, *(_void(control, _bad_share(logs, bad)) if look else ()))

    compared = np.array([at for at, arm in enumerate(arms) if twin is None or arm != twin[1]])
    first, second = compared[np.array(np.triu_indices(len(compared), 1))]
    names = [(arms[one], arms[other]) for one, other in zip(first, second, strict=True)]
    limit = effective_margin(margin, control)
    pairs = _pairs(names, paired_blocks(clean, first, second), limit)
    with_all = _statements(estimate(paired_blocks(logs, first, second)), limit)
    verdicts = []
    for at, statement in enumerate(_statements(pairs.estimate, limit)):
        reason = "; ".join(void)
        if not reason and look is None:
            reason = f"no look at {logs.shape[1]} blocks"
        elif not reason:
            reason = _objection(statement, with_all[at], level, small=bool(pairs.small[at]))
        if reason:
            statement = (Verdict.VOID if void else Verdict.INCONCLUSIVE, statement[1])
        verdict = _pair_verdict(pairs, at, statement, reason, sessions=sessions)
        if generator is not None:
            boot = bootstrap_t(pairs.values[at], generator)
            verdict = replace(verdict, disputed=disputed(pairs.one(at).interval(), boot))
        verdicts.append(verdict)
    measured = [arms[at] for at in compared if not void and not np.isnan(clean[at]).all()]
    return ComparisonVerdicts(
        blocks=logs.shape[1],
        margin=float(np.expm1(limit)),
        pairs=tuple(verdicts),
        fastest=tuple(arm for arm in measured if not any(pair.beats(arm) for pair in verdicts)),
        void=void,
    )


def _last_look(logs: Floats, bad: Flags, level: str) -> tuple[int | None, int | None]:
    """Return the last look of a level that has its blocks, and the end of the blocks it uses."""
    look = max((at for at in LEVELS[level] if at <= logs.shape[1]), default=None)
    clean_ones = np.flatnonzero(clean_blocks(logs, bad))
    return look, clean_ones[look - 1] + 1 if look and len(clean_ones) >= look else None


def _bad_share(logs: Floats, bad: Flags) -> float:
    """Return the share of the measured rounds that are in quarantine."""
    present = ~np.isnan(logs).all(axis=0)
    return float(np.sum(bad & present)) / max(int(np.sum(present)), 1)


def _pairs(names: list[tuple[str, str]], values: Floats, margin: float) -> _Pairs:
    """Compute the numbers of all pairs from block values; ``margin`` of the log ratio."""
    estimates = estimate(values)
    levels = holm_levels(estimates.p_value(margin), ALPHA_PER_LOOK)
    low, high = np.exp(estimates.interval(1 - levels))
    return _Pairs(
        names=names,
        values=values,
        estimate=estimates,
        margin=margin,
        levels=levels,
        low=low,
        high=high,
        p_values=holm(estimates.p_value()),
        small=np.abs(estimates.log_ratio) < np.log1p(SMALL),
    )


def _objection(
    clean: tuple[Verdict, int], with_all: tuple[Verdict, int], level: str, *, small: bool
) -> str:
    """Return why the statement on the clean rounds does not count, or "" if it does."""
    if with_all != clean:
        return f"with rounds in quarantine: {with_all[0]}"
    if level == "quick" and small and clean[0] in BEATEN:
        return f"nothing below {SMALL:.0%} at level {level}"
    return ""


def _pair_verdict(
    pairs: _Pairs, at: int, statement: tuple[Verdict, int], reason: str, *, sessions: int
) -> PairVerdict:
    """Return the verdict on one pair, not yet disputed."""
    word, sign = statement
    names, one, level = pairs.names[at], pairs.one(at), pairs.levels[at]
    unsettled = word == Verdict.INCONCLUSIVE
    stands = word not in (Verdict.VOID, Verdict.INCONCLUSIVE)
    return PairVerdict(
        *names,
        verdict=word,
        faster=names[sign > 0] if word in BEATEN else None,
        ratio=float(np.exp(one.log_ratio)),
        low=float(pairs.low[at]),
        high=float(pairs.high[at]),
        confidence=float(1 - level),
        p_value=float(pairs.p_values[at]),
        blocks=int(one.blocks),
        provisional=bool(pairs.small[at]) and sessions < 2 and stands,
        disputed=False,
        further_blocks=blocks_needed(one, pairs.margin, alpha=level) if unsettled else None,
        reason=reason,
    )
