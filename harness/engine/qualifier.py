"""Qualifies the cells of a run arm by arm, in lanes that work side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from levelfield.harness.engine.blocks import statistics_of
from levelfield.harness.engine.closing import ClosingGate
from levelfield.harness.engine.energy import record_energy
from levelfield.harness.engine.lanes import LANE_BYTES, Group, Queue, prepare, run_side_by_side
from levelfield.harness.engine.memory import record_memory
from levelfield.harness.engine.qualification import SLOTS, Qualification
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.state import Budget, Done, Statuses
from levelfield.harness.engine.workers import StartFailure, Workers
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine.resources import memory_available_bytes, most_threads
from levelfield.harness.plan.arms import Arm, get_arm
from levelfield.harness.plan.cells import Cell

SpareCores = Callable[[int], AbstractContextManager[Sequence[int]]]


@dataclass
class Qualifier:
    """Qualifies the cells of a run: those of an arm in one process, several arms side by side.

    ``spare_cores``: called with a number of cores, yields at most so many further ones.
    ``only_gate``: stop after the gate, or if its checks are timed, after the closing gate.
    """

    workers: Workers
    closing: ClosingGate
    qualification: Qualification
    done: Done
    statuses: Statuses
    spare_cores: SpareCores
    only_gate: bool = False
    # Cells that ran out of time or memory next to other lanes, to be qualified once more.
    _again: list[Cell] = field(default_factory=list)
    _lanes_left: list[int] = field(default_factory=list)  # numbers of lanes that are at work

    def qualified_cells(self, cells: Sequence[Cell], budget: Budget) -> list[Cell]:
        """Qualify the cells that the budget reaches; return those of them that have no status.

        A budget reaches whole comparisons: those that were qualified before, and always another.
        """
        qualified_before, begun = set(self.done.calibrations), set[str]()

        def may_begin(group: Group) -> bool:
            if not qualified_before.issuperset(cell.id for cell in group.cells):
                if begun and group.comparison not in begun and budget.proofs_over():
                    return False
                begun.add(group.comparison)
            return True

        cores, turns = self.workers.cores, self.workers.turns
        groups = self._groups(cells, by_comparison=budget.seconds is not None)
        queue = Queue(groups, turns, may_begin)
        served = len({group.interpreter for group in groups})
        # Spare cores serve the reference where no second lane needs them.
        most_spare = len(cores) * (self._most_lanes(max(served, 2), cells) - 1)
        with self.spare_cores(most_spare) as spare:
            self.workers.spare_cores = spare
            lanes = [partial(self._qualify_all, queue)]
            lanes *= max(1, min(1 + len(spare) // len(cores), served))
            unqualified = [cell for cell in cells if cell.id not in qualified_before]
            # A budget may end before a case that was solved ahead is needed.
            if spare and budget.seconds is None:
                lanes.append(partial(self._prepare_all, unqualified))
            self.statuses.time_left.begin_proofs(unqualified)
            run_side_by_side(turns, lanes)
        # Nothing was wrong with these but that other lanes took time or memory.
        for group in self._groups(sorted(self._again, key=cells.index), by_comparison=False):
            self._qualify(group.arm, group.cells, last=True)
        reached = {cell.id for group in queue.handed_out for cell in group.cells}
        return self.done.left([cell for cell in cells if cell.id in reached])

    def _groups(self, cells: Sequence[Cell], *, by_comparison: bool) -> list[Group]:
        """Return the cells by the processes that qualify them."""
        if by_comparison:
            comparisons = [*dict.fromkeys(cell.comparison for cell in cells)]
            cells = sorted(cells, key=lambda cell: comparisons.index(cell.comparison))

        def process(cell: Cell) -> tuple[str, str, int]:
            return cell.comparison if by_comparison else "", cell.arm, cell.threads

        groups = []
        for (comparison, arm, _), group in groupby(cells, key=process):
            interpreter = self.workers.resolutions[arm].interpreter
            assert interpreter is not None
            groups.append(Group(comparison, get_arm(arm), interpreter, list(group)))
        return groups

    def _most_lanes(self, wanted: int, cells: Sequence[Cell]) -> int:
        """Return how many of the ``wanted`` lanes this machine can bear.

        A GPU cannot be parked. After a death of the host, one cell at a time is in hand, so that a
        second death names the one to blame.
        """
        if self.done.died or any(cell.device != "cpu" for cell in cells):
            return 1
        bearable = most_threads() // len(self.workers.cores), memory_available_bytes() // LANE_BYTES
        return max(1, min(wanted, *bearable))

    def _qualify_all(self, queue: Queue) -> None:
        """Qualify one group after another until the queue ends; what a lane does."""
        self._lanes_left.append(queue.turns.number)
        while True:
            with queue.next() as group:
                if group is None:
                    break
                self._qualify(group.arm, group.cells)
        self._lanes_left.remove(queue.turns.number)

    def _prepare_all(self, cells: Sequence[Cell]) -> None:
        """Solve the cases of cells before they are needed, until no lane is at work."""
        qualification = self.qualification
        tasks = prepare(
            qualification.cases, cells, qualification.lesson_seeds, timed=qualification.timed
        )
        for _ in tasks:
            if not self._lanes_left:
                break

    def _qualify(self, arm: Arm, cells: Sequence[Cell], *, last: bool = False) -> None:
        """Qualify all cells of an arm in one process; if it dies, the next cell gets a new one.

        ``last``: whether no other lane is at work, so that every failure is the cell's own.
        """
        cells_left = [cell for cell in cells if cell.id not in self.done.calibrations]
        purpose = "qualification" if self.qualification.timed else "gate"
        while cells_left:
            try:
                with self.workers.start(arm, cells_left[0], purpose=purpose) as worker:
                    while cells_left and worker.process.alive:
                        cell, began = cells_left.pop(0), time.monotonic()
                        outcome = self.qualification.qualify(worker, cell)
                        if self.only_gate and self.qualification.timed and outcome[0] == "ok":
                            outcome = self._closed_at_once(worker, cell)
                        if self._is_tried_again(cell, outcome[0], last=last):
                            continue
                        self._qualified(arm, cell, *outcome, log=worker.process.log.name)
                        self._note_seconds(cell, time.monotonic() - began)
                    if worker.process.alive:
                        peak = worker.memory().peak_bytes
                        self.done.peaks[arm.name] = max(peak or 0, self.done.peaks.get(arm.name, 0))
            except StartFailure as failure:
                # The failure came before any request for a cell, so all cells share it.
                for cell in cells_left:
                    if not self._is_tried_again(cell, failure.status, last=last):
                        self.statuses.failed(cell, failure)
                return
            except WorkerFailure:
                continue  # it died at the request for its memory: its cells have their statuses

    def _note_seconds(self, cell: Cell, seconds: float) -> None:
        """Note what a cell took, and what it will take in a block, for the estimate of time."""
        turn_seconds, effort = None, self.qualification.suite.effort
        if cell.id not in self.statuses.over and cell.id in self.done.calibrations:
            calibration = self.done.calibrations[cell.id]
            arm, suite = get_arm(cell.arm), self.qualification.suite
            slices = len(statistics_of(arm, suite, cell, calibration.step_seconds))
            turn_seconds = self.qualification.startup_seconds.get(cell.id, 0.0)
            turn_seconds += effort.warm_up_seconds + effort.rounds * (
                effort.rewarm_seconds + slices * calibration.slice_steps * calibration.step_seconds
            )
        self.statuses.time_left.proved(cell, seconds, turn_seconds)

    def _is_tried_again(self, cell: Cell, status: str, *, last: bool) -> bool:
        """Whether a cell is qualified again, because other lanes may be to blame."""
        again = status in ("timeout", "out-of-memory") and len(self._lanes_left) > 1 and not last
        if again:
            self._again.append(cell)
        return again

    def _closed_at_once(self, worker: Worker, cell: Cell) -> tuple[str, str]:
        """Run the closing gate after a few slices in the process that was qualified."""
        calibration, suite = self.done.calibrations[cell.id], self.qualification.suite
        try:
            with worker.alone():
                # The checks and the lesson have loaded other cases since this one was warm.
                worker.load(cell, self.qualification.cases.solved(cell)[0])
                worker.compile(cell)
                worker.steps(cell, calibration.slice_steps)
                slots = [self.qualification.slot(worker, cell, calibration) for _ in range(SLOTS)]
            return self.closing.close(
                worker,
                cell,
                slots=slots,
                slice_steps=calibration.slice_steps,
                step_seconds=calibration.step_seconds,
                kinds=statistics_of(worker.arm, suite, cell, calibration.step_seconds),
            )
        except WorkerFailure as failure:
            return failure.status, failure.reason

    def _qualified(self, arm: Arm, cell: Cell, status: str, reason: str, *, log: str) -> None:
        if status != "ok":
            self.statuses.finish(cell, status, reason, log)
            return
        if self.only_gate:
            return
        effort = self.qualification.suite.effort
        if effort.memory and not arm.suffix:
            self.statuses.stage(f"{cell.title}: memory")
            path, _, _ = self.qualification.cases.solved(cell)
            record_memory(
                self.workers,
                self.workers.run,
                arm,
                cell=cell,
                case=path,
                effort=effort,
            )
            record_energy(
                self.workers,
                self.workers.run,
                arm,
                cell=cell,
                case=path,
                slice_steps=self.done.calibrations[cell.id].slice_steps,
            )
