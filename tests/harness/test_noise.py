"""Noise: what is read is true, what is noisy is disturbed, what is quiet is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from levelfield.harness.engine.blocks import Noise, Stretch
from levelfield.harness.engine.process import WorkerProcess
from levelfield.harness.machine import disturbance, noise, topology

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
    assert disturbance.judge_rounds(**QUIET, cores=2) == [""]


@pytest.mark.parametrize("rule", NOISY)
def test_each_rule_finds_what_it_is_for(rule: str) -> None:
    assert disturbance.judge_rounds(**{**QUIET, **NOISY[rule]}, cores=2) == [rule]


def test_rounds_are_judged_one_by_one() -> None:
    many = {name: values * 3 for name, values in QUIET.items()}
    many["foreign_seconds"] = [0.0, 0.5, float("nan")]  # NaN: a machine that does not tell
    assert disturbance.judge_rounds(**many, cores=2) == ["", "foreign load", ""]


def test_a_share_below_the_ticks_of_the_counter_judges_nothing() -> None:
    """In a round of 50 ms on two cores one tick of 10 ms is 10 %: no reading of 3 % is possible."""
    short = {**QUIET, "wall_seconds": [0.05], "foreign_seconds": [2 * noise.TICK_SECONDS]}
    assert disturbance.judge_rounds(**short, cores=2) == [""]


def test_the_spread_of_canaries_is_that_of_the_worst_core() -> None:
    assert disturbance.canary_spread([[1.0, 2.0], [1.1, 2.0], [1.0, 2.6]]) == pytest.approx(0.3)
    assert disturbance.canary_spread([]) == 0.0


def test_a_canary_leaves_the_affinity_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    timings = noise.canary(sorted(before))
    assert os.sched_getaffinity(0) == before
    assert len(timings) == len(before)
    assert all(seconds > 0 for seconds in timings)


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
    """On one core, so that it holds whatever else the machine does."""
    before_pinning = os.sched_getaffinity(0)
    core = min(before_pinning)
    with subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) as burner:
        assert burner.stdout
        try:
            burner.stdout.readline()
            for pid in (0, burner.pid):
                os.sched_setaffinity(pid, {core})
            before, theirs, own = (
                noise.read([core]),
                noise.cpu_seconds(burner.pid),
                time.process_time(),
            )
            while time.process_time() < own + 0.3:
                pass
            used, theirs = time.process_time() - own, noise.cpu_seconds(burner.pid) - theirs
            load = noise.difference(before, noise.read([core]), used, 1)
        finally:
            os.sched_setaffinity(0, before_pinning)
            burner.kill()
    counted, ticks = load.foreign_seconds + load.steal_seconds, 5 * noise.TICK_SECONDS
    assert theirs > 0.1
    assert counted > theirs - ticks
    assert load.foreign_seconds < load.wall_seconds - used + ticks


class Machine:
    """A played machine of 64 hardware threads, two to a core: 3 and 35 are siblings."""

    def __init__(self, patch: pytest.MonkeyPatch, *, siblings: bool = True, first: int = 0) -> None:
        self.clock, self.siblings = 0.0, siblings
        self.busy = dict.fromkeys(range(first, first + 64), 1.0)  # since the machine started
        clocks = SimpleNamespace(perf_counter=lambda: self.clock, process_time=time.process_time)
        patch.setattr(noise, "_text", self.text)
        patch.setattr(topology, "_text", self.described)
        patch.setattr(noise, "canary", lambda cores: [0.0002] * len(cores))
        patch.setattr(noise, "time", clocks)
        patch.setattr(os, "cpu_count", lambda: 64)

    def text(self, path: str) -> str:
        if path == "/proc/stat":
            seconds = {"": sum(self.busy.values()), **self.busy}
            lines = [f"cpu{n} {s / noise.TICK_SECONDS:.0f}{' 0' * 9}" for n, s in seconds.items()]
            return "\n".join([*lines, "intr 1 2 3"])
        raise FileNotFoundError(path)

    def described(self, place: str) -> str:
        siblings = re.fullmatch(r"system/cpu/cpu(\d+)/topology/thread_siblings_list", place)
        if not siblings or not self.siblings:
            raise FileNotFoundError(place)
        core = int(siblings[1]) % 32
        return f"{core},{core + 32}\n"

    def round(self, burnt: int, seconds: float) -> Stretch:
        """A round of 10 s on core 3, in which a burner takes so many of a core."""
        used = [0.0, 10.0 - seconds if burnt == 3 else 10.0]
        worker = cast(WorkerProcess, SimpleNamespace(cpu_seconds=lambda: used.pop(0)))
        watch = Noise([3], "cpu")
        watch.begin([worker])
        self.clock += 10.0
        self.busy[min(self.busy) + 3] += used[0]
        self.busy[min(self.busy) + burnt] += seconds
        return watch.end([worker])


@pytest.mark.parametrize(
    ("burnt", "seconds", "share"),
    [
        pytest.param(3, 5.0, 0.25, id="on the measured core"),
        pytest.param(35, 10.0, 0.5, id="on its sibling"),
        pytest.param(4, 10.0, 0.0, id="on another core"),
        pytest.param(36, 10.0, 0.0, id="on the sibling of another core"),
    ],
)
def test_foreign_load_is_a_share_of_the_measured_cores(
    monkeypatch: pytest.MonkeyPatch, burnt: int, seconds: float, share: float
) -> None:
    stretch = Machine(monkeypatch).round(burnt, seconds)
    assert stretch.watched_cores == (3, 35)
    foreign_share = stretch.other.foreign_seconds / (2 * stretch.other.wall_seconds)
    assert foreign_share == pytest.approx(share, abs=0.02)
    assert stretch.suspect(0) == ("foreign load" if share else None)


def test_a_core_whose_siblings_are_unknown_is_watched_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, siblings=False)
    assert machine.round(35, 10.0).watched_cores == (3,)
    assert machine.round(35, 10.0).suspect(0) is None
    assert machine.round(3, 5.0).suspect(0) == "foreign load"


def test_where_cores_are_numbered_otherwise_the_whole_machine_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container may show counters of cores 100 to 163 to a program that runs on core 3."""
    machine = Machine(monkeypatch, first=100)
    stretch = machine.round(40, 10.0)
    assert stretch.watched_cores is None
    assert stretch.other.foreign_seconds == pytest.approx(10.0, abs=0.1)
    assert stretch.suspect(0) is None, "10 of 640 seconds"


