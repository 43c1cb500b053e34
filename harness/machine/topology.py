"""The cores of this machine: hardware threads of one physical core, and kinds of cores.

The kernel describes them below /sys/devices (its documentation: cputopology, and for kinds
cpu_capacity and the folders of hybrid processors). Without a description every core is a physical
core of its own, and all are of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

SYSTEM = Path("/sys/devices")
# Intel's hybrid processors list their kinds of cores in these folders, the fastest first.
HYBRID_KINDS = ("cpu_core", "cpu_atom", "cpu_lowpower")
# The favoured cores of one kind are some per cent faster than the others. Kinds differ by more.
ANOTHER_KIND = 0.9


def siblings(core: int) -> set[int]:
    """Return the hardware threads of a core's physical core, the core itself among them."""
    with suppress(OSError, ValueError):
        return {core} | _listed(f"system/cpu/cpu{core}/topology/thread_siblings_list")
    return {core}


def with_siblings(cores: Iterable[int]) -> set[int]:
    """Return all hardware threads of the physical cores of ``cores``."""
    return {thread for core in cores for thread in siblings(core)}


def choose(cores: Sequence[int], count: int) -> tuple[int, ...]:
    """Return ``count`` of the cores, in an order whose beginnings are good choices too.

    Whole physical cores of one kind come first, the fastest kind that has enough of them. Then come
    the hardware threads of one kind, then cores of several kinds.
    """
    kind = _kinds(cores)
    place = {core: sorted(siblings(core) & set(cores)).index(core) for core in cores}
    order = sorted(cores, key=lambda core: (kind[core], place[core], core))
    for whole in (True, False):
        for level in sorted(set(kind.values())):
            fit = [core for core in order if kind[core] == level and not (whole and place[core])]
            if len(fit) >= count:
                return tuple(fit[:count])
    return tuple(sorted(cores, key=lambda core: (place[core], kind[core], core))[:count])


def remark(cores: Sequence[int]) -> str:
    """Say in which way the cores are not whole physical cores of one kind; "" if they are."""
    physical = len({min(siblings(core)) for core in cores})
    kinds = len(set(_kinds(cores).values()))
    words = []
    if physical < len(cores):
        words.append(f"{len(cores)} hardware threads of {physical} physical cores")
    if kinds > 1:
        words.append(f"{kinds} kinds of cores")
    return ", ".join(words)


def _kinds(cores: Sequence[int]) -> dict[int, int]:
    """Return the kind of each core; 0 is the fastest kind."""
    hybrid_kinds = {
        core: number for number, name in enumerate(HYBRID_KINDS) for core in _of_kind(name)
    }
    if all(core in hybrid_kinds for core in cores):
        return {core: hybrid_kinds[core] for core in cores}
    speeds = _speeds(cores)
    kinds: dict[float, int] = {}
    last, kind = max(speeds.values(), default=0.0), 0
    for speed in sorted(set(speeds.values()), reverse=True):
        kind += speed < ANOTHER_KIND * last
        kinds[speed] = kind
        last = speed
    return {core: kinds[speed] for core, speed in speeds.items()}


def _of_kind(name: str) -> set[int]:
    with suppress(OSError, ValueError):
        return _listed(f"{name}/cpus")
    return set()


def _speeds(cores: Sequence[int]) -> dict[int, float]:
    """Return a figure that grows with each core's speed; 1 for all if the kernel says nothing."""
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        with suppress(OSError, ValueError):
            return {core: float(_text(f"system/cpu/cpu{core}/{file}")) for core in cores}
    return dict.fromkeys(cores, 1.0)


def _listed(place: str) -> set[int]:
    """Return the numbers of a list like "0,32" or "0-1"."""
    ranges = [[int(end) for end in part.split("-")] for part in _text(place).split(",")]
    return {number for ends in ranges for number in range(ends[0], ends[-1] + 1)}


def _text(place: str) -> str:
    return (SYSTEM / place).read_text().strip()
