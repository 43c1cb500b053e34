"""The order of events in a run, from the first process to the last status.

Every cell is qualified first (start-up, gate, checks, calibration, accuracy, memory). The cells
that pass are then timed in blocks of fresh processes. Blocks go on until the looks of the run's
level have been taken or every comparison is settled. Every record is on disk before the next thing
begins. A run that was killed therefore goes on where it was: it reads its own state from its
records.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import psutil

from harness.analysis import planning
from harness.engine import in_hand
from harness.engine.blocks import Blocks, statistics_of
from harness.engine.closing import ClosingGate
from harness.engine.energy import record_energy
from harness.engine.memory import record_memory
from harness.engine.qualification import SLOTS, Calibration, Qualification
from harness.engine.workers import StartFailure, Worker, Workers
from harness.environments.sealed import Resolution
from harness.errors import WorkerFailure
from harness.machine import ceilings, noise
from harness.machine.resources import available_cores
from harness.plan.arms import Arm, get_arm
from harness.plan.cells import Cell
from harness.plan.suite import Suite
from harness.plan.vocabulary import TWIN
from harness.proof.cases import Cases
from harness.records import frames
from harness.records.kinds import CeilingRecord, SessionRecord, StatusRecord
from harness.records.store import Run, read_records
from harness.statistics.decisions import LEVELS

MEMORY_SHARE = 0.70  # of the available memory that the resident arms of a block may take
SMOKE_BLOCKS = 1


class Progress(Protocol):
    """Receives the progress of a run. ``done`` is the share of the whole run, 0 to 1."""

    def stage(self, text: str, done: float) -> None:
        """Receive a description of the present stage."""

    def cell_done(self, cell: Cell) -> None:
        """Receive a cell that has got its status."""


@dataclass
class Engine:
    """Runs the cells of one run. ``resolutions``: arm name -> the interpreter that serves it.

    ``only_gate``: stop after the gate, for ``levelfield check``. ``timed``: with ``only_gate``,
    also run the checks of the measurement, and the closing gate on a few slices, for
    ``levelfield check --timed``.
    """

    run: Run
    suite: Suite
    resolutions: Mapping[str, Resolution]
    progress: Progress
    only_gate: bool = False
    timed: bool = False
    _calibrations: dict[str, Calibration] = field(init=False, default_factory=dict)
    _closed: set[str] = field(init=False, default_factory=set)
    _peaks: dict[str, int] = field(init=False, default_factory=dict)
    _over: set[str] = field(init=False, default_factory=set)
    _blocks: dict[str, int] = field(init=False, default_factory=dict)
    _last_block: int = field(init=False, default=0)
    _rounds: list[dict[str, Any]] = field(init=False, default_factory=list)
    _units: int = field(init=False, default=1)
    _units_done: int = field(init=False, default=0)

    def measure(self, cells: Sequence[Cell]) -> None:
        """Bring every cell to a status. Raises RunFailed only for faults of the host itself."""
        self._began = time.monotonic()
        processes = self._remember_records()
        for cell in in_hand.condemned(read_records(self.run), cells):
            if cell.id not in self._over:
                self._finish(cell, "failed", in_hand.REASON)
        with tempfile.TemporaryDirectory(
            prefix="levelfield-", ignore_cleanup_errors=True
        ) as scratch:
            folder = Path(scratch)
            generator = random.Random(f"{self.suite.seed} {processes}")
            self._workers = Workers(
                self.run,
                self.suite.limits,
                self.resolutions,
                folder,
                generator,
                processes,
            )
            self._cases = Cases(self.suite, folder)
            left = [cell for cell in cells if cell.id not in self._over]
            left = [cell for cell in left if not self._settled_unmeasured(get_arm(cell.arm), cell)]
            self._plan(left)
            untimed = self.only_gate and not self.timed
            rows = [] if untimed or not left else self._begin_session(left)
            self._closing = ClosingGate(self.run, self._cases, self._stage, self._closed)
            self._qualification = Qualification(
                self.run,
                self.suite,
                self._cases,
                rows,
                self._stage,
                self._calibrations,
                {cell.arm.removesuffix(TWIN) for cell in cells if cell.arm.endswith(TWIN)},
            )
            for (arm, _), group in groupby(left, key=lambda cell: (cell.arm, cell.threads)):
                self._qualify_arm(get_arm(arm), list(group))
            left = [cell for cell in left if cell.id not in self._over]
            if not self.only_gate and left:
                self._run_blocks(left, generator)
            for cell in left:
                if cell.id not in self._over and (self.only_gate or cell.id in self._closed):
                    self._finish(cell, "ok", "")
                elif cell.id not in self._over:
                    self._finish(cell, *self._never_timed())

    # -- what a resumed run knows already -------------------------------------------------------

    def _remember_records(self) -> int:
        """Read the records of what was done; return the number of processes so far.

        A number of a block or process is taken as soon as any record has it. A run that was killed
        in the middle of a block has its start-ups and slices, but no ``block`` record.
        """
        processes = 0
        for record in read_records(self.run):
            processes = max(processes, record.get("process") or 0)
            self._last_block = max(self._last_block, record.get("block") or 0)
            match record["record"]:
                case "calibration":
                    values = {key: record[key] for key in Calibration.__dataclass_fields__}
                    self._calibrations[record["cell"]] = Calibration(**values)
                case "closing" if record["passed"]:
                    self._closed.add(record["cell"])
                case "block":
                    self._count_block(record["residency"])
                case "status":
                    self._over.add(record["cell"])
        return processes

    def _count_block(self, residency: str) -> None:
        self._blocks[residency] = self._blocks.get(residency, 0) + 1

    # -- statuses and progress ------------------------------------------------------------------

    def _settled_unmeasured(self, arm: Arm, cell: Cell) -> bool:
        """Give a status to a cell that no process can serve."""
        resolution = self.resolutions[arm.name]
        if cell.phase not in arm.mode.phases:
            phases = " and ".join(arm.mode.phases)
            self._finish(cell, "unsupported", f"{arm.name} offers {phases} only")
        elif cell.numeric not in arm.mode.numerics:
            numerics = " and ".join(arm.mode.numerics)
            self._finish(cell, "unsupported", f"{arm.name} computes in {numerics} only")
        elif not arm.framework.generic and not arm.framework.model_file(cell.model).exists():
            self._finish(cell, "unwritten", arm.framework.missing_file(cell.model))
        elif resolution.interpreter is None:
            self._finish(cell, "no-environment", resolution.reason)
        else:
            return False
        return True

    def _finish(self, cell: Cell, status: str, reason: str, log: str | None = None) -> None:
        """Record the status of a cell. ``log``: the name of its file in the folder of logs."""
        self._over.add(cell.id)
        self.run.append(StatusRecord(cell=cell.id, status=status, reason=reason, log=log))
        self.progress.cell_done(cell)

    def _failed(self, cell: Cell, failure: WorkerFailure) -> None:
        self._finish(cell, failure.status, failure.reason, failure.log)

    def _plan(self, cells: Sequence[Cell]) -> None:
        """Count the units of work: one per cell to qualify, one per comparison of a block."""
        comparisons = len({cell.comparison for cell in cells})
        blocks = 0 if self.only_gate else self._blocks_wanted()
        self._units = max(1, len(cells) + blocks * comparisons)

    def _stage(self, text: str) -> None:
        self.progress.stage(text, min(self._units_done / self._units, 1.0))

    # -- the session ----------------------------------------------------------------------------

    def _begin_session(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """Wait until the machine is quiet, then measure its ceilings; record both."""
        effort = self.suite.effort
        self._stage("waiting for a quiet machine")
        most = max((cell.threads for cell in cells), default=1)
        watched = noise.watched_cores(available_cores()[:most])
        quiet = noise.wait_until_quiet(effort.quiet_seconds, watched=watched)
        self.run.append(SessionRecord(watched_cores=watched, **vars(quiet)))
        rows: list[dict[str, Any]] = []
        for threads in sorted({cell.threads for cell in cells}) if effort.ceilings else ():
            self._stage(f"measuring the best rates of this machine with {threads} thread(s)")
            rows += ceilings.measured(threads, available_cores()[:threads])
        for row in rows:
            self.run.append(CeilingRecord(**row))
        return rows

    # -- qualification --------------------------------------------------------------------------

    def _qualify_arm(self, arm: Arm, cells: Sequence[Cell]) -> None:
        """Qualify all cells of an arm in one process; if it dies, the next cell gets a new one."""
        left = [cell for cell in cells if cell.id not in self._calibrations]
        purpose = "gate" if self.only_gate else "qualification"
        while left:
            try:
                with self._workers.start(arm, left[0], purpose=purpose) as worker:
                    while left and worker.process.alive:
                        cell = left.pop(0)
                        outcome = self._qualification.qualify(
                            worker, cell, only_gate=self.only_gate and not self.timed
                        )
                        if self.timed and outcome[0] == "ok":
                            outcome = self._closed_at_once(worker, cell)
                        self._units_done += 1
                        self._qualified(arm, cell, *outcome, log=worker.process.log.name)
                    if worker.process.alive:
                        peak = worker.memory()["peak_bytes"]
                        self._peaks[arm.name] = max(peak or 0, self._peaks.get(arm.name, 0))
            except StartFailure as failure:
                # The failure came before any request for a cell, so all cells share it.
                for cell in left:
                    self._failed(cell, failure)
                return
            except WorkerFailure:
                continue  # it died at the request for its memory: its cells have their statuses

    def _closed_at_once(self, worker: Worker, cell: Cell) -> tuple[str, str]:
        """Run the closing gate after a few slices in the process that was qualified."""
        calibration = self._calibrations[cell.id]
        try:
            # The checks and the lesson have loaded other cases since this one was warm.
            worker.load(cell, self._cases.solved(cell)[0])
            worker.compile(cell)
            worker.steps(cell, calibration.slice_steps)
            slots = [self._qualification.slot(worker, cell, calibration) for _ in range(SLOTS)]
            return self._closing.close(
                worker,
                cell,
                slots=slots,
                slice_steps=calibration.slice_steps,
                step_seconds=calibration.step_seconds,
                kinds=statistics_of(worker.arm, self.suite, cell, calibration.step_seconds),
            )
        except WorkerFailure as failure:
            return failure.status, failure.reason

    def _qualified(self, arm: Arm, cell: Cell, status: str, reason: str, *, log: str) -> None:
        if status != "ok":
            self._finish(cell, status, reason, log)
            return
        if self.only_gate:
            return
        if self.suite.effort.memory and not arm.suffix:
            self._stage(f"{cell.title}: memory")
            path, _, _ = self._cases.solved(cell)
            record_memory(
                self._workers,
                self.run,
                arm,
                cell=cell,
                case=path,
                effort=self.suite.effort,
            )
            record_energy(
                self._workers,
                self.run,
                arm,
                cell=cell,
                case=path,
                slice_steps=self._calibrations[cell.id].slice_steps,
            )

    # -- blocks ---------------------------------------------------------------------------------

    def _blocks_wanted(self) -> int:
        """Return how many blocks of all kinds are still to be done."""
        looks = LEVELS[self.suite.level]
        counted = looks[-1] if looks else SMOKE_BLOCKS
        audits = counted // planning.BLOCKS_PER_AUDIT if self.suite.residency == "resident" else 0
        return counted + audits - sum(self._blocks.values())

    def _run_blocks(self, cells: Sequence[Cell], generator: random.Random) -> None:
        """Run blocks until the level's last look, or until nothing is left to settle.

        A comparison that lost whole blocks to noise gets more blocks, at most half as many as the
        level has.
        """
        blocks = Blocks(
            self.run,
            self.suite,
            self._workers,
            {cell.id: self._cases.solved(cell)[0] for cell in cells},
            self._calibrations,
            self._closing,
            generator,
            self._failed,
            self._stage,
        )
        residency = self.suite.residency if self._fits(cells) else "sequential"
        looks = LEVELS[self.suite.level]
        last = looks[-1] if looks else SMOKE_BLOCKS
        most_blocks = last + last // 2 if looks else last
        rounds = self.suite.effort.rounds
        settled: frozenset[str] = frozenset()
        while (done := self._blocks.get(residency, 0)) < most_blocks:
            audits = self._blocks.get("audit", 0)
            due = residency == "resident" and done // planning.BLOCKS_PER_AUDIT > audits
            alive = [each for each in cells if each.id not in self._over]
            going = [cell for cell in alive if cell.comparison not in settled]
            if done >= last:
                lacking = planning.lacking(frames.load(self.run.path), last)
                going = [cell for cell in going if cell.comparison in lacking]
            if not going or self._out_of_time():
                return
            self._run_block(blocks, going, "audit" if due else residency, rounds)
            done = self._blocks.get(residency, 0)
            if not due and planning.due(done, looks):
                planned, settled = planning.look(
                    self.run.path, rounds=rounds, at_look=done in looks
                )
                # A quick run must stay quick, even if more rounds would improve it.
                most = 2 * self.suite.effort.rounds if len(looks) == 1 else planned
                rounds = min(planned, most)

    def _run_block(
        self, blocks: Blocks, cells: Sequence[Cell], residency: str, rounds: int
    ) -> None:
        self._last_block += 1
        blocks.run_block(self._last_block, cells, residency=residency, rounds=rounds)
        self._count_block(residency)
        self._units_done += len({cell.comparison for cell in cells})

    def _fits(self, cells: Sequence[Cell]) -> bool:
        """Return whether the processes of all arms fit into this machine's memory together."""
        wanted = sum(self._peaks.get(arm, 0) for arm in {cell.arm for cell in cells})
        return wanted <= MEMORY_SHARE * psutil.virtual_memory().available

    def _never_timed(self) -> tuple[str, str]:
        """Status and reason of a cell that passed its gate but was measured in no block."""
        if self._out_of_time():
            cap = self.suite.effort.time_cap_minutes
            return "timeout", f"the run's cap of {cap:g} minutes ended before it was timed"
        return "failed", "no process of this arm lived until the cell was timed"

    def _out_of_time(self) -> bool:
        cap = self.suite.effort.time_cap_minutes
        return bool(cap) and time.monotonic() - self._began > 60 * cap
