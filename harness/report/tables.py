"""Comparison tables for people: one per group of like cells, arms in the order of the plan.

Every planned arm has a row and every reason a note; no number of a cell that is not ok is shown,
except the error for which an arm is ``wrong``. Numbers have three significant digits at most: the
measurement supports no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from harness.frames import Frames, summary
from harness.report.text import (
    ABSENT,
    clean,
    escape,
    markdown_table,
    mebibytes,
    milliseconds,
    scientific,
    significant,
)

NO_VERDICT = (
    "No winner is named: one process per arm was timed, and from that no verdict can be drawn. "
    "Arms stand in the order of the run's plan; the spread is the fastest and slowest slice, "
    "not an interval."
)
_KEY = ["run", "model", "preset", "phase", "batch", "optimizer"]
_KEY += ["threads", "numeric", "device", "profile"]
_LATENCY = "latency p50 / p95 / p99 (ms)"
_ACCURACY, _PEAK = "test accuracy (%)", "peak (MiB)"
_UNTOLD = {"unfinished": "interrupted, or still to run"}
_TEXT_COLUMNS = ("arm", "status")


@dataclass(frozen=True)
class Group:
    """Cells that differ in nothing but the arm; ``rows`` are theirs of the summary, as planned."""

    title: str
    details: str
    rows: pandas.DataFrame


@dataclass(frozen=True)
class ComparisonTable:
    """One comparison as text: ``cells`` with units in its column names, one row per arm.

    A number in parentheses in a cell is that of its note; the first note is number 1.
    """

    title: str
    cells: pandas.DataFrame
    coverage: str
    notes: tuple[str, ...]


def groups(table: pandas.DataFrame) -> list[Group]:
    """Split a summary into comparable groups, in the order of the plan."""
    several = table["run"].nunique() > 1
    found = []
    for _, rows in table.groupby(_KEY, sort=False):
        one = rows.iloc[0]
        optimizer = f" with {one['optimizer']}" if one["optimizer"] else ""
        details = [
            f"batch {one['batch']}",
            f"{one['threads']} thread{'s' if one['threads'] != 1 else ''}",
            one["numeric"],
            one["device"],
            *([one["profile"]] if one["profile"] != "default" else []),
            *([f"run {one['run']}"] if several else []),
        ]
        title = f"{one['model']}/{one['preset']} {one['phase']}{optimizer}"
        found.append(Group(clean(title), clean(", ".join(details)), rows))
    return found


def comparison_tables(frames: Frames) -> list[ComparisonTable]:
    """A table for each group of cells that may be compared, in the order of the plan."""
    why: dict[tuple[str, str, str], str] = {}
    for column, frame in ((_PEAK, frames.memory), (_ACCURACY, frames.accuracy)):
        for run, cell, reason in zip(frame["run"], frame["cell"], frame["reason"], strict=True):
            if reason:
                why[run, cell, column] = reason
    return [_table(group, why) for group in groups(summary(frames))]


def _table(group: Group, why: dict[tuple[str, str, str], str]) -> ComparisonTable:
    notes = _Notes()
    rows = []
    for row in group.rows.to_dict("records"):
        cells = _measured(row) if row["status"] == "ok" else _unmeasured(row)
        if row["status"] != "ok":
            reason = row["reason"] or _UNTOLD.get(row["status"], "no reason was recorded")
            cells["status"] += notes.mark(f"{row['arm']} {row['status']}: {reason}")
        for column in (_PEAK, _ACCURACY):
            reason = why.get((row["run"], row["cell"], column), "")
            if reason and row["status"] == "ok":
                cells[column] += notes.mark(f"{column.split(' (')[0]}: {reason}")
        rows.append({name: clean(cell) for name, cell in cells.items()})
    frame = pandas.DataFrame(rows, dtype="str")
    if (frame[_ACCURACY] == ABSENT).all():  # nothing is learned in inference
        frame = frame.drop(columns=_ACCURACY)
    fine = int((group.rows["status"] == "ok").sum())
    return ComparisonTable(
        title=f"{group.title}, {group.details}",
        cells=frame.reset_index(drop=True),
        coverage=f"{fine} of {len(frame)} arm{'s' if len(frame) != 1 else ''} ok",
        notes=tuple(notes.texts),
    )


def _measured(row: dict[Any, Any]) -> dict[str, str]:
    latency = [milliseconds(row[f"latency_p{p}_seconds"]) for p in (50, 95, 99)]
    low, high = milliseconds(row["step_seconds_low"]), milliseconds(row["step_seconds_high"])
    first = significant(row["first_step_seconds"])
    if not pandas.isna(row["compile_seconds"]):
        first += f" + compile {significant(row['compile_seconds'])}"
    return {
        "arm": row["arm"],
        "status": row["status"],
        "step (ms)": milliseconds(row["step_seconds"]),
        "spread (ms)": ABSENT if low == ABSENT else f"{low} to {high}",
        _LATENCY: ABSENT if latency == [ABSENT] * 3 else " / ".join(latency),
        "examples/s": significant(row["examples_per_second"]),
        "import (s)": significant(row["import_seconds"]),
        "build (s)": significant(row["build_seconds"]),
        "first step (s)": first,
        _PEAK: mebibytes(row["peak_bytes"]),
        "output error": scientific(row["output_error"]),
        _ACCURACY: significant(row["test_accuracy"] * 100),
    }


def _unmeasured(row: dict[Any, Any]) -> dict[str, str]:
    empty = dict.fromkeys(_measured(row), ABSENT)
    error = scientific(row["output_error"])
    return {**empty, "arm": row["arm"], "status": row["status"], "output error": error}


@dataclass
class _Notes:
    """Numbered texts, each once."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        text = clean(text)
        if text not in self.texts:
            self.texts.append(text)
        return f" ({self.texts.index(text) + 1})"


