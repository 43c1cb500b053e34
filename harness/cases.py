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


@dataclass
class Cases:
    """Writes below ``scratch`` and remembers; the answers stay with the host."""

    suite: Suite
    scratch: Path
    _solved: dict[tuple[str, str, int], tuple[Path, Case, Answers]] = field(default_factory=dict)
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
            # -P: nothing from the working folder
            command = [sys.executable, "-P", "-m", "reference", model, preset, batch]
            command += [str(self.suite.seed), str(folder), *self.suite.optimizers]
            done = completed(command)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise RunFailed(f"the reference could not solve {model}/{preset}: {last}")
            case = draw_case(
                cell.model,
                cell.preset,
                self.suite.seed,
                batch=cell.batch,
                attempt=int(done.stdout),
            )
            answers = read_answers(folder / "answers.npz")
            self._solved[key] = (folder / "case.npz", case, answers)
        return self._solved[key]

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
