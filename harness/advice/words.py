"""Writes advice for people: the answer in five lines first, then its reasons, sources last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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

# Market facts first, then those of the framework itself.
_SHOWN = (
    *("licence", "stars", "released", "releases", "maintenance", "platforms", "pythons"),
    *("documentation", "graph", "exports"),
)
LONGEST_NAMES = 3  # contenders that the answer names


@dataclass(frozen=True)
class TableBlock:
    """A table of texts; the columns in ``left`` hold words, the others numbers."""

    cells: pandas.DataFrame
    left: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A part of the advice: its heading, and Markdown and tables below it."""

    heading: str
    blocks: tuple[str | TableBlock, ...]


def advice_text(advice: Advice) -> str:
    """Return the advice as Markdown; the same records and facts give the same text."""
    parts = []
    for section in advice_sections(advice):
        parts.append(section.heading)
        parts += [
            block if isinstance(block, str) else markdown_table(block.cells, left=block.left)
            for block in section.blocks
        ]
    return "\n\n".join(parts) + "\n"


def advice_sections(advice: Advice) -> Iterable[Section]:
    """Yield the answer in at most five lines, then its reasons, and the sources last."""
    yield Section("# Advice", ("\n".join(f"* {line}" for line in _answer(advice)),))
    need = need_words(advice.need)
    yield Section("## Need", (f"{need[:1].upper()}{need[1:]}.",))
    if advice.ranking:
        weights = ", ".join(
            f"{name} {weight:.0%}" for name, weight in advice.need.weighted.items() if weight
        )
        words = (
            f"Weighted product of costs ({weights}), divided by that of the first arm. A cost of 1"
            " is the lowest of these arms; costs are geometric means over the comparisons."
            f" {_draws(advice)}"
        )
        yield Section("## Ranking", (words, TableBlock(_table(advice.ranking), ("arm",))))
        moves = "\n".join(f"* {_moved(move)}" for move in advice.moves)
        yield Section("## Weights at which another arm leads", (moves,))
    if advice.excluded:
        lines = [
            f"* {escape(exclusion.arm)}: {escape('; '.join(exclusion.reasons))}"
            for exclusion in advice.excluded
        ]
        yield Section("## Excluded", ("\n".join(lines),))
    unlike = [f"Unlike machines: {escape('; '.join(advice.unlike))}."] if advice.unlike else []
    lines = [f"* {line}" for line in _evidence(advice)]
    yield Section("## Evidence", (*unlike, "\n".join(lines)))
    if advice.ranking:
        yield from _facts([place.arm for place in advice.ranking])


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
    """Yield at most five lines: the answer, how sure it is, what would change it, what to do."""
    if not advice.evidence:
        yield (
            "**The evidence does not decide**: no comparison that fits has verdicts, so no arm is"
            " called faster."
        )
        yield "Next: levelfield run SUITE --level quick"
        return
    if not advice.ranking:
        yield "**No arm meets every constraint.** The reason for each exclusion is below."
        yield "Next: leave out a constraint, or run a suite with other arms."
        return
    yield from _decision(advice)
    yield _flips(advice)
    yield _hold(advice)
    over = f"{_counted(advice.models, 'model')}, {_counted(advice.machines, 'machine')}"
    command = "families" if advice.decided else "SUITE --level standard"
    yield f"Next: beyond {over}: levelfield run {command}"


def _decision(advice: Advice) -> Iterable[str]:
    """Yield the answer, then the shares of the draws in which arms lead."""
    first = advice.ranking[0]
    if advice.decided:
        yield f"**Take {escape(first.arm)}.**"
        drawn = " and ".join([*_varied(advice), "errors"])
        yield f"Sure: it leads in {_share(first.leads)} of the draws of {drawn}."
        return
    names = [escape(arm) for arm in advice.contenders]
    others = f" between {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else ""
    yield f"**The evidence does not decide{others}.**"
    leads = [
        f"{escape(place.arm)} {_share(place.leads)}"
        for place in advice.ranking
        if place.arm in advice.contenders
    ]
    more = len(leads) - LONGEST_NAMES
    leads = leads[:LONGEST_NAMES] + ([f"{more} more below"] if more > 0 else [])
    yield f"Sure: {', '.join(leads)} of the draws."


