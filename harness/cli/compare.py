"""``levelfield compare``: compares two sessions of one suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from levelfield.harness.cli.terminal import TextTable, print_json, terminal
from levelfield.harness.errors import clean

if TYPE_CHECKING:
    from levelfield.harness.analysis.sessions import Change


def compare_command(
    before: Annotated[Path, typer.Argument(help="Folder of the earlier run.")],
    after: Annotated[Path, typer.Argument(help="Folder of the later run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what changed between two runs of a suite, and whether their verdicts agree.

    The runs are not interleaved. Each arm is first compared with an anchor in its own run.
    Runs on different machines get no verdict.
    Arms are matched by name, or by name without version, such as jax@0.9.2:jit and jax:jit.
    """
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.analysis.sessions import OTHER_MACHINE, compare

    compared = compare(before, after)
    changes, agreements = compared.changes, compared.agreements
    if as_json:
        content = {
            "machines": compared.machines,
            "left_out": compared.left_out,
            "changes": [asdict(change) for change in changes],
            "verdicts": [asdict(agreement) for agreement in agreements],
        }
        print_json(content)
        return
    console = terminal()
    if compared.machines:
        machines = "; ".join(compared.machines)
        console.print(clean(f"{OTHER_MACHINE}, so no verdicts: {machines}"), soft_wrap=True)
    console.print(_table(changes))
    console.print(
        f"anchors: {', '.join(sorted({change.anchor for change in changes}))}; the unprotected"
        " ratio also includes changes of the machine between the runs"
    )
    if compared.left_out:
        console.print(clean(f"not compared: {', '.join(compared.left_out)}"), soft_wrap=True)
    if compared.machines:
        return
    words = [agreement.word for agreement in agreements]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("agree", "open", "contradict"))
    console.print(f"verdicts on pairs: {counts}")
    for agreement in agreements:
        if agreement.word == "contradict":
            pair = f"{agreement.first} / {agreement.second}"
            ends = f"first {agreement.before}, then {agreement.after}"
            console.print(clean(f"contradiction in {agreement.comparison}: {pair}: {ends}"))


def _table(changes: Sequence[Change]) -> TextTable:
    """The changes of all arms, a row for each."""
    from levelfield.harness.report.text import significant

    kinds = {**dict.fromkeys(("comparison", "arm"), "name"), "against anchor": "number"}
    kinds |= {"95 % interval": "number", "unprotected": "number", "verdict": "status"}
    rows = [
        (
            change.comparison,
            change.after if change.before == change.after else f"{change.before} -> {change.after}",
            significant(change.ratio, 4),
            f"{significant(change.low, 4)} to {significant(change.high, 4)}",
            significant(change.raw, 4),
            change.word,
        )
        for change in changes
    ]
    return TextTable(kinds, rows, "Seconds of the second run over those of the first")
