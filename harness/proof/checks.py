"""Checks that a measurement can be believed: after the gate, and of the timed slices.

Each check is a :class:`levelfield.harness.proof.outcome.Check`, kept in a ``check`` or ``closing``
record. If one check exceeds its tolerance, the cell ends as ``failed`` and none of its timings are
reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from levelfield.harness.machine.supervised import TreeUse
from levelfield.harness.proof.outcome import Check
from levelfield.harness.proof.replies import CheckFenceReply, CheckHandlesReply, Slice, SlotReply

# Share of the seconds of some steps. Work that a fence lets pass would be counted nowhere.
FENCE_READ = 0.05
# Those steps take at least as long as so many readings of what they make. One reading takes up to a
# fifth longer than another: of steps as short as itself that would be 20 %, and is 2 %.
READINGS = 10
# Two clock readings, a call and one cold cache line more or less are not the framework's work.
CLOCK_SECONDS = 20e-6
# CPU seconds over (seconds times threads). Above it, an arm uses cores that other arms do not have.
CONCURRENCY = 1.05
# Twice the batch takes longer if arithmetic, and not overhead, makes up the step. It takes at least
# 1.2 times as long if arithmetic at the machine's full speed explains a quarter of the step. It
# takes at most five times as long: data that no longer fit into a cache make the ratio larger than
# two, but not larger than five.
DOUBLED, QUINTUPLED, COMPUTE_BOUND = 1.2, 5.0, 0.25
# Share of a step by which reading an earlier handle may take longer than reading the last one. The
# share is 1 if a step is computed when its handle is read.
POSTPONED = 0.3
# Seconds, and CPU seconds, of a step in throughput slices over those in latency slices. The work of
# the next step may overlap with the present one, which saves no CPU seconds on one core. Steps that
# are left out save both. Sound arms were at 0.6 to 1.2 in CPU seconds, 0.6 with busy neighbours.
OVERLAP, CPU_AGREEMENT = 0.4, 0.4
# Cost of a fence and a launch for a short step on a GPU, which a throughput slice hides.
LAUNCH_SECONDS = {"cpu": CLOCK_SECONDS, "cuda": 200e-6}
# Seconds of a request as the worker reports them, over the seconds that the host waited. The
# seconds of sending a request and its reply are allowed for. Also the reported seconds of a
# throughput slice, over the time around it by the same clock.
CLOCK_LEAST, CLOCK_MOST = 0.85, 1.05
REQUEST_SECONDS, REPLY_STEP_SECONDS = 0.02, 2e-6  # the second for each step of a latency slice
# Seconds of a step on a new input set, over those of a step on a set that was used before.
FIRST_VISIT = 3.0
# Seconds of a step as timed, over those of a step after a fresh load. An arm that stops working
# after some hundreds of steps is far below 1. Sound arms were at 0.59 to 1.9 (26 cells, five arms,
# a machine with load 2, 2026-11-26); a seeded arm that does nothing was below 0.4.
AS_FRESH = 0.4
# The least seconds of a dozen readings or steps differ by less than this if the work is the same.
READING_SECONDS = 1e-6
# Share of the roofline. The ceilings are measured, and measured again before an arm is refused.
IMPOSSIBLE = 1.25


@dataclass(frozen=True)
class Slot:
    """A slot: the worker's reply, the seconds that the host waited, the use of the process tree."""

    reply: SlotReply
    host_seconds: float
    use: TreeUse


def fence_steps(step_seconds: float, slice_steps: int, read_seconds: float) -> int:
    """Return how many steps the fence is checked with, at most those of a slice."""
    return min(max(1, ceil(READINGS * read_seconds / step_seconds)), slice_steps)


def fence_check(seconds: CheckFenceReply, steps: int) -> Check:
    """Check that the fence of ``steps`` steps lets no work pass."""
    delay = max(seconds.after - seconds.later - CLOCK_SECONDS, 0.0)
    share = delay / seconds.fenced
    made = "a step" if steps == 1 else f"{steps} steps"
    note = f"after {seconds.fenced:.3g} s of {made} and a fence, {delay:.3g} s of work were left"
    return Check("fence read", share, FENCE_READ, note if share > FENCE_READ else "")


