"""Comparison tables, one per comparison, the fastest arm first, with error bars.

Every planned arm has a row and every reason a note. A cell that is not ok shows no number, except
the error for which an arm is ``wrong``. Numbers have three significant digits at most, because the
measurement supports no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.verdicts import Judged, pair_of
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.findings import error_bar, findings, no_verdicts, noise
from levelfield.harness.report.text import (
    ABSENT,
    escape,
    markdown_table,
    mebibytes,
    milliseconds,
    scientific,
    significant,
)
from levelfield.harness.statistics.break_even import BreakEven
from levelfield.harness.statistics.decisions import PairVerdict, Verdict

_LATENCY = "latency p50 / p95 / p99 (ms)"
_FIRST, _FURTHER = "first token (ms)", "per further token (ms)"
FAR = 1000.0  # a larger end of an interval comes from too few blocks to mean anything
_ACCURACY, _PEAK = "test accuracy (%)", "peak (MiB)"
_RATIO, _VERDICT, _EVEN = "ratio to first", "verdict", "break-even with first (steps)"
_NO_REASON = {"unfinished": "interrupted, or not yet run"}
# How a text names the steps for which an arm is faster in total, start-up included.
STEPS_WORDS = {"below": "up to", "above": "from"}
TEXT_COLUMNS = ("arm", "status", _VERDICT)


@dataclass(frozen=True)
class ComparisonTable:
    """One comparison as text: ``cells`` with units in its column names, one row per arm.

    A number in parentheses in a cell is that of its note; the first note is number 1. ``below`` are
    the lines under the table. ``pairs`` are all verdicts, none in a smoke run.
    """

    title: str
    cells: pandas.DataFrame
    pairs: pandas.DataFrame
    below: tuple[str, ...]
    notes: tuple[str, ...]


def comparison_tables(frames: Frames, comparisons: Sequence[Comparison]) -> list[ComparisonTable]:
    """A table for each comparison, in the order of the plan."""
    why = {
        (*cell, column): reason
        for column, frame in ((_PEAK, frames.memory), (_ACCURACY, frames.accuracy))
        for cell, reason in _reasons(frame).items()
    }
    return [_table(frames, comparison, why) for comparison in comparisons]


def _reasons(frame: pandas.DataFrame) -> dict[tuple[str, str], str]:
    """Why numbers of a run's cell are missing, and in how many processes if it had several."""
    failed = frame[frame["reason"] != ""]
    rows = zip(failed["run"], failed["cell"], failed["reason"], strict=True)
    reasons = {(run, cell): reason for run, cell, reason in rows}
    planned, lost = (part.groupby(["run", "cell"])["process"].nunique() for part in (frame, failed))
    return {
        cell: f"{lost[cell]} of {planned[cell]} processes: {reason}"
        if planned[cell] > 1
        else reason
        for cell, reason in reasons.items()
    }


def _table(
    frames: Frames, comparison: Comparison, why: dict[tuple[str, str, str], str]
) -> ComparisonTable:
    notes = _Notes()
    rows = []
    for row in comparison.rows.to_dict("records"):
        cells = (
            _measured(row, comparison) if row["status"] == "ok" else _unmeasured(row, comparison)
        )
        if row["status"] != "ok":
            reason = row["reason"] or _NO_REASON.get(row["status"], "no reason was recorded")
            log = f" (log: logs/{row['log']})" if row["log"] else ""
            cells["status"] += notes.mark(f"{row['arm']} {row['status']}: {reason}{log}")
        for column in (_PEAK, _ACCURACY):
            reason = why.get((row["run"], row["cell"], column), "")
            if reason and row["status"] == "ok":
                cells[column] += notes.mark(f"{column.split(' (')[0]}: {reason}")
        rows.append({name: clean(cell) for name, cell in cells.items()})
    frame = pandas.DataFrame(rows, dtype="str")
    generates = comparison.rows["phase"].iloc[0] == "generation"  # it has first tokens instead
    optional = (_ACCURACY, _EVEN, _RATIO, _VERDICT, _FIRST, _FURTHER, "of roofline (%)")
    for column in (*optional, *([_LATENCY] if generates else [])):
        if column in frame and (frame[column] == ABSENT).all():
            frame = frame.drop(columns=column)
    return ComparisonTable(
        title=f"{comparison.title}, {comparison.details}",
        cells=frame.reset_index(drop=True),
        pairs=pairs_of(comparison),
        below=tuple(clean(line) for line in _below(frames, comparison)),
        notes=tuple(notes.texts),
    )


