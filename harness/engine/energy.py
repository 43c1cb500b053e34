"""Energy of a step on a GPU, from the counter of the board.

The loop runs for half a minute at least, because on some boards the sensor samples a quarter of
the time (Yang, Adamek and Armour 2024, "Accurate and convenient energy measurements for GPUs",
SC24). If no counter can be read there is no figure, and never a guess from a thermal design power.
"""

from __future__ import annotations

import time

from levelfield.harness.engine.workers import Workers
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import gpu
from levelfield.harness.plan.arms import Arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.proof.cases import CaseFile
from levelfield.harness.records.kinds import EnergyRecord
from levelfield.harness.records.store import Run

LOOP_SECONDS, IDLE_SECONDS = 30.0, 5.0


def record_energy(
    workers: Workers, run: Run, arm: Arm, *, cell: Cell, case: CaseFile, slice_steps: int
) -> None:
    """Append one ``energy`` record for a cell on a GPU whose counter can be read; else none."""
    if cell.device != "cuda" or _joules() is None:
        return
    number = workers.processes + 1
    try:
        with workers.start(arm, cell, purpose="energy") as worker:
            worker.load(cell, case)
            worker.compile(cell)
            worker.first_steps(cell)
            idle = _watts(IDLE_SECONDS)
            steps, start, before = 0, time.monotonic(), _joules()
            while time.monotonic() - start < LOOP_SECONDS:
                worker.steps(cell, slice_steps)
                steps += slice_steps
            seconds, after = time.monotonic() - start, _joules()
            idle = (idle + _watts(IDLE_SECONDS)) / 2
    except WorkerFailure as failure:
        run.append(EnergyRecord(cell=cell.id, process=number, reason=str(failure)))
        return
    assert before is not None and after is not None
    joules = (after - before - idle * seconds) / steps
    run.append(
        EnergyRecord(
            cell=cell.id,
            process=number,
            steps=steps,
            seconds=seconds,
            joules_per_step=joules,
            idle_watts=idle,
        )
    )


def _joules() -> float | None:
    reading = gpu.reading()
    return None if reading is None else reading.energy_joules


def _watts(seconds: float) -> float:
    """Mean power over some seconds in which the worker gets no request."""
    before = _joules() or 0.0
    time.sleep(seconds)
    return ((_joules() or 0.0) - before) / seconds
