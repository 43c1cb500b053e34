"""The order of events in a run, from the first process to the last status.

Every cell is qualified first (start-up, gate, checks, calibration, accuracy, memory). The cells
that pass are then timed in blocks of fresh processes. Blocks go on until the looks of the run's
level have been taken or every comparison is settled. Every record is on disk before the next thing
begins. A run that was killed therefore goes on where it was: it reads its own state from its
records.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

from levelfield.harness.analysis import planning
from levelfield.harness.engine import in_hand
from levelfield.harness.engine.blocks import Blocks, statistics_of
from levelfield.harness.engine.closing import ClosingGate
from levelfield.harness.engine.energy import record_energy
from levelfield.harness.engine.lanes import LANE_BYTES, Group, Queue, prepare, run_side_by_side
from levelfield.harness.engine.memory import record_memory
from levelfield.harness.engine.qualification import SLOTS, Calibration, Qualification
from levelfield.harness.engine.workers import StartFailure, Worker, Workers
from levelfield.harness.environments.sealed import Resolution
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import ceilings, noise
from levelfield.harness.machine.ceilings import Ceiling
from levelfield.harness.machine.resources import memory_available_bytes, most_threads
from levelfield.harness.machine.scratch import roomy, scratch_folder
from levelfield.harness.machine.turns import Turns
from levelfield.harness.plan.arms import Arm, get_arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.records.kinds import (
    CeilingRecord,
    PauseRecord,
    SessionRecord,
    StatusRecord,
)
from levelfield.harness.records.store import Run, finished_cells, read_records
from levelfield.harness.statistics.levels import LEVELS

MEMORY_SHARE = 0.70  # of the available memory that the resident arms of a block may take
SMOKE_BLOCKS = 1


class Progress(Protocol):
    """Receives the progress of a run. ``done`` is the share of the whole run, 0 to 1."""

    def stage(self, text: str, done: float) -> None:
        """Receive a description of the present stage."""

    def cell_done(self, cell: Cell) -> None:
        """Receive a cell that has got its status."""


@dataclass
class _Done:
    """The state of a run so far, in earlier processes of the host, and in this one.

    ``calibrations``: cell id -> its frozen slice. ``closed``: ids of the cells that passed the
    closing gate. ``over``: ids of the cells that have their status. ``peaks``: arm name -> peak
    bytes of its qualification. ``blocks``: (residency, comparison) -> number of blocks that ended.
    """

    calibrations: dict[str, Calibration] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    peaks: dict[str, int] = field(default_factory=dict)
    blocks: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_block: int = 0
    processes: int = 0

    @classmethod
    def read(cls, run: Run) -> _Done:
        """Read the records of what was done.

        A number of a block or process is taken as soon as any record has it. A run that was killed
        in the middle of a block has its start-ups and slices, but no ``block`` record.
        """
        work_done = cls()
        for record in read_records(run):
            work_done.processes = max(work_done.processes, record.get("process") or 0)
            work_done.last_block = max(work_done.last_block, record.get("block") or 0)
            match record["record"]:
                case "calibration":
                    values = {key: record[key] for key in Calibration.__dataclass_fields__}
                    work_done.calibrations[record["cell"]] = Calibration(**values)
                case "closing" if record["passed"]:
                    work_done.closed.add(record["cell"])
                case "block":
                    work_done.blocks.update(
                        (record["residency"], comparison) for comparison in record["comparisons"]
                    )
        work_done.over = finished_cells(read_records(run))
        return work_done

    def left(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that have no status yet."""
        return [cell for cell in cells if cell.id not in self.over]


