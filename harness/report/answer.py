"""The answer of a run: three sentences, its scope, and the times of all arms in one table."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.verdicts import Judged, pair_of
from levelfield.harness.errors import clean
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.provenance import versions
from levelfield.harness.report.text import (
    ABSENT,
    escape,
    json_object,
    markdown_table,
    milliseconds,
    significant,
)
from levelfield.harness.statistics.decisions import Verdict

BEST, VOID_TIME = "best", "void"
KEY = (
    "Milliseconds per step. An asterisk marks the fastest set: the arms that no arm beats; several"
    " in a row are ties or still open. Parentheses: the comparison is void, its times are no"
    " ranking. A word in place of a number is the status of the cell."
)
_MOST_VERSIONS = 12  # of frameworks in the line of the scope
_FEW = 3  # arms that a sentence names
_MOST_ACROSS = 8  # arms


@dataclass(frozen=True)
class Time:
    """One cell of the answer's table: its text and, as ``kind``, what sets it apart.

    ``kind`` is ``BEST`` in the fastest set, ``VOID_TIME`` in a void comparison, the status of a
    cell without a number, else empty.
    """

    text: str
    kind: str

    @property
    def marked(self) -> str:
        """The text with the sign of its kind, for readers who see no colours."""
        return {BEST: f"{self.text}*", VOID_TIME: f"({self.text})"}.get(self.kind, self.text)


@dataclass(frozen=True)
class AnswerRow:
    """The times of one comparison, one for each arm of the answer."""

    comparison: Comparison
    name: str
    fastest: str
    times: tuple[Time, ...]


@dataclass(frozen=True)
class Answer:
    """The answer of one run: texts for people, with the table that they rest on."""

    run: str
    sentences: tuple[str, ...]
    scope: str
    arms: tuple[str, ...]
    rows: tuple[AnswerRow, ...]

    @property
    def arms_down(self) -> bool:
        """Whether arms are the rows of the table: there are too many for its columns."""
        return len(self.arms) > max(len(self.rows), _MOST_ACROSS)


def answers(frames: Frames, comparisons: Sequence[Comparison]) -> list[Answer]:
    """An answer for each run, so that machines stay apart."""
    return [
        _answer(frames, run, [one for one in comparisons if one.run == run["run"]])
        for run in frames.runs.to_dict("records")
    ]


def _answer(frames: Frames, run: dict[Any, Any], comparisons: Sequence[Comparison]) -> Answer:
    cells = frames.cells[frames.cells["run"] == run["run"]]
    arms = _ordered_arms(comparisons)
    names = _names(comparisons)
    return Answer(
        clean(run["run"]),
        tuple(map(clean, _sentences(comparisons))),
        clean(_scope(frames, run, cells)),
        tuple(map(clean, arms)),
        tuple(
            AnswerRow(comparison, name, _fastest(comparison), _times(comparison, arms))
            for comparison, name in zip(comparisons, names, strict=True)
        ),
    )


# -- the table --------------------------------------------------------------------------------


def _ordered_arms(comparisons: Sequence[Comparison]) -> list[str]:
    """Arms with the fewest gaps first, then by the geometric mean of times over the fastest."""
    logs: dict[str, list[float]] = {}
    for comparison in comparisons:
        rows = comparison.rows
        best = rows.loc[rows["status"] == "ok", "step_seconds"].min()
        for arm, status, seconds in rows[["arm", "status", "step_seconds"]].itertuples(index=False):
            known = logs.setdefault(str(arm), [])
            if status == "ok" and not pandas.isna(seconds):
                known.append(float(numpy.log(seconds / best)))
    return sorted(logs, key=lambda arm: (-len(logs[arm]), sum(logs[arm])))


def _names(comparisons: Sequence[Comparison]) -> list[str]:
    """Titles of comparisons, with their details where two would have one name."""
    titles = [comparison.title for comparison in comparisons]
    return [
        title if titles.count(title) == 1 else f"{title}, {comparison.details}"
        for title, comparison in zip(titles, comparisons, strict=True)
    ]


def _times(comparison: Comparison, arms: Sequence[str]) -> tuple[Time, ...]:
    judged = comparison.judged.get("throughput")
    void = judged is not None and bool(judged.verdicts.void)
    fastest = judged.verdicts.fastest if judged is not None and not void else ()
    rows = comparison.rows.set_index("arm")
    step_seconds, statuses = rows["step_seconds"].astype(float), rows["status"]
    times = []
    for arm in arms:
        if arm not in rows.index:
            times.append(Time(ABSENT, ""))
            continue
        status, seconds = str(statuses[arm]), float(step_seconds[arm])
        if status != "ok" or math.isnan(seconds):
            word = clean("not timed" if status == "ok" else status)
            times.append(Time(word, word))
        else:
            kind = VOID_TIME if void else BEST if arm in fastest else ""
            times.append(Time(milliseconds(seconds), kind))
    return tuple(times)


def _fastest(comparison: Comparison) -> str:
    judged = comparison.judged.get("throughput")
    if judged is None:
        return "no verdict"
    if judged.verdicts.void:
        return "void"
    arms = [arm for arm in comparison.rows["arm"] if arm in judged.verdicts.fastest]
    return clean(_listed(arms)) or ABSENT


def _listed(arms: Sequence[str]) -> str:
    """The first arms by name and the number of the others."""
    more = f" and {len(arms) - _FEW} others" if len(arms) > _FEW + 1 else ""
    return ", ".join(arms[:_FEW] if more else arms) + more


def anchors(comparisons: Sequence[Comparison]) -> list[str]:
    """A name for each comparison that stays when others are added: ``bert-small-training-adam``.

    Details are added where two have one title, and where there are several runs.
    """
    several = len({comparison.run for comparison in comparisons}) > 1
    names = []
    for comparison in comparisons:
        mates = [one for one in comparisons if one.run == comparison.run]
        titles = [one.title for one in mates]
        words = [comparison.title.replace(" with ", " ")]
        words += [comparison.details] if titles.count(comparison.title) > 1 or several else []
        names.append(re.sub("[^a-z0-9]+", "-", " ".join(words).lower()).strip("-"))
    return [
        name if names.count(name) == 1 else f"{name}-{number}"
        for number, name in enumerate(names, start=1)
    ]


def table(answer: Answer) -> pandas.DataFrame:
    """The answer's table as texts; the shorter side, comparisons or arms, goes across."""
    by_comparison = pandas.DataFrame(
        [[row.name, row.fastest, *(time.marked for time in row.times)] for row in answer.rows],
        columns=["comparison", "fastest set", *answer.arms],
        dtype="str",
    )
    if not answer.arms_down:
        return by_comparison
    turned = by_comparison.set_index("comparison").drop(columns="fastest set").T
    turned.columns.name = None
    return turned.rename_axis("arm").reset_index()


