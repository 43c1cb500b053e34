"""``levelfield check``: proves that arms compute the same thing and can be timed."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from levelfield import reference
from levelfield.harness.cli.options import (
    SELECTION,
    PythonOption,
    Selection,
    given_interpreters,
    narrowed,
    tell_of_dropped_variables,
    with_models_from,
    with_options,
)
from levelfield.harness.cli.progress import watched
from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.errors import clean
from levelfield.harness.machine.scratch import scratch_folder
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import Suite, load_suite
from levelfield.harness.records import store

# A small batch proves a published architecture as well as a large one. Adam takes the sign of every
# rounding, so on a deep network it proves no more than on the tiny presets.
PAPER_BATCH, PAPER_OPTIMIZERS = 4, "momentum"
LOOSE_GATE = "the gate was loose, because rounding alone changes the reference as much"
HARMLESS = ("ok", "unsupported", "unwritten", "no-environment")


@with_options(SELECTION, before="python")
def check_command(
    suite: Annotated[str, typer.Argument(help="A suite's name or TOML file.")] = "tiny",
    everything: Annotated[
        bool, typer.Option("--all", help="Check all models and all arms.")
    ] = False,
    *,
    python: PythonOption = None,
    timed: Annotated[
        bool,
        typer.Option(
            "--timed",
            help="Also run the checks of the measurement, and the closing gate after a few slices.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **selected: Any,
) -> None:
    """Compare every arm with the reference and show its errors. No time is reported.

    The preset paper is checked with a batch of 4 and momentum, unless options say otherwise.

    Exits with 1 if an arm is wrong or failed.
    """
    selection = Selection(**selected)
    chosen = with_models_from(load_suite(suite), selection)
    if everything:
        chosen = replace(chosen, models=tuple(reference.definitions()), arms=("*",))
    if selection.presets == "paper" and selection.optimizers is None:
        selection = replace(selection, optimizers=PAPER_OPTIMIZERS)
    if selection.presets == "paper" and selection.batch is None:
        selection = replace(selection, batch=PAPER_BATCH)
    chosen = narrowed(chosen, selection)
    tell_of_dropped_variables(chosen)
    rows = _check(chosen, python, timed=timed)
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        _show(rows, terminal())
        print_next(terminal(), _next_step(suite, rows, timed=timed))
    if any(row.status not in HARMLESS for row in rows):
        raise typer.Exit(1)


def _next_step(suite: str, rows: Sequence[CheckedCell], *, timed: bool) -> str:
    """Return what to type after a check, by what it showed."""
    faults = dict.fromkeys(row.arm for row in rows if row.status not in HARMLESS)
    if faults:
        return f"mend it, then check again: levelfield check --arms {next(iter(faults))}"
    if not any(row.status == "ok" for row in rows):
        return "build what is missing: levelfield env build"
    if not timed:
        return f"every check that protects a number: levelfield check {shlex.quote(suite)} --timed"
    return f"measure: levelfield run {shlex.quote(suite)}"


@dataclass(frozen=True)
class CheckedCell:
    """A cell as ``levelfield check`` shows it: columns of the summary, then its log."""

    arm: str
    model: str
    preset: str
    phase: str
    optimizer: str | None
    status: str
    reason: str | None
    loose: str | None
    output_error: float | None
    gradient_error: float | None
    worst_error_share: float | None
    log: str | None


def _check(suite: Suite, python: list[str] | None, *, timed: bool) -> list[CheckedCell]:
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.analysis.summary import summary as summarised
    from levelfield.harness.engine import session
    from levelfield.harness.records import frames

    # No time is reported, so nothing needs an error bar, and an adapter's author waits for it.
    effort = replace(
        suite.effort,
        warm_up_seconds=0.2,
        warm_up_cap_seconds=3.0,
        quiet_seconds=0.0,
        memory=False,
        ceilings=timed,
    )
    suite = replace(suite, twin="none", effort=effort)
    cells = plan(suite)
    resolutions = session.resolve_arms(suite.arms, given_interpreters(python))
    session.refuse_if_nothing_can_run(resolutions)
    description = session.describe_run(suite, cells, resolutions)
    with scratch_folder() as folder:
        with (
            store.create(folder, "check", description, elsewhere="export TMPDIR=DIR") as run,
            watched(terminal(stderr=True), len(cells)) as listener,
        ):
            session.measure(
                run,
                suite,
                cells,
                resolutions=resolutions,
                progress=listener,
                only_gate=True,
                timed=timed,
            )
        summary = summarised(frames.load(run.path))
        logs = _kept_logs(run)
    columns = [field.name for field in fields(CheckedCell) if field.name != "log"]
    table = summary[columns].astype(object)
    table["log"] = [logs.get(cell) for cell in summary["cell"]]
    return [CheckedCell(*row) for row in table.where(table.notna(), None).itertuples(index=False)]


def _kept_logs(run: store.Run) -> dict[str, str]:
    """Copy the logs of cells that did not pass to a folder that stays: cell -> its log there."""
    log_of = {
        record["cell"]: record["log"]
        for record in store.read_records(run)
        if record["record"] == "status"
        and record["status"] not in HARMLESS
        and record.get("log")
        and (run.path / "logs" / record["log"]).exists()
    }
    if not log_of:
        return {}
    folder = Path(tempfile.mkdtemp(prefix="levelfield-check-logs-"))
    for log in set(log_of.values()):
        shutil.copy(run.path / "logs" / log, folder)
    return {cell: str(folder / log) for cell, log in log_of.items()}


def _show(rows: Sequence[CheckedCell], console: Console) -> None:
    """One line per cell, and below them every reason once."""
    kinds = {**dict.fromkeys(("arm", "model", "phase"), "name"), "status": "status"}
    kinds |= dict.fromkeys(("outputs", "gradients", "of tolerance"), "number")
    lines: list[tuple[str, ...]] = []
    reasons: dict[str, None] = {}
    for row in rows:
        phase = row.phase + (f" {row.optimizer}" if row.optimizer else "")
        model = f"{row.model}/{row.preset}"
        errors = (row.output_error, row.gradient_error)
        shown = ("" if error is None else f"{error:.1e}" for error in errors)
        share = row.worst_error_share
        of_tolerance = "" if share is None else f"{share:.1%}"
        lines.append((row.arm, model, phase, row.status, *shown, of_tolerance))
        if row.reason:
            log = f" (log: {row.log})" if row.log else ""
            reasons[f"{row.arm}: {row.status}: {row.reason}{log}"] = None
        if row.loose:
            reasons[f"{model} {phase}: {LOOSE_GATE}: {row.loose}"] = None
    console.print(TextTable(kinds, lines))
    console.print("errors are relative norms against float64")
    for reason in reasons:
        console.print(clean(reason), soft_wrap=True)
