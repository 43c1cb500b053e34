"""``levelfield report``: writes tables and charts from the records of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.cli.terminal import terminal


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
) -> None:
    """Print the comparisons and write a report, all from raw records.

    Writes Markdown, CSV, Parquet, LaTeX, charts, and JSON for pytest-benchmark compare.
    """
    show_report(runs, output or runs[0] / "report", terminal(), html=html)


def show_report(
    runs: Sequence[Path], folder: Path, console: Console, *, html: bool = False
) -> None:
    """Write the report, then print its tables: a screen that is gone costs no file."""
    # Imported here because pandas and Matplotlib take longer to load than most commands to run.
    from harness.analysis.groups import groups
    from harness.records import frames
    from harness.report import FORMATS, write_report
    from harness.report.findings import not_quiet
    from harness.report.tables import comparison_tables, to_rich

    write_report(runs, folder, formats=FORMATS if html else FORMATS[:-1])
    loaded = frames.load(runs)
    for table in comparison_tables(loaded, groups(loaded)):
        console.print(to_rich(table))
    for line in not_quiet(loaded):
        console.print(line)
    name = "report.html" if html else "report.md"
    console.print(f"report: {folder / name}", soft_wrap=True)
