"""``levelfield selftest``: tests the harness itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.errors import BadInput

if TYPE_CHECKING:
    from levelfield.harness.selftest.goals import Finding


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test the measurement itself: every goal next to its figure. Exits with 1 for a miss."""
    from levelfield.harness.selftest import page
    from levelfield.harness.selftest.proof import prove, prove_mutations

    stderr = terminal(stderr=True)

    def say(text: str) -> None:
        stderr.print(text)

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
    _show(findings, path, as_json=as_json)
    if not all(finding.met for finding in findings):
        raise typer.Exit(1)


def _show(findings: Sequence[Finding], path: Path, *, as_json: bool) -> None:
    """Print every goal next to its figure, and where the records are kept."""
    kinds = {"what": "prose", "goal": "status", "found": "prose", "met": "status"}
    rows = [
        (finding.what, finding.goal, finding.figure, "yes" if finding.met else "NO")
        for finding in findings
    ]
    if as_json:
        goals = [dict(zip(kinds, row, strict=True)) for row in rows]
        print_json({"kept": str(path), "goals": goals})
        return
    styles = ["" if finding.met else "yellow" for finding in findings]
    console = terminal()
    console.print(TextTable(kinds, rows, styles=styles))
    console.print(f"kept in {path}", soft_wrap=True)
    print_next(console, "whether this machine can give a verdict: levelfield doctor")
