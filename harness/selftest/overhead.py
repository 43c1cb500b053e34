"""Measures what the slice loop adds to a step, compared with a bare loop.

An empty step gives the exact answer: the measured time of a step that does nothing is the overhead
of every step. The scatter of a real step of 20 us would hide the overhead. On a shared machine that
scatter is a hundred times the goal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from levelfield.adapters.base import Adapter
from levelfield.harness.selftest.goals import Finding
from levelfield.harness.worker.measure import latency_slice, median, throughput_slice

# seconds of a step -> the largest share that the loop may add to it
GOALS = {20e-6: 0.005, 200e-6: 0.001, 2e-3: 0.0002}
REPEATS, SLICE_SECONDS = 41, 0.05


class Empty(Adapter):  # type: ignore[misc]  # the contract carries no annotations
    """An adapter whose step and fence do nothing."""

    def __init__(self) -> None:
        """Configure nothing."""

    def infer(self) -> None:
        """Do nothing."""

    def wait(self, handle: object) -> None:
        """Do nothing."""


def overhead() -> Iterator[Finding]:
    """One finding per kind of slice and length of a step."""
    for kind, measure in (("throughput", _throughput), ("latency", _latency)):
        for step_seconds, limit in GOALS.items():
            steps = max(round(SLICE_SECONDS / step_seconds), 10)
            added = _added(measure, steps) / step_seconds
            yield Finding(
                "probe",
                f"share added to a step of {step_seconds * 1e6:g} us by a {kind} slice",
                f"at most {limit:.2%}",
                f"{added:.4%}",
                added,
                added <= limit,
                note=f"slices of {steps} steps, median of {REPEATS}, each next to a bare loop",
            )


def _added(measure: Callable[[Adapter, int], float], steps: int) -> float:
    """Seconds per step: a slice of empty steps, minus a bare loop timed next to it."""
    adapter, differences = Empty(), []
    for _ in range(REPEATS):
        slice_seconds = measure(adapter, steps)
        differences.append(slice_seconds - _bare(adapter.infer, steps))
    return float(median(differences))


def _throughput(adapter: Adapter, steps: int) -> float:
    return float(throughput_slice(adapter, adapter.infer, steps)) / steps


def _latency(adapter: Adapter, steps: int) -> float:
    return float(median(latency_slice(adapter, adapter.infer, steps)))


def _bare(step: Callable[[], object], steps: int) -> float:
    """Seconds per turn of a loop that does nothing but the step."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps
