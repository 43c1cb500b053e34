"""A worker's process: bounded in time, in output and in what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from harness import noise, process
from harness.errors import WorkerFailure
from harness.process import LOG_LIMIT_BYTES, Launch, WorkerProcess
from harness.resources import available_cores

pytestmark = pytest.mark.alone

# An adapter that does in describe() what its mode says; what it starts is named in a file.
ADAPTER = """
import os, signal, subprocess, sys, threading, time

def spin():
    while True:
        pass

def fork():
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    with open(os.environ["PIDS"], "a") as file:
        file.write("%d\\n" % child)

class Adapter:
    def __init__(self, device, mode, threads, precision):
        self.mode = mode

    def describe(self):
        with open(os.environ["PIDS"], "a") as file:
            file.write("%d\\n" % os.getpid())
        if self.mode.startswith("fork"):
            fork()
        if "spin" in self.mode:
            threading.Thread(target=spin, daemon=True).start()
        if "hang" in self.mode:
            time.sleep(600)
        if "exit" in self.mode:
            os._exit(3)
        if "abort" in self.mode:
            os.abort()
        if "close" in self.mode:
            os.closerange(3, 256)
            time.sleep(600)
        if "print" in self.mode:
            for _ in range(3 * 1024):
                os.write(1, b"x" * 512)
                os.write(2, b"y" * 512)
        return {"cores": sorted(os.sched_getaffinity(0)), "variables": dict(os.environ)}
