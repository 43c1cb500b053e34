"""``levelfield history``: compares many runs of one suite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.errors import clean

if TYPE_CHECKING:
    from levelfield.harness.analysis.history import History, HistoryStep


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
    console.print("Seconds of each run over those of the run before")
    for table in _tables(changes):
        console.print(table)
    for reason in changes.apart:
        console.print(clean(f"not compared: {reason}"), soft_wrap=True)
    print_next(
        console,
        "two runs in detail: levelfield compare RUN RUN2",
        "a chart: levelfield history --chart DIR",
    )


def _tables(changes: History) -> Iterator[TextTable]:
    """Yield a table for each comparison: the steps of its arms, a row for each."""
    groups: dict[tuple[str, str], list[HistoryStep]] = {}
    for step in changes.steps:
        groups.setdefault((step.suite, step.change.comparison), []).append(step)
    kinds = {"arm": "name", "run": "name", "against anchor": "number", "verdict": "status"}
    for (suite, comparison), steps in sorted(groups.items()):
        steps.sort(key=lambda step: step.change.after)
        yield TextTable(
            {**kinds, "version": "name"},
            [_row(step) for step in steps],
            f"{suite}: {comparison}",
            ["bold" if step.versions[0] != step.versions[1] else "" for step in steps],
            keys=2,
        )


def _row(step: HistoryStep) -> tuple[str, ...]:
    from levelfield.harness.report.text import significant

    (before, after), change = step.versions, step.change
    version = after if before == after else f"{before or '?'} -> {after or '?'}"
    packages = ", other packages" if step.packages and before == after else ""
    ends = f"[{significant(change.low, 4)}, {significant(change.high, 4)}]"
    ratio = f"{significant(change.ratio, 4)} {ends}"
    return change.after, step.run, ratio, change.word, version + packages
