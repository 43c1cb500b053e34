"""Can the measurement of a cell be believed? Checks behind the gate, before anything is timed.

Each is a :class:`harness.gate.Check`, kept in a ``check`` record; one beyond its tolerance and the
cell ends as ``failed``: nothing timed of it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.gate import Check
from harness.process import TreeUse

# Of the seconds of a step. What a fence lets pass is work that is booked nowhere.
FENCE_SUM, FENCE_READ = 0.10, 0.05
# Two clock readings, a call and a cold cache line more or less are no work of a framework.
CLOCK_SECONDS = 20e-6
# CPU seconds over seconds times threads: beyond, an arm uses cores that the others do not have.
CONCURRENCY = 1.05
# Twice the batch takes longer where arithmetic, and not overhead, makes the step: at least 1.2
# times where arithmetic at the machine's full speed explains a quarter of it.
DOUBLED, COMPUTE_BOUND = 1.2, 0.25


def fence_checks(seconds: Mapping[str, float]) -> list[Check]:
    """``seconds`` are those of ``harness.measure.check_fence``."""
    fenced = seconds["fenced"]
    apart = max(abs(seconds["split"] - fenced) - CLOCK_SECONDS, 0.0)
    late = max(seconds["after"] - seconds["later"] - CLOCK_SECONDS, 0.0)
    return [
        Check(
            "fence sum",
            apart / fenced,
            FENCE_SUM,
            f"dispatch and fence take {seconds['split']:.3g} s apart, {fenced:.3g} s together"
            if apart / fenced > FENCE_SUM
            else "",
        ),
        Check(
            "fence read",
            late / fenced,
            FENCE_READ,
            f"{late:.3g} s of work of a step of {fenced:.3g} s were left behind the fence"
            if late / fenced > FENCE_READ
            else "",
        ),
    ]


def affinity_check(allowed: Sequence[int], given: Sequence[int]) -> Check:
    """``allowed``: cores on which any thread of the process tree may run; ``given``: its own."""
    others = sorted(set(allowed) - set(given))
    note = f"its threads may run on the cores {others}, too" if others else ""
    return Check("affinity", float(len(others)), 0.0, note)


def concurrency_check(slices: Sequence[Mapping[str, Any]], threads: int) -> Check:
    """Achieved concurrency: the most of the slices, since a busy machine only ever lowers it."""
    share = max(each["cpu_seconds"] / each["seconds"] for each in slices) / threads
    note = f"used {share * threads:.2f} cores, was given {threads}" if share > CONCURRENCY else ""
    return Check("concurrency", share, CONCURRENCY, note)


def tree_check(uses: Sequence[TreeUse], threads: int) -> Check:
    """Achieved concurrency of the worker with its child processes, over slots as the host saw them.

    Cores bound it, so that no load of the machine raises it; waiting and idling lower it.
    """
    share = sum(use.cpu_seconds for use in uses) / sum(use.seconds for use in uses) / threads
    note = ""
    if share > CONCURRENCY:
        note = f"it and its child processes used {share * threads:.2f} cores, was given {threads}"
    return Check("concurrency of the process tree", share, CONCURRENCY, note)


def recompilation_check(compiled: int) -> Check:
    """``compiled``: compilations and traces inside timed slices."""
    note = f"{compiled} compilations or traces inside a timed slice" if compiled else ""
    return Check("recompilation", float(compiled), 0.0, note)


def doubled_check(step_seconds: float, doubled_seconds: float) -> Check:
    """The error is the ratio that was expected over the one that was found."""
    ratio = doubled_seconds / step_seconds
    note = f"twice the batch takes {ratio:.2f} times as long" if ratio < DOUBLED else ""
    return Check("batch doubled", DOUBLED / ratio, 1.0, note)
