"""Ranks frameworks for a need: by measured verdicts first, by facts second.

1. Comparisons that fit the need and have verdicts are the evidence; others are named and left out.
2. A hard constraint excludes an arm, by its measurements or by a fact about the frameworks that it
   runs on. A fact that is not recorded also excludes the arm, and the reason says so.
3. The remaining arms are ranked by a weighted product. Every cost is divided by the least cost of
   any arm, in each comparison, and raised to the power of its weight. The ranking reports its
   uncertainty, and how far one weight must move before another arm leads
   (:mod:`levelfield.harness.advice.ranking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas
from packaging.specifiers import SpecifierSet

from levelfield import reference
from levelfield.harness.advice.facts import REFERENCE, Fact, facts_of, frameworks_of
from levelfield.harness.advice.needs import PURPOSES, Need
from levelfield.harness.advice.ranking import (
    Flip,
    Move,
    Place,
    costs_of,
    flips_of,
    moves_of,
    ranked,
)
from levelfield.harness.analysis.comparisons import Comparison, comparisons_of
from levelfield.harness.analysis.machines import machine_numbers, unlike_machines
from levelfield.harness.errors import BadInput
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.records.frames import Frames
from levelfield.reference.errors import UnknownName

# An arm that leads in a smaller share of the draws is not the winner.
CERTAIN = 0.95
# An arm that leads in a smaller share of the draws is not a contender.
POSSIBLE = 0.05


@dataclass(frozen=True)
class Excluded:
    """An arm with all reasons against it."""

    arm: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Advice:
    """``decided``: whether the first is the answer; ``contenders`` are the arms that may be it.

    ``flips`` names the models and machines without which another arm leads. ``models`` and
    ``machines`` count those of the evidence; ``unlike`` says in what the machines differ.
    ``margin`` is the share below which a difference does not matter, taken from the runs.
    ``evidence`` lists the comparisons used, with the statistic that counts. ``unused`` lists the
    comparisons that fit the need but give no evidence, and why.
    """

    need: Need
    ranking: tuple[Place, ...]
    excluded: tuple[Excluded, ...]
    decided: bool
    contenders: tuple[str, ...]
    margin: float
    moves: tuple[Move, ...]
    flips: tuple[Flip, ...]
    models: int
    machines: int
    unlike: tuple[str, ...]
    evidence: tuple[tuple[Comparison, str], ...]
    unused: tuple[tuple[Comparison, str], ...]


def advise(frames: Frames, need: Need) -> Advice:
    """Rank the arms for a need. Raises BadInput if no comparison fits the need."""
    comparisons = comparisons_of(frames)
    fitting = [comparison for comparison in comparisons if _fits(comparison, need)]
    if not fitting:
        raise BadInput(
            f"no comparison of these runs fits {need.task or 'any task'}, {need.purpose} on"
            f" {need.device}, {need.profile}, {need.numeric}; there are:"
            f" {'; '.join(dict.fromkeys(comparison.title for comparison in comparisons)) or 'none'}"
        )
    unused = [(comparison, why) for comparison in fitting if (why := _useless(comparison, need))]
    evidence = [
        (comparison, statistic_of(comparison, need))
        for comparison in fitting
        if not _useless(comparison, need)
    ]
    arms = list(dict.fromkeys(arm for comparison in fitting for arm in comparison.rows["arm"]))
    excluded = _excluded(arms, need, evidence)
    candidates = [arm for arm in arms if arm not in {exclusion.arm for exclusion in excluded}]
    used = frames.runs["run"].isin([comparison.run for comparison, _ in evidence])
    margin = float(frames.runs.loc[used, "margin"].max()) if evidence else 0.0
    ranking: tuple[Place, ...] = ()
    moves: tuple[Move, ...] = ()
    flips: tuple[Flip, ...] = ()
    if evidence and candidates:
        costs = costs_of(frames, evidence, candidates, steps=need.steps)
        ranking = ranked(costs, need.weighted)
        moves = moves_of(costs, need.weighted)
        flips = flips_of(costs, need.weighted)
    numbers = machine_numbers(frames)
    contenders = tuple(
        place.arm
        for place in ranking
        if place is ranking[0] or place.leads >= POSSIBLE or place.score < 1 + margin
    )
    return Advice(
        need=need,
        ranking=ranking,
        excluded=tuple(excluded),
        decided=len(contenders) == 1 and ranking[0].leads >= CERTAIN,
        contenders=contenders,
        margin=margin,
        moves=moves,
        flips=flips,
        models=len({comparison.rows.iloc[0]["model"] for comparison, _ in evidence}),
        machines=len({numbers[comparison.run] for comparison, _ in evidence}),
        unlike=tuple(unlike_machines(frames)),
        evidence=tuple(evidence),
        unused=tuple(unused),
    )


def _excluded(
    arms: Sequence[str], need: Need, evidence: Sequence[tuple[Comparison, str]]
) -> list[Excluded]:
    """Return the arms that break a constraint, with all reasons."""
    excluded = []
    for arm in arms:
        reasons = [*_against(arm, need)]
        reasons += _measured_against(arm, need, evidence) if evidence else ()
        excluded += [Excluded(arm, tuple(reasons))] if reasons else []
    return excluded


def _fits(comparison: Comparison, need: Need) -> bool:
    row = comparison.rows.iloc[0]
    try:
        family = reference.get(row["model"]).family
    except UnknownName:
        family = ""  # a record of a model that this version no longer has
    return (
        need.task in ("", row["model"], family)
        and row["phase"] in PURPOSES[need.purpose].phases
        and (row["device"], row["profile"]) == (need.device, need.profile)
        and row["numeric"] == need.numeric
    )


def statistic_of(comparison: Comparison, need: Need) -> str:
    """The kind of slices that counts; for latency, generation counts its first token."""
    statistic = PURPOSES[need.purpose].statistic
    generates = comparison.rows.iloc[0]["phase"] == "generation"
    return "first_token" if generates and statistic == "latency" else statistic


def _useless(comparison: Comparison, need: Need) -> str:
    """Why a comparison cannot rank arms; empty if it can."""
    statistic = statistic_of(comparison, need)
    if statistic not in comparison.judged:
        return f"no verdicts on {statistic}: a smoke run, or nothing was measured of it"
    return "; ".join(comparison.judged[statistic].verdicts.void)


# -- constraints ------------------------------------------------------------------------------


def _against(name: str, need: Need) -> Iterable[str]:
    """Yield the facts against an arm."""
    try:
        arm = get_arm(name)
    except UnknownName:
        yield "it is not known to this version"
        return
    if arm.framework.name == REFERENCE:
        yield "it is the reference that all other arms are compared with"
        return
    everything = [facts_of(framework) for framework in frameworks_of(arm)]
    yield from _against_any(everything, arm.framework.name, need)
    yield from _against_own(everything[0], arm.framework.name, need)


def _against_any(everything: Sequence[Mapping[str, Fact]], name: str, need: Need) -> Iterable[str]:
    """Yield the facts against a framework, and against those that it runs on."""
    if need.platform:
        for facts in everything:
            yield from _lacks(facts, name, "platforms", need.platform, anything=("any",))
    if need.python:
        for facts in everything:
            yield from _python(facts, name, need.python)
    if need.licences:
        for facts in everything:
            yield from _not_among(facts, name, need.licences)
    if need.maintained:
        for facts in everything:
            yield from _is(facts, name, "maintenance", "active")


def _against_own(own: Mapping[str, Fact], name: str, need: Need) -> Iterable[str]:
    """Yield the facts against a framework itself."""
    if need.exports:
        yield from _lacks(own, name, "exports", need.exports, instead="reads")
    if need.precision:
        yield from _lacks(own, name, "precisions", need.precision)
    if need.graph and not _graph(own).startswith(need.graph):
        yield f"its graphs are {_graph(own) or 'of an unknown kind'}"
    if need.distributed:
        yield from _is(own, name, "distributed", True)


def _unknown(name: str, key: str) -> str:
    return f"no fact says the {key} of {name} or of a framework that it runs on"


def _lacks(
    facts: Mapping[str, Fact],
    name: str,
    key: str,
    wanted: str,
    *,
    anything: Sequence[str] = (),
    instead: str = "",
) -> Iterable[str]:
    if key not in facts:
        yield _unknown(name, key)
        return
    values = facts[key].value
    if wanted.lower() in (value.lower() for value in values) or set(anything) & set(values):
        return
    others = f", it reads {', '.join(facts[instead].value)}" if instead in facts else ""
    offer = ", ".join(values) or "none"
    yield f"no {wanted}: {key} of {facts[key].framework} are {offer}{others}"


def _python(facts: Mapping[str, Fact], name: str, wanted: str) -> Iterable[str]:
    if "pythons" not in facts:
        yield _unknown(name, "Pythons")
        return
    values = facts["pythons"].value
    specifiers = [value if value[0] in "<>=!~" else f"=={value}.*" for value in values]
    if not any(SpecifierSet(specifier).contains(wanted) for specifier in specifiers):
        yield f"no Python {wanted}: {facts['pythons'].framework} is for {', '.join(values)}"


def _not_among(facts: Mapping[str, Fact], name: str, wanted: Sequence[str]) -> Iterable[str]:
    if "licence" not in facts:
        yield _unknown(name, "the licence")
    elif facts["licence"].value.lower() not in (licence.lower() for licence in wanted):
        yield f"{facts['licence'].framework} is under {facts['licence'].value}"


def _is(facts: Mapping[str, Fact], name: str, key: str, wanted: Any) -> Iterable[str]:
    if key not in facts:
        yield _unknown(name, key)
    elif facts[key].value != wanted:
        answer = {True: "yes", False: "no"}.get(facts[key].value, facts[key].value)
        yield f"{key} of {facts[key].framework}: {answer}"


def _graph(own: Mapping[str, Fact]) -> str:
    return str(own["graph"].value) if "graph" in own else ""


_SECONDS = {
    "throughput": "step_seconds",
    "latency": "latency_p50_seconds",
    "first_token": "first_token_seconds",
}


def _measured_against(
    arm: str, need: Need, evidence: Sequence[tuple[Comparison, str]]
) -> Iterable[str]:
    """Yield the measurements against an arm, each from its worst comparison."""
    frames = [
        comparison.rows.assign(counts=comparison.rows[_SECONDS[statistic]])
        for comparison, statistic in evidence
    ]
    rows = pandas.concat([frame[frame["arm"] == arm] for frame in frames])
    fine = rows[rows["status"] == "ok"]
    if fine.empty:
        statuses = ", ".join(dict.fromkeys(rows["status"])) or "not planned"
        yield f"no number in any of these comparisons: {statuses}"
        return
    if fine["counts"].isna().all():
        yield f"no {PURPOSES[need.purpose].statistic} was measured: the framework runs its own loop"
        return
    limits = (
        ("peak_bytes", 2**20, need.memory_mib, "MiB of peak memory"),
        ("startup_seconds", 1, need.startup_seconds, "seconds to the end of the first step"),
    )
    for column, unit, most, words in limits:
        if not most:
            continue
        values = fine[column].astype(float) / unit
        if values.isna().all():
            yield f"{words} were not measured"
        elif values.max() > most:
            worst = fine.iloc[int(values.argmax())]
            yield (
                f"{values.max():,.4g} {words} in {worst['model']}/{worst['preset']}"
                f" {worst['phase']}, more than the limit of {most:,.4g}"
            )
