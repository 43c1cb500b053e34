"""Peak memory by stage, measured in processes that are never timed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from levelfield.harness.engine.workers import Workers
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import gpu
from levelfield.harness.machine.turns import Turns
from levelfield.harness.plan.arms import Arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Effort
from levelfield.harness.plan.vocabulary import MEMORY_STAGES
from levelfield.harness.proof.cases import CaseFile
from levelfield.harness.records.kinds import MemoryRecord
from levelfield.harness.records.store import Run

SAMPLE_SECONDS = 0.01


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process: shared pages are divided among their users (proc(5)).

    0 for a process that is gone or that we may not read.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if "Pss:" in line), 0)


class TreeWatch:
    """Samples the memory of a process tree every 10 ms; a context manager.

    ``tree`` returns the process ids (``levelfield.harness.engine.process.WorkerProcess.tree``).
    It takes no samples while the tree is parked because another lane has the machine alone.
    The kernel keeps no peak of the proportional size, so a peak shorter than a sample is missed.
    A single process is therefore judged by VmHWM, and this figure is given next to it. On a GPU the
    driver's figure for the same processes is sampled, too.
    """

    def __init__(
        self, tree: Callable[[], list[int]], *, device: str, turns: Turns | None = None
    ) -> None:
        self._pids, self._device, self._turns = tree, device, turns or Turns()
        self._tree, self._gpu = 0, 0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreeWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def peaks(self) -> tuple[int | None, int | None]:
        """Largest (proportional bytes, device bytes) since the last call; None where unknown."""
        self._sample()
        with self._lock:
            peaks = self._tree or None, self._gpu or None
            self._tree = self._gpu = 0
        return peaks

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            if not self._turns.are_parked():
                self._sample()

    def _sample(self) -> None:
        pids = self._pids()
        tree = sum(map(proportional_bytes, pids))
        device = gpu.process_bytes(pids) if self._device == "cuda" else None
        with self._lock:
            self._tree, self._gpu = max(self._tree, tree), max(self._gpu, device or 0)


@dataclass(frozen=True)
class _Peaks:
    """The peaks of a stage; fields of a ``memory`` record."""

    peak_bytes: int | None = None
    tree_bytes: int | None = None
    device_bytes: int | None = None
    framework_bytes: int | None = None


def record_memory(
    workers: Workers, run: Run, arm: Arm, *, cell: Cell, case: CaseFile, effort: Effort
) -> None:
    """Append one ``memory`` record per phase of each of the effort's ``memory_processes``.

    A failure of one process costs only the figures of that process.
    """
    for _ in range(effort.memory_processes):
        _record_process(workers, run, arm, cell=cell, case=case, steps=effort.memory_steps)


def _record_process(
    workers: Workers, run: Run, arm: Arm, *, cell: Cell, case: CaseFile, steps: int
) -> None:
    number, reason = workers.processes + 1, None
    peaks: dict[str, _Peaks] = {}
    try:
        with (
            workers.start(arm, cell, purpose="memory") as worker,
            TreeWatch(worker.process.tree, device=cell.device, turns=workers.turns) as tree,
        ):
            number = worker.number

            def phase_ends(phase: str) -> None:
                tree_bytes, device_bytes = tree.peaks()
                reply = worker.memory()
                framework_bytes = reply.device.used_peak_bytes if reply.device else None
                peaks[phase] = _Peaks(reply.peak_bytes, tree_bytes, device_bytes, framework_bytes)

            for phase, reply in worker.stages.items():
                peaks[phase] = _Peaks(reply.peak_bytes)
            worker.load(cell, case)
            phase_ends("build")
            worker.compile(cell)
            phase_ends("compile")
            worker.first_steps(cell)
            phase_ends("first_step")
            worker.steps(cell, steps)
            phase_ends("steady")
    except WorkerFailure as failure:
        reason = str(failure)
    for phase in MEMORY_STAGES:
        run.append(
            MemoryRecord(
                cell=cell.id,
                process=number,
                phase=phase,
                reason=None if phase in peaks else reason,
                **vars(peaks.get(phase, _Peaks())),
            )
        )