# -- the sentences ----------------------------------------------------------------------------


def _sentences(comparisons: Sequence[Comparison]) -> Iterator[str]:
    judged = [one for one in comparisons if "throughput" in one.judged]
    sound = [one for one in judged if not one.judged["throughput"].verdicts.void]
    by_phase: dict[str, list[Judged]] = {}
    for comparison in sound:
        phase, judgement = str(comparison.rows["phase"].iloc[0]), comparison.judged["throughput"]
        if _arms([judgement]):  # else nothing but the twin was timed
            by_phase.setdefault(phase, []).append(judgement)
    if by_phase:
        leaders = {phase: _leaders(judgements) for phase, judgements in by_phase.items()}
        leads = [_lead(phase, leaders[phase], ones) for phase, ones in by_phase.items()]
        gaps = [_gap(phase, leaders[phase][0], ones) for phase, ones in by_phase.items()]
        yield f"Fastest or not beaten: {'; '.join(leads)}."
        if any(gaps):
            yield f"By how much: {'; '.join(filter(None, gaps))}."
    elif sound:
        yield "No arm is called faster: no arm but a twin was timed to its end."
    elif judged:
        yield "No arm is called faster: every comparison is void, for the reason in its section."
    elif any(comparison.rows["step_seconds"].notna().any() for comparison in comparisons):
        yield "No arm is called faster: a smoke run takes no verdicts."
    elif comparisons:
        yield "No arm is called faster: no arm was measured."
    yield _certainty(comparisons, judged, sound)


def _leaders(judgements: Sequence[Judged]) -> list[str]:
    """The arms that are in the most fastest sets, the one with the least time first."""
    arms = _arms(judgements)
    wins = {arm: sum(arm in judged.verdicts.fastest for judged in judgements) for arm in arms}
    best = [arm for arm in arms if wins[arm] == max(wins.values())]
    return sorted(best, key=lambda arm: sum(_ratios(judgements, arm, best[0], numpy.log)))


def _arms(judgements: Sequence[Judged]) -> list[str]:
    arms = dict.fromkeys(arm for judged in judgements for arm in judged.arms)
    return [arm for arm in arms if not arm.endswith(TWIN)]


def _ratios(
    judgements: Sequence[Judged], arm: str, other: str, scale: Callable[[float], float] = float
) -> list[float]:
    """Seconds of an arm over those of another in every comparison that timed both."""
    pairs = [pair_of(judged, arm, other) for judged in judgements]
    return [float(scale(pair.ratio)) for pair in pairs if pair and numpy.isfinite(pair.ratio)]


