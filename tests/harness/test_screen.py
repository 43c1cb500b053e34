"""Screens that are narrow, closed, full or of few letters, and texts that steer them."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.cli import application, check, list, terminal
from levelfield.harness.cli.progress import watched
from levelfield.harness.cli.report import show_table
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import load_suite
from levelfield.harness.records.frames import load
from levelfield.harness.records.kinds import STATUSES
from levelfield.harness.report.tables import comparison_tables
from tests.support.synthetic import write_mlp_run
from tests.support.terminal import COMMAND, ROOT

STEERING, HARMLESS = "a\x1b[2Jb\u202ec", "a [2Jb c"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = ("torch:eager", "keras:tensorflow-tuned", "jax:jit")
    statuses = {1: "no-environment", 2: "out-of-memory"}
    folder = tmp_path_factory.mktemp("runs")
    return write_mlp_run(folder, arms=arms, phases=("inference",), statuses=statuses)


def typed(
    *words: str | Path, before: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("variables", {})}
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.run(
        [*before, *COMMAND, *words], env=variables, text=True, check=False, **{**streams, **options}
    )


# -- streams ----------------------------------------------------------------------------------


def closed_pipe() -> int:
    """The writing end of a pipe whose reader has left, as ``head`` leaves."""
    read, write = os.pipe()
    os.close(read)
    return write


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


LOST = "levelfield: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(("opened", "code", "line"), [(closed_pipe, 0, ""), (full_disk, 1, LOST)])
def test_the_files_of_a_report_come_before_the_screen(
    run: Path, tmp_path: Path, opened: Callable[[], int], code: int, line: str
) -> None:
    output = opened()
    done = typed("report", run, "--output", tmp_path, stdout=output)
    os.close(output)
    assert (done.returncode, done.stderr) == (code, line)
    assert (tmp_path / "report.md").stat().st_size > 0
    assert (tmp_path / "report.html").stat().st_size > 0


@pytest.mark.parametrize(("opened", "code", "line"), [(closed_pipe, 0, ""), (full_disk, 1, LOST)])
def test_help_that_cannot_be_written_is_no_fault(
    opened: Callable[[], int], code: int, line: str
) -> None:
    output = opened()
    done = typed("--help", stdout=output)
    os.close(output)
    assert (done.returncode, done.stderr) == (code, line)


CLOSING = ("sh", "-c", 'exec "$@" >&-', "sh")  # a shell that closes a command's standard output
CLOSED = "levelfield: cannot write to standard output: it is closed\n"


@pytest.mark.parametrize("command", ["--help", "--version", "list suites", "list suites --json"])
def test_a_closed_standard_output_costs_one_line(command: str) -> None:
    done = typed(*command.split(), before=CLOSING)
    assert (done.returncode, done.stderr) == (1, CLOSED)


def test_a_mistake_keeps_its_line_and_exit_code_where_standard_output_is_closed() -> None:
    done = typed("run", "quik", before=CLOSING)
    assert done.returncode == 2
    assert done.stderr.startswith("levelfield: unknown suite 'quik'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("opened", [closed_pipe, full_disk])
def test_errors_that_no_one_reads_change_no_exit_code(opened: Callable[[], int]) -> None:
    errors = opened()
    done = typed("run", "quik", stdout=subprocess.PIPE, stderr=errors)
    os.close(errors)
    assert (done.returncode, done.stdout) == (2, "")


PROGRAM = """
import os, sys
for number in {closed}:
    os.close(number)
from levelfield.harness.cli import screen
screen.protect()
with open({path!r}, "w") as file:
    print("to the screen")
    print("an error", file=sys.stderr)
    os.write(2, b"another error")
    file.write(str(file.fileno()))
