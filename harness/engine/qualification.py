"""Qualifies a cell before it is timed: start-up, gate, checks, calibration, accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from levelfield.harness.analysis import roofline
from levelfield.harness.engine.requests import Worker
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import ceilings
from levelfield.harness.machine.ceilings import Ceiling
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.proof import gate
from levelfield.harness.proof.answer_size import answer_bytes
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.proof.checks import (
    COMPUTE_BOUND,
    Slot,
    affinity_check,
    concurrency_check,
    doubled_check,
    fence_check,
    fence_steps,
    handles_check,
    recompilation_check,
    roofline_check,
    slices_checks,
    tree_check,
)
from levelfield.harness.proof.lessons import judge_curve
from levelfield.harness.proof.outcome import Check, Outcome
from levelfield.harness.proof.replies import AnyReply, CheckFenceReply, CheckHandlesReply
from levelfield.harness.records.kinds import (
    AccuracyRecord,
    CalibrationRecord,
    CeilingRecord,
    CheckedRecord,
    CheckRecord,
    EpochRecord,
    GateRecord,
    StartupRecord,
)
from levelfield.harness.records.store import Run

FENCE_REPEATS, FENCE_BUDGET_SECONDS, FENCE_ATTEMPTS = 15, 2.0, 10
# In tolerances. Sound arms next to two busy neighbours had errors of up to 4.2 after ten attempts,
# seeded faults of 19 and more. Beyond this limit, nine more attempts would change nothing.
HOPELESS = 20
# On a machine whose speed jumped by 40 %, sound arms needed up to two attempts. Each attempt costs
# two warm-ups.
DOUBLED_ATTEMPTS = 5
HANDLES_REPEATS, HANDLES_BUDGET_SECONDS, HANDLES_ATTEMPTS = 12, 0.5, 5
SLOTS, SLOTS_ATTEMPTS = 3, 3  # turns whose slices are compared with each other
CEILINGS_ATTEMPTS = 3
PLANTED_STEPS = 100  # in this many steps a planted slowdown is a whole number of steps
_CURVE = ("test_accuracy", "test_loss", "train_loss")  # as lessons.LESSON_CHECKS


@dataclass(frozen=True)
class Calibration:
    """The size of a cell's slices, frozen for the run."""

    step_seconds: float
    slice_steps: int
    fence_seconds: float


