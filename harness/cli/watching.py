"""Progress of a run on a terminal, or one line per cell where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.engine import Progress as Listener
from harness.suite import Cell


@contextmanager
def watched(console: Console, total: int) -> Iterator[Listener]:
    """A listener for the engine that shows each cell, its stage and the time remaining.

    Nothing refreshes by itself: a display that woke up now and then would run beside what is timed.
    """
    if not console.is_terminal:
        done = 0

        def line(cell: Cell, stage: str) -> None:
            nonlocal done
            if stage == "done":
                done += 1
                print(f"[{done}/{total}] {cell.title}", file=console.file, flush=True)

        yield line
        return
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        # The estimate is taken over the whole run: cells of one arm come together.
        task = progress.add_task("", total=total)

        def show(cell: Cell, stage: str) -> None:
            progress.update(
                task, advance=1 if stage == "done" else 0, description=f"{cell.title}: {stage}"
            )
            progress.refresh()

        yield show
