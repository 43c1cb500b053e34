"""The application: all commands, and the exit codes and lines of their errors."""

from __future__ import annotations

import errno
import sys
import warnings
from typing import Annotated

import typer

from levelfield.harness.cli import (
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
from levelfield.harness.cli.signals import Interrupted
from levelfield.harness.errors import FULL_DISK, LevelfieldError, clean
from levelfield.harness.plan.suite import add_installed_models
from levelfield.reference.errors import BadDefinition, UnknownName

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


def _print_version(value: bool) -> None:
    if not value:
        return
    from levelfield.harness.machine.describe import code_version

    code = code_version()
    words = f"levelfield {code['version']}"
    if code["commit"]:  # a wheel has none
        words += f" (commit {code['commit'][:12]}{', changed' if code['changed'] else ''})"
    print(words)
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


def answer() -> int:
    """Carry out the command of ``sys.argv`` -> its exit code. An error costs one line."""
    warnings.showwarning = _warn
    try:
        app()
    except Interrupted as interrupted:
        return _failed("interrupted", interrupted.code)
    except SystemExit as ended:
        return int(ended.code or 0)
    except (UnknownName, BadDefinition) as error:
        return _failed(str(error), 2)
    except LevelfieldError as error:
        return _failed(str(error), error.exit_code)
    except OSError as error:
        return _of_the_system(error)
    return 0


def _of_the_system(error: OSError) -> int:
    """Say what the system refused, in a line -> the exit code."""
    reason = error.strerror or str(error)
    if error.errno in FULL_DISK:
        path = error.filename or "a file"
        return _failed(f"{path}: the disk is full; make room and type the command again", 1)
    if error.filename:
        return _failed(f"{error.filename}: {reason}; name another path", 2)
    if error.errno == errno.ENOENT:  # of os.getcwd()
        return _failed("the working folder is gone; change to one that exists: cd", 2)
    return _failed(f"the system refused: {reason}; mend that, and type the command again", 1)


def _warn(message: Warning | str, *where: object, **more: object) -> None:
    # Users do not need a warning's file and line number.
    print(f"levelfield: {clean(str(message))}", file=sys.stderr)


def _failed(message: str, code: int) -> int:
    print(f"levelfield: {clean(message)}", file=sys.stderr)
    return code
