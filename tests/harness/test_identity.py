"""Which machine and which run: neither is taken for another one."""

from __future__ import annotations

from typing import Any

import pytest

from harness.machine import describe_machine, difference

MACHINE: dict[str, Any] = {
    "processor": "Example 9000",
    "processor_flags": ["avx", "avx2", "fma"],
    "architecture": "x86_64",
    "cores": 2,
    "logical_cores": 4,
    "physical_cores": 2,
    "memory_bytes": 2**34,
    "memory_available_bytes": 2**33,
    "load_average": [0.1, 0.2, 0.3],
    "frequency_governor": "performance",
    "gpus": ["Example GPU"],
    "system": "Linux 6.18.44-generic",
    "python": "3.11.7",
}

# -- the machine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"processor": "Example 7000"}, "processor Example 9000, now Example 7000"),
        ({"architecture": "aarch64"}, "architecture x86_64, now aarch64"),
        ({"processor_flags": ["avx"]}, "instruction sets avx2, fma only on one of them"),
        (
            {"processor_flags": ["avx", "avx2", "fma", *(f"avx512{n}" for n in range(9))]},
            "instruction sets avx5120, avx5121, avx5122 and 6 more only on one of them",
        ),
        ({"cores": 1}, "available cores 2, now 1"),
        ({"logical_cores": 8}, "logical cores 4, now 8"),
        ({"physical_cores": 4}, "physical cores 2, now 4"),
        ({"memory_bytes": 2**33}, "memory 16.0 GiB, now 8.0 GiB"),
        ({"gpus": []}, "GPUs Example GPU, now none"),
        ({"gpus": ["Example GPU"] * 2}, "GPUs Example GPU, now Example GPU, Example GPU"),
        ({"system": "Linux 6.8.1"}, "system Linux 6.18.44-generic, now Linux 6.8.1"),
        ({"system": "Darwin 24"}, "system Linux 6.18.44-generic, now Darwin 24"),
    ],
)
def test_what_differs_between_two_machines_is_named(change: dict[str, Any], words: str) -> None:
    assert difference(MACHINE, {**MACHINE, **change}) == [words]


@pytest.mark.parametrize(
    "change",
    [
        {"load_average": [9.0, 9.0, 9.0], "memory_available_bytes": 1},
        {"frequency_governor": "powersave", "python": "3.12.1"},
        {"memory_bytes": 2**34 - 500_000_000 // 2},
        {"system": "Linux 6.18.50-generic"},
        {"processor": None, "gpus": None, "cores": None},
    ],
)
def test_a_machine_stays_itself_from_boot_to_boot(change: dict[str, Any]) -> None:
    assert difference(MACHINE, {**MACHINE, **change}) == []
    assert difference({**MACHINE, **change}, MACHINE) == []


def test_two_facts_that_differ_are_two_texts() -> None:
    assert len(difference(MACHINE, {**MACHINE, "cores": 1, "processor": "Example 7000"})) == 2


def test_what_an_older_or_edited_record_does_not_tell_is_not_compared() -> None:
    assert difference({}, MACHINE) == []
    odd = {"processor_flags": 5, "memory_bytes": "much", "system": ["Linux"], "cores": {"a": 1}}
    assert len(difference(odd, MACHINE)) == len(odd)


def test_this_machine_is_itself() -> None:
    assert difference(describe_machine(), describe_machine()) == []
