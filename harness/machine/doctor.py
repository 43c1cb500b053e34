"""Says whether this machine can give a verdict and how to improve it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from levelfield.harness.machine import cgroups, disturbance, gpu, noise, topology
from levelfield.harness.machine.describe import describe_machine
from levelfield.harness.machine.gpu import GpuFacts
from levelfield.harness.machine.resources import available_cores, dropped_variables

GOOD, POOR, UNKNOWN = "good", "poor", "unknown"
WATCH_SECONDS = 4.0
ARM_BYTES = 700 * 2**20  # memory of a resident framework; the suite quick has six of them
QUICK_ARMS = 7
# Shares of the rounds that would be disturbed, because canaries within a slot's distance of
# each other disagree.
SOME_ROUNDS, MANY_ROUNDS = 0.10, 0.30


@dataclass(frozen=True)
class Row:
    """One inspected property. ``advice`` is empty if nothing needs to be done."""

    what: str
    found: str
    state: str
    advice: str = ""


@dataclass(frozen=True)
class MachineFacts:
    """The facts from which the rows are made; ``spreads``: of each watched round's canaries."""

    machine: dict[str, Any]  # as in run.json
    foreign_share: float
    steal_share: float
    load: float
    spreads: tuple[float, ...]
    swap_used_bytes: int
    quota_cores: float | None
    variables: tuple[str, ...]
    huge_pages: str | None
    turbo: str | None
    l3_bytes: int | None
    gpu: GpuFacts | None
    remark: str = ""


def examine(sleep: Callable[[float], None] = time.sleep) -> MachineFacts:
    """Observe the machine for some seconds."""
    available = available_cores()
    cores = topology.choose(available, 1)
    watched = noise.watched_cores(cores)
    before, own_start, spreads = noise.read(watched), time.process_time(), []
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        boundaries = []
        for _ in range(QUICK_ARMS):
            boundaries.append(noise.canary(cores))
            sleep(0.06)
        spreads.append(disturbance.canary_spread(boundaries))
    own_seconds = time.process_time() - own_start
    count = noise.core_count(watched)
    other_load = noise.difference(before, noise.read(watched), own_seconds, count)
    whole_seconds = other_load.wall_seconds * count
    return MachineFacts(
        machine=describe_machine(),
        foreign_share=other_load.foreign_seconds / whole_seconds,
        steal_share=other_load.steal_seconds / whole_seconds,
        load=other_load.load,
        spreads=tuple(spreads),
        swap_used_bytes=_swap_used_bytes(),
        quota_cores=cgroups.quota_cores(),
        variables=tuple(dropped_variables()),
        huge_pages=_text("/sys/kernel/mm/transparent_hugepage/enabled"),
        turbo=_turbo(),
        l3_bytes=_l3(),
        gpu=gpu.facts(),
        remark=topology.remark(topology.choose(available, min(2, len(available)))),
    )


def rows(facts: MachineFacts) -> Iterator[Row]:
    """Yield one row per inspected property, the most important first."""
    yield from _load_rows(facts)
    yield from _resource_rows(facts)
    yield from _other_rows(facts)


def _load_rows(facts: MachineFacts) -> Iterator[Row]:
    """Yield the rows on other load of the machine."""
    share = facts.foreign_share
    if np.isnan(share):
        advice = "this host does not count what other programs use: measure on a host that does"
        yield Row("other programs", "not readable", UNKNOWN, advice)
    else:
        yield Row(
            "other programs",
            f"{share:.1%} of the core to measure on, load {facts.load:.2f}",
            GOOD if share <= noise.FOREIGN_SHARE else POOR,
            "" if share <= noise.FOREIGN_SHARE else "stop them, or measure when they are idle",
        )
    disagree = disagreeing(facts)
    yield Row(
        "speed of a fixed loop",
        f"slots of a round differ by {np.median(facts.spreads):.1%}, {disagree:.0%} of the rounds"
        f" by more than {disturbance.CANARY_SPREAD:.0%}",
        GOOD if disagree <= SOME_ROUNDS else POOR,
        ""
        if disagree <= SOME_ROUNDS
        else "another guest uses the processor: measure later or on another host",
    )
    stolen = facts.steal_share
    yield Row(
        "stolen by the hypervisor",
        "not readable" if np.isnan(stolen) else f"{stolen:.2%}",
        UNKNOWN if np.isnan(stolen) else POOR if stolen > noise.STEAL_SHARE else GOOD,
        "use a machine with dedicated cores" if stolen > noise.STEAL_SHARE else "",
    )


