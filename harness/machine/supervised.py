"""Runs programs under a supervisor, so that they do not outlive the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from levelfield.harness.errors import RunFailed
from levelfield.harness.machine import supervisor
from levelfield.harness.machine.turns import Turns

SUPERVISE = [sys.executable, "-I", "-S", supervisor.__file__]


@dataclass
class TreeUse:
    """CPU seconds and clock seconds of a process tree during ``WorkerProcess.counted``.

    The CPU seconds are a lower bound if processes of the tree ended.
    """

    cpu_seconds: float = 0.0
    seconds: float = 0.0


def completed(
    command: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    cores: Sequence[int] | None = None,
    memory_limit_bytes: int | None = None,
    turns: Turns | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end -> exit code, output, errors. It does not outlive the host.

    ``variables``: its whole environment; ``cores``: the CPUs it may run on. Without them it has
    those of the host. ``memory_limit_bytes``: the private memory that it may have. ``turns``: those
    of the run, whose other lanes go on. Raises RunFailed if the program cannot be started.
    """
    turns = turns or Turns()
    with (
        open(_nameless_file(), "w+", encoding="utf-8", errors="replace") as output,
        open(_nameless_file(), "w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            SUPERVISE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(output.fileno(),),
            start_new_session=True,
            bufsize=0,
        ) as process,
    ):
        assert process.stdin and process.stdout
        request = {
            "command": command,
            "variables": dict(os.environ if variables is None else variables),
            "cores": list(os.sched_getaffinity(0) if cores is None else cores),
            "descriptors": [output.fileno()],
            "output": output.fileno(),
            "memory_limit_bytes": memory_limit_bytes,
        }
        process.stdin.write(json.dumps(request).encode() + b"\n")
        message = _read(process, command)
        turns.add_tree(process.pid)
        try:
            with turns.away():
                while "code" not in message:
                    message = _read(process, command)
        finally:
            turns.remove_tree(process.pid)
        process.stdin.close()
        process.wait()
        for stream in (output, errors):
            stream.seek(0)
        return subprocess.CompletedProcess(command, message["code"], output.read(), errors.read())


def _read(process: subprocess.Popen[bytes], command: Sequence[str]) -> dict[str, Any]:
    """Return the next message of a supervisor."""
    assert process.stdout
    line = process.stdout.readline()
    message: dict[str, Any] = json.loads(line or '{"error": "its supervisor was killed"}')
    if "error" in message:
        raise RunFailed(f"cannot run {command[0]}: {message['error']}")
    return message


def _nameless_file() -> int:
    """Open a file without a name: in memory, or on disk where the kernel has no memfd_create(2)."""
    try:
        return os.memfd_create("levelfield")
    except (AttributeError, OSError):
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
