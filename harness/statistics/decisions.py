"""Decides the verdict of every pair of arms at a look.

``levelfield.harness.statistics.effects`` separates the arms from the machine,
``levelfield.harness.statistics.moderation`` compares them,
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
from levelfield.harness.statistics.effects import Effects, arm_effects
from levelfield.harness.statistics.estimates import Estimate, Flags, Floats, bootstrap_t
from levelfield.harness.statistics.levels import LEVELS, LOOKS
from levelfield.harness.statistics.moderation import HIDDEN, ComparedPairs, compared

ALPHA_PER_LOOK = 0.0075  # also in quick runs, because they may be continued as longer ones
TIE_ALPHA = 0.05  # for each of the two one-sided tests
TIE_PROCESSES = 1 - np.log2(HIDDEN)  # of each arm: see moderation.processes, with no arm shown
VOID_ALPHA = 0.01  # a comparison is void if the A/A twin differs at this level
# Weights of rounds, and of blocks in which most rounds are, that other programs disturbed. Pairing
# within rounds protects from most of a disturbance; a disturbed round scatters up to 2.7 times as
# much as another one (the published runs), so it knows a seventh as much.
DISTURBED_ROUND, DISTURBED_BLOCK = 1 / 7, 1 / 2
BOOTSTRAP_BLOCKS = 10  # with fewer, bootstrap-t is too erratic to say anything (``disputed``)
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


def decide(
    pairs: Estimate, margin: float, processes: Floats, *, alpha: float = ALPHA_PER_LOOK
) -> NDArray[np.str_]:
    """Words for all pairs of a comparison (the last axis) at one look; ``margin`` of the log ratio.

    ``processes``: how many of each arm a statement needs (``moderation.processes``).

    ``faster``: Holm rejects |log ratio| <= margin. ``faster, size uncertain``: Holm rejects a log
    ratio of 0, and the estimate is beyond the margin. Each of the two kinds of statement is wrong
    for any pair with probability at most alpha. For identical arms this bound holds for both kinds
    together, since a ratio beyond the margin also differs from 0. Ties are tested pair by pair at
    5 %; a tie may differ from 0.
    """
    enough = pairs.blocks >= np.maximum(processes, LOOKS[0])
    beyond = (holm(pairs.p_value(margin)) <= alpha) & enough
    differs = (holm(pairs.p_value()) <= alpha) & (np.abs(pairs.log_ratio) > margin) & enough
    tie = (pairs.tie_p_value(margin) <= TIE_ALPHA) & (pairs.blocks >= TIE_PROCESSES)
    words = [Verdict.FASTER, Verdict.TIE, Verdict.SIZE_UNCERTAIN]
    return np.select([beyond, tie, differs], words, Verdict.INCONCLUSIVE)


def blocks_needed(
    pair: Estimate, margin: float, processes: float, *, alpha: float = ALPHA_PER_LOOK
) -> int | None:
    """Further blocks that would settle one pair if its estimate stayed; None beyond 200 in all.

    The total is the smallest B for which one of two conditions holds: "faster" if B is at least
    ``processes`` and t(1 - alpha / 2, f) s / sqrt(B) <= |estimate| - margin, and "tie" if B is at
    least ``TIE_PROCESSES`` and t(0.95, f) s / sqrt(B) <= margin - |estimate|. s is the deviation of
    block values. Its degrees of freedom f grow in proportion to B - 1.
    """
    distance = float(np.abs(pair.log_ratio)) - margin
    least = processes if distance > 0 else TIE_PROCESSES
    every = np.arange(max(int(pair.blocks) + 1, LOOKS[0], int(least)), MOST_BLOCKS + 1)
    freedom = pair.freedom * (every - 1) / max(float(pair.blocks) - 1, 1)
    quantile = special.stdtrit(
        np.maximum(freedom, 1), 1 - (alpha / 2 if distance > 0 else TIE_ALPHA)
    )
    half_width = quantile * pair.standard_error * np.sqrt(pair.blocks / every)
    settling = every[half_width <= abs(distance)] if distance else every[:0]
    return int(settling[0] - pair.blocks) if len(settling) else None


@dataclass(frozen=True)
class PairVerdict:
    """The verdict on one pair; ``ratio`` is seconds of ``first`` over seconds of ``second``.

    The interval from ``low`` to ``high`` has the pair's own level (``holm_levels``). It is beyond
    the margin if the verdict is "faster". ``p_value`` is Holm's p-value for a ratio of 1.
    ``reason`` says why a verdict is void or inconclusive, where its interval does not.
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


def _void(twin: Estimate | None) -> list[str]:
    if twin is not None and twin.blocks < LOOKS[0]:
        return [f"the A/A twin has only {twin.blocks} blocks"]
    if twin is not None and twin.p_value() < VOID_ALPHA:
        return [f"the A/A twin differs by {np.expm1(twin.log_ratio):+.2%}"]
    return []


def _statements(pairs: ComparedPairs, margin: float) -> list[tuple[Verdict, int]]:
    """Word and direction of each pair: 1 where the first is slower, 0 where no arm is slower."""
    words = [Verdict(str(word)) for word in decide(pairs.estimate, margin, pairs.processes)]
    signs = np.sign(pairs.estimate.log_ratio)
    return [(word, int(signs[at]) if word in BEATEN else 0) for at, word in enumerate(words)]


