"""Reads the driver of NVIDIA GPUs: clocks, throttling, energy, memory by process.

It uses nvidia-ml-py (https://pypi.org/project/nvidia-ml-py/, imported as pynvml), which the extra
``gpu`` installs. If this package or a driver is missing, or the driver refuses the board, the
answers are None.

All answers are about the board that workers use, the first one of CUDA_VISIBLE_DEVICES (CUDA
programming guide, environment variables). NVML knows nothing of this variable: it numbers the
boards by their PCI bus.
"""

from __future__ import annotations

import os
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

# The pid namespace of the machine itself (kernel's include/linux/proc_ns.h, PROC_PID_INIT_INO).
PROCESS_NUMBERS, NUMBERS_OF_MACHINE = "/proc/self/ns/pid", "pid:[4026531836]"


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
    return len(_boards())


def names() -> list[str | None] | None:
    """Return the name of every GPU that the driver shows, None for a GPU that it refuses.

    Without a driver the result is None instead of a list.
    """
    if _driver() is None:
        return None
    return [_of(board, "nvmlDeviceGetName") for board in _boards()]


@dataclass(frozen=True)
class GpuFacts:
    """Name, driver, memory, ECC and MIG of a board; None for values that it does not report."""

    name: str | None
    driver: str | None
    memory_bytes: int | None
    ecc: int | None
    mig: int | None
    persistence: int | None


def facts() -> GpuFacts | None:
    """Return the facts of the board that workers use."""
    board = _board()
    if board is None:
        return None
    return GpuFacts(
        name=_of(board, "nvmlDeviceGetName"),
        driver=_asked(_driver().nvmlSystemGetDriverVersion),
        memory_bytes=getattr(_of(board, "nvmlDeviceGetMemoryInfo"), "total", None),
        ecc=_first(_of(board, "nvmlDeviceGetEccMode")),
        mig=_first(_of(board, "nvmlDeviceGetMigMode")),
        persistence=_of(board, "nvmlDeviceGetPersistenceMode"),
    )


@dataclass(frozen=True)
class GpuReading:
    """The state of a board at one moment; None for values that it does not report.

    ``slowing``: why its clocks are lowered. ``foreign_processes``: None where the driver's process
    numbers are not those of this program. A ``round`` record has these fields as an object.
    """

    sm_mhz: int | None
    memory_mhz: int | None
    slowing: tuple[str, ...]
    temperature_c: int | None
    power_watts: float | None
    energy_joules: float | None
    foreign_processes: int | None


def reading(own_pids: Iterable[int] = ()) -> GpuReading | None:
    """Read the present state of the board that workers use.

    ``own_pids``: the processes of this program, parked ones too; all others are foreign.
    """
    board, driver = _board(), _driver()
    if board is None:
        return None
    reasons = _of(board, "nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    power = _of(board, "nvmlDeviceGetPowerUsage")
    energy = _of(board, "nvmlDeviceGetTotalEnergyConsumption")
    own_processes, other_processes = _processes(board, own_pids)
    return GpuReading(
        sm_mhz=_of(board, "nvmlDeviceGetClockInfo", driver.NVML_CLOCK_SM),
        memory_mhz=_of(board, "nvmlDeviceGetClockInfo", driver.NVML_CLOCK_MEM),
        slowing=tuple(name for bit, name in SLOWING_REASONS.items() if reasons & bit),
        temperature_c=_of(board, "nvmlDeviceGetTemperature", driver.NVML_TEMPERATURE_GPU),
        power_watts=None if power is None else power / 1000,
        energy_joules=None if energy is None else energy / 1000,
        foreign_processes=len(other_processes) if own_processes or _numbers_are_ours() else None,
    )


def process_bytes(pids: Iterable[int]) -> int | None:
    """Device memory of these processes together, context included; the same for all arms.

    None where the driver's process numbers are not those of this program.
    """
    board = _board()
    if board is None:
        return None
    own_processes, _ = _processes(board, pids)
    if not own_processes and not _numbers_are_ours():
        return None
    return sum(process.usedGpuMemory or 0 for process in own_processes)


def _processes(board: Any, own_pids: Iterable[int]) -> tuple[list[Any], list[Any]]:
    """Return the driver's processes on a board: those of ``own_pids``, and all others."""
    processes, pids = _of(board, "nvmlDeviceGetComputeRunningProcesses") or [], set(own_pids)
    return (
        [process for process in processes if process.pid in pids],
        [process for process in processes if process.pid not in pids],
    )


def _numbers_are_ours() -> bool:
    """Whether the driver numbers processes as this program does.

    The driver uses the numbers of the machine. In a container the numbers differ, unless the driver
    translates them. Then a process of ours is among the listed ones, so that this question does not
    arise.
    """
    try:
        return os.readlink(PROCESS_NUMBERS) == NUMBERS_OF_MACHINE
    except OSError:
        return False


def _boards() -> list[Any]:
    """Return the handle of every board in the order of NVML; None for a board that it refuses."""
    driver = _driver()
    if driver is None:
        return []
    number = _asked(driver.nvmlDeviceGetCount) or 0
    return [_asked(driver.nvmlDeviceGetHandleByIndex, index) for index in range(number)]


def _board() -> Any:
    """Return the handle of the board that workers use; None if there is none, or it is unknown."""
    boards = _boards()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    choice = "0" if visible is None else visible.split(",")[0].strip()
    if choice.startswith("MIG-"):
        return _asked(_driver().nvmlDeviceGetHandleByUUID, choice) if boards else None
    if choice.startswith("GPU-"):  # the beginning of a UUID is enough for CUDA
        matches = [
            board for board in boards if str(_of(board, "nvmlDeviceGetUUID")).startswith(choice)
        ]
        return matches[0] if len(matches) == 1 else None
    if not choice.isdecimal() or int(choice) >= len(boards):
        return None  # CUDA shows no board, either
    # By default, CUDA numbers unlike boards by their speed.
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_bus and len({_of(board, "nvmlDeviceGetName") for board in boards}) > 1:
        return None
    return boards[int(choice)]


def _of(board: Any, query: str, *arguments: Any) -> Any:
    """Return the answer of a query about a board; None if the board has been refused."""
    return None if board is None else _asked(getattr(_driver(), query), board, *arguments)


def _asked(query: Any, *arguments: Any) -> Any:
    """Return the answer, or None if this device or driver does not give it."""
    try:
        answer = query(*arguments)
    except _driver().NVMLError:
        return None
    return answer.decode() if isinstance(answer, bytes) else answer


def _first(pair: Any) -> Any:
    return pair[0] if isinstance(pair, list | tuple) and pair else pair