@dataclass
class Qualification:
    """Qualifies the cells of one run.

    ``ceilings``: those of the machine, maybe none. ``calibrations``: cell id -> its frozen slice,
    filled as cells pass. ``cores``: those to measure on. ``twins``: the arms that have an A/A twin.
    ``timed``: whether the checks of the measurement follow the gate.
    """

    run: Run
    suite: Suite
    cases: Cases
    ceilings: Sequence[Ceiling]  # measured again if an arm seems to exceed them
    stage: Callable[[str], None]
    calibrations: dict[str, Calibration]
    cores: Sequence[int]
    twins: Collection[str] = ()
    timed: bool = True
    startup_seconds: dict[str, float] = field(default_factory=dict)  # by cell id

    def qualify(self, worker: Worker, cell: Cell) -> tuple[str, str]:
        """Return ("ok", "") or the status in which the cell ends, with its reason."""
        began = time.monotonic()
        try:
            reason = self._prove(worker, cell)
            if reason:
                return "wrong", reason
            if not self.timed:
                return "ok", ""
            with worker.alone():
                reason = self._check(worker, cell)
            if reason:
                return "failed", reason
            if self.lesson_seeds(cell):
                reason = self._learn(worker, cell)
                if reason:
                    return "wrong", reason
            # Recorded last, because a resumed run qualifies a cell without calibration again.
            self.run.append(
                CalibrationRecord(
                    cell=cell.id,
                    process=worker.number,
                    qualified_seconds=time.monotonic() - began,
                    **vars(self.calibrations[cell.id]),
                )
            )
        except WorkerFailure as failure:
            return failure.status, failure.reason
        return "ok", ""

    def _prove(self, worker: Worker, cell: Cell) -> str:
        """Run start-up and gate; record the start-up times only if the gate is passed."""
        self.stage(f"{cell.title}: start-up")
        path, case, answers = self.cases.solved(cell)
        with worker.alone() if self.timed else nullcontext():
            began = time.monotonic()
            startup = worker.start_up(cell, path)
            self.startup_seconds[cell.id] = time.monotonic() - began
        self.stage(f"{cell.title}: gate")
        worker.load(cell, path)
        outcome = gate.judge(
            case,
            answers,
            worker.answer(
                cell,
                rounds=gate.ROUNDS,
                graded=len(answers.gradients),
                steps=answers.steps,
                limit_bytes=answer_bytes(case, answers),
            ),
            phase=cell.phase,
            optimizer=cell.optimizer,
            numeric=cell.numeric,
        )
        self._record(GateRecord, worker, cell, outcome)
        if outcome.passed:
            self.run.append(StartupRecord(cell=cell.id, process=worker.number, **vars(startup)))
        return outcome.reason

    def _check(self, worker: Worker, cell: Cell) -> str:
        """Warm up, calibrate, and check whether the measurement can be trusted."""
        effort = self.suite.effort
        self.stage(f"{cell.title}: checks")
        path, _, _ = self.cases.solved(cell)
        worker.load(cell, path)
        worker.compile(cell)
        warm = worker.warm_up(cell, effort)
        frozen = worker.calibrate(cell, warm.step_seconds, effort)
        steps = frozen.slice_steps
        if worker.arm.planted:
            steps = -(-steps // PLANTED_STEPS) * PLANTED_STEPS
        calibration = Calibration(warm.step_seconds, steps, frozen.fence_seconds)
        checked = fence_steps(warm.step_seconds, steps, frozen.read_seconds)
        checks = [self._fence(worker, cell, checked), self._handles(worker, cell)]
        checks += self._slices(worker, cell, calibration)
        checks.insert(0, affinity_check(worker.process.affinity(), worker.cores))
        checks += self._doubled(worker, cell, calibration)
        outcome = Outcome(tuple(checks))
        self._record(CheckRecord, worker, cell, outcome)
        if outcome.passed:
            self.calibrations[cell.id] = calibration
        return outcome.reason

    def _fence(self, worker: Worker, cell: Cell, steps: int) -> Check:
        """Check the fence of ``steps`` steps by the least seconds of at most ten attempts.

        A busy machine can only add to the seconds, so every attempt brings the least seconds nearer
        to the truth. Work that a broken fence lets pass shows in every attempt. The check says how
        many attempts there were.
        """
        replies: list[CheckFenceReply] = []
        while len(replies) < FENCE_ATTEMPTS:
            replies.append(
                worker.check_fence(
                    cell,
                    steps=steps,
                    repeats=FENCE_REPEATS,
                    budget_seconds=FENCE_BUDGET_SECONDS,
                )
            )
            check = fence_check(_least_seconds(replies), steps)
            if check.passed or check.error > HOPELESS * check.tolerance:
                break
        return _least_of(len(replies), check)

    def _handles(self, worker: Worker, cell: Cell) -> Check:
        """Check the handles by the least seconds of as many attempts as it takes.

        A busy machine can only add to the seconds.
        """
        replies: list[CheckHandlesReply] = []
        for _ in range(HANDLES_ATTEMPTS):
            replies.append(
                worker.check_handles(
                    cell, repeats=HANDLES_REPEATS, budget_seconds=HANDLES_BUDGET_SECONDS
                )
            )
            check = handles_check(_least_seconds(replies))
            if check.passed:
                break
        return check

    def _slices(self, worker: Worker, cell: Cell, calibration: Calibration) -> list[Check]:
        """Check a few slices; take more of them before the arm is refused."""
        slots: list[Slot] = []
        for _ in range(SLOTS_ATTEMPTS):
            slots += [self.slot(worker, cell, calibration) for _ in range(SLOTS)]
            checks = slices_checks(
                slots,
                steps=calibration.slice_steps,
                threads=cell.threads,
                device=cell.device,
            )
            checks.append(self._roofline(cell, slots, calibration.slice_steps))
            if all(check.passed for check in checks):
                break
        return [
            *checks,
            concurrency_check([slot.reply.slices["throughput"] for slot in slots], cell.threads),
            tree_check([slot.use for slot in slots], cell.threads),
            recompilation_check(sum(slot.reply.compiled for slot in slots)),
        ]

    def lesson_seeds(self, cell: Cell) -> range:
        """Return the seeds from which a cell is trained on data; none for most."""
        # A copy of an arm is only timed, so it is not trained.
        learns = cell.phase == "training" and not get_arm(cell.arm).suffix
        if not learns or not self.suite.effort.accuracy or not self.timed:
            return range(0)
        seeds = self.suite.effort.accuracy_seeds if cell.arm in self.twins else 1
        return range(self.suite.seed, self.suite.seed + seeds)

    def slot(self, worker: Worker, cell: Cell, calibration: Calibration) -> Slot:
        """Time a slice of each kind that the arm offers."""
        return worker.slot(
            cell,
            calibration.slice_steps,
            extra=0,
            kinds=worker.arm.mode.statistics,
            rewarm_seconds=self.suite.effort.rewarm_seconds,
        )

    def _roofline(self, cell: Cell, slots: Sequence[Slot], steps: int) -> Check:
        """Check that the arm is not faster than the machine can be.

        If it seems faster, the ceilings are measured again: on a busy machine the measured ceilings
        are too low.
        """
        seconds = median(slot.reply.slices["throughput"].seconds for slot in slots) / steps
        operations, least_bytes = self._work(cell)
        for attempt in range(CEILINGS_ATTEMPTS):
            rates = self._ceilings_of(cell)
            share = roofline.roofline_share(operations, least_bytes, seconds, rates)
            check = roofline_check(share)
            if check.passed or attempt + 1 == CEILINGS_ATTEMPTS:
                break
            self.stage(f"{cell.title}: best rates of this machine with {cell.threads} thread(s)")
            new_rates = ceilings.measured(cell.threads, self.cores[: cell.threads])
            # Recorded, so that the report compares the arm with the same ceilings as this check.
            for ceiling in new_rates:
                self.run.append(CeilingRecord(**vars(ceiling)))
            self.ceilings = [*self.ceilings, *new_rates]
        return check

    def _ceilings_of(self, cell: Cell) -> list[Ceiling]:
        """Ceilings of as many cores as the cell has; none on a GPU, where nothing was measured."""
        if cell.device != "cpu":
            return []
        return [ceiling for ceiling in self.ceilings if ceiling.threads == cell.threads]

    @staticmethod
    def _work(cell: Cell) -> tuple[int, int]:
        return roofline.work(
            cell.model, cell.preset, cell.batch, phase=cell.phase, optimizer=cell.optimizer
        )

    def _doubled(self, worker: Worker, cell: Cell, calibration: Calibration) -> list[Check]:
        """Check that twice the batch takes longer, if arithmetic explains a good part of the step.

        Overhead does not double. A machine that becomes faster between the two batches hides the
        cost of the larger one. Then both are timed again in turn, and the least seconds of each are
        compared.
        """
        rates = self._ceilings_of(cell)
        if not rates:
            return []
        work, _ = self._work(cell)
        bound = roofline.roofline_share(work, 0, calibration.step_seconds, rates)
        if not bound >= COMPUTE_BOUND:
            return []

        def seconds(file: CaseFile) -> float:
            worker.load(cell, file)
            worker.compile(cell)
            return worker.warm_up(cell, self.suite.effort).step_seconds

        once, twice = calibration.step_seconds, seconds(self.cases.doubled(cell))
        attempts = 1
        while not (check := doubled_check(once, twice)).passed and attempts < DOUBLED_ATTEMPTS:
            attempts += 1
            once = min(once, seconds(self.cases.solved(cell)[0]))
            twice = min(twice, seconds(self.cases.doubled(cell)))
        return [_least_of(attempts, check)]

    def _learn(self, worker: Worker, cell: Cell) -> str:
        """Train on data, test, and compare with the reference -> why the arm is wrong, or "".

        If the data do not fit the model, the record says so. The arm with an A/A twin is trained
        from several seeds; the spread between seeds is the noise floor for accuracy.
        """
        self.stage(f"{cell.title}: accuracy")
        checks: list[Check] = []
        for seed in self.lesson_seeds(cell):
            lesson = self.cases.lesson(cell, seed)
            if isinstance(lesson, str):
                self._record_accuracy(worker, cell, reason=lesson)
                return ""
            path, drawn = lesson
            worker.load(cell, path)
            curve = drawn.curve(*worker.learn(cell, drawn))
            for epoch, row in enumerate(curve):
                values = dict(zip(_CURVE, map(float, row), strict=True))
                self.run.append(
                    EpochRecord(
                        cell=cell.id, process=worker.number, seed=seed, epoch=epoch + 1, **values
                    )
                )
            steps = drawn.epochs * drawn.train_sets
            self._record_accuracy(worker, cell, seed=seed, train_steps=steps, **values)
            self.stage(f"{cell.title}: accuracy of the reference")
            checks += judge_curve(curve, self.cases.learned(cell, seed), seed=seed)
        outcome = Outcome(tuple(checks))
        self._record(CheckRecord, worker, cell, outcome)
        return outcome.reason

    def _record_accuracy(self, worker: Worker, cell: Cell, **values: Any) -> None:
        self.run.append(AccuracyRecord(cell=cell.id, process=worker.number, **values))

    def _record(
        self,
        kind: type[CheckedRecord],
        worker: Worker,
        cell: Cell,
        outcome: Outcome,
    ) -> None:
        self.run.append(
            kind(
                cell=cell.id,
                process=worker.number,
                passed=outcome.passed,
                checks=outcome.to_json(),
            )
        )


def _least_seconds(replies: Sequence[AnyReply]) -> AnyReply:
    """Return the least of each field of several replies, whose fields are all seconds."""
    return replace(
        replies[0],
        **{name: min(vars(reply)[name] for reply in replies) for name in vars(replies[0])},
    )


def _least_of(attempts: int, check: Check) -> Check:
    """Return the check with a note on the number of attempts, if there were several."""
    note = f"the least of {attempts} attempts" if attempts > 1 else ""
    return replace(check, note=", ".join(filter(None, (check.note, note))))
