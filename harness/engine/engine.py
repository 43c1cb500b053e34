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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from levelfield.harness.analysis import planning
from levelfield.harness.analysis.forecast import Cost
from levelfield.harness.engine import in_hand
from levelfield.harness.engine.blocks import Blocks
from levelfield.harness.engine.closing import ClosingGate
from levelfield.harness.engine.qualification import Qualification
from levelfield.harness.engine.qualifier import Qualifier, SpareCores
from levelfield.harness.engine.state import Budget, Done, Progress, Statuses
from levelfield.harness.engine.time_left import ForecastTimeLeft, TimeLeft
from levelfield.harness.engine.timing import Timing
from levelfield.harness.engine.workers import Workers
from levelfield.harness.environments.sealed import Resolution
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import ceilings, noise
from levelfield.harness.machine.ceilings import Ceiling
from levelfield.harness.machine.scratch import roomy, scratch_folder
from levelfield.harness.machine.turns import Turns
from levelfield.harness.plan.arms import Arm, get_arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.records.kinds import CeilingRecord, PauseRecord, SessionRecord
from levelfield.harness.records.store import Run, read_records


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
    costs: Mapping[str, Cost] | None = None  # that are expected of the cells, by id
    spare_cores: SpareCores = _no_cores

    def measure(self, cells: Sequence[Cell]) -> None:
        """Bring every cell to a status. Raises RunFailed only for faults of the host itself,
        NoRoom among them."""
        began = time.monotonic()
        work_done = Done.read(self.run)
        time_left = self._time_left()
        statuses = Statuses(self.run, self.progress, work_done.over, time_left)
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
            timed = self.timed or not self.only_gate
            rates = self._begin_session(cells_left, statuses) if timed and cells_left else []
            closing = ClosingGate(self.run, cases, statuses.stage, work_done.closed)
            twins = {cell.arm.removesuffix(TWIN) for cell in cells if cell.arm.endswith(TWIN)}
            qualification = Qualification(
                *(self.run, self.suite, cases, rates, statuses.stage, work_done.calibrations),
                *(self.cores, twins, timed),
            )
            qualifier = Qualifier(
                *(workers, closing, qualification, work_done, statuses),
                *(self.spare_cores, self.only_gate),
            )
            budget = Budget(began, self.budget_seconds)
            cells_left = qualifier.qualified_cells(cells_left, budget)
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
                timing = Timing(self.run, self.suite, blocks, work_done, statuses, budget)
                complete = timing.time(work_done.left(cells_left))
            if self.budget_seconds is not None and (not complete or work_done.left(cells)):
                self.run.append(PauseRecord(budget_seconds=self.budget_seconds))

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

    def _settled_unmeasured(self, arm: Arm, cell: Cell, statuses: Statuses) -> bool:
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
    def _case_files(cases: Cases, cells: Sequence[Cell], statuses: Statuses) -> dict[str, CaseFile]:
        """Return the files of the cells' cases; a cell whose case is not solved gets its status."""
        files = {}
        for cell in cells:
            try:
                files[cell.id] = cases.solved(cell)[0]
            except WorkerFailure as failure:
                statuses.failed(cell, failure)
        return files

    def _time_left(self) -> TimeLeft:
        blocks = (
            0 if self.only_gate else planning.most_blocks(self.suite.residency, self.suite.level)
        )
        if self.costs is None:
            return TimeLeft(blocks)
        return ForecastTimeLeft(blocks, costs=self.costs)

    def _begin_session(self, cells: Sequence[Cell], statuses: Statuses) -> list[Ceiling]:
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
