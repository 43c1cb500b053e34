"""``levelfield report``: writes tables and charts from the records of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from levelfield.harness.cli.options import ModelsFromOption
from levelfield.harness.cli.terminal import TextTable, terminal
from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.plan.suite import add_folders

if TYPE_CHECKING:
    from levelfield.harness.report.tables import ComparisonTable

FEW_ARMS = 4  # a terminal shows every pair of at most so many arms


def report_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or a folder that contains run folders.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the report. Default: 'report' in the first run."
        ),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also write one file for a browser: report.html.")
    ] = False,
    models_from: ModelsFromOption = None,
) -> None:
    """Print the comparisons and write a report, all from raw records.

    Writes Markdown, CSV, Parquet, LaTeX, charts, and JSON for pytest-benchmark compare.
    """
    add_folders(models_from or ())
    show_report(runs, output or runs[0] / "report", terminal(), html=html)


def show_report(
    runs: Sequence[Path], folder: Path, console: Console, *, html: bool = False
) -> None:
    """Write the report, then print its tables: a screen that is gone costs no file.

    A report that cannot be written costs no table. Raises BadInput or RunFailed after the tables.
    """
    # Imported here because pandas and Matplotlib take longer to load than most commands to run.
    from levelfield.harness.analysis.comparisons import comparisons_of
    from levelfield.harness.records import frames
    from levelfield.harness.report import FORMATS, write_report
    from levelfield.harness.report.findings import not_quiet
    from levelfield.harness.report.tables import comparison_tables

    unwritten = None
    try:
        write_report(runs, folder, formats=FORMATS if html else FORMATS[:-1])
    except (BadInput, RunFailed) as error:
        unwritten = error
    loaded = frames.load(runs)
    for table in comparison_tables(loaded, comparisons_of(loaded)):
        show_table(table, console)
    for line in not_quiet(loaded):
        console.print(line)
    if unwritten is not None:
        raise unwritten
    name = "report.html" if html else "report.md"
    console.print(f"report: {folder / name}", soft_wrap=True)


def show_table(table: ComparisonTable, console: Console) -> None:
    """Print a comparison with its notes and, for a few arms, with the verdict on every pair."""
    from levelfield.harness.report.tables import TEXT_COLUMNS
    from levelfield.harness.report.text import ABSENT

    cells = table.cells.to_dict("split")
    kinds = {
        # A unit stands below the name of its column.
        name.replace(" (", "\n("): "name" if name in TEXT_COLUMNS else "number"
        for name in cells["columns"]
    }
    kinds["status"] = "status"
    styles = ["" if status.startswith("ok") else "yellow" for status in table.cells["status"]]
    console.print(TextTable(kinds, cells["data"], table.title, styles))
    for line in table.below:
        console.print(line)
    for number, note in enumerate(table.notes, start=1):
        console.print(f"{number}. {note}")
    if table.cells.shape[0] <= FEW_ARMS:
        for pair in table.pairs.to_dict("records"):
            words = f"{pair['statistic']}: {pair['pair']} = {pair['ratio']}: {pair['verdict']}"
            console.print(words + (f" ({pair['notes']})" if pair["notes"] != ABSENT else ""))