"""
PATIENCE_SECONDS = 60.0

Start = Callable[..., WorkerProcess]


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


@pytest.fixture
def launch(tmp_path: Path, pids: Path) -> Callable[..., Launch]:
    folder = tmp_path / "freakish"
    folder.mkdir()
    (folder / "__init__.py").write_text(ADAPTER)

    def make(
        *,
        interpreter: Path = Path(sys.executable),
        cores: list[int] | None = None,
        log: Path = tmp_path / "log",
        memory_limit_bytes: int | None = None,
    ) -> Launch:
        return Launch(
            interpreter=interpreter,
            variables={"PIDS": str(pids), "PATH": os.environ["PATH"]},
            cores=cores or available_cores(),
            packages={"freakish": folder},
            log=log,
            memory_limit_bytes=memory_limit_bytes,
        )

    return make


@pytest.fixture
def start(launch: Callable[..., Launch]) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(**options: object) -> WorkerProcess:
            return stack.enter_context(
                WorkerProcess(launch(**options), timeout_seconds=PATIENCE_SECONDS)
            )

        yield begin


def ask(worker: WorkerProcess, mode: str, timeout_seconds: float = PATIENCE_SECONDS) -> object:
    reply = worker.ask(
        "start",
        timeout_seconds,
        adapter="freakish",
        device="cpu",
        mode=mode,
        threads=1,
        precision="float32",
    )
    return reply["describe"]


def failure_of(worker: WorkerProcess, mode: str, timeout_seconds: float = 60) -> tuple[str, str]:
    with pytest.raises(WorkerFailure) as caught:
        ask(worker, mode, timeout_seconds)
    return caught.value.status, caught.value.reason


def test_a_parked_worker_stands_still_and_goes_on(start: Start) -> None:
    worker = start()
    ask(worker, "fork and spin")  # as idle runtimes do, and with a child

    def used(seconds: float) -> float:
        before = noise.cpu_seconds(worker.pid)
        time.sleep(seconds)
        return noise.cpu_seconds(worker.pid) - before

    assert used(0.3) > 0.02
    for _ in range(3):
        worker.park()
        assert used(0.3) == 0.0
        (child,) = psutil.Process(worker.pid).children()
        assert child.status() == psutil.STATUS_STOPPED
        worker.resume()
        assert used(0.3) > 0.02
    ask(worker, "answer")


def test_parking_what_has_died_does_not_wait(start: Start) -> None:
    worker = start()
    os.kill(worker.pid, signal.SIGKILL)
    worker.park()
    worker.resume()
    with pytest.raises(WorkerFailure):
        ask(worker, "answer")


def assert_gone(pids: Path, count: int) -> None:
    """Nothing that named itself lives on; what is killed may take a moment to be reaped."""
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) == count
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if not any(alive(number) for number in numbers):
            return
        time.sleep(0.02)
    raise AssertionError(f"still alive: {[number for number in numbers if alive(number)]}")


def alive(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_timeout_ends_the_worker_and_its_forked_children(start: Start, pids: Path) -> None:
    worker = start()
    assert failure_of(worker, "fork, hang", 1.5) == ("timeout", "'start' took longer than 1.5 s")
    assert not worker.alive
    assert_gone(pids, 2)


def test_a_forked_child_that_holds_the_pipes_does_not_hide_a_death(
    start: Start, pids: Path
) -> None:
    worker = start()
    # The child sleeps ten times as long as this waits, and would make it a timeout.
    found = failure_of(worker, "fork, exit", PATIENCE_SECONDS)
    assert found == ("failed", "left with exit code 3 during 'start'")
    assert_gone(pids, 2)


def test_leaving_ends_what_a_healthy_worker_forked(start: Start, pids: Path) -> None:
    with start() as worker:
        ask(worker, "fork")
        assert all(alive(int(number)) for number in pids.read_text().split())
    assert_gone(pids, 2)


def test_a_signal_is_named(start: Start) -> None:
    assert failure_of(start(), "abort") == ("failed", "died of SIGABRT during 'start'")


def test_a_worker_that_closed_its_pipes_and_lives_is_not_waited_for(
    start: Start, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DEATH_SECONDS", 0.1)
    assert failure_of(start(), "close") == ("failed", "closed its pipes during 'start'")
    assert_gone(pids, 1)


@pytest.mark.skipif(len(available_cores()) < 2, reason="all affinities are one core")
def test_the_affinity_holds_before_the_first_instruction(start: Start, tmp_path: Path) -> None:
    own = os.sched_getaffinity(0)
    core = available_cores()[-1]
    first = tmp_path / "first"
    interpreter = tmp_path / "python"
    interpreter.write_text(
        f"#!/bin/sh\ngrep Cpus_allowed_list /proc/$$/status > '{first}'\n"
        f"exec '{sys.executable}' \"$@\"\n"
    )
    interpreter.chmod(0o755)
    found = ask(start(interpreter=interpreter, cores=[core]), "well")
    assert first.read_text().split() == ["Cpus_allowed_list:", str(core)]
    assert isinstance(found, dict)
    assert found["cores"] == [core]
    assert os.sched_getaffinity(0) == own


def test_a_worker_sees_the_variables_that_it_was_given_and_no_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    found = ask(start(), "well")
    assert isinstance(found, dict)
    assert {"PIDS", "PATH"} <= set(found["variables"]) <= {"PIDS", "PATH", "LC_CTYPE"}


def test_output_is_kept_up_to_the_limit_and_never_blocks(start: Start, tmp_path: Path) -> None:
    with start() as worker:
        ask(worker, "print")
    log = (tmp_path / "log").read_bytes()
    assert log.count(b"x") + log.count(b"y") >= LOG_LIMIT_BYTES - 100
    assert len(log) < LOG_LIMIT_BYTES + 100
    assert log.endswith(b"\n[the rest of the output was dropped]\n")


@pytest.mark.parametrize("log", ["/dev/full", "/nowhere/log"])
def test_a_log_that_cannot_be_written_costs_nothing_else(start: Start, log: str) -> None:
    with start(log=Path(log)) as worker:
        assert ask(worker, "print")
        assert ask(worker, "well")


def test_close_may_be_called_again_and_gives_everything_back(start: Start, pids: Path) -> None:
    before = descriptors()
    worker = start()
    ask(worker, "well")
    worker.close()
    worker.close()
    assert not worker.alive
    assert_gone(pids, 1)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("interpreter", "status", "reason"),
    [
        ("/bin/true", "failed", "left with exit code 0 during 'prepare'"),
        ("/bin/false", "failed", "left with exit code 1 during 'prepare'"),
        ("/nowhere/python", "no-environment", "cannot start /nowhere/python: No such file"),
        ("/etc/passwd", "no-environment", "cannot start /etc/passwd: Permission denied"),
    ],
)
def test_what_is_no_python_fails_at_once_and_leaves_nothing(
    launch: Callable[..., Launch], interpreter: str, status: str, reason: str
) -> None:
    own, before = os.sched_getaffinity(0), descriptors()
    with pytest.raises(WorkerFailure) as caught:
        WorkerProcess(
            launch(interpreter=Path(interpreter), cores=available_cores()[:1]),
            timeout_seconds=PATIENCE_SECONDS,
        )
    assert caught.value.status == status
    assert caught.value.reason.startswith(reason)
    assert os.sched_getaffinity(0) == own
    assert descriptors() == before


def test_an_interpreter_that_never_answers_is_ended(
    launch: Callable[..., Launch], tmp_path: Path, pids: Path
) -> None:
    sleeper = tmp_path / "sleeper"
    sleeper.write_text(f"#!/bin/sh\necho $$ >> '{pids}'\nsleep 600 &\necho $! >> '{pids}'\nwait\n")
    sleeper.chmod(0o755)
    with pytest.raises(WorkerFailure, match="'prepare' took longer than 1 s"):
        WorkerProcess(launch(interpreter=sleeper), timeout_seconds=1)
    assert_gone(pids, 2)


def test_a_worker_that_cannot_be_prepared_is_not_left_behind(launch: Callable[..., Launch]) -> None:
    before = descriptors()
    with pytest.raises(WorkerFailure):  # setrlimit(2) has no such numbers
        WorkerProcess(launch(memory_limit_bytes=1 << 100), timeout_seconds=PATIENCE_SECONDS)
    assert descriptors() == before
    assert not [child for child in psutil.Process().children() if "worker.py" in cmdline(child)]


def cmdline(child: psutil.Process) -> str:
    try:
        return " ".join(child.cmdline())
    except psutil.Error:
        return ""


def test_the_times_of_the_start_lie_on_the_clock_of_the_host(start: Start) -> None:
    before = time.perf_counter()
    worker = start()
    assert 0 < worker.interpreter_seconds < time.perf_counter() - before
    assert worker.python == ".".join(map(str, sys.version_info[:3]))
