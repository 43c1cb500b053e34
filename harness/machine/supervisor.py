"""The supervisor of a worker: starts it, adopts its orphans and ends them all with the host.

It runs as ``python -I -S supervisor.py`` between the host and a worker, or another program that
must not outlive the host (``levelfield.harness.machine.supervised.completed``). It is a child
subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): a process whose parent ended becomes a child of the
supervisor, also if it is in a session of its own. So the worker's process tree is exactly the
supervisor's descendants, and no two workers share a process. This needs no privileges or control
groups. A process escapes the tree only if a service of the machine (systemd, Docker, cron) starts
it.

Standard input brings one JSON object {"command", "variables", "cores", "descriptors", "output",
"memory_limit_bytes"} in one line and stays open; the last two may be missing. When it ends, because
the host closed it or died, every descendant is killed. One JSON object per line goes out: {"pid",
"spawned"} or {"error"}, then {"code"} when the worker ends, then {"survivors": [[pid, name], ...]}
for processes that could not be killed. Standard error is the worker's log. It is also the worker's
standard output if no descriptor is given as "output". The host imports the functions that inspect a
process tree. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SET_CHILD_SUBREAPER = 36  # prctl(2)
# A killed process frees its memory before it ends, which takes seconds on a GPU.
END_SECONDS = 30.0
STOP_SECONDS = 5.0  # how long a process in an uninterruptible wait may take to stop
POLL_SECONDS = 0.0001
STILL = frozenset("TtZX")  # states of proc(5): stopped, stopped by a tracer, ended
ENDED = frozenset("ZX")


def descendants(root: int) -> list[int]:
    """Return the process ids of all descendants of ``root``, parents before their children.

    Processes that have ended but were not waited for yet are included. The list can miss children
    of a process that runs while it is read (proc(5), children).
    """
    children_of = _children if os.path.exists(f"/proc/{root}/task/{root}/children") else _scan()
    pids = [root]
    for pid in pids:  # grows while it is read
        pids.extend(children_of(pid))
    return pids[1:]


def states(pid: int) -> set[str]:
    """Return the states of a process's threads, as letters of proc(5); empty if it is gone."""
    return {fields[0] for fields in (_stat(f"{pid}/task/{task}") for task in _tasks(pid)) if fields}


def living(root: int) -> list[int]:
    """Return the descendants that have not ended."""
    return [pid for pid in descendants(root) if not states(pid) <= ENDED]


def marked(variable: str) -> list[int]:
    """Return the living processes that were started with "name=value" in their environment."""
    entry = b"\0" + variable.encode() + b"\0"
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        # Another user's process cannot be read, and one that has ended has no environment.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if entry in b"\0" + file.read():
                pids.append(int(pid))
    return pids


def stop(root: int) -> None:
    """Stop all descendants; return when every thread has stopped.

    A process may start another while it is being stopped. So the tree is complete only when two
    lists in a row show no running process.
    """
    deadline = time.monotonic() + STOP_SECONDS
    quiet = 0
    while quiet < 2 and time.monotonic() < deadline:
        running = [pid for pid in descendants(root) if not states(pid) <= STILL]
        quiet = 0 if running else quiet + 1
        send(signal.SIGSTOP, running)
        if running:
            time.sleep(POLL_SECONDS)


