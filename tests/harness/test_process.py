"""A worker's process: bounded in time, in output and in what it leaves behind."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from levelfield.harness.engine import process
from levelfield.harness.engine.blocks import Noise
from levelfield.harness.engine.memory import TreeWatch, proportional_bytes
from levelfield.harness.engine.process import LOG_LIMIT_BYTES, Launch, WorkerProcess
from levelfield.harness.errors import RunFailed, WorkerFailure
from levelfield.harness.machine import noise, supervised
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.machine.turns import Turns
from levelfield.harness.proof.replies import StartReply
from tests.support.processes import PATIENCE_SECONDS, alive, wait_until

pytestmark = pytest.mark.alone

# An adapter that does in describe() what its mode says; what it starts is named in a file.
ADAPTER = """
import os, resource, signal, subprocess, sys, threading, time

def spin(cpu_seconds=600):
    while time.process_time() < cpu_seconds:
        pass

def daemon(cpu_seconds):
    # As a server starts: twice forked, in a session of its own, its parent gone.
    middle = os.fork()
    if middle == 0:
        os.setsid()
        child = os.fork()
        if child == 0:
            os.sched_setaffinity(0, range(os.cpu_count()))
            spin(cpu_seconds)
            os._exit(0)
        with open(os.environ["PIDS"], "a") as file:
            file.write("%d\\n" % child)
        os._exit(0)
    os.waitpid(middle, 0)

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
        if "daemon" in self.mode:
            daemon(600)
        if "brief" in self.mode:
            child = os.fork()
            if child == 0:
                spin(0.3)
                os._exit(0)
            os.waitpid(child, 0)
            daemon(0.3)
        if "kill supervisor" in self.mode:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        if "stop supervisor" in self.mode:
            os.kill(os.getppid(), signal.SIGSTOP)
        if "stop itself" in self.mode:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "die of SIGKILL" in self.mode:
            os.kill(os.getpid(), signal.SIGKILL)
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
        return {
            "cores": sorted(os.sched_getaffinity(0)),
            "variables": sorted(os.environ),
            "data_limit": resource.getrlimit(resource.RLIMIT_DATA)[0],
        }
