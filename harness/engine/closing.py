"""The closing gate: judges a timed process again after its last slice.

The gate of the qualification judges a process before it is timed. The closing gate judges a timed
process, in the first block that measures a cell. It compares the slices with each other. It also
compares the answers after many unread steps with those of the reference
(:mod:`levelfield.reference.closing`). No slice of a cell counts without the closing gate. A cell
that fails it ends as ``wrong`` or ``failed``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from levelfield.harness.engine.requests import Worker
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.plan.arms import Arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.proof.answer_size import answer_bytes, closing_bytes
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.proof.checks import (
    Slot,
    clock_checks,
    first_visit_check,
    fresh_check,
    slices_checks,
)
from levelfield.harness.proof.closing_gate import judge_closing, judge_kept
from levelfield.harness.proof.outcome import Check, Outcome
from levelfield.harness.proof.replies import ClosingReply
from levelfield.harness.records.kinds import ClosingRecord
from levelfield.harness.records.store import Run
from levelfield.reference.case import Case
from levelfield.reference.closing import READ, Closing

# Noise can only lengthen a step on a new input set, and a fresh load makes all sets new again.
VISIT_ATTEMPTS = 4
CLOCK_ATTEMPTS = 10  # further slices, of which one must not be disturbed
# A training may pass near a tie of a ReLU, and rounding decides which way it takes. With one of a
# few choices of input sets, a right arm meets no such tie. An arm that disagrees by chance with one
# choice in ten is refused in one cell of a thousand.
CLOSING_DRAWS = 3
# Passes over the input sets between the first answers and the judged ones, as many as fit into the
# seconds. Their number is odd, so that a loop that runs half of its steps ends at another set.
PASSES_SECONDS, MOST_PASSES = 0.5, 25
FEWEST_FRESH = 4  # with fewer fresh steps, their least seconds are not trusted


@dataclass
class ClosingGate:
    """Closes the cells of one run. ``closed``: ids of the cells that passed it."""

    run: Run
    cases: Cases
    stage: Callable[[str], None]
    closed: set[str] = field(default_factory=set)

    def close(
        self,
        worker: Worker,
        cell: Cell,
        *,
        slots: Sequence[Slot],
        slice_steps: int,
        step_seconds: float,
        kinds: Sequence[str],
    ) -> tuple[str, str]:
        """Return ("ok", "") or the status in which the cell ends, with its reason.

        ``slots``: those of this process. ``step_seconds``: the seconds of a step, which bound the
        number of unread steps. Raises WorkerFailure.
        """
        self.stage(f"{cell.title}: closing gate")
        timed = self._timed(worker, cell, slots, slice_steps=slice_steps, kinds=kinds)
        start, reference_seconds = time.perf_counter(), 0.0
        kept = self._kept(worker, cell)
        for draw in range(CLOSING_DRAWS if cell.phase == "training" else 1):
            asked = time.perf_counter()
            solved = self.cases.closing(cell, draw)
            reference_seconds += time.perf_counter() - asked
            answers, clocked = self._answers(
                worker,
                cell,
                solved,
                kinds=kinds,
                step_seconds=step_seconds,
                slots=slots,
                slice_steps=slice_steps,
            )
            if answers.passed:
                break
        outcomes = {
            "failed": Outcome((*timed, *clocked)),
            "wrong": Outcome((*kept, *answers.checks)),
        }
        self.run.append(
            ClosingRecord(
                cell=cell.id,
                process=worker.number,
                passed=all(outcome.passed for outcome in outcomes.values()),
                checks=[check for outcome in outcomes.values() for check in outcome.to_json()],
                reference_seconds=reference_seconds,
                worker_seconds=time.perf_counter() - start - reference_seconds,
                note=solved[2].note or None,
                draws=draw + 1,
            )
        )
        for status in ("wrong", "failed"):
            if outcomes[status].reason:
                return status, f"after its last slice: {outcomes[status].reason}"
        self.closed.add(cell.id)
        return "ok", ""

    def _timed(
        self,
        worker: Worker,
        cell: Cell,
        slots: Sequence[Slot],
        *,
        slice_steps: int,
        kinds: Sequence[str],
    ) -> list[Check]:
        """Compare the slices with each other, and the worker's clock with that of the host.

        On a busy machine the host waits longer than a short slice takes, and so does the worker
        before the end of a slice. More slices are taken before a clock is refused, and count for
        nothing else.
        """
        checks = slices_checks(slots, steps=slice_steps, threads=cell.threads, device=cell.device)
        clocked = list(slots)
        clocks = clock_checks(clocked, slice_steps)
        for _ in range(CLOCK_ATTEMPTS):
            if all(check.passed for check in clocks):
                break
            with worker.alone():
                clocked.append(
                    worker.slot(cell, slice_steps, extra=0, kinds=kinds, rewarm_seconds=None)
                )
            clocks = clock_checks(clocked, slice_steps)
        by_name = {check.name: check for check in clocks}
        return [by_name.get(check.name, check) for check in checks]

    def _kept(self, worker: Worker, cell: Cell) -> Sequence[Check]:
        """Compare the answers of the timed load with the reference, except for training.

        The reference cannot follow so long a training.
        """
        if cell.phase == "training":
            return ()
        _, case, answers = self.cases.solved(cell)
        arrays = worker.kept(cell, limit_bytes=answer_bytes(case, answers))
        return judge_kept(case, answers, arrays, phase=cell.phase, numeric=cell.numeric).checks

    def _answers(
        self,
        worker: Worker,
        cell: Cell,
        solved: tuple[CaseFile, Case, Closing],
        *,
        kinds: Sequence[str],
        step_seconds: float,
        slots: Sequence[Slot],
        slice_steps: int,
    ) -> tuple[Outcome, list[Check]]:
        """Check the answers after a fresh load, and the seconds that they took."""
        path, case, closing = solved
        training = cell.phase == "training"
        sets = len(case.inputs)
        passes = int(min(PASSES_SECONDS / (step_seconds * sets), MOST_PASSES))
        unread = closing.unread if training else sets * (passes // 2 * 2 + 1)
        for _ in range(VISIT_ATTEMPTS):
            with worker.alone():
                worker.load(cell, path)
                worker.compile(cell)
                arrays, reply = worker.closing(
                    cell,
                    kinds=kinds,
                    unread=unread,
                    read=READ,
                    limit_bytes=closing_bytes(case, closing),
                )
            checks = [
                *_visits(reply, cell.phase, sets),
                *_as_fresh(slots, reply, slice_steps, worker.arm, cell.threads),
            ]
            outcome = judge_closing(case, closing, arrays, phase=cell.phase, numeric=cell.numeric)
            # A wrong answer is not due to noise, and on a second try the process has already seen
            # all sets.
            if not outcome.passed or all(check.passed for check in checks):
                break
        return outcome, checks


def _visits(reply: ClosingReply, phase: str, sets: int) -> Iterator[Check]:
    """Check the first visits of each input set; a training visits no set for the first time."""
    visits = {
        "first visit": (reply.first_seconds, reply.again_seconds),
        "first visit, first token": (reply.first_token_seconds, reply.again_token_seconds),
    }
    names = {"training": (), "inference": ("first visit",), "generation": tuple(visits)}
    for name in names[phase]:
        first, again = visits[name]
        if not len(first) == len(again) == sets:
            raise WorkerFailure(
                "failed", f"the reply to 'closing' lacks the seconds of {sets} input sets"
            )
        yield replace(first_visit_check(first, again), name=name)


def _as_fresh(
    slots: Sequence[Slot], reply: ClosingReply, slice_steps: int, arm: Arm, threads: int
) -> Iterator[Check]:
    """Compare the steps of the slices with those after a fresh load, fenced steps if there are any.

    The machine may be busier now than it was in the slices. The seconds in which threads waited for
    a core are left out of the fresh steps.

    A step too short to be fenced alone is compared with an unfenced one. An arm that is never
    fenced after single steps has fixed costs per slice, which a few fresh steps do not amortise.
    """
    share = reply.undisturbed(threads)
    for name, statistic, fresh in (
        ("as after a load", "latency", reply.again_seconds),
        ("as after a load, first token", "first_token", reply.again_token_seconds),
    ):
        slices = [slot.reply.slices[statistic] for slot in slots if statistic in slot.reply.slices]
        timed = [seconds for part in slices for seconds in part.step_seconds or ()]
        if timed and len(fresh) >= FEWEST_FRESH:
            yield replace(fresh_check(timed, [share * one for one in fresh]), name=name)
    fenced = any("latency" in slot.reply.slices for slot in slots)
    if "latency" in arm.mode.statistics and not fenced and reply.fresh_seconds:
        timed = [slot.reply.slices["throughput"].seconds / slice_steps for slot in slots]
        yield fresh_check(timed, [share * reply.fresh_seconds])
