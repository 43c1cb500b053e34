"""How all commands print: cleaned texts, tables for terminals of any width, and strict JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from levelfield.harness.errors import clean, printable

GAP = 2  # columns of the terminal between columns of a table
PROSE_WIDTH = 30  # columns that a longer text gets before the table is broken into bands


class _CleanConsole(Console):
    """A console for texts from files of others: they steer neither the terminal nor its layout."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with spaces in place of characters that steer a terminal."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text=printable(segment.text))


def terminal(*, stderr: bool = False) -> Console:
    """A console that shows every text as it is.

    Titles, names and reasons come from files of third parties: brackets in them are no markup and
    colons no emoji.
    """
    if os.environ.get("COLUMNS") == "0":  # what some programs set where they do not know it
        del os.environ["COLUMNS"]
    return _CleanConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


@dataclass(frozen=True)
class TextTable:
    """A table for a terminal of any width: a narrow one shows bands of columns below each other.

    ``columns``: name -> "name", "status", "number" or "prose". Numbers and statuses are never cut
    or broken, names break where they must, prose between words. Each band begins with the first
    ``keys`` columns, which name a row. ``styles``: rich's style of each row.
    """

    columns: Mapping[str, str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    styles: Sequence[str] = ()
    keys: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        # Before the layout: a character that steers has no width, and the space in its place has.
        cells = [tuple(map(clean, row)) for row in self.rows]
        widths = [
            max(map(cell_len, [*name.splitlines(), *(row[number] for row in cells)]))
            for number, name in enumerate(self.columns)
        ]
        for band in self._bands(widths, options.max_width):
            yield self._table(band, cells, widths)

    def _bands(self, widths: Sequence[int], most: int) -> list[list[int]]:
        """The numbers of the columns of each band, which takes at most so much of the terminal."""
        sizes = [
            GAP + (min(width, PROSE_WIDTH) if kind == "prose" else width)
            for width, kind in zip(widths, self.columns.values(), strict=True)
        ]
        names = [*range(self.keys)]
        bands = [[*names]]
        for number in range(self.keys, len(sizes)):
            fits = sum(sizes[n] for n in (*bands[-1], number)) <= most + GAP
            if len(bands[-1]) > self.keys and not fits:
                bands.append([*names])
            bands[-1].append(number)
        return bands

    def _table(
        self, band: Sequence[int], cells: Sequence[Sequence[str]], widths: Sequence[int]
    ) -> Table:
        table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
        for number, (name, kind) in enumerate(self.columns.items()):
            if number in band:
                whole = kind in ("status", "number")
                table.add_column(
                    Text(name),
                    justify="right" if kind == "number" else "left",
                    overflow="fold",
                    no_wrap=whole,
                    min_width=widths[number] if whole else None,
                )
        for row, style in zip(cells, self.styles or [""] * len(cells), strict=True):
            table.add_row(*(Text(row[number]) for number in band), style=style)
        return table


def print_next(console: Console, *steps: str) -> None:
    """Say below a table what to type next; a step is words and a command, never broken."""
    console.print(f"next: {'; '.join(map(clean, steps))}", soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as strict JSON: numbers that JSON does not have are null."""
    print(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
