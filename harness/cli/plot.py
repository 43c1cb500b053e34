"""``levelfield plot``: draws one chart of runs, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from levelfield.harness.cli.options import ModelsFromOption
from levelfield.harness.plan.suite import add_folders


def plot_command(
    kind: Annotated[
        str,
        typer.Argument(
            help="ratio, step-time, throughput, break-even, memory, startup, roofline, heat,"
            " status, pareto, profile, scaling, learning or time-to."
        ),
    ],
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or a folder that contains run folders.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the chart. Default: the working folder."),
    ] = None,
    highlight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM",
            help="Arms or patterns, separated by commas, that are in colour while all others are"
            " grey; may be given several times.",
        ),
    ] = None,
    models_from: ModelsFromOption = None,
) -> None:
    """Draw one chart from the raw records of runs, as PNG and as SVG."""
    # Imported here because pandas and Matplotlib take longer to load than most commands to run.
    from levelfield.harness.report import plot

    add_folders(models_from or ())
    for path in plot(kind, runs, output or Path(), highlight=highlight or ()):
        print(path)
