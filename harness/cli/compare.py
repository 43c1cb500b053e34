"""``levelfield compare``: compares two sessions of one suite."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.errors import BadInput, RunFailed, clean

if TYPE_CHECKING:
    from levelfield.harness.analysis.sessions import Change, Compared

NAMED_OFFENDERS = 3  # in the line of a gate that fails


def compare_command(
    before: Annotated[Path, typer.Argument(help="Folder of the earlier run.")],
    after: Annotated[Path, typer.Argument(help="Folder of the later run.")],
    fail_above: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Exit with 1 if an arm became slower by more than this share, such as 5%.",
        ),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a comment for a pull request.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what changed between two runs of a suite, and whether their verdicts agree.

    The runs are not interleaved. Each arm is first compared with an anchor in its own run.
    Runs on different machines get no verdict.
    Arms are matched by name, or by name without version, such as jax@0.9.2:jit and jax:jit.

    With --fail-above, runs that give no verdict exit with 1 as well: nothing shows that they are
    as fast as before. A change that is open does not fail.
    """
    if as_json and as_markdown:
        raise BadInput("--json and --markdown are two forms of one output; choose one of them")
    limit = None if fail_above is None else _share(fail_above)
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.analysis.sessions import compare

    compared = compare(before, after)
    if as_json:
        _print_json(compared)
    elif as_markdown:
        terminal().print(_markdown(compared), soft_wrap=True, markup=False)
    else:
        _show(compared)
    if limit is not None:
        _refuse_slower(compared, limit)


def _share(text: str) -> float:
    """Return a share that is written as 5% or 0.05. Raises BadInput."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        raise BadInput(f"--fail-above: {text!r} is no share of 0 or more; write 5% or 0.05")
    return share


def _refuse_slower(compared: Compared, limit: float) -> None:
    """Raise RunFailed if an arm became slower by more than ``limit``, or if nothing can say so."""
    from levelfield.harness.report.text import significant

    if not compared.decides:
        reasons = ", ".join(dict.fromkeys(change.word for change in compared.changes))
        raise RunFailed(
            f"these runs give no verdict ({reasons}), so nothing shows that no arm became slower by"
            f" more than {100 * limit:.3g} %; run the suite twice on one machine, with an A/A twin"
        )
    offenders = compared.slower_than(limit)
    if not offenders:
        return
    named = [
        f"{change.after} in {change.comparison}: {significant(change.ratio, 4)}"
        f" ({significant(change.low, 4)} to {significant(change.high, 4)})"
        for change in offenders[:NAMED_OFFENDERS]
    ]
    more = len(offenders) - len(named)
    named += [f"and {more} more"] if more else []
    raise RunFailed(f"slower by more than {100 * limit:.3g} %: {'; '.join(named)}")


def _print_json(compared: Compared) -> None:
    print_json(
        {
            "machines": compared.machines,
            "left_out": compared.left_out,
            "changes": [asdict(change) for change in compared.changes],
            "verdicts": [asdict(agreement) for agreement in compared.agreements],
        }
    )


def _markdown(compared: Compared) -> str:
    """Return the changes as Markdown: a heading with their counts, machines, and a table."""
    import pandas

    from levelfield.harness.report.text import escape, markdown_table

    counts = Counter(change.word for change in compared.changes)
    heading = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    notes = [f"{_no_verdicts(compared.machines)}."] if compared.machines else []
    notes += [f"Not compared: {', '.join(compared.left_out)}."] if compared.left_out else []
    before = "".join(f"{escape(note)}\n\n" for note in notes)
    cells = pandas.DataFrame(_rows(compared.changes), columns=pandas.Index(list(_COLUMNS)))
    table = markdown_table(cells, left=("comparison", "arm", "verdict"))
    return f"### Levelfield: {heading}\n\n{before}{_CAPTION}.\n\n{table}"


def _no_verdicts(machines: Sequence[str]) -> str:
    """Say that the runs were made on unlike machines, and in what these differ."""
    from levelfield.harness.analysis.sessions import OTHER_MACHINE

    return f"{OTHER_MACHINE}, so no verdicts: {'; '.join(machines)}"


def _show(compared: Compared) -> None:
    changes, agreements = compared.changes, compared.agreements
    console = terminal()
    if compared.machines:
        console.print(clean(_no_verdicts(compared.machines)), soft_wrap=True)
    console.print(_CAPTION)
    for comparison in dict.fromkeys(change.comparison for change in changes):
        mine = [change for change in changes if change.comparison == comparison]
        # The comparison is the title: a narrow terminal repeats only the arm in each band.
        rows = [row[1:] for row in _rows(mine)]
        console.print(TextTable(_COLUMNS_OF_ARMS, rows, comparison))
    console.print(
        f"anchors: {', '.join(sorted({change.anchor for change in changes}))}; the unprotected"
        " ratio also includes changes of the machine between the runs"
    )
    if compared.left_out:
        console.print(clean(f"not compared: {', '.join(compared.left_out)}"), soft_wrap=True)
    if compared.machines:
        print_next(console, "run the suite twice on one machine: levelfield run SUITE")
        return
    words = [agreement.word for agreement in agreements]
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("agree", "open", "contradict"))
    console.print(f"verdicts on pairs: {counts}")
    for agreement in agreements:
        if agreement.word == "contradict":
            pair = f"{agreement.first} / {agreement.second}"
            ends = f"first {agreement.before}, then {agreement.after}"
            console.print(clean(f"contradiction in {agreement.comparison}: {pair}: {ends}"))
    print_next(
        console,
        "more runs in order: levelfield history",
        "a gate: levelfield compare RUN RUN2 --fail-above 5%",
    )


_CAPTION = "Seconds of the second run over those of the first"
_COLUMNS_OF_ARMS = {
    "arm": "name",
    **dict.fromkeys(("against anchor", "95 % interval", "unprotected"), "number"),
    "verdict": "status",
}
_COLUMNS = ("comparison", *_COLUMNS_OF_ARMS)


def _rows(changes: Sequence[Change]) -> list[tuple[str, ...]]:
    from levelfield.harness.report.text import significant

    return [
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