def _resource_rows(facts: MachineFacts) -> Iterator[Row]:
    """Yield the rows on cores, their frequency and memory."""
    machine = facts.machine
    cores, physical = machine["cores"], machine["physical_cores"]
    yield Row(
        "cores",
        f"{cores} available, {physical or 'unknown'} physical{_remark(facts)}",
        GOOD if cores >= 2 else POOR,
        ""
        if cores >= 2
        else "use two cores or more: with one, the host disturbs the arms that it measures",
    )
    governor = machine["frequency_governor"]
    yield Row(
        "frequency control",
        f"governor {governor or 'not readable'}, turbo {facts.turbo or 'not readable'}",
        UNKNOWN if governor is None else GOOD if governor == "performance" else POOR,
        ""
        if governor in (None, "performance")
        else "as root: cpupower frequency-set --governor performance",
    )
    free_bytes, needed_bytes = machine["memory_available_bytes"], ARM_BYTES * QUICK_ARMS
    yield Row(
        "memory",
        f"{free_bytes / 2**30:.1f} GiB free, {facts.swap_used_bytes / 2**20:.0f} MiB swapped",
        GOOD if 0.7 * free_bytes >= needed_bytes else POOR,
        ""
        if 0.7 * free_bytes >= needed_bytes
        else "arms will run one after the other (sequential blocks)",
    )


def _other_rows(facts: MachineFacts) -> Iterator[Row]:
    """Yield the rows on limits and settings."""
    quota = facts.quota_cores
    yield Row(
        "quota",
        "none" if quota is None else f"{quota:g} cores",
        GOOD if quota is None else POOR,
        ""
        if quota is None
        else "raise the cgroup's cpu.max: throttled steps say nothing about speed",
    )
    yield Row(
        "variables of frameworks",
        ", ".join(facts.variables) or "none set",
        GOOD,
        "workers do not get them: a suite declares variables in its table [variables]"
        if facts.variables
        else "",
    )
    yield Row(
        "last-level cache",
        f"{facts.l3_bytes / 2**20:.0f} MiB" if facts.l3_bytes else "not readable",
        GOOD if facts.l3_bytes else UNKNOWN,
    )
    yield Row(
        "huge pages", facts.huge_pages or "not readable", GOOD if facts.huge_pages else UNKNOWN
    )
    virtual = facts.machine["hypervisor"]
    yield Row(
        "virtual machine",
        "yes" if virtual else "no",
        GOOD if not virtual else UNKNOWN,
        "other guests may slow it unseen: see the speed of a fixed loop" if virtual else "",
    )
    name = facts.gpu.name if facts.gpu else "none, or no driver"
    yield Row("GPU", str(name), GOOD if facts.gpu else UNKNOWN)


def _remark(facts: MachineFacts) -> str:
    """Say what two threads would share, if they cannot have whole physical cores of one kind."""
    return f"; two threads get {facts.remark}" if facts.remark else ""


def disagreeing(facts: MachineFacts) -> float:
    """Share of the watched rounds that the canary would call disturbed."""
    return (
        float(np.mean(np.array(facts.spreads) > disturbance.CANARY_SPREAD))
        if facts.spreads
        else 1.0
    )


def conclusion(facts: MachineFacts) -> str:
    """Return which verdicts to expect.

    The rules look for what prevents verdicts, then for noise that widens intervals.
    """
    if facts.quota_cores is not None and facts.quota_cores < 1:
        return (
            f"no verdicts: the quota of {facts.quota_cores:g} cores holds back every step of one"
            " thread; raise the cgroup's cpu.max"
        )
    disagree = disagreeing(facts)
    if disagree > MANY_ROUNDS or facts.foreign_share > 5 * noise.FOREIGN_SHARE:
        return (
            "verdicts of large differences only: other programs would disturb more than 30 % of the"
            " rounds, which widens every interval; improve the rows marked poor"
        )
    restless = facts.foreign_share > noise.FOREIGN_SHARE or facts.steal_share > noise.STEAL_SHARE
    if disagree > SOME_ROUNDS or restless:
        return (
            "verdicts of 5 % and more (level quick); for smaller ones, improve the rows marked poor"
        )
    return "verdicts of 2 % and more, with the blocks of level standard"


def _swap_used_bytes() -> int:
    try:
        return int(psutil.swap_memory().used)
    except OSError:  # a host without /proc/meminfo
        return 0


def _turbo() -> str | None:
    no_turbo = _text("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = _text("/sys/devices/system/cpu/cpufreq/boost")
    if no_turbo is not None:
        return "off" if no_turbo == "1" else "on"
    return None if boost is None else "on" if boost == "1" else "off"


def _l3() -> int | None:
    size = _text("/sys/devices/system/cpu/cpu0/cache/index3/size")
    return int(size.removesuffix("K")) * 1024 if size and size.endswith("K") else None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
