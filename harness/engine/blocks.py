"""Blocks: fresh processes, one per arm, that are timed in rounds.

A *resident* block keeps the processes of all arms at once, parked by SIGSTOP. Each process gets a
slot in every round, so slow drift of the machine affects all arms of a round equally. A
*sequential* block runs one arm after the other in random order, each in its own fresh process. It
serves machines whose memory cannot hold all arms. As an *audit* it shows whether keeping the
processes in memory together changes anything.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from levelfield.harness.engine.closing import ClosingGate
from levelfield.harness.engine.process import WorkerProcess
from levelfield.harness.engine.qualification import Calibration
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.workers import StartFailure, Workers
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import disturbance, gpu, noise, supervisor
from levelfield.harness.machine.gpu import GpuReading
from levelfield.harness.machine.noise import OtherLoad, Reading
from levelfield.harness.plan.arms import Arm, get_arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.proof.cases import CaseFile
from levelfield.harness.proof.checks import Slot, affinity_check, recompilation_check, tree_check
from levelfield.harness.proof.outcome import Outcome
from levelfield.harness.proof.replies import Slice
from levelfield.harness.records.kinds import (
    BlockRecord,
    CheckRecord,
    RoundRecord,
    SliceRecord,
    StartupRecord,
)
from levelfield.harness.records.store import Run

LEAST_LATENCY_SECONDS = 20e-6

Ended = Callable[[Cell, WorkerFailure], None]


@dataclass(frozen=True)
class Stretch:
    """The machine's noise in a stretch of time that ended.

    ``canaries``: seconds of the canary loop, [boundary][core].
    """

    canaries: Sequence[Sequence[float]]
    watched_cores: Sequence[int] | None
    other: OtherLoad
    gpu: GpuReading | None = None

    def suspect(self, faults: int) -> str | None:
        """Return the rule by which a round is disturbed, or None.

        ``faults``: the major page faults of its slices.
        """
        (rule,) = disturbance.judge_rounds(
            [disturbance.canary_spread(self.canaries)],
            major_faults=[faults],
            gpu=[vars(self.gpu) if self.gpu else None],
            cores=noise.core_count(self.watched_cores),
            wall_seconds=[self.other.wall_seconds],
            foreign_seconds=[self.other.foreign_seconds],
            steal_seconds=[self.other.steal_seconds],
            throttled_seconds=[self.other.throttled_seconds or 0.0],
        )
        return rule or None


@dataclass
class Noise:
    """The machine's noise in a stretch of time, read while all workers are parked or idle."""

    cores: Sequence[int]
    device: str
    canaries: list[list[float]] = field(default_factory=list)
    _watched: Sequence[int] | None = None
    _begin: Reading | None = None
    _own_begin: float = 0.0

    def begin(self, processes: Sequence[WorkerProcess]) -> None:
        """Run the first canary, then start the stretch."""
        self.boundary()
        self._watched = noise.watched_cores(self.cores)
        self._own_begin = _own_seconds(processes)
        self._begin = noise.read(self._watched)

    def boundary(self) -> None:
        """Time a fixed loop, the canary, between two slots."""
        self.canaries.append(noise.canary(self.cores))

    def end(self, processes: Sequence[WorkerProcess]) -> Stretch:
        """End the stretch."""
        assert self._begin is not None
        own_seconds = _own_seconds(processes) - self._own_begin
        cores = noise.core_count(self._watched)
        load = noise.difference(self._begin, noise.read(self._watched), own_seconds, cores)
        reading = None
        if self.device == "cuda":
            # All workers are descendants of this process, parked ones of other comparisons too.
            reading = gpu.reading(own_pids=supervisor.descendants(os.getpid()))
        return Stretch(self.canaries, self._watched, load, reading)


def statistics_of(arm: Arm, suite: Suite, cell: Cell, step_seconds: float) -> list[str]:
    """Return the kinds of slices of a cell.

    The clock is too coarse for the latency of very short steps, so they have no latency slices.
    A generation has slices of its first token instead.
    """
    if cell.phase == "generation":
        return ["throughput", "first_token"]
    latency = suite.effort.latency and step_seconds >= LEAST_LATENCY_SECONDS
    return [kind for kind in arm.mode.statistics if latency or kind != "latency"]


def _own_seconds(processes: Sequence[WorkerProcess]) -> float:
    """CPU seconds of this process and the workers.

    The workers and the canary run on the measured cores; the rest of this process may run on any
    core. If it runs on another core, its CPU time is wrongly subtracted from the foreign load. That
    was 8 to 10 ms a round, for rounds of half a second on a busy two-core virtual machine
    (2026-11-26). The rule of disturbed rounds looks for more than that.
    """
    return time.process_time() + sum(process.cpu_seconds() for process in processes)