def _draws(advice: Advice) -> str:
    """Say what the draws vary."""
    drawn = _varied(advice)
    fixed = [name for name in ("models", "machines") if name not in drawn]
    words = [f"the {' and '.join(drawn)} are drawn with replacement"] if drawn else []
    words += [f"nothing is known of other {' and '.join(fixed)}"] if fixed else []
    return (
        '"leads" is the share of draws in which an arm is first. The means of blocks are drawn by'
        f' their errors ("by errors alone"); {"; ".join(words)}. A winner leads in'
        f" {CERTAIN:.0%} of the draws, and by more than {advice.margin:.1%}."
    )


def _varied(advice: Advice) -> list[str]:
    """Return the kinds that are drawn apart from errors: those with several members."""
    counts = {"models": advice.models, "machines": advice.machines}
    return [name for name, count in counts.items() if count > 1]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _flips(advice: Advice) -> str:
    """Name the models and machines without which another arm leads."""
    if len(advice.ranking) == 1:
        return "Flips: none, because it is the only arm that meets every constraint."
    if advice.flips:
        words = [f"without {escape(flip.without)}, {escape(flip.arm)}" for flip in advice.flips]
        return f"Flips: {'; '.join(words)} leads."
    kinds = [
        noun
        for noun, count in (("model", advice.models), ("machine", advice.machines))
        if count > 1
    ]
    if not kinds:
        return "Flips: not known, with one model on one machine."
    return f"Flips: none; no {' or '.join(kinds)} that is left out makes another arm lead."


def _hold(advice: Advice) -> str:
    """How far the weights are from another answer."""
    moves = [move for move in advice.moves if move.needed is not None]
    if not moves:
        return "Weights: no other weights make another arm lead."
    nearest = min(moves, key=lambda move: abs((move.needed or 0) - move.weight))
    return (
        f"Weights: with {nearest.criterion} at {_percent(nearest.needed)} instead of"
        f" {_percent(nearest.weight)}, {escape(nearest.arm)} leads."
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
                "by errors alone": f"{place.leads_here:.0%}",
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


def _facts(arms: Iterable[str]) -> Iterable[Section]:
    """Yield a table of facts about the frameworks of arms, and their sources."""
    frameworks = {
        framework.name: framework for name in arms for framework in frameworks_of(get_arm(name))
    }
    known = {name: facts_of(framework) for name, framework in frameworks.items()}
    rows = [
        {"framework": name, **{key: _value(key, facts.get(key)) for key in _SHOWN}}
        for name, facts in known.items()
    ]
    words = (
        f"Releases are {FACTS['releases'][1]}; stars are {FACTS['stars'][1]}, with the day of the"
        " count. A fact without a dated source is left out."
    )
    cells = pandas.DataFrame(rows, dtype="str")
    yield Section("## Facts", (TableBlock(cells, ("framework", *_SHOWN)), words))
    lines = [
        f"* {name}: "
        + "; ".join(
            f"{key} <{facts[key].source}> {facts[key].date}" for key in _SHOWN if key in facts
        )
        for name, facts in known.items()
        if facts
    ]
    words = "Each fact with its source, and the day on which it was read there:"
    yield Section("## Sources", (words, "\n".join(lines)))


def _value(key: str, fact: Fact | None) -> str:
    if fact is None:
        return "no dated figure" if key == "stars" else "unknown"
    value: Any = fact.value
    if key == "stars":
        return f"{value:,} on {fact.day}"
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def questions() -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """(name, question, valid answers) of all questions except the weights."""
    for name, question in QUESTIONS.items():
        known = question.metadata["known"]
        if name != "weights":
            yield name, question.metadata["asks"], tuple(known() if callable(known) else known)