"""
ROOT = Path(__file__).parents[2]

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


def ask(
    worker: WorkerProcess, mode: str, timeout_seconds: float = PATIENCE_SECONDS
) -> Mapping[str, str | float | None]:
    reply = worker.ask(
        StartReply,
        timeout_seconds,
        adapter="freakish",
        device="cpu",
        mode=mode,
        threads=1,
        precision="float32",
    )
    return reply.describe


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


# -- the process tree -------------------------------------------------------------------------


def started(pids: Path, pid: int) -> int:
    """The one process that a worker started; it named itself after the worker did."""
    lines = pids.read_text().split()
    return int(lines[lines.index(str(pid)) + 1])


def used_by(pid: int, seconds: float = 0.3) -> float:
    before = noise.cpu_seconds(pid)
    time.sleep(seconds)
    return noise.cpu_seconds(pid) - before


def test_an_orphan_in_a_session_of_its_own_is_parked_with_its_worker(
    start: Start, pids: Path
) -> None:
    worker = start()
    ask(worker, "daemon")
    daemon = started(pids, worker.pid)
    assert os.getsid(daemon) not in (os.getsid(worker.pid), os.getsid(0))
    assert sorted(worker.tree()) == sorted([worker.pid, daemon])
    for _ in range(3):
        assert used_by(daemon) > 0.02
        worker.park()
        assert used_by(daemon) == 0.0
        worker.resume()
    worker.close()
    assert_gone(pids, 2)
    assert worker.tree() == []


def test_workers_do_not_touch_each_other(start: Start, pids: Path) -> None:
    workers = [start(), start()]
    daemons = []
    for worker in workers:
        ask(worker, "daemon")
        daemons.append(started(pids, worker.pid))
    assert set(workers[0].tree()).isdisjoint(workers[1].tree())
    assert daemons[1] in workers[1].tree()
    workers[0].park()
    assert used_by(daemons[0]) == 0.0
    assert used_by(daemons[1]) > 0.02
    workers[0].close()
    assert not alive(daemons[0])
    assert used_by(daemons[1]) > 0.02
    ask(workers[1], "well")


def test_processes_that_have_ended_still_count(start: Start, pids: Path) -> None:
    worker = start()
    before = worker.cpu_seconds()
    ask(worker, "brief")  # a child that is waited for and an orphan, of 0.3 CPU seconds each
    wait_until(lambda: worker.tree() == [worker.pid])
    assert worker.cpu_seconds() - before > 0.55
    worker.close()
    assert worker.cpu_seconds() - before > 0.55
    assert not psutil.pid_exists(started(pids, worker.pid))  # not even as a zombie


def test_what_a_tree_uses_includes_its_children(start: Start, pids: Path) -> None:
    worker = start()
    ask(worker, "daemon")
    daemon = started(pids, worker.pid)
    with worker.counted() as use:
        inner = used_by(daemon, 1.0)
    assert inner > 0.05
    assert inner <= use.cpu_seconds <= use.seconds * len(available_cores())
    before = noise.cpu_seconds(worker.pid)
    with worker.counted() as use:
        ask(worker, "brief")
    # Three parents' user and system time, cut to ticks, are taken off: the count is a lower bound.
    assert use.cpu_seconds > noise.cpu_seconds(worker.pid) - before + 0.2


def test_the_work_of_a_child_process_is_no_foreign_load(
    start: Start, pids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start()
    ask(worker, "daemon")
    daemon = started(pids, worker.pid)
    monkeypatch.setattr(noise, "difference", lambda before, after, own, cores: own)
    watch = Noise(worker.affinity(), "cpu")
    watch.begin([worker])
    used = used_by(daemon)
    assert used > 0.02
    assert watch.end([worker]).other >= used  # type: ignore[operator]
    worker.close()  # as a worker that dies within a round
    assert watch.end([worker]).other >= used  # type: ignore[operator]


def test_the_memory_of_an_orphan_is_counted(start: Start, pids: Path) -> None:
    worker = start()
    ask(worker, "daemon")
    worker.park()
    both = [worker.pid, started(pids, worker.pid)]
    with TreeWatch(worker.tree, device="cpu") as watch:
        tree_bytes, _ = watch.peaks()
    assert tree_bytes is not None
    assert tree_bytes >= sum(map(proportional_bytes, both)) > max(map(proportional_bytes, both))


@pytest.mark.skipif(len(available_cores()) < 2, reason="all affinities are one core")
def test_the_affinity_of_a_child_process_is_seen(start: Start) -> None:
    worker = start(cores=available_cores()[:1])
    assert worker.affinity() == available_cores()[:1]
    ask(worker, "daemon")
    wait_until(lambda: worker.affinity() == available_cores())


def test_a_tree_is_listed_without_the_kernels_lists_of_children(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start()
    ask(worker, "daemon")
    listed = worker.tree()
    assert len(listed) == 2
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert worker.tree() == listed


@pytest.mark.parametrize("mode", ["daemon, kill supervisor", "daemon, stop supervisor"])
def test_a_worker_that_attacks_its_supervisor_leaves_nothing(
    start: Start, pids: Path, mode: str
) -> None:
    worker = start()
    if "kill" in mode:
        status, reason = failure_of(worker, mode)
        assert status == "failed"
        assert reason.startswith("its supervisor was killed during 'start' by a process")
    else:
        ask(worker, mode)
        worker.close()
    assert_gone(pids, 2)


HOST = """
import json, os, signal, sys
from pathlib import Path
from levelfield.harness.engine.process import Launch, WorkerProcess
from levelfield.harness.proof.replies import StartReply

launch = json.loads(sys.argv[1])
worker = WorkerProcess(
    Launch(
        interpreter=Path(sys.executable),
        variables=launch["variables"],
        cores=launch["cores"],
        packages={"freakish": Path(launch["package"])},
        log=Path(launch["log"]),
    ),
    timeout_seconds=60,
)
worker.ask(StartReply, 60, adapter="freakish", device="cpu", mode="fork, daemon", threads=1,
           precision="float32")
if sys.argv[2] == "parked":
    worker.park()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["running", "parked"])
