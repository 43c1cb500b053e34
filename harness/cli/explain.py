"""``levelfield explain``: says why one arm is slower than another."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from levelfield.harness.cli.options import PythonOption, given_interpreters
from levelfield.harness.cli.terminal import TextTable, print_json, terminal
from levelfield.harness.errors import BadInput, clean
from levelfield.harness.plan.vocabulary import PHASES
from levelfield.harness.records import store
from levelfield.reference.errors import UnknownName

if TYPE_CHECKING:
    from levelfield.harness.analysis.comparisons import Comparison
    from levelfield.harness.analysis.explanation import ExplainedArm, Explanation
    from levelfield.harness.engine.profiling import Published
    from levelfield.harness.plan.cells import Cell
    from levelfield.harness.plan.suite import Suite
    from levelfield.harness.records.frames import Frames

SHOWN_OPERATORS, SHOWN_LAYERS = 8, 12
NAME_WIDTH = 44  # columns of an operator's name and place


def explain_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    model: Annotated[str, typer.Argument(help="A model of the run, or model/preset.")],
    first: Annotated[str, typer.Argument(help="An arm of the run.")],
    second: Annotated[str, typer.Argument(help="Another arm.")],
    *,
    phase: Annotated[str | None, typer.Option(help=f"{', '.join(PHASES)}.")] = None,
    batch: Annotated[int | None, typer.Option(help="Examples per step.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Optimiser of a training.")] = None,
    comparison: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of a comparison, where several match.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Steps to profile. Default: 5 to 20, by their time."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the files. Default: RUN/explain."),
    ] = None,
    python: PythonOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why an arm is slower: time by operator from each framework's own profiler.

    Both arms run again, in processes that are never timed. Three sentences say where the gap is,
    in which operators, and what is not known. Traces that ui.perfetto.dev opens and an explanation
    as JSON are written next to each other. Traces may hold paths of this machine.
    """
    wanted = {"phase": phase, "batch": batch, "optimizer": optimizer, "comparison": comparison}
    question = _asked(store.open_run(run), model, (first, second), wanted)
    folder = _folder(run, output)
    explanation, path = _answered(question, given_interpreters(python), steps, folder)
    if as_json:
        print_json(explanation.to_json())
    else:
        _show(explanation, path, terminal())


@dataclass(frozen=True)
class _Question:
    """Two arms of a comparison of a run, and what the run says of them."""

    run: store.Run
    suite: Suite
    comparison: Comparison
    cells: tuple[Cell, Cell]
    published: Mapping[str, Published]
    product_per_second: float | None

    @property
    def arms(self) -> tuple[str, str]:
        return self.cells[0].arm, self.cells[1].arm


def _asked(
    run: store.Run, model: str, arms: tuple[str, str], wanted: Mapping[str, Any]
) -> _Question:
    """Find the comparison. Raises UnknownName or BadInput."""
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.analysis.comparisons import comparisons_of
    from levelfield.harness.engine import session
    from levelfield.harness.records import frames

    suite, cells = session.recorded(run)
    loaded = frames.load(run.path)
    comparison = _chosen(comparisons_of(loaded), model, arms, wanted)
    first, second = (
        next(cell for cell in cells if (cell.comparison, cell.arm) == (comparison.id, arm))
        for arm in arms
    )
    return _Question(
        *(run, suite, comparison, (first, second), _published(comparison, arms)),
        product_per_second=_best_rate(loaded, first.threads),
    )


def _answered(
    question: _Question, given: Mapping[str, Path], steps: int | None, folder: Path
) -> tuple[Explanation, Path]:
    """Profile both arms and write the explanation; return it with its path."""
    from levelfield.harness.engine import profiling, session

    resolutions = session.resolve_arms(question.arms, given)
    for arm in question.arms:
        session.refuse_if_nothing_can_run({arm: resolutions[arm]})
    profiles = profiling.profiled_arms(
        profiling.Profiling(question.suite, question.cells, resolutions, steps, folder),
        question.published,
        say=lambda words: terminal(stderr=True).print(words),
    )
    explanation = profiling.explained(
        question.run,
        question.cells[0],
        profiles,
        title=question.comparison.title,
        details=question.comparison.details,
        product_per_second=question.product_per_second,
        notes=session.changes_since(question.run, question.arms),
    )
    path = folder / profiling.explanation_name(question.comparison.id, question.arms)
    text = json.dumps(explanation.to_json(), indent=1, allow_nan=False) + "\n"
    try:
        store.write_atomically(path, text.encode())
    except OSError as error:
        raise store.writing_failed(error, path, advice="choose --output DIR") from error
    return explanation, path