@dataclass
class _Statuses:
    """Gives the cells their statuses and reports the progress of the run.

    ``units``: units of work, one per cell to qualify and one per comparison of a block.
    """

    run: Run
    progress: Progress
    over: set[str]  # ids of the cells that have their status
    units: int = 1
    units_done: int = 0

    def finish(self, cell: Cell, status: str, reason: str, log: str | None = None) -> None:
        """Record the status of a cell. ``log``: the name of its file in the folder of logs."""
        self.over.add(cell.id)
        self.run.append(StatusRecord(cell=cell.id, status=status, reason=reason, log=log))
        self.progress.cell_done(cell)

    def failed(self, cell: Cell, failure: WorkerFailure) -> None:
        """Record the status that the failure of a worker gives to a cell."""
        self.finish(cell, failure.status, failure.reason, failure.log)

    def stage(self, text: str) -> None:
        """Report what the run does now."""
        self.progress.stage(text, min(self.units_done / self.units, 1.0))


@dataclass(frozen=True)
class Budget:
    """The time that a run may take, from ``began`` (monotonic seconds) on; None: as it needs.

    At most half of it goes into proofs, so that the other half is left to time what was proved.
    """

    began: float
    seconds: float | None = None

    def proofs_over(self) -> bool:
        """Whether no further cell may be qualified."""
        return self.seconds is not None and self._used() > self.seconds / 2

    def fits(self, seconds: float) -> bool:
        """Whether so many more seconds are left."""
        return self.seconds is None or self._used() + seconds <= self.seconds

    def _used(self) -> float:
        return time.monotonic() - self.began


@contextmanager
def _no_cores(_: int) -> Iterator[Sequence[int]]:
    yield ()


