"""What the driver of a GPU tells, by a driver that the test plays."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from levelfield.harness.engine.blocks import Noise
from levelfield.harness.machine import disturbance, gpu
from levelfield.harness.machine.resources import available_cores, worker_variables

CLEAN = {
    name: [0.0]
    for name in ("foreign_seconds", "steal_seconds", "throttled_seconds", "major_faults")
} | {"wall_seconds": [1.0]}


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
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plays the driver on a machine whose process numbers it shares; returns the link to them."""
    numbers = tmp_path / "pid"
    numbers.symlink_to(gpu.NUMBERS_OF_MACHINE)
    monkeypatch.setattr(gpu, "PROCESS_NUMBERS", str(numbers))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpu, "_driver", lambda: DRIVER)
    return numbers


def test_facts(driver: Path) -> None:
    assert gpu.count() == 1
    assert gpu.names() == ["Example GPU"]
    assert gpu.facts() == gpu.GpuFacts("Example GPU", "555.1", 2**30, 1, None, 1)


def test_a_gpu_that_the_driver_refuses_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for query, names in (("nvmlDeviceGetHandleByIndex", [None]), ("nvmlDeviceGetCount", [])):
        refusing = SimpleNamespace(**{**vars(DRIVER), query: refuse})
        monkeypatch.setattr(gpu, "_driver", lambda refusing=refusing: refusing)
        assert gpu.names() == names


def test_a_reading_names_what_slows_and_whose_processes_are_foreign(driver: Path) -> None:
    state = gpu.reading(own_pids=[7])
    assert state is not None
    assert state.slowing == ("hardware slowdown", "software thermal slowdown")
    assert (state.sm_mhz, state.memory_mhz, state.temperature_c) == (1000, 2000, 55)
    assert (state.power_watts, state.energy_joules) == (250.0, None)
    assert state.foreign_processes == 2


def test_memory_of_processes(driver: Path) -> None:
    assert gpu.process_bytes([7, 9]) == 1000
    assert gpu.process_bytes([]) == 0


def test_without_a_driver_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_driver", lambda: None)
    assert gpu.count() == 0
    assert gpu.facts() is gpu.reading() is gpu.process_bytes([1]) is None


def boards(monkeypatch: pytest.MonkeyPatch, *names: str, **queries: Any) -> None:
    """Play boards of these names; the UUID of the second begins with GPU-1b."""
    played = {
        **vars(DRIVER),
        "nvmlDeviceGetCount": lambda: len(names),
        "nvmlDeviceGetHandleByIndex": lambda index: f"board {index}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: f"part {uuid}",
        "nvmlDeviceGetName": lambda handle: names[int(handle[-1])].encode(),
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle[-1]}b".encode(),
        "nvmlDeviceGetPowerUsage": lambda handle: 1000 * int(handle[-1]),
        **queries,
    }
    monkeypatch.setattr(gpu, "_driver", lambda: SimpleNamespace(**played))


@pytest.mark.parametrize(
    ("visible", "order", "board"),
    [
        (None, None, 0),
        ("1", None, 1),
        ("1,0", "PCI_BUS_ID", 1),
        (" 2 , 1", None, 2),
        ("GPU-1b", None, 1),
        ("GPU-2", "FASTEST_FIRST", 2),  # the beginning of its UUID
        ("GPU-", None, None),  # the beginning of several
        ("GPU-7b", None, None),
        ("", None, None),
        ("-1", None, None),
        ("3", None, None),
        ("NoDevFiles", None, None),
    ],
)
def test_the_board_that_workers_use_is_asked(
    driver: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    order: str | None,
    board: int | None,
) -> None:
    boards(monkeypatch, "Example", "Example", "Example")
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(name, value)
    state = gpu.reading()
    assert (state and state.power_watts) == board
    assert (gpu.facts() is None) == (board is None)
    assert (gpu.process_bytes([7]) is None) == (board is None)


def test_the_number_of_an_unlike_board_is_unknown_unless_the_order_is_said(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards(monkeypatch, "Slow", "Fast")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu.facts() is None
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert getattr(gpu.facts(), "name", None) == "Fast"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-0b")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert getattr(gpu.facts(), "name", None) == "Slow"


def test_a_part_of_a_board_is_asked_by_its_uuid(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5")
    boards(
        monkeypatch,
        "Example",
        nvmlDeviceGetName=lambda handle: handle,
        nvmlDeviceGetMemoryInfo=asked.append,
    )
    assert getattr(gpu.facts(), "name", None) == "part MIG-5"
    assert asked == ["part MIG-5"]


@pytest.mark.parametrize("query", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_refused_board_gives_no_answer_and_no_error(
    driver: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    refusing = SimpleNamespace(**{**vars(DRIVER), query: refuse})
    monkeypatch.setattr(gpu, "_driver", lambda: refusing)
    assert gpu.facts() is gpu.reading() is gpu.process_bytes([7]) is None
    assert gpu.count() == len(gpu.names() or [])


def test_where_process_numbers_are_hidden_no_process_is_foreign(driver: Path) -> None:
    """A container's process 5 is process 4711 of the machine, and the driver says 4711."""
    driver.unlink()
    driver.symlink_to("pid:[4026532999]")
    hidden = gpu.reading(own_pids=[1, 2])
    assert hidden is not None and hidden.foreign_processes is None
    assert gpu.process_bytes([1, 2]) is None
    translated = gpu.reading(own_pids=[1, 7])
    assert translated is not None and translated.foreign_processes == 2
    assert gpu.process_bytes([1, 7]) == 1000
    driver.unlink()  # a host that says nothing about its numbers
    silent = gpu.reading(own_pids=[1, 2])
    assert silent is not None and silent.foreign_processes is None
    assert disturbance.judge_rounds([0.0], **CLEAN, gpu=[vars(silent)], cores=1) == ["GPU slowed"]
    assert disturbance.judge_rounds(
        [0.0], **CLEAN, gpu=[{**vars(silent), "slowing": []}], cores=1
    ) == [""]


def test_a_parked_worker_of_another_comparison_is_not_foreign(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = subprocess.Popen(["sleep", "600"])
    try:
        listed = [SimpleNamespace(pid=parked.pid, usedGpuMemory=1)]
        alone = SimpleNamespace(
            **{**vars(DRIVER), "nvmlDeviceGetComputeRunningProcesses": lambda handle: listed}
        )
        monkeypatch.setattr(gpu, "_driver", lambda: alone)
        stretch = Noise(available_cores()[:1], "cuda")
        stretch.begin([])  # no process of its comparison is the parked one
        assert getattr(stretch.end([]).gpu, "foreign_processes", None) == 0
        listed.append(SimpleNamespace(pid=1, usedGpuMemory=1))
        stretch.begin([])
        assert getattr(stretch.end([]).gpu, "foreign_processes", None) == 1
    finally:
        parked.kill()
        parked.wait()


def test_the_users_choice_of_a_board_reaches_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    variables = worker_variables(threads=1, cache=tmp_path, own=tmp_path, hash_seed=0)
    assert chosen.items() <= variables.items()


def test_a_real_driver_answers() -> None:
    if not gpu.count():
        pytest.skip("no NVIDIA driver, or nvidia-ml-py is not installed")
    facts = gpu.facts()
    assert facts is not None and facts.name
    assert gpu.reading() is not None