def to_rich(table: ComparisonTable) -> RenderableType:
    """The table for a terminal of any width; where it is narrow, in bands below each other."""
    return _Terminal(table)


@dataclass(frozen=True)
class _Terminal:
    """Breaks between columns, never in a number. https://rich.readthedocs.io/en/stable/protocol.html"""

    table: ComparisonTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.table.title, style="bold")
        for band in _bands(self.table.cells, options.max_width):
            yield self._band(band)
        notes = [f"{number}. {note}" for number, note in enumerate(self.table.notes, start=1)]
        yield Text("\n".join([self.table.coverage, *notes, NO_VERDICT]))

    def _band(self, names: list[str]) -> Table:
        shown = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
        for name in names:
            side: Literal["left", "right"] = "left" if name in _TEXT_COLUMNS else "right"
            shown.add_column(Text(_header(name)), justify=side, no_wrap=True)
        for row in self.table.cells.to_dict("records"):
            style = "" if row["status"].startswith("ok") else "yellow"
            shown.add_row(*(Text(row[name]) for name in names), style=style)
        return shown


def _header(name: str) -> str:
    return name.replace(" (", "\n(")


def _bands(cells: pandas.DataFrame, width: int) -> list[list[str]]:
    """Names of the columns of each band; the arm leads each."""
    arm, *others = cells.columns
    size = {
        name: 2 + max(map(cell_len, [*_header(name).splitlines(), *cells[name]]))
        for name in cells.columns
    }
    bands = [[arm]]
    for name in others:
        if len(bands[-1]) > 1 and sum(size[each] for each in bands[-1]) + size[name] > width:
            bands.append([arm])
        bands[-1].append(name)
    return bands


def markdown(tables: Iterable[ComparisonTable]) -> str:
    """The tables as GitHub-flavoured Markdown, with the line on verdicts above them."""
    parts = [NO_VERDICT]
    for table in tables:
        parts += [
            f"### {escape(table.title)}",
            markdown_table(table.cells, left=_TEXT_COLUMNS),
            table.coverage,
        ]
        notes = [f"{number}. {escape(note)}" for number, note in enumerate(table.notes, start=1)]
        parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n"
