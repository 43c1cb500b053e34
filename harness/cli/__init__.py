"""The command line: one file per command. This file holds the application and its exit codes."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated

import typer

from harness.cli import (
    advise,
    check,
    compare,
    doctor,
    env,
    export,
    history,
    list,
    new,
    plot,
    report,
    run,
    selftest,
)
from harness.errors import LevelfieldError
from harness.plan.suite import add_installed_models
from reference.spec import BadDefinition, UnknownName

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("list")(list.list_command)
app.add_typer(env.app, name="env")
app.command("check")(check.check_command)
app.command("run")(run.run_command)
app.command("report")(report.report_command)
app.command("plot")(plot.plot_command)
app.command("advise")(advise.advise_command)
app.command("export")(export.export_command)
app.command("compare")(compare.compare_command)
app.command("history")(history.history_command)
app.add_typer(new.app, name="new")
app.command("doctor")(doctor.doctor_command)
app.command("selftest")(selftest.selftest_command)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from harness.machine.describe import code_version

    code = code_version()
    commit = f" (commit {code['commit'][:12]}{', changed' if code['changed'] else ''})"
    print(f"levelfield {code['version']}{commit if code['commit'] else ''}")
    raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Compares deep-learning frameworks after proving that they compute the same thing."""
    add_installed_models()


def main() -> None:
    """The console script. Bad input exits with 2, a run that failed with 1, each in one line."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGCONT, _continued)
    warnings.showwarning = _warn
    try:
        app()
    except (UnknownName, BadDefinition) as error:
        _leave(str(error), 2)
    except LevelfieldError as error:
        _leave(str(error), error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A polite end from outside is a Ctrl-C: workers are stopped, records are whole. Programs like
    # timeout send SIGCONT after it, although nothing was stopped. SIG_IGN would not do: if the
    # signal is already pending, Python prints a traceback.
    signal.signal(signal.SIGCONT, lambda *_: None)
    raise KeyboardInterrupt


def _continued(number: int, frame: FrameType | None) -> None:
    # Not by print: the signal may come while another line is being printed.
    os.write(2, b"levelfield: was stopped by a signal (Ctrl-Z, or a program) and goes on\n")


def _warn(message: Warning | str, *where: object, **more: object) -> None:
    # Where in the source a warning was raised says nothing to whom it is for.
    print(f"levelfield: {message}", file=sys.stderr)


def _leave(message: str, code: int) -> None:
    print(f"levelfield: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