@dataclass(frozen=True)
class _Pairs:
    """The numbers of all pairs of a comparison at one look; every array has one entry per pair."""

    names: list[tuple[str, str]]
    values: Floats  # [pair, block]
    estimate: Estimate
    processes: Floats
    margin: float  # of the log ratio
    levels: Floats
    low: Floats
    high: Floats
    p_values: Floats
    small: Flags

    def beyond(self, at: int) -> bool:
        """Whether the interval of a pair lies beyond the margin."""
        return bool(max(np.log(self.low[at]), -np.log(self.high[at])) > self.margin)

    def one(self, at: int) -> Estimate:
        """Return the estimate of one pair."""
        every = self.estimate
        return Estimate(
            every.log_ratio[at], every.standard_error[at], every.blocks[at], every.freedom[at]
        )


def effects_of(logs: Floats, disturbed: Flags | None = None) -> Effects:
    """Effects of arms by block, ``logs[arm, block, round]``; disturbed rounds count for less."""
    rounds = np.zeros(logs.shape[1:], bool) if disturbed is None else disturbed
    present = ~np.isnan(logs).all(axis=0)
    mostly = 2 * np.sum(rounds & present, axis=-1) > np.sum(present, axis=-1)
    weights = np.where(rounds, DISTURBED_ROUND, 1.0)
    return arm_effects(logs, weights, np.where(mostly, DISTURBED_BLOCK, 1.0))


def comparison_verdicts(  # noqa: PLR0913 - two by position, the rest have defaults
    logs: Floats,
    arms: Sequence[str],
    *,
    margin: float = 0.02,
    level: str = "standard",
    disturbed: Flags | None = None,
    twin: tuple[str, str] | None = None,
    failed_checks: Sequence[str] = (),
    sessions: int = 1,
    generator: Generator | None = None,
) -> ComparisonVerdicts:
    """Return verdicts on all pairs of a comparison at the last look of its level.

    ``logs`` has shape [arm, block, round]. ``margin`` is a fraction. ``disturbed`` [block, round]
    marks the rounds that other programs disturbed, for all arms at once. ``twin`` is the A/A pair;
    its second arm is compared with no other arm. ``sessions`` is the number of sessions that agree.
    With a ``generator``, bootstrap-t may dispute 95 % intervals. Blocks after a look wait for the
    next look: a verdict on them would be one look more.
    """
    look = max((at for at in LEVELS[level] if at <= logs.shape[1]), default=None)
    effects = effects_of(logs[:, :look], None if disturbed is None else disturbed[:look])
    control = control_of(effects, arms, twin)
    void = (*failed_checks, *(_void(control) if look else ()))

    used = np.array([at for at, arm in enumerate(arms) if twin is None or arm != twin[1]])
    first, second = used[np.array(np.triu_indices(len(used), 1))]
    names = [(arms[one], arms[other]) for one, other in zip(first, second, strict=True)]
    limit = effective_margin(margin, control)
    in_pairs = compared(effects, first, second)
    pairs = _pairs(names, in_pairs, limit)
    verdicts = []
    for at, statement in enumerate(_statements(in_pairs, limit)):
        reason = "; ".join(void)
        if not reason and look is None:
            reason = f"no look at {logs.shape[1]} blocks"
        elif not reason:
            reason = _objection(pairs, at, statement[0], level)
        if void or (reason and statement[0] != Verdict.INCONCLUSIVE):
            statement = (Verdict.VOID if void else Verdict.INCONCLUSIVE, statement[1])
        verdict = _pair_verdict(pairs, at, statement, reason, sessions=sessions)
        if generator is not None and pairs.estimate.blocks[at] >= BOOTSTRAP_BLOCKS:
            boot = bootstrap_t(pairs.values[at], generator)
            verdict = replace(verdict, disputed=disputed(pairs.one(at).interval(), boot))
        verdicts.append(verdict)
    measured = [arms[at] for at in used if not void and not np.isnan(effects.values[at]).all()]
    return ComparisonVerdicts(
        blocks=logs.shape[1],
        margin=float(np.expm1(limit)),
        pairs=tuple(verdicts),
        fastest=tuple(arm for arm in measured if not any(pair.beats(arm) for pair in verdicts)),
        void=void,
    )


def control_of(
    effects: Effects, arms: Sequence[str], twin: tuple[str, str] | None
) -> Estimate | None:
    """Return the difference of the A/A pair, if there is one."""
    if twin is None:
        return None
    first, second = (np.array([list(arms).index(arm)]) for arm in twin)
    pair = compared(effects, first, second).estimate
    return Estimate(pair.log_ratio[0], pair.standard_error[0], pair.blocks[0], pair.freedom[0])


def _pairs(names: list[tuple[str, str]], pairs: ComparedPairs, margin: float) -> _Pairs:
    """Compute the numbers of all pairs; ``margin`` of the log ratio."""
    estimates = pairs.estimate
    levels = holm_levels(estimates.p_value(margin), ALPHA_PER_LOOK)
    low, high = np.exp(estimates.interval(1 - levels))
    return _Pairs(
        names=names,
        values=pairs.values,
        estimate=estimates,
        processes=pairs.processes,
        margin=margin,
        levels=levels,
        low=low,
        high=high,
        p_values=holm(estimates.p_value()),
        small=np.abs(estimates.log_ratio) < np.log1p(SMALL),
    )


def _objection(pairs: _Pairs, at: int, word: Verdict, level: str) -> str:
    """Return why a statement does not count, or cannot be made; "" if its interval says it all."""
    blocks, needed = int(pairs.estimate.blocks[at]), int(pairs.processes[at])
    if word == Verdict.INCONCLUSIVE and blocks < needed and pairs.beyond(at):
        return f"{needed} processes of each arm are needed to exclude that some have two speeds"
    if level == "quick" and pairs.small[at] and word in BEATEN:
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
        further_blocks=blocks_needed(one, pairs.margin, pairs.processes[at], alpha=level)
        if unsettled
        else None,
        reason=reason,
    )
