"""``levelfield report``: writes tables and charts from the records of runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from levelfield.harness.cli.options import ModelsFromOption
from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.plan.suite import add_folders

if TYPE_CHECKING:
    from pandas import DataFrame

    from levelfield.harness.analysis.comparisons import Comparison
    from levelfield.harness.records.frames import Frames
    from levelfield.harness.report.answer import Answer
    from levelfield.harness.report.tables import ComparisonTable

_PAGES = ("report.md", "report.html")  # in the order in which they are written
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
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Write this format alone: markdown, html, latex, benchmark, charts, csv, parquet,"
            " pytorch or mlperf; may be given several times.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary and the verdicts as JSON.")
    ] = False,
    models_from: ModelsFromOption = None,
) -> None:
    """Print the answer and the comparisons and write a report, all from raw records.

    Writes a page for a browser (report.html), Markdown, LaTeX, and JSON for pytest-benchmark
    compare. On request also charts as files (--format charts), every frame of records (csv,
    parquet), records for PyTorch's benchmark database (pytorch) and MLPerf's log lines (mlperf).
    """
    add_folders(models_from or ())
    chosen = _chosen(formats or ())
    folder = output or runs[0] / "report"
    show_report(runs, folder, terminal(), formats=chosen, as_json=as_json)


def _chosen(names: Sequence[str]) -> list[str]:
    """Return the formats to write. Raises BadInput for an unknown one, before any table."""
    # Imported here because Matplotlib takes longer to load than most commands to run.
    from levelfield.harness.report import DEFAULT_FORMATS, FORMATS

    for name in names:
        if name not in FORMATS:
            raise BadInput(f"--format: {name!r} is none of {', '.join(FORMATS)}")
    return [*dict.fromkeys(names or DEFAULT_FORMATS)]


def show_report(
    runs: Sequence[Path],
    folder: Path,
    console: Console,
    *,
    formats: Sequence[str] | None = None,
    as_json: bool = False,
) -> None:
    """Write the report, then print its tables: a screen that is gone costs no file.

    ``formats``: those to write, if not the default ones. ``as_json``: print JSON, no table. A
    report that cannot be written costs no table. Raises BadInput or RunFailed after the tables.
    """
    # Imported here because pandas and Matplotlib take longer to load than most commands to run.
    from levelfield.harness.analysis.comparisons import comparisons_of
    from levelfield.harness.records import frames
    from levelfield.harness.report import DEFAULT_FORMATS, write_report

    unwritten, written = None, []
    try:
        written = write_report(runs, folder, formats=formats or DEFAULT_FORMATS)
    except (BadInput, RunFailed) as error:
        unwritten = error
    loaded = frames.load(runs)
    comparisons = comparisons_of(loaded)
    if as_json:
        print_json(_json_of(loaded, comparisons, written))
    else:
        _show_tables(loaded, comparisons, console)
    if unwritten is not None:
        raise unwritten
    if as_json:
        return
    names = " ".join(shlex.quote(str(run)) for run in runs)
    print_next(console, f"which framework to take: levelfield advise {names}")
    pages = [path for path in written if path.name in _PAGES]
    for path in pages[-1:] or written[:1]:
        console.print(f"report: {path}", soft_wrap=True)


def _show_tables(loaded: Frames, comparisons: Sequence[Comparison], console: Console) -> None:
    """Print the answers, all tables, and at the end who leads."""
    from levelfield.harness.report.answer import answers
    from levelfield.harness.report.findings import not_quiet
    from levelfield.harness.report.provenance import machines_words
    from levelfield.harness.report.tables import comparison_tables

    for words in machines_words(loaded):
        console.print(words, soft_wrap=True)
    texts = answers(loaded, comparisons)
    for answer in texts:
        show_answer(answer, console)
    for table in comparison_tables(loaded, comparisons):
        show_table(table, console)
    for line in not_quiet(loaded):
        console.print(line)
    for answer in texts:
        console.print(answer.sentences[0])


def show_answer(answer: Answer, console: Console) -> None:
    """Print the sentences, the scope and the times of all arms."""
    from levelfield.harness.report.answer import KEY, table

    console.print(f"Run {answer.run}", style="bold")
    for sentence in answer.sentences:
        console.print(sentence)
    console.print(answer.scope)
    texts = table(answer).to_dict("split")
    names = ("comparison", "fastest set", "arm")
    kinds = {name: "name" if name in names else "number" for name in texts["columns"]}
    console.print(TextTable(kinds, texts["data"]))
    console.print(KEY)


def _json_of(
    loaded: Frames, comparisons: Sequence[Comparison], written: Sequence[Path]
) -> dict[str, Any]:
    """The comparisons for scripts: rows of the summary in the order of the tables, and verdicts."""
    from levelfield.harness.analysis.machines import unlike_machines
    from levelfield.harness.analysis.verdicts import verdict_frame

    def rows_of(frame: DataFrame) -> Any:
        return json.loads(frame.to_json(orient="records", double_precision=15))

    return {
        "unlike_machines": unlike_machines(loaded),
        "written": [str(path) for path in written],
        "comparisons": [
            {
                "run": comparison.run,
                "comparison": comparison.id,
                "title": comparison.title,
                "details": comparison.details,
                "leader": comparison.leader,
                "arms": rows_of(comparison.rows),
                "verdicts": rows_of(verdict_frame(comparison.judged.values())),
            }
            for comparison in comparisons
        ],
    }


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