@dataclass
class Blocks:
    """Runs the blocks of a run.

    ``ended`` is called when the worker of a cell fails; the cell is not measured any more.
    ``calibrations``: cell id -> its frozen slice. ``closing_seconds``: seconds of all closing gates
    so far.
    """

    run: Run
    suite: Suite
    workers: Workers
    cases: Mapping[str, CaseFile]
    calibrations: Mapping[str, Calibration]
    closing: ClosingGate
    generator: random.Random
    ended: Ended
    stage: Callable[[str], None]
    failed: set[str] = field(default_factory=set)
    closing_seconds: float = 0.0

    def run_block(self, number: int, cells: Sequence[Cell], *, residency: str, rounds: int) -> None:
        """Run one block over the comparisons of ``cells``.

        Cells with different numbers of threads are measured separately.
        """
        seed = self.generator.randrange(2**32)
        block = _Block(self, number, residency, rounds, random.Random(seed))
        comparisons = list(dict.fromkeys(cell.comparison for cell in cells))
        arms = list(dict.fromkeys(cell.arm for cell in cells))
        block.generator.shuffle(comparisons)
        block.generator.shuffle(arms)
        measure = block.resident if residency == "resident" else block.sequential
        for threads in sorted({cell.threads for cell in cells}):
            cells_of_threads = [cell for cell in cells if cell.threads == threads]
            by_arm = {arm: [cell for cell in cells_of_threads if cell.arm == arm] for arm in arms}
            names = {cell.comparison for cell in cells_of_threads}
            measure(
                {arm: cells_of_arm for arm, cells_of_arm in by_arm.items() if cells_of_arm},
                [comparison for comparison in comparisons if comparison in names],
            )
        self.run.append(
            BlockRecord(
                block=number,
                residency=residency,
                arms=arms,
                comparisons=comparisons,
                rounds=rounds,
                seed=seed,
            )
        )

    def fail(self, cell: Cell, failure: WorkerFailure) -> None:
        """End a cell of this run as failed; only its first failure counts."""
        if cell.id not in self.failed:
            self.failed.add(cell.id)
            self.ended(cell, failure)


@dataclass(frozen=True)
class _Turn:
    """The slot of one cell in a round of its own."""

    cell: Cell
    stretch: Stretch
    faults: int  # major page faults


