"""The case files of a run: drawn once, solved by the reference, shared by all arms."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import RunFailed
from harness.lessons import Lesson, draw_lesson
from harness.process import completed
from harness.suite import Cell, Suite
from reference.case import Answers, Case, draw_case, read_answers, write_case
from reference.closing import Closing, closing_case, read_closing


@dataclass
class Cases:
    """Writes below ``scratch`` and remembers; the answers stay with the host."""

    suite: Suite
    scratch: Path
    _solved: dict[tuple[str, str, int], tuple[Path, Case, Answers]] = field(default_factory=dict)
    _closings: dict[tuple[str | int, ...], tuple[Path, Case, Closing]] = field(default_factory=dict)
    _lessons: dict[tuple[str, str, int, int], tuple[Path, Lesson] | str] = field(
        default_factory=dict
    )

    def solved(self, cell: Cell) -> tuple[Path, Case, Answers]:
        """The case of a cell, solved by the reference in a process of its own.

        Raises RunFailed if the reference cannot.
        """
        key = (cell.model, cell.preset, cell.batch)
        if key not in self._solved:
            folder = self._folder("case", key)
            model, preset, batch = map(str, key)
            printed = self._reference(
                "reference",
                *(model, preset, batch, str(self.suite.seed), str(folder)),
                ",".join(self.suite.phases),
                *self.suite.optimizers,
            )
            case = draw_case(
                cell.model,
                cell.preset,
                self.suite.seed,
                batch=cell.batch,
                attempt=int(printed),
            )
            answers = read_answers(folder / "answers.npz")
            self._solved[key] = (folder / "case.npz", case, answers)
        return self._solved[key]

    def closing(self, cell: Cell) -> tuple[Path, Case, Closing]:
        """The closing case of a cell and what it must give, by the reference in its own process.

        Raises RunFailed if the reference cannot.
        """
        optimizer = cell.optimizer or ""
        key = (cell.model, cell.preset, cell.batch, cell.phase, optimizer)
        if key not in self._closings:
            gate, case, _ = self.solved(cell)
            folder = self._folder("closing", key)
            path, answers = folder / "case.npz", folder / "answers.npz"
            self._reference(
                "reference.closing",
                *(cell.model, cell.preset, str(cell.batch), str(self.suite.seed)),
                *(str(case.attempt), cell.phase, optimizer),
                *(str(gate.with_name("answers.npz")), str(path), str(answers)),
            )
            self._closings[key] = (path, closing_case(case), read_closing(answers))
        return self._closings[key]

    def _reference(self, module: str, *arguments: str) -> str:
        """Run a module of the reference in a process of its own -> what it prints."""
        # -P: nothing from the working folder
        command = [sys.executable, "-P", "-m", module, *arguments]
        done = completed(command)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            model, preset = arguments[:2]
            raise RunFailed(f"the reference could not solve {model}/{preset}: {last}")
        return done.stdout

    def doubled(self, cell: Cell) -> Path:
        """A case of twice the batch, to be timed and not to be judged."""
        folder = self._folder("doubled", (cell.model, cell.preset, 2 * cell.batch))
        path = folder / "case.npz"
        if not path.exists():
            write_case(
                draw_case(cell.model, cell.preset, self.suite.seed, batch=2 * cell.batch), path
            )
        return path

    def lesson(self, cell: Cell, seed: int) -> tuple[Path, Lesson] | str:
        """Data to learn from; a text says why there are none that fit the model."""
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
                path = self._folder("lesson", key) / "lesson.npz"
                write_case(lesson.case, path)
                self._lessons[key] = (path, lesson)
        return self._lessons[key]

    def _folder(self, what: str, key: tuple[str | int, ...]) -> Path:
        folder = self.scratch / "-".join(map(str, (what, *key)))
        folder.mkdir(exist_ok=True)
        return folder