def _below(frames: Frames, comparison: Comparison) -> Iterable[str]:
    fine = int((comparison.rows["status"] == "ok").sum())
    yield f"{fine} of {len(comparison.rows)} arm{'s' if len(comparison.rows) != 1 else ''} ok."
    judged = comparison.judged.get("throughput")
    if judged is None:
        yield no_verdicts(comparison)
    else:
        yield fastest_set(judged)
        for statistic in ("first_token", "further_token"):
            if statistic in comparison.judged:
                yield fastest_set(comparison.judged[statistic])
        yield error_bar(judged)
        yield noise(frames, comparison)
    yield from findings(frames, comparison)


def fastest_set(judged: Judged) -> str:
    """The arms that no arm beats, and the number of pairs still open."""
    if judged.verdicts.void:
        return f"No verdict, void: {'; '.join(judged.verdicts.void)}."
    open_pairs = sum(pair.verdict == Verdict.INCONCLUSIVE for pair in judged.verdicts.pairs)
    what = judged.statistic.replace("_", " ")
    words = f"Fastest set ({what}): {', '.join(judged.verdicts.fastest) or 'none'}"
    pairs = f"{open_pairs} of {len(judged.verdicts.pairs)} pairs are inconclusive"
    return f"{words}; {pairs}."


def _verdict(row: dict[Any, Any], comparison: Comparison) -> dict[str, str]:
    """Comparison with the leader: ratio with interval, word, break-even."""
    judged = comparison.judged.get("throughput")
    empty = {_RATIO: ABSENT, _VERDICT: ABSENT, _EVEN: ABSENT}
    if judged is None or comparison.leader is None or pandas.isna(row["step_seconds"]):
        return empty
    arm, leader = row["arm"], comparison.leader
    if arm == leader:
        words = "void" if judged.verdicts.void else "fastest set"
        return {**empty, _RATIO: "1", _VERDICT: words}
    pair = pair_of(judged, arm, leader)
    if pair is None:
        return empty
    return {
        _RATIO: _ratio(pair),
        _VERDICT: verdict_words(pair, arm, in_set=arm in judged.verdicts.fastest),
        _EVEN: _even_words(comparison.breakeven.get(arm)),
    }


def _ratio(pair: PairVerdict) -> str:
    """A ratio with its interval; an end that is too far away is only called far."""
    if not numpy.isfinite(pair.ratio):
        return ABSENT
    low, high = (f"{end:.3f}" if end < FAR else "out of range" for end in (pair.low, pair.high))
    return f"{pair.ratio:.3f} [{low}, {high}]"


def verdict_words(pair: PairVerdict, arm: str, *, in_set: bool) -> str:
    """Word for one arm of a pair by the pair's verdict."""
    if pair.verdict == Verdict.VOID:
        return "void"
    marks = [
        *(["provisional"] if pair.provisional else []),
        *(["interval disputed"] if pair.disputed else []),
    ]
    if pair.faster is not None:
        words = "faster" if pair.faster == arm else "slower"
        if pair.verdict == Verdict.SIZE_UNCERTAIN:
            words += ", size uncertain"
    elif pair.verdict == Verdict.TIE:
        words = "tie"
    else:
        more = pair.further_blocks
        words = "inconclusive" + (f", about {more} more blocks" if more else "")
        marks += [pair.reason] if pair.reason else []
    return ("fastest set, " if in_set else "") + "; ".join([words, *marks])


