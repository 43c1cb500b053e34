"""The application: all commands, and the exit codes and lines of their errors."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from levelfield.harness.cli import (
    advise,
    check,
    compare,
    doctor,
    env,
    explain,
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
from levelfield.harness.errors import FULL_DISK, BadInput, LevelfieldError, cause_of, clean
from levelfield.harness.plan.suite import add_installed_models
from levelfield.reference.errors import BadDefinition, UnknownName

_PROGRAM = "levelfield"
# The parent of all mistakes of usage, to which typer gives no public name.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]

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
app.command("explain")(explain.explain_command)
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
    warnings.showwarning = _warning_once()
    try:
        _refuse_empty(sys.argv[1:])
        # Not standalone, because typer would write four lines about a mistake of usage.
        return int(app(prog_name=_PROGRAM, standalone_mode=False) or 0)
    except _UsageError as error:
        return _misused(error)
    except typer.Abort:
        return _failed("the input ended too early; type the command again", 1)
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
    except (ImportError, MemoryError) as error:
        words = str(error) or type(error).__name__
        return _failed(
            f"memory ended or a library cannot be loaded ({words}); give it more memory"
            " (ulimit -v), or install levelfield again",
            1,
        )


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise BadInput for an empty argument.

    It comes from a variable of the shell that is not set, and would name the working folder.
    """
    for place, argument in enumerate(arguments):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            before = arguments[place - 1] if place and not argument else argument.rstrip("=")
            after = f" after {before}" if before else ""
            raise BadInput(
                f"the argument{after} is empty; type a value (is a variable of the shell not set?)"
            )


def _misused(error: Any) -> int:
    """Say what is wrong with the usage of a command, in a line -> the exit code."""
    context, words = error.ctx, error.format_message()
    if context is not None and words == context.get_help():  # of a group without a command
        print(words, file=sys.stderr)
        return 2
    parts = [words[:1].lower() + words[1:].rstrip(".").replace(". Did you mean", "; did you mean")]
    # The message of a wrong value says what is right; a mistake within an option has no context.
    if context is not None and type(error) is not typer.BadParameter:
        commands = getattr(context.command, "commands", None)
        usage = context.get_usage().removeprefix("Usage: ")
        parts.append(f"expected one of {', '.join(commands)}" if commands else f"expected {usage}")
    parts.append(f"type: {_typed_command()} --help")
    return _failed("; ".join(parts).replace("?; ", "? "), 2)


def _typed_command() -> str:
    """The words of the command that was typed, such as ``levelfield env build``."""
    command: Any = typer.main.get_command(app)
    words = [_PROGRAM]
    for word in sys.argv[1:]:
        commands = getattr(command, "commands", {})
        if word in commands:
            command = commands[word]
            words.append(word)
        elif not word.startswith("-"):
            break
    return " ".join(words)


def _of_the_system(error: OSError) -> int:
    """Say what the system refused, in a line -> the exit code."""
    reason = cause_of(error)
    if error.errno in FULL_DISK:
        path = error.filename or "a file"
        return _failed(f"{path}: the disk is full; make room and type the command again", 1)
    if error.filename:
        return _failed(f"{error.filename}: {reason}; name another path", 2)
    if error.errno == errno.ENOENT:  # of os.getcwd()
        return _failed("the working folder is gone; change to one that exists: cd", 2)
    return _failed(f"the system refused: {reason}; mend that, and type the command again", 1)


def _warning_once() -> Callable[..., None]:
    """Return what shows a warning, once: a command may read the records of a run several times.

    Python's own memory of warnings does not do, as libraries that change its filters clear it.
    """
    shown: set[str] = set()

    # Users do not need a warning's file and line number.
    def show(message: Warning | str, *where: object, **more: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            _warn(message)

    return show


def _warn(message: Warning | str) -> None:
    print(f"levelfield: {clean(str(message))}", file=sys.stderr)


def _failed(message: str, code: int) -> int:
    print(f"levelfield: {clean(message)}", file=sys.stderr)
    return code
