"""Shows the progress of a run on a terminal, or as lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from levelfield.harness.engine.state import Progress as Listener
    from levelfield.harness.engine.time_left import Left
    from levelfield.harness.plan.cells import Cell

LINE_SECONDS = 15.0  # between lines about stages, where no terminal shows a bar


@contextmanager
def watched(console: Console, total: int) -> Iterator[Listener]:
    """A listener for the engine; ``total`` is how many cells there are.

    Nothing refreshes by itself: a display that woke up now and then would run while arms are timed.
    """
    if not console.is_terminal:
        yield _Lines(console, total)
        return
    columns = (
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        yield _Bar(progress)


def in_words(left: Left | None) -> str:
    """Say how long a run still takes; "" if that is not known."""
    if left is None:
        return ""
    return f"{'at most' if left.at_most else 'about'} {minutes(left.seconds)}"


def minutes(seconds: float) -> str:
    """Say a time in whole minutes, at least 1, and hours."""
    hours, rest = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {rest:02} min" if hours else f"{rest} min"


class _Lines:
    """A line per finished cell, and now and then one about what happens."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0
        self._line_seconds = time.monotonic()  # when the last line was printed

    def stage(self, text: str, done: float, left: Left | None) -> None:
        if time.monotonic() - self._line_seconds >= LINE_SECONDS:
            self._say(" ".join(filter(None, [f"{done:.0%}", in_words(left), text])))

    def cell_done(self, cell: Cell) -> None:
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {cell.title}")

    def _say(self, text: str) -> None:
        self._line_seconds = time.monotonic()
        self._console.print(text, soft_wrap=True)


class _Bar:
    """One bar over the whole run."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("", total=1.0, left="")

    def stage(self, text: str, done: float, left: Left | None) -> None:
        self._progress.update(self._task, completed=done, description=text, left=in_words(left))
        self._progress.refresh()

    def cell_done(self, cell: Cell) -> None:
        """The bar knows of work, not of cells."""