def _even_words(even: BreakEven | None) -> str:
    """Return a text such as "faster up to 230 [180, 310]", short enough for a narrow terminal.

    It compares the total time of an arm, start-up included, with the leader's.
    """
    if even is None or even.first_ahead in ("always", "never"):
        return ABSENT
    low, high = (significant(end) if numpy.isfinite(end) else "∞" for end in (even.low, even.high))
    return f"faster {STEPS_WORDS[even.first_ahead]} {significant(even.steps)} [{low}, {high}]"


def _measured(row: dict[Any, Any], comparison: Comparison) -> dict[str, str]:
    latency = [milliseconds(row[f"latency_p{p}_seconds"]) for p in (50, 95, 99)]
    low, high = milliseconds(row["step_seconds_low"]), milliseconds(row["step_seconds_high"])
    step, verdict = milliseconds(row["step_seconds"]), _verdict(row, comparison)
    return {
        "arm": row["arm"],
        "status": row["status"],
        **{name: text for name, text in verdict.items() if name != _EVEN},
        "step (ms)": step if low == ABSENT else f"{step} [{low}, {high}]",
        _LATENCY: ABSENT if latency == [ABSENT] * 3 else " / ".join(latency),
        _FIRST: milliseconds(row["first_token_seconds"]),
        _FURTHER: milliseconds(row["further_token_seconds"]),
        "examples/s": significant(row["examples_per_second"]),
        "start-up (s)": significant(row["startup_seconds"]),
        "first step, cold (s)": significant(row["cold_first_step_seconds"]),
        _EVEN: verdict[_EVEN],
        _PEAK: mebibytes(row["peak_bytes"]),
        "cores used": significant(row["concurrency"]),
        "waited for a core (%)": significant(row["wait_share"] * 100, 2),
        "of roofline (%)": significant(row["roofline_share"] * 100),
        "output error": scientific(row["output_error"]),
        _ACCURACY: significant(row["test_accuracy"] * 100),
    }


def _unmeasured(row: dict[Any, Any], comparison: Comparison) -> dict[str, str]:
    empty = dict.fromkeys(_measured(row, comparison), ABSENT)
    error = scientific(row["output_error"])
    return {**empty, "arm": row["arm"], "status": row["status"], "output error": error}


def pairs_of(comparison: Comparison) -> pandas.DataFrame:
    """Every pair of every kind of slice as texts."""
    rows = [
        {
            "statistic": judged.statistic,
            "pair": f"{pair.first} / {pair.second}",
            "ratio": _ratio(pair),
            "verdict": pair.verdict + (f": {pair.faster}" if pair.faster else ""),
            "notes": "; ".join(_pair_notes(pair)) or ABSENT,
        }
        for judged in comparison.judged.values()
        for pair in judged.verdicts.pairs
    ]
    return pandas.DataFrame(rows, dtype="str")


def _pair_notes(pair: PairVerdict) -> Iterable[str]:
    if pair.provisional:
        yield "provisional: one session"
    if pair.disputed:
        yield "bootstrap-t gives another interval"
    if pair.further_blocks:
        yield f"about {pair.further_blocks} more blocks"
    if pair.reason:
        yield pair.reason


@dataclass
class _Notes:
    """Numbered texts, each once."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        text = clean(text)
        if text not in self.texts:
            self.texts.append(text)
        return f" ({self.texts.index(text) + 1})"


def markdown(tables: Iterable[ComparisonTable], *, pairs: bool = True) -> str:
    """The tables as GitHub-flavoured Markdown; ``pairs``: with every verdict below each."""
    parts = []
    for table in tables:
        parts += [f"### {escape(table.title)}", markdown_table(table.cells, left=TEXT_COLUMNS)]
        parts += ["\n".join(f"- {escape(line)}" for line in table.below if line)]
        notes = [f"{number}. {escape(note)}" for number, note in enumerate(table.notes, start=1)]
        parts += ["\n".join(notes)] if notes else []
        if pairs and len(table.pairs):
            parts += ["#### Every pair", markdown_table(table.pairs, left=[*table.pairs.columns])]
    return "\n\n".join(parts) + "\n"
