"""Reads the driver of NVIDIA GPUs: clocks, throttling, energy, memory by process.

It uses nvidia-ml-py (https://pypi.org/project/nvidia-ml-py/, imported as pynvml), which the extra
``gpu`` installs. If this package or a driver is missing, the answers are None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

# Names of nvmlClocksEventReasons in NVML's API reference; the idle and settings bits slow nothing.
SLOWING_REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


@cache
def _driver() -> Any:
    """The initialised module, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def count() -> int:
    """Return the number of GPUs that the driver shows."""
    driver = _driver()
    return int(driver.nvmlDeviceGetCount()) if driver else 0


def names() -> list[str | None] | None:
    """Return the name of every GPU that the driver shows, None for a GPU that it refuses.

    Without a driver the result is None instead of a list.
    """
    driver = _driver()
    if driver is None:
        return None
    handles = [
        _asked(driver.nvmlDeviceGetHandleByIndex, index)
        for index in range(_asked(driver.nvmlDeviceGetCount) or 0)
    ]
    return [handle and _asked(driver.nvmlDeviceGetName, handle) for handle in handles]


@dataclass(frozen=True)
class GpuFacts:
    """Name, driver, memory, ECC and MIG of a GPU; None for values that it does not report."""

    name: str | None
    driver: str | None
    memory_bytes: int | None
    ecc: int | None
    mig: int | None
    persistence: int | None


def facts(index: int = 0) -> GpuFacts | None:
    """Return the facts of a GPU."""
    driver = _driver()
    if driver is None:
        return None
    handle = driver.nvmlDeviceGetHandleByIndex(index)
    return GpuFacts(
        name=_asked(driver.nvmlDeviceGetName, handle),
        driver=_asked(driver.nvmlSystemGetDriverVersion),
        memory_bytes=getattr(_asked(driver.nvmlDeviceGetMemoryInfo, handle), "total", None),
        ecc=_first(_asked(driver.nvmlDeviceGetEccMode, handle)),
        mig=_first(_asked(driver.nvmlDeviceGetMigMode, handle)),
        persistence=_asked(driver.nvmlDeviceGetPersistenceMode, handle),
    )


@dataclass(frozen=True)
class GpuReading:
    """The state of a GPU at one moment; None for values that it does not report.

    ``slowing``: why its clocks are lowered. A ``round`` record has these fields as an object.
    """

    sm_mhz: int | None
    memory_mhz: int | None
    slowing: tuple[str, ...]
    temperature_c: int | None
    power_watts: float | None
    energy_joules: float | None
    foreign_processes: int


def reading(index: int = 0, own_pids: Iterable[int] = ()) -> GpuReading | None:
    """Read the present state of a GPU; processes other than ``own_pids`` are foreign."""
    driver = _driver()
    if driver is None:
        return None
    handle, own = driver.nvmlDeviceGetHandleByIndex(index), set(own_pids)
    reasons = _asked(driver.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    power = _asked(driver.nvmlDeviceGetPowerUsage, handle)
    energy = _asked(driver.nvmlDeviceGetTotalEnergyConsumption, handle)
    processes = _asked(driver.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return GpuReading(
        sm_mhz=_asked(driver.nvmlDeviceGetClockInfo, handle, driver.NVML_CLOCK_SM),
        memory_mhz=_asked(driver.nvmlDeviceGetClockInfo, handle, driver.NVML_CLOCK_MEM),
        slowing=tuple(name for bit, name in SLOWING_REASONS.items() if reasons & bit),
        temperature_c=_asked(driver.nvmlDeviceGetTemperature, handle, driver.NVML_TEMPERATURE_GPU),
        power_watts=None if power is None else power / 1000,
        energy_joules=None if energy is None else energy / 1000,
        foreign_processes=sum(each.pid not in own for each in processes),
    )


def process_bytes(index: int, pids: Iterable[int]) -> int | None:
    """Device memory of these processes together, context included; the same for all arms."""
    driver = _driver()
    if driver is None:
        return None
    wanted = set(pids)
    handle = driver.nvmlDeviceGetHandleByIndex(index)
    processes = _asked(driver.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return sum(each.usedGpuMemory or 0 for each in processes if each.pid in wanted)


def _asked(query: Any, *arguments: Any) -> Any:
    """Return the answer, or None if this device or driver does not give it."""
    try:
        answer = query(*arguments)
    except _driver().NVMLError:
        return None
    return answer.decode() if isinstance(answer, bytes) else answer


def _first(pair: Any) -> Any:
    return pair[0] if isinstance(pair, list | tuple) and pair else pair
