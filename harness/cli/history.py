"""``levelfield history``: compares many runs of one suite."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from levelfield.harness.cli.terminal import TextTable, print_json, terminal
from levelfield.harness.errors import clean

if TYPE_CHECKING:
    from levelfield.harness.analysis.history import History


def history_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, or folders that contain run folders. Default: results."),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the chart: history.png and history.svg."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how every arm changed from each run of a suite to the next, with new versions marked.

    The runs are not interleaved. Each arm is first compared with an anchor in its own run.
    Runs on different machines get no verdict.
    """
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.analysis.history import history
    from levelfield.harness.analysis.sessions import OTHER_MACHINE

    changes = history(runs or [Path("results")])
    if chart is not None:
        from levelfield.harness.report import draw_history

        draw_history(changes, chart)
    if as_json:
        print_json(asdict(changes))
        return
    console = terminal()
    for machines in changes.machines:
        console.print(clean(f"{OTHER_MACHINE}, so no verdicts: {machines}"), soft_wrap=True)
    console.print(_table(changes))
    for reason in changes.apart:
        console.print(clean(f"not compared: {reason}"), soft_wrap=True)


def _table(changes: History) -> TextTable:
    """The steps of all arms, a row for each."""
    from levelfield.harness.report.text import significant

    kinds = {"arm": "name", "against anchor": "number", "verdict": "status", "version": "name"}
    kinds |= dict.fromkeys(("run", "comparison", "suite"), "name")
    ordered = sorted(
        changes.steps,
        key=lambda step: (step.suite, step.change.comparison, step.change.after),
    )
    rows, styles = [], []
    for step in ordered:
        before, after = step.versions
        version = after if before == after else f"{before or '?'} -> {after or '?'}"
        packages = ", other packages" if step.packages and before == after else ""
        change = step.change
        ends = f"[{significant(change.low, 4)}, {significant(change.high, 4)}]"
        rows.append(
            (
                change.after,
                f"{significant(change.ratio, 4)} {ends}",
                change.word,
                version + packages,
                step.run,
                change.comparison,
                step.suite,
            )
        )
        styles.append("bold" if before != after else "")
    return TextTable(kinds, rows, "Seconds of each run over those of the run before", styles)