def _lead(phase: str, leaders: Sequence[str], judgements: Sequence[Judged]) -> str:
    leader, sets = leaders[0], [judged.verdicts.fastest for judged in judgements]
    count = sum(leader in fastest for fastest in sets)
    alone = Counter(fastest[0] for fastest in sets if len(fastest) == 1)
    if len(sets) == 1:
        others = _listed([arm for arm in sets[0] if arm != leader])
        return f"{leader} in {phase}" + (f", with {others}" if others else "")
    of_phase = f"{count} of {len(sets)} comparisons of {phase}"
    if len(leaders) > 1:
        lone = [f"{arm} alone in {alone[arm]}" for arm in leaders if alone[arm]]
        words = f"no arm leads more often than the others: {_listed(leaders)} each in {of_phase}"
        return words + (f" ({_listed(lone)})" if lone else "")
    words = f"{leader} in {of_phase}"
    return words + (f" (alone in {alone[leader]})" if 0 < alone[leader] < count else "")


def _gap(phase: str, leader: str, judgements: Sequence[Judged]) -> str:
    """How many times the leader's seconds the next arm and the slowest arm take.

    Arms that lack comparisons which others have are left out: their mean is one of other models.
    """
    ratios = {arm: _ratios(judgements, arm, leader) for arm in _arms(judgements) if arm != leader}
    most = max(map(len, ratios.values()), default=0)
    means = {
        arm: float(numpy.exp(numpy.log(values).mean()))
        for arm, values in ratios.items()
        if values and len(values) == most
    }
    if not means:
        return ""
    order = sorted(means, key=lambda arm: means[arm])
    first, last = order[0], order[-1]
    words = f"in {phase} {first} takes {significant(means[first])} times as long as {leader}"
    if most > 1:
        ends = f"{significant(min(ratios[first]))} to {significant(max(ratios[first]))}"
        words += f" (geometric mean of {most}, from {ends})"
    return words + (f", {last} {significant(means[last])} times" if last != first else "")


def _certainty(
    comparisons: Sequence[Comparison], judged: Sequence[Comparison], sound: Sequence[Comparison]
) -> str:
    verdicts = [one.judged["throughput"].verdicts for one in sound]
    pairs = [pair for one in verdicts for pair in one.pairs]
    undecided = sum(pair.verdict == Verdict.INCONCLUSIVE for pair in pairs)
    parts = []
    if pairs:
        margins = [100 * one.margin for one in verdicts]
        ends = dict.fromkeys(significant(end, 2) for end in (min(margins), max(margins)))
        decided = f"{len(pairs) - undecided} of {len(pairs)} pairs of arms are decided"
        parts.append(f"{decided}, {undecided} are open" if undecided else decided)
        parts.append(f"differences below {' to '.join(ends)} % count as ties")
    if any(pair.provisional for pair in pairs):
        parts.append("provisional, because one session was measured")
    if len(sound) < len(judged):
        parts.append(f"{len(judged) - len(sound)} of {len(judged)} comparisons are void")
    statuses = pandas.concat([one.rows["status"] for one in comparisons]) if comparisons else None
    if statuses is None:
        return "Nothing was planned."
    proved = int((statuses == "ok").sum())
    parts.append(f"{proved} of {len(statuses)} cells are proved to compute the same and measured")
    others = statuses[statuses != "ok"].value_counts()
    parts += [f"{count} {status}" for status, count in others.items()]
    return f"How sure: {'; '.join(parts)}."


# -- the scope --------------------------------------------------------------------------------


def _scope(frames: Frames, run: dict[Any, Any], cells: pandas.DataFrame) -> str:
    """One line: machine, cores, threads, presets, precision, date and versions."""
    machine = json_object(run["machine"])
    cores = machine.get("cores")
    threads = _several(cells["threads"])
    parts = [
        str(machine.get("processor") or "unknown processor"),
        f"{cores} cores" if isinstance(cores, int) else "",
        f"{threads} thread{'' if threads == '1' else 's'}",
        f"preset {_several(cells['preset'])}",
        f"batch {_several(cells['batch'])}",
        _several(cells["numeric"]),
        _several(cells["device"]),
        str(run["created"])[:10],
    ]
    named: dict[str, str] = {}
    frameworks = dict(zip(cells["arm"], cells["framework"], strict=True))
    for row in versions(frames, run["run"]):
        if row["version"] != ABSENT:
            named.setdefault(f"{frameworks.get(row['arm'], row['arm'])} {row['version']}", "")
    more = len(named) - _MOST_VERSIONS
    texts = [*named][:_MOST_VERSIONS] + ([f"{more} more below"] if more > 0 else [])
    return "; ".join(filter(None, [", ".join(filter(None, parts)), ", ".join(texts)])) + "."


def _several(values: pandas.Series) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def answer_markdown(answer: Answer) -> str:
    """The sentences, the scope and the table as Markdown."""
    texts = table(answer)
    parts = [
        "\n".join(f"- {escape(sentence)}" for sentence in answer.sentences),
        escape(answer.scope),
    ]
    if len(texts):
        parts += [markdown_table(texts, left=("comparison", "fastest set", "arm")), escape(KEY)]
    return "\n\n".join(parts)
