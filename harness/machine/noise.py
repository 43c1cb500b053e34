"""Measures the other load of the machine: a canary loop and the counters of the kernel.

The host reads them between slots, while every worker is parked, never inside a timed region. Rounds
are judged by these covariates alone and never by their own times.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from levelfield.harness.machine import cgroups, topology

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")  # resolution of /proc/stat (proc(5))
# The best of four short loops: a preemption costs one of them, a slower core all of them.
CANARY_LOOPS, CANARY_TURNS = 4, 3000

# Shares of the watched cores' time in a round, and not of the machine's time. On 64 cores a program
# that takes half of the measured core takes less than 1 % of the machine. A program on another core
# does not disturb pinned workers. Differences below two ticks of the counter mean nothing.
FOREIGN_SHARE, STEAL_SHARE = 0.03, 0.01


@dataclass(frozen=True)
class Reading:
    """Counters at one moment: seconds since boot or start; None or NaN if there is no such counter.

    ``busy_seconds`` and ``steal_seconds`` cover the requested cores, the other counters the whole
    machine.
    """

    clock: float
    busy_seconds: float
    steal_seconds: float
    pressure_seconds: float | None
    throttled_seconds: float | None
    load: float
    frequency_mhz: tuple[float, ...] | None


def _loop(turns: int) -> None:
    number = 1
    for _ in range(turns):
        number = (number * 1103515245 + 12345) & 0x7FFFFFFF


def canary(cores: Sequence[int]) -> list[float]:
    """Seconds of a fixed integer loop on each core: its present speed, without privileges.

    The loop runs in this process, which is temporarily bound to the core.
    """
    affinity = os.sched_getaffinity(0)
    seconds = []
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            best = np.inf
            for _ in range(CANARY_LOOPS):
                start = time.perf_counter()
                _loop(CANARY_TURNS)
                best = min(best, time.perf_counter() - start)
            seconds.append(best)
    finally:
        os.sched_setaffinity(0, affinity)
    return seconds


def watched_cores(cores: Sequence[int]) -> tuple[int, ...] | None:
    """Return ``cores`` and their hyper-thread siblings; a program on any of them slows ``cores``.

    None if /proc/stat lacks one of them, for example in a container that renumbers its cores. Then
    only the whole machine can be watched.
    """
    watched = topology.with_siblings(cores)
    return tuple(sorted(watched)) if {f"cpu{core}" for core in watched} <= _ticks().keys() else None


def core_count(watched: Sequence[int] | None) -> int:
    """Return the number of watched cores; None stands for all cores of the machine."""
    return len(watched) if watched else os.cpu_count() or 1


def _ticks() -> dict[str, list[float]]:
    """Return the first eight counters of /proc/stat by name: "cpu": machine, "cpu0": a core.

    The result is empty on a host that does not count: without the file, or, as in gVisor, with
    zeros in it.
    """
    with suppress(OSError):
        text = _text("/proc/stat")
        lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
        ticks = {name: [float(field) for field in fields[:8]] for name, *fields in lines}
        return ticks if any(ticks.get("cpu", ())) else {}
    return {}


def read(watched: Sequence[int] | None = None) -> Reading:
    """Read the present counters (proc(5), the kernel's psi and cgroup documentation).

    ``watched``: the cores whose busy and stolen time is counted; None for the whole machine.
    """
    ticks = _ticks()
    names = ["cpu"] if watched is None else [f"cpu{core}" for core in watched]
    # A core that was switched off has no line; it is neither busy nor stolen.
    counted = [ticks[name] for name in names if name in ticks] or [[np.nan] * 8]
    user, nice, system, _, _, irq, softirq, steal = np.sum(counted, axis=0).tolist()
    return Reading(
        clock=time.perf_counter(),
        busy_seconds=(user + nice + system + irq + softirq) * TICK_SECONDS,
        steal_seconds=steal * TICK_SECONDS,
        pressure_seconds=_pressure(),
        throttled_seconds=cgroups.throttled_seconds(),
        load=_load(),
        frequency_mhz=_frequencies(),
    )


def cpu_seconds(pid: int) -> float:
    """CPU time of another process with all of its threads, with a resolution of nanoseconds.

    The clock of a process is (~pid << 3) | 2 (clock_getcpuclockid(3), kernel's posix-timers.h). The
    result is 0 for a process that is gone.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


@dataclass(frozen=True)
class OtherLoad:
    """The changes between two readings; fields of a ``round`` record."""

    wall_seconds: float
    foreign_seconds: float
    steal_seconds: float
    throttled_seconds: float | None
    pressure_seconds: float | None
    load: float
    frequency_mhz: tuple[float, ...] | None


def difference(before: Reading, after: Reading, own_seconds: float, cores: int) -> OtherLoad:
    """Return the changes between two readings.

    ``own_seconds`` is the CPU time of this program and its workers; all other busy time is foreign.
    ``cores`` is the number of cores that the readings cover. /proc/stat counts whole ticks of
    10 ms, so the shares of a round of half a second on two cores are exact to about one per cent.
    """
    wall = after.clock - before.clock
    foreign = max(after.busy_seconds - before.busy_seconds - own_seconds, 0.0)
    return OtherLoad(
        wall_seconds=wall,
        foreign_seconds=min(foreign, wall * cores),
        steal_seconds=max(after.steal_seconds - before.steal_seconds, 0.0),
        throttled_seconds=_less(after.throttled_seconds, before.throttled_seconds),
        pressure_seconds=_less(after.pressure_seconds, before.pressure_seconds),
        load=after.load,
        frequency_mhz=after.frequency_mhz,
    )


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


@dataclass(frozen=True)
class Quiet:
    """How a session began; ``quiet`` is None on a host that does not count what others use."""

    quiet: bool | None
    waited_seconds: float
    foreign_share: float


def wait_until_quiet(
    seconds: float,
    *,
    watched: Sequence[int] | None = None,
    share: float = FOREIGN_SHARE,
    window: float = 5.0,
    reader: Callable[[Sequence[int] | None], Reading] = read,
    sleep: Callable[[float], None] = time.sleep,
) -> Quiet:
    """Wait until others use less than ``share`` of the ``watched`` cores over ``window`` seconds.

    The wait takes at most ``seconds``; then the session goes on anyway, and its record says so.
    0 does not wait. ``watched`` None watches the whole machine.
    """
    cores, waited, foreign_share = core_count(watched), 0.0, 0.0
    while waited < seconds:
        before, own_start = reader(watched), time.process_time()
        sleep(min(window, seconds))
        after = reader(watched)
        load = difference(before, after, time.process_time() - own_start, cores)
        foreign_share = load.foreign_seconds / (load.wall_seconds * cores)
        waited += load.wall_seconds
        if np.isnan(foreign_share):
            return Quiet(None, waited, foreign_share)
        if foreign_share < share:
            return Quiet(True, waited, foreign_share)
    return Quiet(seconds == 0, waited, foreign_share)


def _pressure() -> float | None:
    """Seconds in which some task waited for a CPU."""
    with suppress(OSError, ValueError, IndexError):
        return float(_text("/proc/pressure/cpu").split("total=")[1].split()[0]) / 1e6
    return None


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return np.nan


def _frequencies() -> tuple[float, ...] | None:
    frequencies = []
    for core in sorted(os.sched_getaffinity(0)):
        with suppress(OSError, ValueError):
            path = f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"
            frequencies.append(float(_text(path)) / 1000)
    return tuple(frequencies) or None


def _text(path: str) -> str:
    return Path(path).read_text()