def test_the_real_cores_are_watched() -> None:
    cores = sorted(os.sched_getaffinity(0))
    watched = noise.watched_cores(cores)
    assert watched is not None
    assert set(cores) <= set(watched)
    assert noise.read(watched).busy_seconds <= noise.read().busy_seconds


class Clock:
    """A machine that is quiet from the n-th look on."""

    def __init__(self, quiet_from: int) -> None:
        self.now, self.busy, self.looks, self.quiet_from = 0.0, 0.0, 0, quiet_from

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        self.now += seconds
        self.busy += 0.0 if self.looks >= self.quiet_from else seconds

    def read(self, watched: Sequence[int] | None) -> noise.Reading:
        return noise.Reading(self.now, self.busy, 0.0, None, None, 0.0, None)


@pytest.mark.parametrize(
    ("quiet_from", "quiet", "waited"), [(1, True, 5.0), (3, True, 15.0), (99, False, 60.0)]
)
def test_a_session_waits_for_quiet_and_not_for_ever(
    quiet_from: int, quiet: bool, waited: float
) -> None:
    clock = Clock(quiet_from)
    wait = noise.wait_until_quiet(60.0, reader=clock.read, sleep=clock.sleep)
    assert (wait.quiet, wait.waited_seconds) == (quiet, waited)
    assert (wait.foreign_share > noise.FOREIGN_SHARE) is not quiet


@pytest.mark.parametrize(("burnt", "quiet"), [(3, False), (35, False), (4, True)])
def test_a_session_waits_for_the_cores_to_measure_on(
    monkeypatch: pytest.MonkeyPatch, burnt: int, quiet: bool
) -> None:
    machine = Machine(monkeypatch)

    def sleep(seconds: float) -> None:
        machine.clock += seconds
        machine.busy[burnt] += seconds

    watched = noise.watched_cores([3])
    assert noise.wait_until_quiet(60.0, watched=watched, sleep=sleep).quiet is quiet


def test_a_session_that_does_not_wait() -> None:
    assert noise.wait_until_quiet(0.0) == noise.Quiet(True, 0.0, 0.0)