def affinity_check(allowed: Sequence[int], given: Sequence[int]) -> Check:
    """Check that a process tree may run on its own cores only.

    ``allowed``: cores on which any thread of the process tree may run; ``given``: its own.
    """
    other_cores = sorted(set(allowed) - set(given))
    note = f"its threads may run on the cores {other_cores}, too" if other_cores else ""
    return Check("affinity", float(len(other_cores)), 0.0, note)


def concurrency_check(slices: Sequence[Slice], threads: int) -> Check:
    """Check the highest concurrency of the slices, since a busy machine only ever lowers it."""
    share = max(part.cpu_seconds / part.seconds for part in slices) / threads
    note = f"used {share * threads:.2f} cores, was given {threads}" if share > CONCURRENCY else ""
    return Check("concurrency", share, CONCURRENCY, note)


def tree_check(uses: Sequence[TreeUse], threads: int) -> Check:
    """Check the concurrency of the worker and its child processes, over slots timed by the host.

    The cores bound it, so no load of the machine raises it; waiting and idling lower it.
    """
    share = sum(use.cpu_seconds for use in uses) / sum(use.seconds for use in uses) / threads
    note = ""
    if share > CONCURRENCY:
        note = f"it and its child processes used {share * threads:.2f} cores, was given {threads}"
    return Check("concurrency of the process tree", share, CONCURRENCY, note)


def recompilation_check(compiled: int) -> Check:
    """Check that nothing compiles; ``compiled``: compilations and traces inside timed slices."""
    note = f"{compiled} compilations or traces inside a timed slice" if compiled else ""
    return Check("recompilation", float(compiled), 0.0, note)


def doubled_check(step_seconds: float, doubled_seconds: float) -> Check:
    """Check the seconds of twice the batch.

    The error is the factor by which their ratio lies outside of its bounds.
    """
    ratio = doubled_seconds / step_seconds
    error = max(DOUBLED / ratio, ratio / QUINTUPLED)
    note = f"twice the batch takes {ratio:.2f} times as long" if error > 1 else ""
    return Check("batch doubled", error, 1.0, note)


def handles_check(seconds: CheckHandlesReply) -> Check:
    """Check that earlier steps are computed before they are read."""
    delay = seconds.earlier - seconds.last - READING_SECONDS
    postponed = max(delay, 0.0) / seconds.fenced
    note = (
        f"reading an earlier step takes {postponed:.2f} steps longer than reading the last:"
        " steps are computed when they are read, and slices read only the last"
    )
    return Check("earlier steps", postponed, POSTPONED, note if postponed > POSTPONED else "")