# ---- choosing ----------------------------------------------------------------------------------


def _chosen(
    comparisons: Sequence[Comparison],
    model: str,
    arms: tuple[str, str],
    wanted: Mapping[str, Any],
) -> Comparison:
    """Return the one comparison that has both arms. Raises UnknownName or BadInput."""
    if arms[0] == arms[1]:
        raise BadInput(f"an arm cannot be slower than itself; name another arm than {arms[0]}")
    named = [one for one in comparisons if model in _names(one)]
    if not named:
        known = dict.fromkeys(name for one in comparisons for name in _names(one))
        raise UnknownName("model", model, [*known], where="this run")
    for arm in arms:
        known_arms = dict.fromkeys(name for one in named for name in one.rows["arm"])
        if arm not in known_arms:
            raise UnknownName("arm", arm, [*known_arms], where=f"the comparisons of {model}")
    having = [one for one in named if {*arms} <= {*one.rows["arm"]}]
    if not having:
        raise BadInput(
            f"no comparison of {model} has both {arms[0]} and {arms[1]}: a tuned arm is compared"
            " with tuned arms only; name two arms of one profile"
        )
    matching = [one for one in having if _matches(one, wanted)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        stated = ", ".join(
            f"--{name} {shlex.quote(str(value))}"
            for name, value in wanted.items()
            if value is not None
        )
        raise BadInput(f"no comparison of {model} matches {stated}; there are {_list(having)}")
    raise BadInput(
        f"{len(matching)} comparisons match: {_list(matching)}; choose one by --phase, --batch,"
        f" --optimizer or --comparison, such as --comparison {matching[0].id}"
    )


def _names(comparison: Comparison) -> tuple[str, str]:
    row = comparison.rows.iloc[0]
    return str(row["model"]), f"{row['model']}/{row['preset']}"


def _matches(comparison: Comparison, wanted: Mapping[str, Any]) -> bool:
    row = comparison.rows.iloc[0]
    return all(row[name] == value for name, value in wanted.items() if value is not None)


def _list(comparisons: Sequence[Comparison]) -> str:
    return "; ".join(f"{one.id} ({one.title}, {one.details})" for one in comparisons)


def _published(comparison: Comparison, arms: tuple[str, str]) -> dict[str, Published]:
    """Return the step times that the run reports. Raises BadInput for an arm that it withholds."""
    from levelfield.harness.engine.profiling import Published

    published = {}
    for arm in arms:
        (row,) = comparison.rows[comparison.rows["arm"] == arm].to_dict("records")
        if row["status"] != "ok":
            reason = f" ({row['reason']})" if row["reason"] else ""
            raise BadInput(
                f"{arm} is {row['status']} in this run{reason}, and only arms that were proved to"
                " compute the same thing are compared; name another arm"
            )
        values = (row[name] for name in ("step_seconds", "step_seconds_low", "step_seconds_high"))
        published[arm] = Published(*(float(v) if math.isfinite(v) else None for v in values))
    return published


def _best_rate(loaded: Frames, threads: int) -> float | None:
    """Return the best rate of a matrix product with so many threads, as the run measured it."""
    from levelfield.harness.machine.ceilings import PRODUCT

    table = loaded.ceilings
    rates = table[(table["what"] == PRODUCT) & (table["threads"] == threads)]["per_second"]
    return float(rates.max()) if len(rates) else None


def _folder(run: Path, output: Path | None) -> Path:
    """Make the folder for the files. Raises BadInput."""
    from levelfield.harness.analysis.explanation import FOLDER

    folder = output or run / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise store.writing_failed(error, folder, advice="choose --output DIR") from error
    return folder


# ---- showing -----------------------------------------------------------------------------------


def _show(explanation: Explanation, path: Path, console: Console) -> None:
    from levelfield.harness.analysis.explanation import sentences

    both = (explanation.slower, explanation.faster)
    console.print(f"{explanation.title}, {explanation.details}", style="bold")
    for sentence in sentences(explanation):
        console.print()
        console.print(sentence)
    for table in (
        _steps_table(explanation),
        _category_table(explanation),
        *(_operator_table(one) for one in both if one.operators),
        _kind_table(explanation),
        _layer_table(explanation),
    ):
        console.print()
        console.print(table)
    console.print()
    for note in explanation.notes:
        console.print(f"note: {note}")
    for one in explanation.arms:
        if one.trace:
            trace = path.parent / one.trace
            console.print(clean(f"trace of {one.arm}: {trace}"), soft_wrap=True)
    console.print(clean(f"explanation: {path}"), soft_wrap=True)
    console.print("open a trace at ui.perfetto.dev, which reads it in the browser")


def _steps_table(explanation: Explanation) -> TextTable:
    rows = [
        (
            one.arm,
            _ms(one.published_seconds),
            _interval(one),
            _ms(one.plain_seconds),
            _ms(one.profiled_seconds),
            one.profiler or "none",
        )
        for one in (explanation.slower, explanation.faster)
    ]
    columns = {"arm": "name", "in the run": "number", "its interval": "number"}
    columns |= {"here": "number", "profiled": "number", "profiler": "name"}
    return TextTable(columns, rows, "Milliseconds per step")


def _interval(one: ExplainedArm) -> str:
    low, high = _ms(one.published_low), _ms(one.published_high)
    return "-" if low == high == "-" else f"{low} to {high}"


def _ms(seconds: float | None) -> str:
    from levelfield.harness.analysis.explanation import figure

    return "-" if seconds is None else figure(1000 * seconds)


def _category_table(explanation: Explanation) -> TextTable:
    from levelfield.harness.analysis.explanation import section

    shown = section(explanation)
    columns = {**dict.fromkeys(shown.columns, "number"), shown.columns[0]: "name"}
    return TextTable(columns, shown.rows, "A profiled step, by category")


def _operator_table(one: ExplainedArm) -> TextTable:
    from levelfield.harness.analysis.explanation import figure, percent

    longest = sorted(one.operators, key=lambda row: -row.seconds)[:SHOWN_OPERATORS]
    whole = one.profiled_seconds or math.inf
    rows = [
        (
            _shortened(f"{row.name} < {row.within}" if row.within else row.name),
            row.category,
            figure(row.calls),
            _ms(row.seconds),
            percent(row.seconds / whole),
        )
        for row in longest
    ]
    columns = {"operator < where from": "name", "category": "status", "calls": "number"}
    columns |= {"ms": "number", "share": "number"}
    return TextTable(columns, rows, f"Operators of {one.arm}, per step, by {one.profiler}")


def _shortened(text: str) -> str:
    """Return a text with its middle left out where it is long: both ends say most."""
    if len(text) <= NAME_WIDTH:
        return text
    half = (NAME_WIDTH - 2) // 2
    return f"{text[:half]}..{text[-half:]}"


def _kind_table(explanation: Explanation) -> TextTable:
    """Return the definition's operations by kind with the time and the rate of both arms."""
    from levelfield.harness.analysis.explanation import by_kind, figure

    best = explanation.product_per_second
    rows = []
    for row in by_kind(explanation):
        cells = [row.name, figure(row.operations / 1e6)]
        for seconds in (row.slower, row.faster):
            rate = row.operations / seconds / 1e9 if seconds and row.operations else None
            cells += [_ms(seconds), "-" if rate is None else figure(rate)]
        rows.append((*cells, _ms(row.operations / best) if best else "-"))
    columns = {"kind": "name", "MFLOP": "number"}
    for one in (explanation.slower, explanation.faster):
        columns |= {f"{one.arm}\nms": "number", f"{one.arm}\nGFLOP/s": "number"}
    columns["at best, ms"] = "number"
    return TextTable(
        columns, rows, "Matrix operations of a step, by kind; best: this run's ceiling"
    )


def _layer_table(explanation: Explanation) -> TextTable:
    """Return the layers of the definition, those with most operations."""
    from levelfield.harness.analysis.explanation import figure, percent

    layers = sorted(explanation.layers, key=lambda layer: -layer.operations)
    parts = [(layer.name, layer.kind, layer.operations) for layer in layers[:SHOWN_LAYERS]]
    if rest := layers[SHOWN_LAYERS:]:
        parts.append((f"{len(rest)} more", "", sum(layer.operations for layer in rest)))
    rate = explanation.product_per_second
    rows = [
        (
            name,
            kind,
            figure(operations / 1e6),
            percent(operations / explanation.operations),
            _ms(operations / rate) if rate else "-",
        )
        for name, kind, operations in parts
    ]
    columns = {"layer": "name", "kind": "status"}
    columns |= dict.fromkeys(("MFLOP", "share", "at best, ms"), "number")
    return TextTable(
        columns, rows, "Layers of the definition and their matrix operations in a step"
    )