def send(number: signal.Signals, pids: list[int]) -> None:
    """Send a signal to processes; some may be gone or may have changed their user."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def move(root: int, core_of: dict[int, int]) -> None:
    """Let every thread of the descendants run on ``core_of[core]`` in place of each core."""
    for pid in descendants(root):
        for task in map(int, _tasks(pid)):
            with contextlib.suppress(OSError):  # the thread has ended
                cores = os.sched_getaffinity(task)
                os.sched_setaffinity(task, {core_of.get(core, core) for core in cores})


def kill(find: Callable[[], list[int]]) -> list[tuple[int, str]]:
    """Kill the processes that ``find`` lists until none are left.

    Returns (pid, name) of those that live after 30 s.
    """
    deadline = time.monotonic() + END_SECONDS
    while pids := find():
        if time.monotonic() > deadline:
            return [(pid, process_name(pid)) for pid in pids]
        send(signal.SIGKILL, pids)
        time.sleep(POLL_SECONDS)
    return []


def process_name(pid: int) -> str:
    """Return the name of a process (proc(5), comm); "?" for a process that is gone."""
    return (_read(f"{pid}/comm") or "?").strip()


def ended_children_ticks(pid: int) -> int:
    """CPU time of the children that a process has waited for, in clock ticks (proc(5), stat)."""
    fields = _stat(str(pid))
    return int(fields[13]) + int(fields[14]) if fields else 0


def affinity(pid: int) -> set[int]:
    """Return the cores on which any thread of a process may run."""
    cores: set[int] = set()
    for task in _tasks(pid):
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            cores |= os.sched_getaffinity(int(task))
    return cores


def _children(pid: int) -> Iterator[int]:
    for task in _tasks(pid):
        yield from map(int, (_read(f"{pid}/task/{task}/children") or "").split())


def _scan() -> Any:
    """Return a stand-in for ``_children`` for kernels without such files, by processes' parents."""
    children: dict[int, list[int]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if fields := _stat(pid):
            children.setdefault(int(fields[1]), []).append(int(pid))
    return lambda pid: children.get(pid, [])


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _stat(place: str) -> list[str]:
    """Return the fields of a stat file after the name, which may hold any character."""
    return (_read(f"{place}/stat") or "").rpartition(")")[2].split()


def _read(place: str) -> str | None:
    try:
        with open(f"/proc/{place}", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


# -- the supervisor itself --------------------------------------------------------------------


def _adopt_orphans() -> None:
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)


def _request() -> dict[str, Any]:
    text = b""
    while not text.endswith(b"\n"):
        chunk = os.read(0, 1 << 16)
        if not chunk:
            raise SystemExit(1)  # the host is gone before anything was started
        text += chunk
    request: dict[str, Any] = json.loads(text)
    return request


def _say(message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the host is gone
        os.write(1, json.dumps(message).encode() + b"\n")


def _start(request: dict[str, Any]) -> tuple[int, float]:
    """Start the worker; return its pid and when it was spawned, on the clock of all processes."""
    # Both are inherited, so they hold from the first instruction.
    os.sched_setaffinity(0, request["cores"])
    if request.get("memory_limit_bytes"):
        _limit_memory(request["memory_limit_bytes"])
    spawned = time.perf_counter()
    pid = os.posix_spawn(
        request["command"][0],
        request["command"],
        request["variables"],
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, request.get("output", 2), 1),
        ],
        setsid=True,
        setsigdef=[*IGNORED, signal.SIGPIPE, signal.SIGXFSZ],
    )
    return pid, spawned


def _limit_memory(limit_bytes: int) -> None:
    """Limit private memory (setrlimit(2), RLIMIT_DATA); a lower limit of the user stays."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _reap(worker: int) -> None:
    """Wait for children, including adopted ones, until there are none."""
    # A blocking call, because SIGCHLD would also wake this process whenever the worker is parked.
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == worker:
                _say({"code": os.waitstatus_to_exitcode(status)})


def _end_with_host(reaped: threading.Event) -> None:
    """Kill all descendants when standard input ends, then end this process."""
    while os.read(0, 1):
        pass
    survivors: list[tuple[int, str]] = []
    while not survivors and not reaped.wait(POLL_SECONDS):
        survivors = kill(lambda: living(os.getpid()))
    _say({"survivors": survivors})
    os._exit(0)


# The supervisor ends with the host, and not by a signal that was meant for the host.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Supervise until standard input ends."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _adopt_orphans()
    request = _request()
    try:
        worker, spawned = _start(request)
    except OSError as error:
        _say({"error": error.strerror})
        return
    _say({"pid": worker, "spawned": spawned})
    for descriptor in request["descriptors"]:
        os.close(descriptor)  # only the worker's own copies keep these pipes open
    reaped = threading.Event()
    watcher = threading.Thread(target=_end_with_host, args=(reaped,))
    watcher.start()
    _reap(worker)
    reaped.set()
    watcher.join()


if __name__ == "__main__":
    main()