def test_nothing_outlives_a_host_that_is_killed(
    launch: Callable[..., Launch], pids: Path, state: str
) -> None:
    options = launch()
    given = {
        "variables": dict(options.variables),
        "cores": list(options.cores),
        "package": str(options.packages["freakish"]),
        "log": str(options.log),
    }
    done = subprocess.run(
        [sys.executable, "-c", HOST, json.dumps(given), state],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert_gone(pids, 3)


PROGRAM = (
    "import os, sys\nprint('output')\nprint('errors', file=sys.stderr)\n"
    "print(sorted(os.sched_getaffinity(0)), sorted(os.environ))\nsys.exit(3)"
)


def test_a_program_runs_to_its_end() -> None:
    core = available_cores()[-1]
    done = supervised.completed(
        [sys.executable, "-c", PROGRAM], variables={"LC_CTYPE": "C.UTF-8"}, cores=[core]
    )
    assert done.returncode == 3
    assert done.stdout == f"output\n[{core}] ['LC_CTYPE']\n"
    assert done.stderr == "errors\n"


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(RunFailed, match="cannot run /nowhere/program: No such file or directory"):
        supervised.completed(["/nowhere/program"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_does_not_outlive_its_host(pids: Path, number: int) -> None:
    program = f"echo $$ >> '{pids}'; sleep 600 & echo $! >> '{pids}'; echo ready >&2; wait"
    run = f"completed(['/bin/sh', '-c', {program!r}])"
    # A shell that started the tests in the background had SIGINT ignored.
    host = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from levelfield.harness.machine.supervised import completed\n{run}"
    )
    with subprocess.Popen(
        [sys.executable, "-c", host],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    ) as running:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        running.send_signal(number)
    assert running.returncode == -number
    assert_gone(pids, 2)


def test_what_cannot_be_killed_is_named(
    start: Start, pids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played by a supervisor whose signals go nowhere."""
    powerless = tmp_path / "powerless.py"
    folder = str(ROOT / "harness" / "machine")
    powerless.write_text(
        f"import sys\nsys.path.insert(0, {folder!r})\nimport supervisor\n"
        "supervisor.END_SECONDS = 0.2\nsupervisor.send = lambda number, pids: None\n"
        "supervisor.main()\n"
    )
    monkeypatch.setattr(process, "SUPERVISE", [sys.executable, str(powerless)])
    worker = start()
    ask(worker, "daemon")
    daemon = started(pids, worker.pid)
    name = psutil.Process(daemon).name()
    with pytest.warns(UserWarning, match=rf"cannot be killed: .*{daemon} \({name}\)"):
        worker.close()
    assert (daemon, name) in worker.survivors
    os.kill(daemon, signal.SIGKILL)
    assert_gone(pids, 2)


def test_a_kernel_without_pidfd_open_will_do(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    worker = start()
    ask(worker, "well")
    assert failure_of(worker, "abort") == ("failed", "died of SIGABRT during 'start'")


# -- how a worker died --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((3, 3), ("failed", "by a process; the kernel counted no lack of memory")),
        ((3, 4), ("out-of-memory", "by the kernel, because memory ran out")),
        ((None, None), ("failed", "; this kernel does not say whether memory ran out")),
    ],
)
def test_the_kernels_counter_tells_why_a_worker_was_killed(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    counts: tuple[int | None, int | None],
    expected: tuple[str, str],
) -> None:
    before, after = counts
    monkeypatch.setattr(process, "oom_kills", lambda: before)
    worker = start()
    monkeypatch.setattr(process, "oom_kills", lambda: after)
    status, reason = failure_of(worker, "die of SIGKILL")
    assert status == expected[0]
    assert reason.startswith("killed by SIGKILL during 'start'")
    assert reason.endswith(expected[1])


def test_a_worker_that_was_stopped_is_told_from_one_that_hangs(start: Start) -> None:
    expected = ("timeout", "'start' took longer than 1.5 s, stopped by a signal")
    assert failure_of(start(), "stop itself", 1.5) == expected


def test_a_lower_hard_limit_of_memory_stays(start: Start, tmp_path: Path) -> None:
    limit = 1 << 30
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\nulimit -d {limit >> 10}\nexec '{sys.executable}' \"$@\"\n")
    interpreter.chmod(0o755)
    for asked, expected in ((limit * 4, limit), (limit // 2, limit // 2)):
        reply = ask(start(interpreter=interpreter, memory_limit_bytes=asked), "well")
        assert reply["data_limit"] == expected


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
    wait_until(lambda: not any(map(alive, numbers)), f"all of {numbers} are gone")


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
    failure = failure_of(worker, "fork, exit", PATIENCE_SECONDS)
    assert failure == ("failed", "left with exit code 3 during 'start'")
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
    reply = ask(start(interpreter=interpreter, cores=[core]), "well")
    assert first.read_text().split() == ["Cpus_allowed_list:", str(core)]
    assert reply["cores"] == f"[{core}]"
    assert os.sched_getaffinity(0) == own


def test_a_worker_sees_the_variables_that_it_was_given_and_no_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    reply = ask(start(), "well")
    given = {"PIDS", "PATH", process.MARK}
    assert given <= set(json.loads(str(reply["variables"]))) <= {*given, "LC_CTYPE"}


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
    left = psutil.Process().children(recursive=True)
    assert not [child for child in left if re.search(r"worker\.py|supervisor\.py", cmdline(child))]


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


def test_a_reply_that_has_begun_may_be_read_to_its_end_after_the_host_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies, reply = os.pipe()
    status, other = os.pipe()
    worker = object.__new__(WorkerProcess)
    worker._turns = Turns()
    worker._replies, worker._status = replies, os.fdopen(status, "rb")  # type: ignore[assignment]
    clock = itertools.chain([0.0, 0.0], itertools.repeat(1000.0))  # stopped after the first chunk
    monkeypatch.setattr(process.time, "monotonic", lambda: next(clock))
    writer = threading.Timer(0.3, os.write, (reply, b"end\n"))
    os.write(reply, b"begin ")
    writer.start()
    try:
        assert worker._read_line("slot", 5.0) == b"begin end\n"
    finally:
        writer.join()
        worker._status.close()
        for descriptor in (replies, reply, other):
            os.close(descriptor)
