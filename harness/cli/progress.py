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


def left(seconds: float | None) -> str:
    """Say how long a run still takes at most, in whole minutes; "" if that is not known."""
    if seconds is None:
        return ""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"at most {hours} h {minutes:02} min" if hours else f"at most {minutes} min"


class _Lines:
    """A line per finished cell, and now and then one about what happens."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0
        self._line_seconds = time.monotonic()  # when the last line was printed

    def stage(self, text: str, done: float, left_seconds: float | None) -> None:
        if time.monotonic() - self._line_seconds >= LINE_SECONDS:
            self._say(" ".join(filter(None, [f"{done:.0%}", left(left_seconds), text])))

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

    def stage(self, text: str, done: float, left_seconds: float | None) -> None:
        self._progress.update(self._task, completed=done, description=text, left=left(left_seconds))
        self._progress.refresh()

    def cell_done(self, cell: Cell) -> None:
        """The bar knows of work, not of cells."""