@dataclass(frozen=True)
class Engine:
    """Runs the cells of one run. ``resolutions``: arm name -> the interpreter that serves it.

    ``cores``: those to measure on. ``only_gate``: stop after the gate, for ``levelfield check``.
    ``timed``: with ``only_gate``, also run the checks of the measurement, and the closing gate on a
    few slices, for ``levelfield check --timed``. ``budget_seconds``: stop then, and leave the rest
    to a resumed run. With a budget the cells are qualified comparison by comparison. Without one
    they are qualified arm by arm, which starts fewer processes. ``spare_cores``: called with a
    number of cores, yields at most so many further ones, on which arms are qualified side by side.
    """

    run: Run
    suite: Suite
    resolutions: Mapping[str, Resolution]
    progress: Progress
    cores: Sequence[int]
    only_gate: bool = False
    timed: bool = False
    budget_seconds: float | None = None
    spare_cores: Callable[[int], AbstractContextManager[Sequence[int]]] = _no_cores

    def measure(self, cells: Sequence[Cell]) -> None:
        """Bring every cell to a status. Raises RunFailed only for faults of the host itself,
        NoRoom among them."""
        began = time.monotonic()
        work_done = _Done.read(self.run)
        statuses = _Statuses(self.run, self.progress, work_done.over)
        for cell in work_done.left(in_hand.condemned(read_records(self.run), cells)):
            statuses.finish(cell, "failed", in_hand.REASON)
        with scratch_folder() as folder, roomy(folder):
            generator = random.Random(f"{self.suite.seed} {work_done.processes}")
            turns = Turns()
            workers = self._workers(folder, generator, work_done.processes, turns)
            cases = Cases(self.suite, folder, turns)
            cells_left = [
                cell
                for cell in work_done.left(cells)
                if not self._settled_unmeasured(get_arm(cell.arm), cell, statuses)
            ]
            statuses.units = self._units(cells_left, work_done)
            timed = self.timed or not self.only_gate
            rates = self._begin_session(cells_left, statuses) if timed and cells_left else []
            closing = ClosingGate(self.run, cases, statuses.stage, work_done.closed)
            twins = {cell.arm.removesuffix(TWIN) for cell in cells if cell.arm.endswith(TWIN)}
            qualification = Qualification(
                *(self.run, self.suite, cases, rates, statuses.stage, work_done.calibrations),
                *(self.cores, twins, timed),
            )
            qualifier = _Qualifier(
                self, workers, cases, closing, qualification, work_done, statuses
            )
            budget = Budget(began, self.budget_seconds)
            cells_left = self._qualified_cells(cells_left, qualifier, budget)
            complete = True
            if self.only_gate:
                for cell in cells_left:
                    statuses.finish(cell, "ok", "")
            elif files := self._case_files(cases, cells_left, statuses):
                blocks = Blocks(
                    *(self.run, self.suite, workers),
                    cases=files,
                    calibrations=work_done.calibrations,
                    closing=closing,
                    generator=generator,
                    ended=statuses.failed,
                    stage=statuses.stage,
                )
                timing = _Timing(self.run, self.suite, blocks, work_done, statuses, budget)
                complete = timing.time(work_done.left(cells_left))
            if self.budget_seconds is not None and (not complete or work_done.left(cells)):
                self.run.append(PauseRecord(budget_seconds=self.budget_seconds))

    def _qualified_cells(
        self, cells: Sequence[Cell], qualifier: _Qualifier, budget: Budget
    ) -> list[Cell]:
        """Qualify the cells that the budget reaches; return those of them that have no status.

        A budget reaches whole comparisons: those that were qualified before, and always another.
        """
        qualified_before, begun = set(qualifier.done.calibrations), set[str]()

        def may_begin(group: Group) -> bool:
            if not qualified_before.issuperset(cell.id for cell in group.cells):
                if begun and group.comparison not in begun and budget.proofs_over():
                    return False
                begun.add(group.comparison)
            return True

        turns = qualifier.workers.turns
        groups = self._groups(cells, by_comparison=budget.seconds is not None)
        queue = Queue(groups, turns, may_begin)
        served = len({group.interpreter for group in groups})
        # Spare cores serve the reference where no second lane needs them.
        most_spare = len(self.cores) * (self._most_lanes(max(served, 2), cells) - 1)
        with self.spare_cores(most_spare) as spare:
            qualifier.workers.spare_cores = spare
            lanes = [partial(qualifier.qualify_all, queue)]
            lanes *= max(1, min(1 + len(spare) // len(self.cores), served))
            unqualified = [cell for cell in cells if cell.id not in qualified_before]
            # A budget may end before a case that was solved ahead is needed.
            if spare and budget.seconds is None:
                lanes.append(partial(qualifier.prepare_all, queue, unqualified))
            run_side_by_side(turns, lanes)
        # Nothing was wrong with these but that other lanes took time or memory.
        for group in self._groups(sorted(qualifier.again, key=cells.index), by_comparison=False):
            qualifier.qualify(group.arm, group.cells, last=True)
        reached = {cell.id for group in queue.handed_out for cell in group.cells}
        return qualifier.done.left([cell for cell in cells if cell.id in reached])

    def _groups(self, cells: Sequence[Cell], *, by_comparison: bool) -> list[Group]:
        """Return the cells by the processes that qualify them."""
        if by_comparison:
            comparisons = [*dict.fromkeys(cell.comparison for cell in cells)]
            cells = sorted(cells, key=lambda cell: comparisons.index(cell.comparison))

        def process(cell: Cell) -> tuple[str, str, int]:
            return cell.comparison if by_comparison else "", cell.arm, cell.threads

        groups = []
        for (comparison, arm, _), group in groupby(cells, key=process):
            interpreter = self.resolutions[arm].interpreter
            assert interpreter is not None
            groups.append(Group(comparison, get_arm(arm), interpreter, list(group)))
        return groups

    def _most_lanes(self, wanted: int, cells: Sequence[Cell]) -> int:
        """Return how many of the ``wanted`` lanes this machine can bear.

        A GPU cannot be parked. After a death of the host, one cell at a time is in hand, so that a
        second death names the one to blame.
        """
        died = any(record["record"] == "death" for record in read_records(self.run))
        if died or any(cell.device != "cpu" for cell in cells):
            return 1
        bearable = most_threads() // len(self.cores), memory_available_bytes() // LANE_BYTES
        return max(1, min(wanted, *bearable))

    def _workers(
        self, folder: Path, generator: random.Random, processes: int, turns: Turns
    ) -> Workers:
        """Return the starter of workers; ``processes``: how many there were before."""
        return Workers(
            *(self.run, self.suite.limits, self.resolutions, folder, generator),
            processes=processes,
            cores=self.cores,
            variables=self.suite.variables,
            turns=turns,
        )

    def _settled_unmeasured(self, arm: Arm, cell: Cell, statuses: _Statuses) -> bool:
        """Give a status to a cell that no process can serve."""
        resolution = self.resolutions[arm.name]
        if cell.phase not in arm.mode.phases:
            phases = " and ".join(arm.mode.phases)
            statuses.finish(cell, "unsupported", f"{arm.name} offers {phases} only")
        elif cell.numeric not in arm.mode.numerics:
            numerics = " and ".join(arm.mode.numerics)
            statuses.finish(cell, "unsupported", f"{arm.name} computes in {numerics} only")
        elif not arm.framework.generic and not arm.framework.model_file(cell.model).exists():
            statuses.finish(cell, "unwritten", arm.framework.missing_file(cell.model))
        elif resolution.interpreter is None:
            statuses.finish(cell, "no-environment", resolution.reason)
        else:
            return False
        return True

    @staticmethod
    def _case_files(
        cases: Cases, cells: Sequence[Cell], statuses: _Statuses
    ) -> dict[str, CaseFile]:
        """Return the files of the cells' cases; a cell whose case is not solved gets its status."""
        files = {}
        for cell in cells:
            try:
                files[cell.id] = cases.solved(cell)[0]
            except WorkerFailure as failure:
                statuses.failed(cell, failure)
        return files

    def _units(self, cells: Sequence[Cell], work_done: _Done) -> int:
        """Count the units of work: one per cell to qualify, one per comparison of a block."""
        comparisons = {cell.comparison for cell in cells}
        blocks = 0
        if not self.only_gate:
            looks = LEVELS[self.suite.level]
            counted = looks[-1] if looks else SMOKE_BLOCKS
            resident = self.suite.residency == "resident"
            audits = counted // planning.BLOCKS_PER_AUDIT if resident else 0
            had = sum(n for (_, name), n in work_done.blocks.items() if name in comparisons)
            blocks = (counted + audits) * len(comparisons) - had
        return max(1, len(cells) + blocks)

    def _begin_session(self, cells: Sequence[Cell], statuses: _Statuses) -> list[Ceiling]:
        """Wait until the machine is quiet, then measure its ceilings; record both."""
        effort = self.suite.effort
        statuses.stage("waiting for a quiet machine")
        most_threads = max((cell.threads for cell in cells), default=1)
        watched_cores = noise.watched_cores(self.cores[:most_threads])
        quiet = noise.wait_until_quiet(effort.quiet_seconds, watched=watched_cores)
        self.run.append(SessionRecord(watched_cores=watched_cores, cores=self.cores, **vars(quiet)))
        rates: list[Ceiling] = []
        for threads in sorted({cell.threads for cell in cells}) if effort.ceilings else ():
            statuses.stage(f"measuring the best rates of this machine with {threads} thread(s)")
            rates += ceilings.measured(threads, self.cores[:threads])
        for ceiling in rates:
            self.run.append(CeilingRecord(**vars(ceiling)))
        return rates


@dataclass(frozen=True)
class _Qualifier:
    """Qualifies cells: those of an arm in one process, several arms side by side.

    ``again``: cells that ran out of time or memory next to other lanes, to be qualified once more.
    """

    engine: Engine
    workers: Workers
    cases: Cases
    closing: ClosingGate
    qualification: Qualification
    done: _Done
    statuses: _Statuses
    again: list[Cell] = field(default_factory=list)
    lanes_left: list[int] = field(default_factory=list)  # numbers of lanes that are still at work

    def qualify_all(self, queue: Queue) -> None:
        """Qualify one group after another until the queue ends; what a lane does."""
        self.lanes_left.append(queue.turns.number)
        while True:
            with queue.next() as group:
                if group is None:
                    break
                self.qualify(group.arm, group.cells)
        self.lanes_left.remove(queue.turns.number)

    def prepare_all(self, queue: Queue, cells: Sequence[Cell]) -> None:
        """Solve the cases of cells before they are needed, until no lane is at work."""
        for _ in prepare(self.cases, cells, self.qualification.lesson_seeds):
            if not self.lanes_left:
                break

    def qualify(self, arm: Arm, cells: Sequence[Cell], *, last: bool = False) -> None:
        """Qualify all cells of an arm in one process; if it dies, the next cell gets a new one.

        ``last``: whether no other lane is at work, so that every failure is the cell's own.
        """
        cells_left = [cell for cell in cells if cell.id not in self.done.calibrations]
        purpose = "qualification" if self.qualification.timed else "gate"
        while cells_left:
            try:
                with self.workers.start(arm, cells_left[0], purpose=purpose) as worker:
                    while cells_left and worker.process.alive:
                        cell = cells_left.pop(0)
                        outcome = self.qualification.qualify(worker, cell)
                        if self.engine.timed and outcome[0] == "ok":
                            outcome = self._closed_at_once(worker, cell)
                        if self._again(cell, outcome[0], last=last):
                            continue
                        self.statuses.units_done += 1
                        self._qualified(arm, cell, *outcome, log=worker.process.log.name)
                    if worker.process.alive:
                        peak = worker.memory().peak_bytes
                        self.done.peaks[arm.name] = max(peak or 0, self.done.peaks.get(arm.name, 0))
            except StartFailure as failure:
                # The failure came before any request for a cell, so all cells share it.
                for cell in cells_left:
                    if not self._again(cell, failure.status, last=last):
                        self.statuses.failed(cell, failure)
                return
            except WorkerFailure:
                continue  # it died at the request for its memory: its cells have their statuses

    def _again(self, cell: Cell, status: str, *, last: bool) -> bool:
        """Whether a cell is qualified again, because other lanes may be to blame."""
        again = status in ("timeout", "out-of-memory") and len(self.lanes_left) > 1 and not last
        if again:
            self.again.append(cell)
        return again

    def _closed_at_once(self, worker: Worker, cell: Cell) -> tuple[str, str]:
        """Run the closing gate after a few slices in the process that was qualified."""
        calibration = self.done.calibrations[cell.id]
        try:
            with worker.alone():
                # The checks and the lesson have loaded other cases since this one was warm.
                worker.load(cell, self.cases.solved(cell)[0])
                worker.compile(cell)
                worker.steps(cell, calibration.slice_steps)
                slots = [self.qualification.slot(worker, cell, calibration) for _ in range(SLOTS)]
            return self.closing.close(
                worker,
                cell,
                slots=slots,
                slice_steps=calibration.slice_steps,
                step_seconds=calibration.step_seconds,
                kinds=statistics_of(worker.arm, self.engine.suite, cell, calibration.step_seconds),
            )
        except WorkerFailure as failure:
            return failure.status, failure.reason

    def _qualified(self, arm: Arm, cell: Cell, status: str, reason: str, *, log: str) -> None:
        if status != "ok":
            self.statuses.finish(cell, status, reason, log)
            return
        if self.engine.only_gate:
            return
        if self.engine.suite.effort.memory and not arm.suffix:
            self.statuses.stage(f"{cell.title}: memory")
            path, _, _ = self.cases.solved(cell)
            record_memory(
                self.workers,
                self.engine.run,
                arm,
                cell=cell,
                case=path,
                effort=self.engine.suite.effort,
            )
            record_energy(
                self.workers,
                self.engine.run,
                arm,
                cell=cell,
                case=path,
                slice_steps=self.done.calibrations[cell.id].slice_steps,
            )


@dataclass(frozen=True)
class _Timing:
    """Times the cells that passed, in blocks."""

    run: Run
    suite: Suite
    blocks: Blocks
    done: _Done
    statuses: _Statuses
    budget: Budget

    def time(self, cells: Sequence[Cell]) -> bool:
        """Run the blocks, then give every cell its status; return whether the budget sufficed.

        If it did not, cells that were timed are ok for now, and others get no status.
        """
        complete = self._run_blocks(cells)
        for cell in self.done.left(cells):
            if cell.id in self.done.closed:
                self.statuses.finish(cell, "ok", "")
            elif complete:
                self.statuses.finish(cell, *self._never_timed())
        return complete

    def _run_blocks(self, cells: Sequence[Cell]) -> bool:
        """Run blocks until the level's last look, or until nothing is left to settle.

        Return False if the budget ended before. A block begins if it fits, judged by the longest
        one so far; the first one begins in any case.
        """
        residency = self.suite.residency if self._fits(cells) else "sequential"
        looks = LEVELS[self.suite.level]
        last = looks[-1] if looks else SMOKE_BLOCKS
        rounds, longest_seconds = self.suite.effort.rounds, 0.0
        settled: frozenset[tuple[str, str]] = frozenset()
        if looks and self.done.blocks:
            rounds, settled = self._look(rounds, quick=self.suite.level == "quick")
        while True:
            cells_left = [
                cell
                for cell in self.done.left(cells)
                if self.done.blocks[residency, cell.comparison] < last
                and (cell.comparison, cell.arm) not in settled
            ]
            if not cells_left or self._out_of_time():
                return True
            if longest_seconds and not self.budget.fits(longest_seconds):
                return False
            audited = [cell for cell in cells_left if self._audit_due(residency, cell.comparison)]
            began = time.monotonic()
            self._run_block(audited or cells_left, "audit" if audited else residency, rounds)
            longest_seconds = max(longest_seconds, time.monotonic() - began)
            counts = {self.done.blocks[residency, cell.comparison] for cell in cells_left}
            if not audited and counts & set(looks):
                rounds, settled = self._look(rounds, quick=self.suite.level == "quick")

    def _audit_due(self, residency: str, comparison: str) -> bool:
        audits, blocks = (self.done.blocks[kind, comparison] for kind in ("audit", residency))
        return residency == "resident" and blocks // planning.BLOCKS_PER_AUDIT > audits

    def _look(self, rounds: int, *, quick: bool) -> tuple[int, frozenset[tuple[str, str]]]:
        """Return (rounds of the next blocks, settled arms)."""
        planned_rounds, settled = planning.look(self.run.path, rounds=rounds)
        # A quick run must stay quick, even if more rounds would improve it.
        most_rounds = 2 * self.suite.effort.rounds if quick else planned_rounds
        return min(planned_rounds, most_rounds), settled

    def _run_block(self, cells: Sequence[Cell], residency: str, rounds: int) -> None:
        self.done.last_block += 1
        self.blocks.run_block(self.done.last_block, cells, residency=residency, rounds=rounds)
        comparisons = {cell.comparison for cell in cells}
        self.done.blocks.update((residency, comparison) for comparison in comparisons)
        self.statuses.units_done += len(comparisons)

    def _fits(self, cells: Sequence[Cell]) -> bool:
        """Return whether the processes of all arms fit into this machine's memory together."""
        needed_bytes = sum(self.done.peaks.get(arm, 0) for arm in {cell.arm for cell in cells})
        return needed_bytes <= MEMORY_SHARE * memory_available_bytes()

    def _never_timed(self) -> tuple[str, str]:
        """Status and reason of a cell that passed its gate but was measured in no block."""
        if self._out_of_time():
            cap = self.suite.effort.time_cap_minutes
            return "timeout", f"the run's cap of {cap:g} minutes ended before it was timed"
        return "failed", "no process of this arm lived until the cell was timed"

    def _out_of_time(self) -> bool:
        cap = self.suite.effort.time_cap_minutes
        return bool(cap) and time.monotonic() - self.budget.began > 60 * cap
