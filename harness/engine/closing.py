"""The closing gate: judges a timed process again after its last slice.

The gate of the qualification judges a process before it is timed. The closing gate judges a timed
process, in the first block that measures a cell. It compares the slices with each other. It also
compares the answers after many unread steps with those of the reference
(:mod:`reference.closing`). No slice of a cell counts without the closing gate. A cell that fails
it ends as ``wrong`` or ``failed``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.engine.workers import Worker
from harness.errors import WorkerFailure
from harness.plan.arms import Arm
from harness.plan.cells import Cell
from harness.proof.answer_size import answer_bytes, closing_bytes
from harness.proof.cases import CaseFile, Cases
from harness.proof.checks import first_visit_check, fresh_check, slices_checks
from harness.proof.closing_gate import judge_closing, judge_kept
from harness.proof.outcome import Check, Outcome
from harness.records.kinds import ClosingRecord
from harness.records.store import Run
from reference.case import Case
from reference.closing import READ, Closing

# Noise can only lengthen a step on a new input set, and a fresh load makes all sets new again.
VISIT_ATTEMPTS = 4
# Passes over the input sets between the first answers and the judged ones, as many as fit into the
# seconds. Their number is odd, so that a loop that runs half of its steps ends at another set.
PASSES_SECONDS, MOST_PASSES = 0.5, 25
# (check, its fresh seconds in the reply, the kind of slice to compare them with).
_FRESH = (
    ("as after a load", "again_seconds", "latency"),
    ("as after a load, first token", "again_token_seconds", "first_token"),
)
FEWEST_FRESH = 4  # with fewer fresh steps, their least seconds are not trusted
# Phase -> check -> the name in the reply of the seconds of first and repeated visits.
_VISITS: Mapping[str, Mapping[str, str]] = {
    "training": {},
    "inference": {"first visit": "seconds"},
    "generation": {"first visit": "seconds", "first visit, first token": "token_seconds"},
}


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
        slots: Sequence[Mapping[str, Any]],
        slice_steps: int,
        step_seconds: float,
        kinds: Sequence[str],
    ) -> tuple[str, str]:
        """Return ("ok", "") or the status in which the cell ends, with its reason.

        ``slots``: replies of ``Worker.slot`` of this process. ``step_seconds``: the seconds of a
        step, which bound the number of unread steps. Raises WorkerFailure.
        """
        self.stage(f"{cell.title}: closing gate")
        timed = slices_checks(slots, steps=slice_steps, threads=cell.threads, device=cell.device)
        begun = time.perf_counter()
        solved = self.cases.closing(cell)
        reference_seconds = time.perf_counter() - begun
        kept = self._kept(worker, cell)
        answers, clocked = self._answers(
            worker,
            cell,
            solved,
            kinds=kinds,
            step_seconds=step_seconds,
            slots=slots,
            slice_steps=slice_steps,
        )
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
                worker_seconds=time.perf_counter() - begun - reference_seconds,
                note=solved[2].note or None,
            )
        )
        for status in ("wrong", "failed"):
            if outcomes[status].reason:
                return status, f"after its last slice: {outcomes[status].reason}"
        self.closed.add(cell.id)
        return "ok", ""

    def _kept(self, worker: Worker, cell: Cell) -> Sequence[Check]:
        """Compare the answers of the timed load with the reference, except for training.

        The reference cannot follow so long a training.
        """
        if cell.phase == "training":
            return ()
        _, case, answers = self.cases.solved(cell)
        got = worker.kept(cell, limit_bytes=answer_bytes(case, answers))
        return judge_kept(case, answers, got, phase=cell.phase, numeric=cell.numeric).checks

    def _answers(
        self,
        worker: Worker,
        cell: Cell,
        solved: tuple[CaseFile, Case, Closing],
        *,
        kinds: Sequence[str],
        step_seconds: float,
        slots: Sequence[Mapping[str, Any]],
        slice_steps: int,
    ) -> tuple[Outcome, list[Check]]:
        """Check the answers after a fresh load, and the seconds that they took."""
        path, case, closing = solved
        training = cell.phase == "training"
        sets = len(case.inputs)
        passes = int(min(PASSES_SECONDS / (step_seconds * sets), MOST_PASSES))
        unread = closing.unread if training else sets * (passes // 2 * 2 + 1)
        for _ in range(VISIT_ATTEMPTS):
            worker.load(cell, path)
            worker.compile(cell)
            got, seconds = worker.closing(
                cell,
                kinds=kinds,
                unread=unread,
                read=READ,
                limit_bytes=closing_bytes(case, closing),
            )
            visits = []
            for title, kind in _VISITS[cell.phase].items():
                first, again = seconds[f"first_{kind}"], seconds[f"again_{kind}"]
                if not len(first) == len(again) == sets:
                    raise WorkerFailure(
                        "failed", f"the reply to 'closing' lacks the seconds of {sets} input sets"
                    )
                visits.append(replace(first_visit_check(first, again), name=title))
            visits += _as_fresh(slots, seconds, slice_steps, worker.arm)
            outcome = judge_closing(case, closing, got, phase=cell.phase, numeric=cell.numeric)
            # A wrong answer is not due to noise, and on a second try the process has already seen
            # all sets.
            if not outcome.passed or all(check.passed for check in visits):
                break
        return outcome, visits


def _as_fresh(
    slots: Sequence[Mapping[str, Any]], seconds: Mapping[str, Any], slice_steps: int, arm: Arm
) -> Iterator[Check]:
    """Compare the steps of the slices with those after a fresh load, fenced steps if there are any.

    A step too short to be fenced alone is compared with an unfenced one. An arm that is never
    fenced after single steps has fixed costs per slice, which a few fresh steps do not amortise.
    """
    for title, kind, statistic in _FRESH:
        timed = [
            each
            for slot in slots
            for each in slot["slices"].get(statistic, {}).get("step_seconds") or ()
        ]
        if timed and len(seconds[kind]) >= FEWEST_FRESH:
            yield replace(fresh_check(timed, seconds[kind]), name=title)
    fenced = any("latency" in slot["slices"] for slot in slots)
    if "latency" in arm.mode.statistics and not fenced and seconds["fresh_seconds"]:
        timed = [slot["slices"]["throughput"]["seconds"] / slice_steps for slot in slots]
        yield fresh_check(timed, [seconds["fresh_seconds"]])
