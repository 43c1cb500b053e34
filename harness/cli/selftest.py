"""``levelfield selftest``: tests the harness itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.cli.terminal import terminal
from harness.errors import BadInput


def selftest_command(
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick", help="Also test real frameworks: one to two hours instead of minutes."
        ),
    ] = False,
    mutations: Annotated[
        bool,
        typer.Option(
            "--mutations",
            help="Run only the mistakes seeded into copies of adapters: half an hour.",
        ),
    ] = False,
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder in which the results are kept.")
    ] = Path("results"),
) -> None:
    """Test the measurement itself: every goal next to its figure. Exits with 1 for a miss."""
    from harness.selftest import page
    from harness.selftest.goals import as_table
    from harness.selftest.proof import prove, prove_mutations

    stderr = terminal(stderr=True)

    def say(text: str) -> None:
        stderr.print(text, highlight=False, markup=False)

    folder = results / f"{datetime.now():%Y%m%d-%H%M%S}-selftest"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(
            f"{folder}: cannot write there: {error.strerror}; choose another: --results DIR"
        ) from error
    findings, path = prove_mutations(folder, say) if mutations else prove(folder, say, full=full)
    _, facts = page.read(folder)
    (folder / "measurement.md").write_text(page.markdown(findings, facts), encoding="utf-8")
    table = Table(box=None, padding=(0, 2, 0, 0))
    rows = as_table(findings).drop(columns=["part", "note"])
    for name in rows.columns:
        table.add_column(name)
    for row in rows.to_dict("records"):
        style = "" if row["met"] == "yes" else "yellow"
        table.add_row(*(Text(text) for text in row.values()), style=style)
    console = terminal()
    console.print(table)
    console.print(f"kept in {path}", highlight=False, soft_wrap=True)
    if not all(finding.met for finding in findings):
        raise typer.Exit(1)
