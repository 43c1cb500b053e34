"""Reads the control groups of this program: limits, and what they cost, of version 1 and 2.

A group is bound by the limits of all groups that contain it. So every limit is the lowest from the
program's own group up to the top. Workers are in the group of the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

_Number = TypeVar("_Number", int, float)

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Version 1 writes a number of about 2^63 bytes, rounded down to whole pages, where there is no
# limit (kernel's documentation, cgroup-v1/memory).
UNLIMITED_BYTES = 2**62


def folders(controller: str) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of the groups of this program for a controller, the innermost first.

    Within a container, /proc/self/cgroup may name the path that a group has outside of it. Such a
    folder is missing here, and the top folder is then the container's own group.
    """
    for line in (_text(PROC / "self" / "cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        groups = [str(path).lstrip("/") for path in (Path(group), *Path(group).parents)]
        if not controllers:
            # Next to version 1, version 2 is mounted in a folder of its own.
            unified = CGROUPS / "unified"
            top = unified if unified.is_dir() else CGROUPS
            yield from ((2, top / name) for name in groups)
        elif controller in controllers.split(","):
            yield from ((1, CGROUPS / controller / name) for name in groups)


def quota_cores() -> float | None:
    """CPU seconds per second that the quotas allow (cpu.max, cpu.cfs_quota_us); None: no quota."""
    return min(_every("cpu", _quota), default=None)


def _quota(version: int, folder: Path) -> float | None:
    if version == 2:
        limit, period = _words(folder / "cpu.max")[:2]
    else:
        limit = _words(folder / "cpu.cfs_quota_us")[0]
        period = _words(folder / "cpu.cfs_period_us")[0]
    return None if limit in ("max", "-1") else float(limit) / float(period)


def throttled_seconds() -> float | None:
    """Seconds in which a quota held back this program (cpu.stat); None if no group counts them."""
    seconds = list(_every("cpu", _throttled))
    return sum(seconds) if seconds else None


def _throttled(version: int, folder: Path) -> float | None:
    name, unit = ("throttled_usec", 1e6) if version == 2 else ("throttled_time", 1e9)
    count = _field(folder / "cpu.stat", name)
    return None if count is None else count / unit


def memory_limit_bytes() -> int | None:
    """The most memory that the groups allow (memory.max, memory.limit_in_bytes); None: no limit."""
    return min(_every("memory", _memory_limit), default=None)


def memory_left_bytes() -> int | None:
    """Memory that the groups still allow; None if there is no limit.

    Files that the kernel may drop from memory do not count as used. Container managers count in
    the same way.
    """
    return min(_every("memory", _memory_left), default=None)


def _memory_limit(version: int, folder: Path) -> int | None:
    text = _words(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))[0]
    limit = None if text == "max" else int(text)
    return None if limit is None or limit >= UNLIMITED_BYTES else limit


def _memory_left(version: int, folder: Path) -> int | None:
    limit = _memory_limit(version, folder)
    if limit is None:
        return None
    current = "memory.current" if version == 2 else "memory.usage_in_bytes"
    cached = "inactive_file" if version == 2 else "total_inactive_file"
    used_bytes = int(_words(folder / current)[0]) - (_field(folder / "memory.stat", cached) or 0)
    return max(limit - max(used_bytes, 0), 0)


def oom_kills() -> int | None:
    """Count the processes that the kernel killed because memory ran out; None if it does not say.

    The count is that of this program's group, which its workers share: memory.events (kernel's
    documentation, cgroup-v2) or memory.oom_control (cgroup-v1/memory). Without one, it is that of
    the whole machine (vmstat, proc(5)).
    """
    counts = _every("memory", _oom_kills)
    count = next(counts, None)
    return _field(PROC / "vmstat", "oom_kill") if count is None else count


def _oom_kills(version: int, folder: Path) -> int | None:
    return _field(folder / ("memory.events" if version == 2 else "memory.oom_control"), "oom_kill")


def _every(controller: str, read: Callable[[int, Path], _Number | None]) -> Iterator[_Number]:
    """Yield what ``read`` finds in every group that has such a file, the innermost first."""
    for version, folder in folders(controller):
        with contextlib.suppress(OSError, ValueError, IndexError, ZeroDivisionError):
            if (value := read(version, folder)) is not None:
                yield value


def _field(path: Path, name: str) -> int | None:
    """Return the number of a line "name number"."""
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _words(path: Path) -> list[str]:
    return path.read_text().split()


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
