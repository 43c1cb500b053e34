"""The host's end of a worker: start it, ask it, bound it in time, and learn how it died."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from harness.errors import WorkerFailure

WORKER = Path(__file__).with_name("worker.py")
DEATH_SECONDS = 5.0  # that a worker which closed its pipes may take to end
LOG_LIMIT_BYTES = 1 << 20  # per worker; a framework that floods its output must not fill the disk


@dataclass(frozen=True)
class Launch:
    """How to start a worker.

    ``cores``: the CPUs it may run on. ``variables``: its whole environment. ``packages``: name ->
    folder of what it may import by name. ``memory_limit_bytes``: private memory it may have.
    """

    interpreter: Path
    variables: Mapping[str, str]
    cores: Sequence[int]
    packages: Mapping[str, Path]
    log: Path
    memory_limit_bytes: int | None = None


class WorkerProcess:
    """A running worker. Use it as a context manager; leaving kills the whole process group.

    ``ask`` raises :class:`harness.errors.WorkerFailure` with the status that the cell gets; after a
    timeout or a death the process is gone and ``alive`` is False.
    """

    def __init__(self, launch: Launch, *, timeout_seconds: float) -> None:
        request_read, self._requests = os.pipe()
        self._replies, reply_write = os.pipe()
        self._buffer = b""
        self.spawned = time.perf_counter()
        # The child inherits the affinity of the thread that starts it, so it is bound before its
        # first instruction; afterwards the host takes its own cores back.
        own_cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, launch.cores)
        try:
            self._process = subprocess.Popen(
                [str(launch.interpreter), "-s", str(WORKER), str(request_read), str(reply_write)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(launch.variables),
                pass_fds=(request_read, reply_write),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._requests)
            os.close(self._replies)
            reason = f"cannot start {launch.interpreter}: {error.strerror}"
            raise WorkerFailure("no-environment", reason) from error
        finally:
            os.sched_setaffinity(0, own_cores)
            os.close(request_read)
            os.close(reply_write)
        self._death = os.pidfd_open(self._process.pid)
        assert self._process.stdout is not None
        self._logger = threading.Thread(
            target=_keep_log, args=(self._process.stdout, launch.log), daemon=True
        )
        self._logger.start()
        self.alive = True
        self.python = ""
        self.interpreter_seconds = 0.0
        try:
            ready = self.ask(
                "prepare",
                timeout_seconds,
                packages={name: str(folder) for name, folder in launch.packages.items()},
                memory_limit_bytes=launch.memory_limit_bytes,
            )
        except BaseException:  # nobody else has it to close
            self.close()
            raise
        self.python = ready["python"]
        self.interpreter_seconds = ready["interpreter_up"] - self.spawned

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the worker, which leads a process group of its own."""
        return self._process.pid

    def park(self) -> None:
        """Stop every thread of the worker's process group; idle runtimes spin otherwise.

        Returns when the worker has stopped or is gone; a dead one is found out by the next ``ask``.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGSTOP)
        # WNOWAIT leaves what is found to whoever waits for the end of the process.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a parked worker go on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)

    def ask(self, do: str, timeout_seconds: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait, without polling, for its reply."""
        line = json.dumps({"do": do, **arguments}) + "\n"
        try:
            os.write(self._requests, line.encode())
        except BrokenPipeError:
            raise self._died(do) from None
        text = self._read_line(do, time.monotonic() + timeout_seconds, timeout_seconds)
        try:
            reply: dict[str, Any] = json.loads(text)
        except ValueError as error:
            self.close()
            raise WorkerFailure("failed", f"unreadable reply to '{do}'") from error
        if not reply["ok"]:
            raise WorkerFailure(reply["status"], reply["reason"])
        return reply

    def _read_line(self, do: str, deadline: float, timeout_seconds: float) -> bytes:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            # A forked child of the framework may hold the pipe open, so the death of the process
            # itself is watched as well.
            ready, _, _ = select.select([self._replies, self._death], [], [], max(left, 0))
            if not ready:
                self.close()
                raise WorkerFailure("timeout", f"'{do}' took longer than {timeout_seconds:g} s")
            chunk = os.read(self._replies, 1 << 16) if self._replies in ready else b""
            if not chunk:
                raise self._died(do)
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _died(self, do: str) -> WorkerFailure:
        try:
            code = self._process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            self.close()
            return WorkerFailure("failed", f"closed its pipes during '{do}'")
        self.close()
        if code == -signal.SIGKILL:
            reason = f"killed by SIGKILL during '{do}', as the kernel does when memory runs out"
            return WorkerFailure("out-of-memory", reason)
        if code < 0:
            return WorkerFailure("failed", f"died of {signal.Signals(-code).name} during '{do}'")
        return WorkerFailure("failed", f"left with exit code {code} during '{do}'")

    def close(self) -> None:
        """End the worker and everything that it started, at once. May be called again."""
        if not self.alive:
            return
        self.alive = False
        with contextlib.suppress(ProcessLookupError):  # gone already, with all of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._logger.join(timeout=5)
        for descriptor in (self._requests, self._replies, self._death):
            os.close(descriptor)


def _keep_log(stream: IO[bytes], path: Path) -> None:
    """Copy what a worker prints to its log, up to a limit, and go on reading so it never blocks."""
    # A disk that takes no more costs the log, never the worker.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    kept = 0
    with stream, open(descriptor, "wb", buffering=0) as log:
        while chunk := os.read(stream.fileno(), 1 << 16):
            room = LOG_LIMIT_BYTES - kept
            if room <= 0:
                continue
            kept += len(chunk[:room])
            with contextlib.suppress(OSError):
                log.write(chunk[:room])
                if kept == LOG_LIMIT_BYTES:
                    log.write(b"\n[the rest of the output was dropped]\n")
