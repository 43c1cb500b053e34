"""Cores: of played machines, whole physical cores of one kind come first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from levelfield.harness.machine import topology
from levelfield.harness.machine.resources import available_cores


class Machine:
    """A played /sys/devices."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.setattr(topology, "SYSTEM", folder)

    def write(self, place: str, text: str) -> None:
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def cores(
        self,
        count: int,
        *,
        siblings: Mapping[int, str] | None = None,
        capacity: Mapping[int, int] | None = None,
        frequency: Mapping[int, int] | None = None,
    ) -> list[int]:
        for core in range(count):
            place = f"system/cpu/cpu{core}"
            self.write(
                f"{place}/topology/thread_siblings_list", (siblings or {}).get(core, str(core))
            )
            if capacity:
                self.write(f"{place}/cpu_capacity", str(capacity[core]))
            if frequency:
                self.write(f"{place}/cpufreq/cpuinfo_max_freq", str(frequency[core]))
        return list(range(count))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def far(count: int) -> dict[int, str]:
    """Sibling threads as servers number them: 0 and 64 of 128."""
    half = count // 2
    return {core: f"{core % half},{core % half + half}" for core in range(count)}


def near(count: int) -> dict[int, str]:
    """Sibling threads as laptops number them: 0 and 1."""
    return {core: f"{core // 2 * 2}-{core // 2 * 2 + 1}" for core in range(count)}


@pytest.mark.parametrize("count", [2, 8, 128])
def test_cores_without_siblings_are_taken_in_their_order(machine: Machine, count: int) -> None:
    cores = machine.cores(count)
    for threads in {1, 2, count}:
        assert topology.choose(cores, threads) == tuple(range(threads))
        assert topology.remark(topology.choose(cores, threads)) == ""


@pytest.mark.parametrize(
    ("siblings", "threads", "chosen"),
    [
        (far, 4, (0, 1, 2, 3)),
        (near, 4, (0, 2, 4, 6)),
        (near, 64, tuple(range(0, 128, 2))),
    ],
)
def test_every_thread_gets_a_physical_core_of_its_own(
    machine: Machine, siblings: object, threads: int, chosen: tuple[int, ...]
) -> None:
    assert callable(siblings)
    cores = machine.cores(128, siblings=siblings(128))
    assert topology.choose(cores, threads) == chosen
    assert topology.remark(chosen) == ""


def test_threads_share_physical_cores_only_if_there_are_too_few(machine: Machine) -> None:
    cores = machine.cores(4, siblings=near(4))
    assert topology.choose(cores, 3) == (0, 2, 1)
    assert topology.remark((0, 2, 1)) == "3 hardware threads of 2 physical cores"
    assert topology.choose(cores, 2) == (0, 2)


def test_the_siblings_that_a_container_withholds_do_not_count(machine: Machine) -> None:
    machine.cores(8, siblings=near(8))
    assert topology.choose([1, 2, 3, 5], 3) == (1, 2, 5)
    assert topology.with_siblings([1, 5]) == {0, 1, 4, 5}


# A laptop: four fast cores of two threads, eight slow ones of one thread.
LAPTOP = {**near(8), **{core: str(core) for core in range(8, 16)}}


@pytest.mark.parametrize(
    ("threads", "chosen", "remark"),
    [
        (1, (0,), ""),
        (4, (0, 2, 4, 6), ""),
        (6, (8, 9, 10, 11, 12, 13), ""),
        (
            12,
            (0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15),
            "2 kinds of cores",
        ),
        (
            14,
            (0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 1, 3),
            "14 hardware threads of 12 physical cores, 2 kinds of cores",
        ),
    ],
)
@pytest.mark.parametrize("described", ["folders", "capacity", "frequency"])
def test_workers_get_cores_of_one_kind(
    machine: Machine, described: str, threads: int, chosen: tuple[int, ...], remark: str
) -> None:
    fast, slow = range(8), range(8, 16)
    # Favoured cores of the fast kind are a little faster, and no kind of their own.
    speeds = {
        **{core: 1024 - 20 * (core % 4) for core in fast},
        **dict.fromkeys(slow, 600),
    }
    kinds = {} if described == "folders" else {described: speeds}
    cores = machine.cores(16, siblings=LAPTOP, **kinds)  # type: ignore[arg-type]
    if described == "folders":
        machine.write("cpu_core/cpus", "0-7")
        machine.write("cpu_atom/cpus", "8-15")
    assert topology.choose(cores, threads) == chosen
    assert topology.remark(chosen) == remark


def test_the_faster_kind_comes_first_wherever_it_is_numbered(machine: Machine) -> None:
    capacity = {core: 446 if core < 4 else 871 if core < 6 else 1024 for core in range(8)}
    cores = machine.cores(8, capacity=capacity)
    assert topology.choose(cores, 2) == (6, 7)
    assert topology.choose(cores, 3) == (0, 1, 2)
    assert topology.remark((4, 6)) == "2 kinds of cores"


def test_a_machine_that_describes_nothing_has_equal_cores(machine: Machine) -> None:
    assert topology.choose([3, 5, 9], 2) == (3, 5)
    assert topology.siblings(3) == {3}
    assert topology.remark((3, 5)) == ""


def test_the_real_cores_are_chosen_from_those_available() -> None:
    cores = available_cores()
    assert sorted(topology.choose(cores, len(cores))) == cores
    assert topology.choose(cores, 1)[0] in cores
