"""What the driver of a GPU tells, by a driver that the test plays."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from harness.machine import gpu


class Refused(Exception):
    """As NVML says that a device does not know something."""


def refuse(*_: Any) -> Any:
    raise Refused


def processes(handle: str) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(pid=7, usedGpuMemory=1000),
        SimpleNamespace(pid=8, usedGpuMemory=200),
        SimpleNamespace(pid=9, usedGpuMemory=None),
    ]


DRIVER = SimpleNamespace(
    NVMLError=Refused,
    NVML_CLOCK_SM=1,
    NVML_CLOCK_MEM=2,
    NVML_TEMPERATURE_GPU=0,
    nvmlDeviceGetCount=lambda: 1,
    nvmlDeviceGetHandleByIndex=lambda index: "gpu",
    nvmlDeviceGetName=lambda handle: b"Example GPU",
    nvmlSystemGetDriverVersion=lambda: "555.1",
    nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=2**30),
    nvmlDeviceGetEccMode=lambda handle: [1, 0],
    nvmlDeviceGetMigMode=refuse,
    nvmlDeviceGetPersistenceMode=lambda handle: 1,
    nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x1 | 0x8 | 0x20,
    nvmlDeviceGetPowerUsage=lambda handle: 250_000,
    nvmlDeviceGetTotalEnergyConsumption=refuse,
    nvmlDeviceGetComputeRunningProcesses=processes,
    nvmlDeviceGetClockInfo=lambda handle, kind: 1000 * kind,
    nvmlDeviceGetTemperature=lambda handle, sensor: 55,
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gpu, "_driver", lambda: DRIVER)
    yield


def test_facts(driver: None) -> None:
    assert gpu.count() == 1
    assert gpu.names() == ["Example GPU"]
    assert gpu.facts() == gpu.GpuFacts("Example GPU", "555.1", 2**30, 1, None, 1)


def test_a_gpu_that_the_driver_refuses_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for query, names in (("nvmlDeviceGetHandleByIndex", [None]), ("nvmlDeviceGetCount", [])):
        refusing = SimpleNamespace(**{**vars(DRIVER), query: refuse})
        monkeypatch.setattr(gpu, "_driver", lambda refusing=refusing: refusing)
        assert gpu.names() == names


def test_a_reading_names_what_slows_and_whose_processes_are_foreign(driver: None) -> None:
    found = gpu.reading(own_pids=[7])
    assert found is not None
    assert found.slowing == ("hardware slowdown", "software thermal slowdown")
    assert (found.sm_mhz, found.memory_mhz, found.temperature_c) == (1000, 2000, 55)
    assert (found.power_watts, found.energy_joules) == (250.0, None)
    assert found.foreign_processes == 2


def test_memory_of_processes(driver: None) -> None:
    assert gpu.process_bytes(0, [7, 9]) == 1000
    assert gpu.process_bytes(0, []) == 0


def test_without_a_driver_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_driver", lambda: None)
    assert gpu.count() == 0
    assert gpu.facts() is gpu.reading() is gpu.process_bytes(0, [1]) is None


def test_a_real_driver_answers() -> None:
    if not gpu.count():
        pytest.skip("no NVIDIA driver, or nvidia-ml-py is not installed")
    facts = gpu.facts()
    assert facts is not None and facts.name
    assert gpu.reading() is not None
