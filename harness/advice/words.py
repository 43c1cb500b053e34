"""Writes advice for people: the answer first, then its reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas

from levelfield.harness.advice.advice import CERTAIN, Advice
from levelfield.harness.advice.facts import FACTS, Fact, facts_of, frameworks_of
from levelfield.harness.advice.needs import CRITERIA, PURPOSES, QUESTIONS, Need
from levelfield.harness.advice.ranking import Move, Place
from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.report.tables import STEPS_WORDS, fastest_set
from levelfield.harness.report.text import escape, markdown_table, significant

_SHOWN = ("licence", "graph", "exports", "pythons", "released", "releases", "maintenance")


def advice_text(advice: Advice) -> str:
    """Return the advice as Markdown; the same records and facts give the same text."""
    parts = ["# Advice", f"**Need**: {need_words(advice.need)}.", *_answer(advice)]
    if advice.ranking:
        weights = ", ".join(
            f"{name} {weight:.0%}" for name, weight in advice.need.weighted.items() if weight
        )
        parts += [
            "## Ranking",
            f"Weighted product of costs ({weights}), divided by that of the first arm. A cost of 1"
            " is the lowest of these arms; costs are geometric means over the comparisons.",
            markdown_table(_table(advice.ranking), left=("arm",)),
            "## Weights at which another arm leads",
            "\n".join(f"* {_moved(move)}" for move in advice.moves),
        ]
    if advice.excluded:
        parts += [
            "## Excluded",
            "\n".join(
                f"* {escape(exclusion.arm)}: {escape('; '.join(exclusion.reasons))}"
                for exclusion in advice.excluded
            ),
        ]
    parts += ["## Evidence", "\n".join(f"* {line}" for line in _evidence(advice))]
    if advice.ranking:
        parts += ["## Facts", *_facts([place.arm for place in advice.ranking])]
    return "\n\n".join(parts) + "\n"


def need_words(need: Need) -> str:
    """Describe a need in a sentence."""
    words = [PURPOSES[need.purpose].says]
    words += [f"of {need.task} models" if need.task else "of any model"]
    words += [f"on {need.device}, {need.numeric}, {need.profile} arms"]
    texts = {
        "steps": f"{need.steps:,} steps in a process",
        "memory_mib": f"at most {need.memory_mib:,g} MiB",
        "startup_seconds": f"at most {need.startup_seconds:,g} s to the first step",
        "platform": f"a wheel for {need.platform}",
        "python": f"Python {need.python}",
        "licences": f"licence {' or '.join(need.licences)}",
        "exports": f"exports {need.exports}",
        "precision": f"documents {need.precision}",
        "graph": f"a {need.graph} graph",
        "distributed": "distributed training",
        "maintained": "still maintained",
    }
    words += [text for name, text in texts.items() if getattr(need, name)]
    return escape("; ".join(words))


def _answer(advice: Advice) -> Iterable[str]:
    if not advice.evidence:
        yield (
            "**The evidence does not decide**: no comparison that fits has verdicts, so no arm is"
            " called faster. Type: levelfield run SUITE --level quick"
        )
        return
    if not advice.ranking:
        yield "**No arm meets every constraint.** The reason for each exclusion is below."
        return
    first = advice.ranking[0]
    if advice.decided:
        yield (
            f"**Take {escape(first.arm)}.** It leads in {_share(first.leads)} of the draws from"
            f" the errors of these measurements{_hold(advice)}"
        )
        return
    names = [escape(arm) for arm in advice.contenders]
    others = f" between {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else ""
    leads = [
        f"{escape(place.arm)} {_share(place.leads)}"
        for place in advice.ranking
        if place.arm in advice.contenders
    ]
    yield (
        f"**The evidence does not decide{others}.** Share of the draws from the errors of these"
        f" measurements in which each arm leads: {', '.join(leads)}. A winner would lead in"
        f" {CERTAIN:.0%} of them, and by more than {advice.margin:.1%}. Choose by the facts below"
        " or by experience, or measure more: levelfield run SUITE --level standard"
    )


def _hold(advice: Advice) -> str:
    """How far the weights are from another answer."""
    moves = [move for move in advice.moves if move.needed is not None]
    if len(advice.ranking) == 1:
        return ": it is the only one that meets every constraint."
    if not moves:
        return ", with any weights."
    nearest = min(moves, key=lambda move: abs((move.needed or 0) - move.weight))
    return (
        f". The nearest weights with another answer: with {nearest.criterion} at"
        f" {_percent(nearest.needed)} instead of {_percent(nearest.weight)},"
        f" {escape(nearest.arm)} leads."
    )


def _share(leads: float) -> str:
    return "all" if leads == 1 else f"{leads:.0%}" if leads < 0.995 else "more than 99%"


def _table(ranking: Iterable[Place]) -> pandas.DataFrame:
    rows = []
    for place in ranking:
        rows.append(
            {
                "arm": place.arm,
                "weighted": significant(place.score),
                "95 % interval": f"{significant(place.low)} to {significant(place.high)}",
                "leads": f"{place.leads:.0%}",
                **{name: significant(place.costs[name]) for name in CRITERIA},
                "comparisons": f"{place.measured} of {place.planned}",
            }
        )
    return pandas.DataFrame(rows, dtype="str")


def _moved(move: Move) -> str:
    now = f"{move.criterion} weighs {_percent(move.weight)}"
    if move.needed is None:
        return f"{now}: no other weight makes another arm lead"
    side = "below" if move.needed < move.weight else "above"
    return f"{now}: {side} {_percent(move.needed)} {escape(move.arm)} leads"


def _percent(weight: float | None) -> str:
    return f"{significant(100 * (weight or 0), 2)}%"


def _evidence(advice: Advice) -> Iterable[str]:
    for comparison, statistic in advice.evidence:
        even = "".join(f" {line}" for line in _break_evens(comparison, advice))
        judged = comparison.judged[statistic]
        yield f"{_title(comparison)}: {escape(fastest_set(judged))}{even}"
    for comparison, why in advice.unused:
        yield f"{_title(comparison)}: left out, {escape(why)}"


def _title(comparison: Comparison) -> str:
    return (
        f"{escape(comparison.title)}, {escape(comparison.details)} (run {escape(comparison.run)})"
    )


def _break_evens(comparison: Comparison, advice: Advice) -> Iterable[str]:
    """Numbers of steps at which the first of the ranking makes up for its start, or stops to."""
    if not advice.ranking or comparison.leader is None:
        return
    for place in advice.ranking[:3]:
        even = comparison.breakeven.get(place.arm)
        if even is not None and even.first_ahead in ("above", "below"):
            yield (
                f"{escape(place.arm)} is faster in total than {escape(comparison.leader)}"
                f" {STEPS_WORDS[even.first_ahead]} {significant(even.steps)} steps."
            )


def _facts(arms: Iterable[str]) -> Iterable[str]:
    frameworks = {
        framework.name: framework for name in arms for framework in frameworks_of(get_arm(name))
    }
    known = {name: facts_of(framework) for name, framework in frameworks.items()}
    rows = [
        {"framework": name, **{key: _value(facts.get(key)) for key in _SHOWN}}
        for name, facts in known.items()
    ]
    yield markdown_table(pandas.DataFrame(rows, dtype="str"), left=("framework", *_SHOWN))
    yield f"Releases are {FACTS['releases'][1]}. Sources, with the day on which each was read:"
    yield "\n".join(
        f"* {name}: "
        + "; ".join(
            f"{key} <{facts[key].source}> {facts[key].date}" for key in _SHOWN if key in facts
        )
        for name, facts in known.items()
        if facts
    )


def _value(fact: Fact | None) -> str:
    if fact is None:
        return "unknown"
    value: Any = fact.value
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def questions() -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """(name, question, valid answers) of all questions except the weights."""
    for name, question in QUESTIONS.items():
        known = question.metadata["known"]
        if name != "weights":
            yield name, question.metadata["asks"], tuple(known() if callable(known) else known)
