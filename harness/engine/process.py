"""The host's end of a worker: start, request, time limit and cause of death."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from levelfield.harness.errors import RunFailed, WorkerFailure
from levelfield.harness.machine import noise, supervisor
from levelfield.harness.machine.cgroups import oom_kills
from levelfield.harness.machine.supervised import SUPERVISE, TreeUse
from levelfield.harness.machine.turns import Turns
from levelfield.harness.proof.replies import (
    REPLY_LIMIT_BYTES,
    AnyReply,
    Nonsense,
    PrepareReply,
    parsed,
)

WORKER = Path(__file__).parents[1] / "worker" / "worker.py"
MARK = "LEVELFIELD_TREE"  # this variable identifies a process tree without its supervisor
DEATH_SECONDS = 5.0  # how long a worker that closed its pipes may take to end
# Extra time for the rest of a reply that has begun when its time is over. A reply has some
# megabytes at most, which a pipe carries in well under a second.
REST_SECONDS = 10.0
PAUSE_SECONDS = 0.1  # between two looks at the clock of a worker that may be parked
LOG_LIMIT_BYTES = 1 << 20  # per worker; a framework that floods its output must not fill the disk


@dataclass(frozen=True)
class Launch:
    """The settings with which a worker starts.

    ``cores``: the CPUs it may run on. ``variables``: its whole environment. ``packages``: name ->
    folder of each package that it may import by name. ``memory_limit_bytes``: the private memory
    that it may have.
    """

    interpreter: Path
    variables: Mapping[str, str]
    cores: Sequence[int]
    packages: Mapping[str, Path]
    log: Path
    memory_limit_bytes: int | None = None


class WorkerProcess:
    """A running worker with every process that descends from it. Use it as a context manager.

    A supervisor (``levelfield.harness.machine.supervisor``) runs between the host and the worker.
    Its descendants are the worker's process tree, including children in sessions of their own and
    children whose parent has ended. Leaving the context kills the tree; so does the death of the
    host.

    ``ask`` raises :class:`levelfield.harness.errors.WorkerFailure` with the status that the cell
    gets. After a timeout or a death the tree is gone and ``alive`` is False. While it waits, the
    other lanes of ``turns`` go on.
    """

    def __init__(
        self, launch: Launch, *, timeout_seconds: float, turns: Turns | None = None
    ) -> None:
        self._turns = turns or Turns()
        self._token = secrets.token_hex(16)
        self._oom_kills = oom_kills()
        self._received = b""
        self._used_seconds = 0.0
        self.survivors: tuple[tuple[int, str], ...] = ()
        request_read, self._requests = os.pipe()
        self._replies, reply_write = os.pipe()
        try:
            self._supervisor = subprocess.Popen(
                SUPERVISE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(request_read, reply_write),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            os.close(self._requests)
            os.close(self._replies)
            raise RunFailed(f"cannot start {sys.executable}: {error.strerror}") from error
        finally:
            os.close(request_read)
            os.close(reply_write)
        self.log = launch.log  # the file of its output
        assert self._supervisor.stdin and self._supervisor.stdout and self._supervisor.stderr
        self._lifeline, self._status = self._supervisor.stdin, self._supervisor.stdout
        self._logger = threading.Thread(
            target=_keep_log, args=(self._supervisor.stderr, launch.log), daemon=True
        )
        self._logger.start()
        self.alive = True
        try:
            self._spawn(launch, (request_read, reply_write), timeout_seconds)
            self._turns.add_tree(self._supervisor.pid)
            reply = self.ask(
                PrepareReply,
                timeout_seconds,
                packages={name: str(folder) for name, folder in launch.packages.items()},
                memory_limit_bytes=launch.memory_limit_bytes,
            )
        except BaseException:  # the caller has no object to close yet
            self.close()
            raise
        self.python = reply.python
        self.interpreter_seconds = reply.interpreter_up - self.spawned

    def _spawn(self, launch: Launch, descriptors: tuple[int, int], timeout_seconds: float) -> None:
        request = {
            "command": [str(launch.interpreter), "-s", str(WORKER), *map(str, descriptors)],
            "variables": {**launch.variables, MARK: self._token},
            "cores": list(launch.cores),
            "descriptors": descriptors,
        }
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, either
            self._lifeline.write(json.dumps(request).encode() + b"\n")
        reply = self._message(timeout_seconds)
        if not reply:
            raise WorkerFailure("failed", "its supervisor did not start it")
        if "error" in reply:
            reason = f"cannot start {launch.interpreter}: {reply['error']}"
            raise WorkerFailure("no-environment", reason)
        self.pid: int = reply["pid"]
        self.spawned: float = reply["spawned"]

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def tree(self) -> list[int]:
        """Return the process ids of the worker and its living descendants; empty when closed."""
        return supervisor.living(self._supervisor.pid) if self.alive else []

    def park(self) -> None:
        """Stop every thread of the process tree; otherwise idle runtimes spin.

        Returns when all threads have stopped. The next ``ask`` notices a worker that has died.
        """
        if self.alive:
            supervisor.stop(self._supervisor.pid)

    def resume(self) -> None:
        """Let a parked process tree continue."""
        supervisor.send(signal.SIGCONT, self.tree())

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Park the process trees of all other lanes until the end."""
        return self._turns.alone(self._supervisor.pid)

    def move(self, begin: Sequence[int], end: Sequence[int]) -> None:
        """Move the process tree from the cores ``begin`` to as many cores ``end``."""
        if self.alive and begin != end:
            supervisor.move(self._supervisor.pid, dict(zip(begin, end, strict=True)))

    def cpu_seconds(self) -> float:
        """CPU seconds of the whole process tree so far, including processes that ended.

        Living processes are counted to the nanosecond, ended processes to ticks of 10 ms (proc(5),
        cutime). A process that ignores SIGCHLD hides the CPU seconds of its ended children; the
        rules of disturbed rounds count them as foreign load. After ``close`` the last figure stays.
        """
        if not self.alive:
            return self._used_seconds
        lived = sum(map(noise.cpu_seconds, supervisor.descendants(self._supervisor.pid)))
        return lived + noise.TICK_SECONDS * self._ended_ticks()

    def _ended_ticks(self) -> int:
        root = self._supervisor.pid
        return sum(map(supervisor.ended_children_ticks, [root, *supervisor.descendants(root)]))

    @contextlib.contextmanager
    def counted(self) -> Iterator[TreeUse]:
        """Count the process tree's use during the block; the object is filled in at its end."""
        use = TreeUse()
        # Read the clock first and last; otherwise CPU time could exceed the time of all cores.
        begin, ended, before = time.perf_counter(), self._ended_ticks(), self.cpu_seconds()
        yield use
        use.cpu_seconds = self.cpu_seconds() - before
        use.seconds = time.perf_counter() - begin
        if self.alive and self._ended_ticks() != ended:
            # The kernel cuts each parent's user and system time to whole ticks.
            use.cpu_seconds -= 2 * noise.TICK_SECONDS * (1 + len(self.tree()))

    def affinity(self) -> list[int]:
        """Return the cores on which any thread of the process tree may run."""
        return sorted(set().union(*map(supervisor.affinity, self.tree())))

    def ask(self, kind: type[AnyReply], timeout_seconds: float, **arguments: Any) -> AnyReply:
        """Send the request for such a reply, wait for it without polling, and check it.

        A worker whose reply does not fit the request is ended, because its next reply may belong
        to an earlier request.
        """
        try:
            with self._turns.away():
                return self._ask(kind, timeout_seconds, {"do": kind.do, **arguments})
        except WorkerFailure as failure:
            failure.log = self.log.name
            if isinstance(failure, Nonsense):
                self.close()
            raise

    def _ask(
        self, kind: type[AnyReply], timeout_seconds: float, request: Mapping[str, Any]
    ) -> AnyReply:
        do = kind.do
        if select.select([self._replies], [], [], 0)[0]:
            if not os.read(self._replies, 1):
                raise self._died(do)
            raise Nonsense(do, "came before its request", "one reply to each request")
        try:
            os.write(self._requests, (json.dumps(request) + "\n").encode())
        except BrokenPipeError:
            raise self._died(do) from None
        line = self._read_line(do, timeout_seconds)
        self._oom_kills = oom_kills()  # the worker was alive when this many were killed
        return parsed(kind, request, line)

    def _read_line(self, do: str, timeout_seconds: float) -> bytes:
        deadline, line, granted = self._clock() + timeout_seconds, bytearray(), False
        parked_seconds = self._turns.parked_seconds()
        while not line.endswith(b"\n"):
            seconds_left = deadline - self._clock()
            # A forked child of the framework may hold the pipe open, so the supervisor's report of
            # the worker's end is watched as well.
            streams, _, _ = select.select(
                [self._replies, self._status.fileno()], [], [], max(seconds_left, 0)
            )
            if not streams and self._turns.parked_seconds() > parked_seconds:
                parked_seconds = self._turns.parked_seconds()
                time.sleep(PAUSE_SECONDS)
                continue  # it has some time left
            if not streams and line and not granted:
                # The host itself may have been stopped while the worker was writing.
                deadline, granted = self._clock() + REST_SECONDS, True
                continue
            if not streams:
                raise self._late(do, timeout_seconds)
            chunk = os.read(self._replies, 1 << 16) if self._replies in streams else b""
            if not chunk:
                raise self._died(do)
            if b"\n" in chunk[:-1]:
                raise Nonsense(do, "has more than one line", "one reply to each request")
            line += chunk
            if len(line) > REPLY_LIMIT_BYTES:
                raise Nonsense(do, "is too long", f"at most {REPLY_LIMIT_BYTES} bytes")
        return bytes(line)

    def _clock(self) -> float:
        """Return seconds of a clock that stands still while another lane is alone."""
        return time.monotonic() - self._turns.parked_seconds()

    def _message(self, timeout_seconds: float) -> dict[str, Any] | None:
        """Return the supervisor's next message, decoded JSON.

        It is {} if the supervisor has ended, and None if no message came in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while b"\n" not in self._received:
            seconds_left = deadline - time.monotonic()
            streams, _, _ = select.select([self._status], [], [], max(seconds_left, 0))
            if not streams:
                return None
            chunk = os.read(self._status.fileno(), 1 << 12)
            if not chunk:
                return {}
            self._received += chunk
        line, self._received = self._received.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _late(self, do: str, timeout_seconds: float) -> WorkerFailure:
        stopped = supervisor.states(self.pid) == {"T"}
        self.close()
        reason = f"'{do}' took longer than {timeout_seconds:g} s"
        return WorkerFailure("timeout", reason + (", stopped by a signal" if stopped else ""))

    def _died(self, do: str) -> WorkerFailure:
        message = self._message(DEATH_SECONDS)
        self.close()
        if message is None:
            return WorkerFailure("failed", f"closed its pipes during '{do}'")
        if not message:
            return self._killed(do, "its supervisor was killed")
        code = message["code"]
        if code == -signal.SIGKILL:
            return self._killed(do, "killed by SIGKILL")
        if code < 0:
            return WorkerFailure("failed", f"died of {signal.Signals(-code).name} during '{do}'")
        return WorkerFailure("failed", f"left with exit code {code} during '{do}'")

    def _killed(self, do: str, event: str) -> WorkerFailure:
        before, after = self._oom_kills, oom_kills()
        if before is None or after is None:
            reason = f"{event} during '{do}'; this kernel does not say whether memory ran out"
            return WorkerFailure("failed", reason)
        if after > before:
            reason = f"{event} during '{do}' by the kernel, because memory ran out"
            return WorkerFailure("out-of-memory", reason)
        reason = f"{event} during '{do}' by a process; the kernel counted no lack of memory"
        return WorkerFailure("failed", reason)

    def close(self) -> None:
        """End the worker and its process tree at once. May be called again.

        ``survivors`` are (pid, name) of processes that even SIGKILL did not end; a warning names
        them.
        """
        if not self.alive:
            return
        self._used_seconds = self.cpu_seconds()
        self.alive = False
        self._turns.remove_tree(self._supervisor.pid)
        self._supervisor.send_signal(signal.SIGCONT)  # a process of the tree may have stopped it
        self._lifeline.close()
        patience_seconds = supervisor.END_SECONDS + DEATH_SECONDS
        message = self._message(patience_seconds)
        while message and "survivors" not in message:
            message = self._message(patience_seconds)
        if not message:  # it was killed or is stopped: the mark identifies the processes it started
            self._supervisor.kill()
            survivors = supervisor.kill(lambda: supervisor.marked(f"{MARK}={self._token}"))
        else:
            survivors = [(pid, name) for pid, name in message["survivors"]]
        self._supervisor.wait()
        self.survivors = tuple(survivors)
        if survivors:  # they hold the log's pipe open, so that its thread goes on
            names = ", ".join(f"{pid} ({name})" for pid, name in survivors)
            warnings.warn(
                f"a worker left processes that cannot be killed: {names}; end them before you "
                "measure again",
                stacklevel=2,
            )
        else:
            self._logger.join(timeout=DEATH_SECONDS)
        self._status.close()
        for descriptor in (self._requests, self._replies):
            os.close(descriptor)


def _keep_log(stream: IO[bytes], path: Path) -> None:
    """Copy a worker's output to its log, up to a limit; then read on, so that it never blocks."""
    # A full disk costs the log, never the worker.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    kept_bytes = 0
    with stream, open(descriptor, "wb", buffering=0) as log:
        while chunk := os.read(stream.fileno(), 1 << 16):
            room = LOG_LIMIT_BYTES - kept_bytes
            if room <= 0:
                continue
            kept_bytes += len(chunk[:room])
            with contextlib.suppress(OSError):
                log.write(chunk[:room])
                if kept_bytes == LOG_LIMIT_BYTES:
                    log.write(b"\n[the rest of the output was dropped]\n")
