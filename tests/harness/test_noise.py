"""Noise: what is read is true, what is noisy goes into quarantine, what is quiet does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from harness import noise

pytestmark = pytest.mark.alone

QUIET: dict[str, Any] = {
    "spreads": [0.03],
    "wall_seconds": [1.0],
    "foreign_seconds": [0.01],
    "steal_seconds": [0.0],
    "throttled_seconds": [0.0],
    "major_faults": [0],
}
NOISY = {
    "foreign load": {"foreign_seconds": [0.07]},
    "steal": {"steal_seconds": [0.03]},
    "throttled": {"throttled_seconds": [0.001]},
    "major faults": {"major_faults": [1]},
    "canary": {"spreads": [0.21]},
    "GPU slowed": {"gpu": [{"slowing": ["hardware slowdown"], "foreign_processes": 0}]},
    "GPU shared": {"gpu": [{"slowing": [], "foreign_processes": 1}]},
}
BURN = "import sys, time\nend = time.time() + 30\nprint(flush=True)\nwhile time.time() < end: pass"


def test_a_quiet_round_is_clean() -> None:
    assert noise.judge_rounds(**QUIET, cores=2) == [""]


@pytest.mark.parametrize("rule", NOISY)
def test_each_rule_finds_what_it_is_for(rule: str) -> None:
    assert noise.judge_rounds(**{**QUIET, **NOISY[rule]}, cores=2) == [rule]


def test_rounds_are_judged_one_by_one() -> None:
    many = {name: values * 3 for name, values in QUIET.items()}
    many["foreign_seconds"] = [0.0, 0.5, float("nan")]  # NaN: a machine that does not tell
    assert noise.judge_rounds(**many, cores=2) == ["", "foreign load", ""]


def test_a_share_below_the_ticks_of_the_counter_judges_nothing() -> None:
    """In a round of 50 ms on two cores one tick of 10 ms is 10 %: no reading of 3 % is possible."""
    short = {**QUIET, "wall_seconds": [0.05], "foreign_seconds": [2 * noise.TICK_SECONDS]}
    assert noise.judge_rounds(**short, cores=2) == [""]


def test_the_spread_of_canaries_is_that_of_the_worst_core() -> None:
    assert noise.canary_spread([[1.0, 2.0], [1.1, 2.0], [1.0, 2.6]]) == pytest.approx(0.3)
    assert noise.canary_spread([]) == 0.0


def test_a_canary_leaves_the_affinity_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    found = noise.canary(sorted(before))
    assert os.sched_getaffinity(0) == before
    assert len(found) == len(before)
    assert all(seconds > 0 for seconds in found)


def test_the_cpu_time_of_another_process() -> None:
    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) as burner:
        assert burner.stdout
        burner.stdout.readline()
        before = noise.cpu_seconds(burner.pid)
        time.sleep(0.5)
        used = noise.cpu_seconds(burner.pid) - before
        burner.kill()
    assert 0.05 < used < 0.6
    assert noise.cpu_seconds(burner.pid) == 0.0  # gone


def test_a_burning_neighbour_is_foreign_and_own_work_is_not() -> None:
    def met() -> float:
        before, own = noise.read(), time.process_time()
        end = time.perf_counter() + 0.6
        while time.perf_counter() < end:
            pass
        used = time.process_time() - own
        found = noise.difference(before, noise.read(), used, os.cpu_count() or 1)
        return float(found["foreign_seconds"] / found["wall_seconds"])

    alone = min(met() for _ in range(3))
    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) as burner:
        assert burner.stdout
        burner.stdout.readline()
        beside = max(met() for _ in range(3))
        burner.kill()
    assert beside > alone + 0.3


class Clock:
    """A machine that is quiet from the n-th look on."""

    def __init__(self, quiet_from: int) -> None:
        self.now, self.busy, self.looks, self.quiet_from = 0.0, 0.0, 0, quiet_from

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        self.now += seconds
        self.busy += 0.0 if self.looks >= self.quiet_from else seconds

    def read(self) -> noise.Reading:
        return noise.Reading(self.now, self.busy, 0.0, None, None, 0.0, None)


@pytest.mark.parametrize(
    ("quiet_from", "quiet", "waited"), [(1, True, 5.0), (3, True, 15.0), (99, False, 60.0)]
)
def test_a_session_waits_for_quiet_and_not_for_ever(
    quiet_from: int, quiet: bool, waited: float
) -> None:
    clock = Clock(quiet_from)
    found = noise.wait_until_quiet(60.0, reader=clock.read, sleep=clock.sleep)
    assert (found.quiet, found.waited_seconds) == (quiet, waited)
    assert (found.foreign_share > noise.FOREIGN_SHARE) is not quiet


def test_a_session_that_does_not_wait() -> None:
    assert noise.wait_until_quiet(0.0) == noise.Quiet(True, 0.0, 0.0)