screen.protect()
"""


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path, closed: Any) -> None:
    path = tmp_path / "file"
    program = PROGRAM.format(closed=closed, path=str(path))
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, text=True, check=False, **options
    )
    assert done.returncode == 0, done
    assert int(path.read_text()) > 2


def test_a_character_that_the_terminal_lacks_is_replaced() -> None:
    """Here a letter of the error; lines of tables have a form in ASCII."""
    variables = {"PYTHONIOENCODING": "ascii"}
    done = typed("report", "ma\u00df", variables=variables)
    assert done.returncode == 2
    assert "levelfield: ma? is not a run folder" in done.stderr


def test_questions_without_a_reader_cost_one_line(run: Path) -> None:
    done = typed("advise", run, "--ask")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("levelfield: the input ended before all")


def test_questions_to_a_closed_input_cost_one_line(run: Path) -> None:
    done = typed("advise", run, "--ask", before=("sh", "-c", 'exec "$@" <&-', "sh"))
    assert done.returncode == 2
    assert done.stderr.startswith("levelfield: the input ended before all questions were answered")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ImportError("libx.so: failed to map segment"), MemoryError()])
def test_a_library_without_room_costs_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(**options: Any) -> None:
        raise error

    monkeypatch.setattr(application, "app", app)
    assert application.answer() == 1
    words = str(error) or "MemoryError"
    assert capsys.readouterr().err == (
        f"levelfield: memory ended or a library cannot be loaded ({words}); give it more memory"
        " (ulimit -v), or install levelfield again\n"
    )


def test_an_answer_that_is_no_text_costs_one_line(run: Path) -> None:
    """A latin-1 byte, piped in where the encoding is UTF-8."""
    variables = {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [*COMMAND, "advise", run, "--ask"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        input=b"\xff\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("levelfield: an answer is no text in utf-8; ")


# -- texts of others --------------------------------------------------------------------------


def screen(width: int) -> Console:
    console = terminal.terminal()
    console.file, console.width = io.StringIO(), width
    return console


def shown(*renderables: Any, width: int = 200) -> str:
    console = screen(width)
    for renderable in renderables:
        console.print(renderable)
    return console.file.getvalue()


def test_no_text_steers_the_terminal() -> None:
    rows = terminal.TextTable({"name": "name", "why": "prose"}, [(STEERING, STEERING)], STEERING)
    output = shown(STEERING, rows)
    assert output.count(HARMLESS) == 4
    assert all(mark.isprintable() or mark == "\n" for mark in output)


def test_no_text_steers_the_terminal_through_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert application._failed(STEERING, 2) == 2
    application._warn(STEERING)
    assert capsys.readouterr().err == f"levelfield: {HARMLESS}\n" * 2


def test_a_name_of_others_does_not_steer_the_terminal() -> None:
    done = typed("report", STEERING, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "")
    assert HARMLESS in done.stderr
    assert done.stderr.strip().isprintable()


def test_progress_without_a_terminal_is_lines(run: Path) -> None:
    console = Console(file=io.StringIO(), width=20)
    (cell, *_) = plan(load_suite("quick"))
    with watched(console, 2) as listener:
        listener.cell_done(cell)
        listener.cell_done(cell)
    assert console.file.getvalue() == f"[1/2] {cell.title}\n[2/2] {cell.title}\n"


# -- narrow terminals -------------------------------------------------------------------------

WIDTHS = (40, 80, 200)


def check_row(status: str) -> check.CheckedCell:
    return check.CheckedCell(
        arm="keras:tensorflow-tuned",
        model="resnet50",
        preset="paper",
        phase="training",
        optimizer="momentum",
        status=status,
        reason="",
        loose="",
        output_error=1.234e-7,
        gradient_error=5.678e-9,
        worst_error_share=1.2345,
        log=None,
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_check_cuts_no_number_and_no_status(width: int) -> None:
    console = screen(width)
    check._show([check_row(status) for status in STATUSES], console)
    output = console.file.getvalue()
    words = output.split()
    assert "\u2026" not in output
    assert set(STATUSES) <= set(words)
    assert words.count("1.2e-07") == words.count("5.7e-09") == len(STATUSES)
    assert words.count("123.4%") == len(STATUSES) or words.count("123.5%") == len(STATUSES)
    assert max(map(len, output.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_list_cuts_no_number(width: int) -> None:
    rows = list._models(1)
    output = shown(list._table(list.What.models, rows), width=width)
    counts = [
        f"{preset['parameter_count']:,}" for row in rows for preset in row["presets"].values()
    ]
    assert set(counts) <= set(output.split())
    assert "\u2026" not in output


@pytest.mark.parametrize("width", WIDTHS)
def test_a_report_cuts_no_number_and_no_status(run: Path, width: int) -> None:
    frames = load(run)
    (table,) = comparison_tables(frames, comparisons_of(frames))
    console = screen(width)
    show_table(table, console)
    output = console.file.getvalue()
    assert "\u2026" not in output
    for row in table.cells.to_dict("records"):
        for name in ("status", "step (ms)", "peak (MiB)", "output error"):
            assert row[name] in output


# -- JSON -------------------------------------------------------------------------------------


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": math.nan, "b": [math.inf, (1.5, "x")], "c": None})

    def refuse(token: str) -> None:
        raise AssertionError(token)

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document == {"a": None, "b": [None, [1.5, "x"]], "c": None}
