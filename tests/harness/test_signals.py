"""Ctrl-C, SIGTERM and SIGHUP: one line, the exit code of shells, at every moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_SECONDS, wait_until
from tests.support.terminal import COMMAND, ROOT, Done

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# As imports of a command or of a model take long, and say when they have begun.
SLOW_MODULE = "import pathlib, time\npathlib.Path({path!r}).touch()\ntime.sleep(600)\n"


def listen() -> None:
    """Undo what a background job or nohup passes on to this process and its children."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)


def started(command: tuple[str, ...], path: str, *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *words],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
    )


def done(process: subprocess.Popen[str]) -> Done:
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return Done(process.returncode, output, errors)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_during_the_imports_costs_one_line(tmp_path: Path, number: int) -> None:
    reached = tmp_path / "reached"
    (tmp_path / "typer.py").write_text(SLOW_MODULE.format(path=str(reached)))
    process = started(COMMAND, f"{tmp_path}{os.pathsep}{ROOT}", "--help")
    wait_until(reached.exists)
    process.send_signal(number)
    assert done(process) == Done(128 + number, "", "levelfield: interrupted\n")


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_within_a_command_costs_one_line(tmp_path: Path, number: int) -> None:
    models, reached = tmp_path / "models", tmp_path / "reached"
    models.mkdir()
    (models / "slow.py").write_text(SLOW_MODULE.format(path=str(reached)))
    process = started(COMMAND, str(ROOT), "list", "models", "--models-from", models)
    wait_until(reached.exists)
    process.send_signal(number)
    assert done(process) == Done(128 + number, "", "levelfield: interrupted\n")


def program(text: str) -> Done:
    return done(started((sys.executable, "-c", text), str(ROOT)))


def test_a_signal_within_a_finalizer_is_not_lost() -> None:
    """Python drops exceptions there, with a traceback."""
    ended = program(
        "import signal, time\n"
        "from levelfield.harness.cli import signals\n"
        "class Late:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "signals.end_politely()\n"
        "Late()\n"
        "time.sleep(600)\n"
    )
    assert ended == Done(128 + signal.SIGTERM, "", "")


def test_other_exceptions_within_a_finalizer_are_still_shown() -> None:
    ended = program(
        "from levelfield.harness.cli import signals\n"
        "class Faulty:\n"
        "    def __del__(self):\n"
        "        raise ValueError('a fault')\n"
        "signals.end_politely()\n"
        "Faulty()\n"
        "print('goes on')\n"
    )
    assert (ended.code, ended.output) == (0, "goes on\n")
    assert "ValueError: a fault" in ended.errors


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(number: int) -> None:
    """As SIGHUP is under nohup, and SIGINT in a shell's background job."""
    ended = program(
        "import signal\n"
        "from levelfield.harness.cli import signals\n"
        f"signal.signal({number}, signal.SIG_IGN)\n"
        "signals.end_at_once()\n"
        "signals.end_politely()\n"
        f"signal.raise_signal({number})\n"
        "print('goes on')\n"
    )
    assert ended == Done(0, "goes on\n", "")


def test_a_signal_after_the_work_changes_no_exit_code() -> None:
    ended = program(
        "import signal\n"
        "from levelfield.harness.cli import signals\n"
        "signals.end_politely()\n"
        "signals.end_with(3)\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    assert ended == Done(3, "", "")
