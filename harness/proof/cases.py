"""The case files of a run: drawn once, solved by the reference, shared by all arms.

The reference writes the answers into a folder of their own. After that they are only in the memory
of the host. The questions are files that all workers read and none may change. A file that was
changed or deleted is written again before the next worker reads it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine.cgroups import oom_kills
from levelfield.harness.machine.resources import memory_limit_bytes, reference_variables
from levelfield.harness.machine.scratch import refuse_full, remove, scratch_folder
from levelfield.harness.machine.supervised import completed
from levelfield.harness.machine.turns import Turns
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.proof.lessons import Expected, Lesson, draw_lesson, expected_curve
from levelfield.reference.answers import Answers, read_answers, write_answers
from levelfield.reference.case import Case, draw_case, write_case
from levelfield.reference.closing import Closing, closing_case, read_closing
from levelfield.reference.errors import without_number
from levelfield.reference.learning import RUNS, read_learned
from levelfield.reference.registry import outside_variables

Stamp = tuple[int, ...]
# Words of NumPy, XLA and their allocators when memory runs out.
_NO_MEMORY = ("MemoryError", "RESOURCE_EXHAUSTED", "bad_alloc", "Out of memory")


@dataclass
class CaseFile:
    """A case as workers read it, in a folder of its own; ``draw`` gives its content again."""

    path: Path
    draw: Callable[[], Case]
    _stamp: Stamp | None = None

    def intact(self) -> Path:
        """Return the path of the file, after writing it again if it is missing or was changed."""
        if self._stamp is None or _stamp(self.path) != self._stamp:
            remove(self.path.parent)
            self.path.parent.mkdir(parents=True)
            write_case(self.draw(), self.path)
            self.path.chmod(0o444)
            self.path.parent.chmod(0o555)
            self._stamp = _stamp(self.path)
        return self.path


def _stamp(path: Path) -> Stamp:
    """Return a stamp of a file that differs after any change of it.

    It includes the time of the last change of state, which programs cannot set.
    """
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns
    return ()


def _failed(
    process: subprocess.CompletedProcess[str], *, out_of_memory: bool
) -> tuple[Literal["out-of-memory", "failed"], str]:
    """Return the status of a cell whose case was not solved, and why."""
    last = without_number((process.stderr.strip().splitlines() or [""])[-1])
    if process.returncode < 0:
        last = f"it died of {signal.Signals(-process.returncode).name}"
    if out_of_memory or any(word in process.stderr for word in _NO_MEMORY):
        return "out-of-memory", f"memory ran out ({last})"
    return "failed", last or f"it left with exit code {process.returncode}"


@dataclass
class Cases:
    """Writes case files below ``scratch`` and remembers them; the answers stay with the host.

    If two lanes of ``turns`` ask for the same work at the same time, the second one waits.
    """

    suite: Suite
    scratch: Path
    turns: Turns = field(default_factory=Turns)
    _solved: dict[tuple[str, str, int], tuple[CaseFile, Case, Answers]] = field(
        default_factory=dict
    )
    _closings: dict[tuple[str | int, ...], tuple[CaseFile, Case, Closing]] = field(
        default_factory=dict
    )
    _doubled: dict[tuple[str, str, int], CaseFile] = field(default_factory=dict)
    _lessons: dict[tuple[str, str, int, int], tuple[CaseFile, Lesson] | str] = field(
        default_factory=dict
    )
    _learned: dict[tuple[str, str, int, int, str], Expected] = field(default_factory=dict)
    _unsolved: dict[tuple[Any, ...], WorkerFailure] = field(default_factory=dict)
    _under_way: set[tuple[Any, ...]] = field(default_factory=set)

    def solved(self, cell: Cell) -> tuple[CaseFile, Case, Answers]:
        """Return the case of a cell, solved by the reference in a process of its own.

        Raises WorkerFailure if the reference cannot: that costs the cells of this case alone.
        """
        key = (cell.model, cell.preset, cell.batch)
        with self._by_one_lane("case", *key):
            if key not in self._solved:
                case, answers = self._solve(cell)
                self._solved[key] = (self._file("case", key, lambda: case), case, answers)
        return self._solved[key]

    @contextlib.contextmanager
    def _by_one_lane(self, *work: Any) -> Iterator[None]:
        """Wait until no other lane does this work, then do it."""
        self.turns.wait_until(lambda: work not in self._under_way)
        self._under_way.add(work)
        try:
            yield
        finally:
            self._under_way.discard(work)

    def _solve(self, cell: Cell) -> tuple[Case, Answers]:
        # This folder is unknown to the workers, and deleted before the case is available to them.
        with scratch_folder() as folder:
            printed = self._reference(
                ("levelfield.reference", cell.model, cell.preset, cell.batch),
                *(cell.model, cell.preset, str(cell.batch), str(self.suite.seed), str(folder)),
                ",".join(self.suite.phases),
                *self.suite.optimizers,
            )
            answers = read_answers(folder / "answers.npz")
        case = draw_case(
            cell.model,
            cell.preset,
            self.suite.seed,
            batch=cell.batch,
            attempt=int(printed),
        )
        return case, answers

    def closing(self, cell: Cell, draw: int = 0) -> tuple[CaseFile, Case, Closing]:
        """Return the closing case of a cell, solved by the reference in a process of its own.

        ``draw`` numbers the choices of its further input sets. Raises WorkerFailure if the
        reference cannot.
        """
        optimizer = cell.optimizer or ""
        key = (cell.model, cell.preset, cell.batch, cell.phase, optimizer, draw)
        with self._by_one_lane("closing", *key):
            if key not in self._closings:
                _, case, answers = self.solved(cell)
                with scratch_folder() as folder:
                    gate, closing = folder / "gate.npz", folder / "answers.npz"
                    write_answers(answers, gate)
                    self._reference(
                        ("levelfield.reference.closing", *key),
                        *(cell.model, cell.preset, str(cell.batch), str(self.suite.seed)),
                        *(str(case.attempt), cell.phase, optimizer, str(draw)),
                        *(str(gate), str(closing)),
                    )
                    expected = read_closing(closing)
                final_case = closing_case(case, draw)
                self._closings[key] = (
                    self._file("closing", key, lambda: final_case),
                    final_case,
                    expected,
                )
        return self._closings[key]

    def _reference(self, task: tuple[Any, ...], *arguments: str) -> str:
        """Run a module of the reference in a process of its own -> what it prints.

        ``task``: the module, model, preset and batch, and whatever else distinguishes the task. A
        task that failed is not tried again for the next arm. The process may use as much memory as
        a worker, so that too large a case does not end other programs.
        """
        if task in self._unsolved:
            raise self._unsolved[task]
        module, model, preset, batch = task[:4]
        killed = oom_kills()
        process = completed(
            # -P: nothing from the working folder
            [sys.executable, "-P", "-m", module, *arguments],
            variables={**reference_variables(), **outside_variables()},
            memory_limit_bytes=memory_limit_bytes(self.suite.limits.memory_gib),
            turns=self.turns,
        )
        if process.returncode:
            status, reason = _failed(process, out_of_memory=oom_kills() != killed)
            refuse_full(self.scratch, reason)
            name = f"{model}/{preset} with batch {batch}"
            failure = WorkerFailure(status, f"the reference could not solve {name}: {reason}")
            self._unsolved[task] = failure
            raise failure
        return process.stdout

    def doubled(self, cell: Cell) -> CaseFile:
        """Return a case of twice the batch, which is timed but not judged."""
        key = (cell.model, cell.preset, 2 * cell.batch)
        if key not in self._doubled:
            model, preset, batch = key
            self._doubled[key] = self._file(
                "doubled", key, lambda: draw_case(model, preset, self.suite.seed, batch=batch)
            )
        return self._doubled[key]

    def drawn(self, cell: Cell) -> CaseFile:
        """Return a case of the cell's own batch, which is neither solved nor judged."""
        key = (cell.model, cell.preset, cell.batch)
        return self._file("drawn", key, lambda: draw_case(*key[:2], self.suite.seed, batch=key[2]))

    def lesson(self, cell: Cell, seed: int) -> tuple[CaseFile, Lesson] | str:
        """Return a lesson, or a text that says why no data fit the model."""
        key = (cell.model, cell.preset, cell.batch, seed)
        if key not in self._lessons:
            lesson = draw_lesson(
                cell.model,
                cell.preset,
                batch=cell.batch,
                seed=seed,
                epochs=self.suite.effort.accuracy_epochs,
            )
            if isinstance(lesson, str):
                self._lessons[key] = lesson
            else:
                case = lesson.case
                self._lessons[key] = (self._file("lesson", key, lambda: case), lesson)
        return self._lessons[key]

    def learned(self, cell: Cell, seed: int) -> Expected:
        """Return the expected curve of a seed's lesson, by the reference in a process of its own.

        The lesson must fit the model. Raises WorkerFailure if the reference cannot learn it.
        """
        optimizer = cell.optimizer or "sgd"
        key = (cell.model, cell.preset, cell.batch, seed, optimizer)
        with self._by_one_lane("lesson", *key):
            if key not in self._learned:
                drawn = self.lesson(cell, seed)
                assert not isinstance(drawn, str)
                _, lesson = drawn
                # The file that workers read is not used: a worker may have changed it.
                with scratch_folder() as folder:
                    path = folder / "case.npz"
                    write_case(lesson.case, path)
                    counts = str(lesson.epochs), str(lesson.train_sets)
                    self._reference(
                        ("levelfield.reference.learning", *key),
                        *(str(path), optimizer, *counts, str(folder)),
                    )
                    runs = [read_learned(folder / f"learned-{n}.npz") for n in range(RUNS)]
                curves = [lesson.curve(run.train_losses, run.outputs) for run in runs]
                self._learned[key] = expected_curve(curves)
        return self._learned[key]

    def _file(self, kind: str, key: tuple[str | int, ...], draw: Callable[[], Case]) -> CaseFile:
        folder = self.scratch / "cases" / "-".join(map(str, (kind, *key)))
        file = CaseFile(folder / "case.npz", draw)
        file.intact()
        return file