@dataclass
class _Block:
    """One block while it runs."""

    parent: Blocks
    number: int
    residency: str
    rounds: int
    generator: random.Random
    slots: dict[str, list[Slot]] = field(default_factory=dict)  # by cell

    def resident(self, by_arm: Mapping[str, list[Cell]], comparisons: Sequence[str]) -> None:
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for name, cells in by_arm.items():
                worker = self._start(stack, get_arm(name), cells)
                if worker is not None:
                    workers[name] = worker
                    worker.process.park()
            for comparison in comparisons:
                comparison_cells = [
                    cell
                    for name in workers
                    for cell in by_arm[name]
                    if cell.comparison == comparison and cell.id not in self.parent.failed
                ]
                self.generator.shuffle(comparison_cells)
                workers_by_cell = {}
                for cell in comparison_cells:
                    worker = self._alive(stack, workers[cell.arm], by_arm[cell.arm])
                    if worker is None:
                        continue
                    workers[cell.arm] = worker
                    if self._ready(worker, cell):
                        workers_by_cell[cell] = worker
                self._rounds(comparison, workers_by_cell)
                for cell, worker in workers_by_cell.items():
                    self._judge(worker, cell)

    def _rounds(self, comparison: str, workers_by_cell: dict[Cell, Worker]) -> None:
        """Run rounds until enough of them are clean, or half as many more were spent."""
        base = list(workers_by_cell)
        clean, most_rounds = 0, round(self.rounds * (1 + self.parent.suite.effort.rounds_extra))
        for number in range(most_rounds):
            if clean == self.rounds or not base:
                break
            # Within as many rounds as there are arms, every arm takes every place once. Then the
            # order is drawn again, so that no arm always follows the same other one.
            turn = number % len(base)
            if turn == 0:
                self.generator.shuffle(base)
            self.parent.stage(f"block {self.number}, {comparison}, round {number + 1}")
            order = [*base[turn:], *base[:turn]]
            clean += self._round(comparison, number, order, workers_by_cell) is None
            base = [cell for cell in base if cell.id not in self.parent.failed]

    def _round(
        self,
        comparison: str,
        number: int,
        order: Sequence[Cell],
        workers_by_cell: Mapping[Cell, Worker],
    ) -> str | None:
        cores = workers_by_cell[order[0]].cores
        processes = [workers_by_cell[cell].process for cell in order]
        noise_of_round, faults = Noise(cores, order[0].device), 0
        noise_of_round.begin(processes)
        for cell in order:
            worker = workers_by_cell[cell]
            worker.process.resume()
            slices = self._slot(worker, cell)
            if worker.process.alive:
                worker.process.park()
            noise_of_round.boundary()
            faults += self._keep(worker, cell, number, slices)
        stretch = noise_of_round.end(processes)
        return self._close(comparison, number, order, stretch, faults)

    def _close(
        self,
        comparison: str,
        number: int,
        order: Sequence[Cell],
        stretch: Stretch,
        faults: int,
    ) -> str | None:
        suspect = stretch.suspect(faults)
        self.parent.run.append(
            RoundRecord(
                comparison=comparison,
                block=self.number,
                round=number,
                order=[cell.id for cell in order],
                suspect=suspect,
                major_faults=faults,
                canaries=stretch.canaries,
                watched_cores=stretch.watched_cores,
                gpu=vars(stretch.gpu) if stretch.gpu else None,
                **vars(stretch.other),
            )
        )
        return suspect

    def sequential(self, by_arm: Mapping[str, list[Cell]], comparisons: Sequence[str]) -> None:
        """Measure every arm alone, its slices in a row; slots with equal numbers form a round."""
        rounds: dict[tuple[str, int], list[_Turn]] = {}
        for name, cells in by_arm.items():
            with ExitStack() as stack:
                worker = self._start(stack, get_arm(name), cells)
                if worker is None:
                    continue
                for cell in sorted(cells, key=lambda cell: comparisons.index(cell.comparison)):
                    self.parent.stage(f"block {self.number} ({self.residency}), {cell.title}")
                    worker = self._alive(stack, worker, cells)
                    if worker is None:
                        break
                    if not self._ready(worker, cell):
                        continue
                    for number, turn in enumerate(self._turns(worker, cell)):
                        rounds.setdefault((cell.comparison, number), []).append(turn)
                    self._judge(worker, cell)
        for (comparison, number), turns in rounds.items():
            order = [turn.cell for turn in turns]
            stretch = _together([turn.stretch for turn in turns])
            self._close(comparison, number, order, stretch, sum(turn.faults for turn in turns))

    def _turns(self, worker: Worker, cell: Cell) -> list[_Turn]:
        """Time the slots of one cell in a row, until it fails; one for each round."""
        turns: list[_Turn] = []
        for number in range(self.rounds):
            if cell.id in self.parent.failed:
                break
            noise_of_turn = Noise(worker.cores, cell.device)
            noise_of_turn.begin([worker.process])
            worker.process.resume()
            slices = self._slot(worker, cell)
            if not slices:
                break
            worker.process.park()
            noise_of_turn.boundary()
            stretch = noise_of_turn.end([worker.process])
            turns.append(_Turn(cell, stretch, self._keep(worker, cell, number, slices)))
        return turns

    # -- one worker ---------------------------------------------------------------------------

    def _start(self, stack: ExitStack, arm: Arm, cells: Sequence[Cell]) -> Worker | None:
        starting = self.parent.workers.start(
            arm, cells[0], purpose=self.residency, block=self.number
        )
        try:
            return stack.enter_context(starting)
        except StartFailure as failure:
            for cell in cells:
                self.parent.fail(cell, failure)
            return None

    def _alive(self, stack: ExitStack, worker: Worker, cells: Sequence[Cell]) -> Worker | None:
        """Return the worker, or a new one of its arm if one of the arm's ``cells`` ended it.

        That cell has failed; the other cells are still measured in the same block.
        """
        if worker.process.alive:
            return worker
        cells_left = [cell for cell in cells if cell.id not in self.parent.failed]
        return self._start(stack, worker.arm, cells_left)

    def _ready(self, worker: Worker, cell: Cell) -> bool:
        """Load the case, run first steps and warm-up, park; return False if the cell failed."""
        self.parent.stage(f"block {self.number}: {cell.title}: warm-up")
        worker.process.resume()
        try:
            startup = worker.start_up(cell, self.parent.cases[cell.id])
            warm = worker.warm_up(cell, self.parent.suite.effort)
            # A framework that prepares something for this number of steps does so here.
            worker.steps(
                cell, self.parent.calibrations[cell.id].slice_steps + self._extra(worker, cell)
            )
        except WorkerFailure as failure:
            self.parent.fail(cell, failure)
            if worker.process.alive:
                worker.process.park()
            return False
        worker.process.park()
        self.parent.run.append(
            StartupRecord(
                cell=cell.id,
                process=worker.number,
                warm_up_seconds=warm.warm_up_seconds,
                warm_up_steps=warm.warm_up_steps,
                capped=warm.capped,
                **vars(startup),
            )
        )
        return True

    def _extra(self, worker: Worker, cell: Cell) -> int:
        return round(self.parent.calibrations[cell.id].slice_steps * worker.arm.planted)

    def _slot(self, worker: Worker, cell: Cell) -> Mapping[str, Slice]:
        """Time one turn; return its slices by kind, or none if the cell failed."""
        kinds = self._kinds(worker, cell)
        self.generator.shuffle(kinds)
        try:
            slot = worker.slot(
                cell,
                self.parent.calibrations[cell.id].slice_steps,
                extra=self._extra(worker, cell),
                kinds=kinds,
                rewarm_seconds=self.parent.suite.effort.rewarm_seconds,
            )
        except WorkerFailure as failure:
            self.parent.fail(cell, failure)
            return {}
        outcome = Outcome(
            (
                affinity_check(worker.process.affinity(), worker.cores),
                tree_check([slot.use], cell.threads),
                recompilation_check(slot.reply.compiled),
            )
        )
        if not outcome.passed:
            # This record keeps the timings of the cell out of the results.
            self.parent.run.append(
                CheckRecord(
                    cell=cell.id,
                    process=worker.number,
                    passed=outcome.passed,
                    checks=outcome.to_json(),
                )
            )
            self.parent.fail(cell, WorkerFailure("failed", outcome.reason))
            return {}
        self.slots.setdefault(cell.id, []).append(slot)
        return slot.reply.slices

    def _judge(self, worker: Worker, cell: Cell) -> None:
        """Run the closing gate, in the first block that measures the cell."""
        closing, slots = self.parent.closing, self.slots.get(cell.id, [])
        over = cell.id in closing.closed or cell.id in self.parent.failed
        if over or not slots or not worker.process.alive:
            return
        calibration = self.parent.calibrations[cell.id]
        worker.process.resume()
        began = time.monotonic()
        try:
            status, reason = closing.close(
                worker,
                cell,
                slots=slots,
                slice_steps=calibration.slice_steps,
                step_seconds=calibration.step_seconds,
                kinds=self._kinds(worker, cell),
            )
        except WorkerFailure as failure:
            status, reason = failure.status, failure.reason
        self.parent.closing_seconds += time.monotonic() - began
        if worker.process.alive:
            worker.process.park()
        if status != "ok":
            self.parent.fail(cell, WorkerFailure(status, reason))

    def _kinds(self, worker: Worker, cell: Cell) -> list[str]:
        step_seconds = self.parent.calibrations[cell.id].step_seconds
        return statistics_of(worker.arm, self.parent.suite, cell, step_seconds)

    def _keep(self, worker: Worker, cell: Cell, number: int, slices: Mapping[str, Slice]) -> int:
        """Append the slices to the records; return their major page faults."""
        for statistic, part in slices.items():
            self.parent.run.append(
                SliceRecord(
                    cell=cell.id,
                    process=worker.number,
                    block=self.number,
                    round=number,
                    statistic=statistic,
                    steps=self.parent.calibrations[cell.id].slice_steps,
                    **vars(part),
                )
            )
        return sum(part.major_faults or 0 for part in slices.values())


def _together(stretches: Sequence[Stretch]) -> Stretch:
    """Combine the noise of several stretches into that of one; seconds add up.

    The canaries of the stretches are listed next to each other, as those of several cores are.
    Only a change within a stretch counts, since no two stretches were at the same time.
    """
    canaries = [
        [seconds for stretch in stretches for seconds in stretch.canaries[boundary]]
        for boundary in (0, -1)
    ]
    loads = [stretch.other for stretch in stretches]
    added = replace(
        loads[-1],
        wall_seconds=sum(load.wall_seconds for load in loads),
        foreign_seconds=sum(load.foreign_seconds for load in loads),
        steal_seconds=sum(load.steal_seconds for load in loads),
        throttled_seconds=sum(load.throttled_seconds or 0.0 for load in loads),
        pressure_seconds=sum(load.pressure_seconds or 0.0 for load in loads),
    )
    return replace(stretches[-1], canaries=canaries, other=added)