def first_visit_check(first: Sequence[float], again: Sequence[float]) -> Check:
    """Check that no answers are cached, by the seconds of first and repeated steps on input sets.

    The least first seconds on the later half of the sets count, which the process has never seen.
    The first steps may still compile.
    """
    first_seconds = min(first[len(first) // 2 :])
    again_seconds = median(again)
    ratio = first_seconds / (again_seconds + READING_SECONDS)
    note = f"an input set takes {ratio:.3g} times as long at its first use"
    return Check("first visit", ratio, FIRST_VISIT, note if ratio > FIRST_VISIT else "")


def fresh_check(timed: Sequence[float], fresh: Sequence[float]) -> Check:
    """Check that a timed step takes as long as one after a fresh load; both are single and fenced.

    The least seconds of the later fresh steps count, since noise and a start only add to them.
    """
    fresh_seconds = min(fresh[len(fresh) // 2 :])
    ratio = (median(timed) + CLOCK_SECONDS) / (fresh_seconds + READING_SECONDS)
    note = f"a timed step takes {ratio:.2f} of what it takes after a fresh load"
    return Check("as after a load", AS_FRESH / ratio, 1.0, note if ratio < AS_FRESH else "")


def slices_checks(slots: Sequence[Slot], *, steps: int, threads: int, device: str) -> list[Check]:
    """Compare the slices of a cell in one process with each other.

    ``steps``: steps of a slice. Each check uses the median of the slots, so that a disturbed slot
    decides nothing.
    """
    checks = clock_checks(slots, steps)
    pairs = [
        (slot.reply.slices["throughput"], slot.reply.slices["latency"])
        for slot in slots
        if {"throughput", "latency"} <= slot.reply.slices.keys()
    ]
    if pairs:
        checks.append(_overlap_check(pairs, steps, device))
        if device == "cpu":  # on other devices the processor only launches work and waits
            checks.append(_cpu_check(pairs, steps))
    share = median(
        part.cpu_seconds / part.seconds / threads
        for slot in slots
        for part in slot.reply.slices.values()
    )
    note = f"used {share * threads:.2f} cores, was given {threads}" if share > CONCURRENCY else ""
    return [*checks, Check("timed concurrency", share, CONCURRENCY, note)]


def clock_checks(slots: Sequence[Slot], steps: int) -> list[Check]:
    """Compare the seconds that a worker reports with those of the host and of its own window."""
    return [_clock_check(slots, steps), _seconds_check(slots)]


def _clock_check(slots: Sequence[Slot], steps: int) -> Check:
    """Compare the seconds that a worker reports with those that the host waited.

    On a busy machine the host waits longer than the worker took, so the slot in which the two agree
    best counts. No machine makes the host wait less.
    """
    request = REQUEST_SECONDS + steps * REPLY_STEP_SECONDS
    largest = max((slot.reply.worker_seconds + request) / slot.host_seconds for slot in slots)
    share = median(slot.reply.worker_seconds / slot.host_seconds for slot in slots)
    error = max(CLOCK_LEAST / largest, share / CLOCK_MOST)
    note = f"its clock showed {share:.0%} of the time that the host waited"
    return Check("clock", error, 1.0, note if error > 1 else "")


def _seconds_check(slots: Sequence[Slot]) -> Check:
    """Compare the seconds of the throughput slices with those around them."""
    whole = median(
        (slot.reply.slices["throughput"].seconds + CLOCK_SECONDS) / slot.reply.window_seconds
        for slot in slots
    )
    note = f"its throughput slices are said to take {whole:.0%} of the time that they took"
    return Check("slice seconds", CLOCK_LEAST / whole, 1.0, note if whole < CLOCK_LEAST else "")


Pairs = Sequence[tuple[Slice, Slice]]  # (throughput, latency)


def _overlap_check(pairs: Pairs, steps: int, device: str) -> Check:
    ratio = median(
        (throughput.seconds / steps + LAUNCH_SECONDS[device]) / median(latency.step_seconds or ())
        for throughput, latency in pairs
    )
    note = (
        f"a step takes {ratio:.2f} of its own latency in a throughput slice: steps are left out,"
        " or not computed unless their handles are read"
    )
    return Check("overlap", OVERLAP / ratio, 1.0, note if ratio < OVERLAP else "")


def _cpu_check(pairs: Pairs, steps: int) -> Check:
    allowed = steps * CLOCK_SECONDS
    ratio = median(
        (throughput.cpu_seconds + allowed) / (latency.cpu_seconds + allowed)
        for throughput, latency in pairs
    )
    note = f"a step takes {ratio:.2f} of its CPU seconds in a throughput slice"
    error = CPU_AGREEMENT / ratio
    return Check("CPU seconds per step", error, 1.0, note if ratio < CPU_AGREEMENT else "")


def roofline_check(share: float) -> Check:
    """Check that a step is not faster than the machine's ceilings allow.

    ``share``: of what the machine can compute or copy at best; NaN if that is unknown.
    """
    note = f"is at {share:.0%} of what this machine can do at best" if share > IMPOSSIBLE else ""
    return Check("roofline", 0.0 if share != share else share, IMPOSSIBLE, note)
