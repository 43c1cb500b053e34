"""The requests to a running worker, each with its time limit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from levelfield.harness.engine.in_hand import InHand
from levelfield.harness.engine.process import WorkerProcess
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine.resources import cache_entries, make_folder, make_own_folders
from levelfield.harness.machine.scratch import remove, roomy
from levelfield.harness.plan.arms import Arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Effort, Limits
from levelfield.harness.proof.cases import CaseFile
from levelfield.harness.proof.checks import Slot
from levelfield.harness.proof.lessons import Lesson
from levelfield.harness.proof.replies import (
    ENTRY_BYTES,
    AnswerReply,
    AnyReply,
    CalibrateReply,
    CheckFenceReply,
    CheckHandlesReply,
    ClosingReply,
    CompileReply,
    FirstStepsReply,
    KeptReply,
    LearnReply,
    LoadReply,
    MemoryReply,
    ProfileReply,
    SlotReply,
    StepsReply,
    WarmUpReply,
    read_arrays,
)


@dataclass(frozen=True)
class StartUp:
    """The start of a cell in a process; fields of a ``startup`` record."""

    build_seconds: float
    compile_seconds: float | None
    first_step_seconds: float
    second_step_seconds: float
    new_cache_entries: int


@dataclass(frozen=True)
class Worker:
    """A running worker. Every request may raise WorkerFailure with the status of its cell.

    ``cores``: those on which it is timed. ``lane_cores``: those of its lane, on which it does all
    else; they are the same in the first lane.
    """

    process: WorkerProcess
    arm: Arm
    number: int
    cores: tuple[int, ...]
    lane_cores: tuple[int, ...]
    scratch: Path  # its arm's own folder
    own: Path  # the folder of this process alone
    limits: Limits
    in_hand: InHand
    stages: Mapping[str, MemoryReply]  # of interpreter and import, if they were requested

    @property
    def cache(self) -> Path:
        """The arm's private cache."""
        return self.scratch / "cache"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the machine alone, for what is timed. Other lanes go on after it."""
        with self.process.alone():
            self.process.move(self.lane_cores, self.cores)
            try:
                yield
            finally:
                self.process.move(self.cores, self.lane_cores)

    @contextmanager
    def _held(self, cell: Cell | None) -> Iterator[None]:
        """Keep a note in the run that names this arm, and ``cell`` if one is given.

        Raises NoRoom if a request fails because the disk is full.
        """
        with self.in_hand.held(self.arm.name, cell.id if cell else None), roomy(self.own):
            yield

    def _ask(
        self, kind: type[AnyReply], cell: Cell | None, timeout_seconds: float, **arguments: Any
    ) -> AnyReply:
        with self._held(cell):
            return self.process.ask(kind, timeout_seconds, **arguments)

    def load(self, cell: Cell, case: CaseFile) -> float:
        """Build the model and load a case -> seconds.

        If another arm damaged the folders of the run, the case and this arm's folders are restored
        first.
        """
        make_folder(self.cache)
        make_own_folders(self.own)
        reply = self._ask(
            LoadReply,
            cell,
            self.limits.load_seconds,
            case=str(case.intact()),
            optimizer=cell.optimizer or "sgd",
            module=None
            if self.arm.framework.generic
            else self.arm.framework.model_module(cell.model),
        )
        return reply.build_seconds

    def start_up(self, cell: Cell, case: CaseFile) -> StartUp:
        """Load, compile and run the first two steps."""
        build_seconds, entries = self.load(cell, case), cache_entries(self.cache)
        compiled, steps = self.compile(cell), self.first_steps(cell)
        return StartUp(
            build_seconds=build_seconds,
            compile_seconds=compiled.compile_seconds,
            first_step_seconds=steps.first_step_seconds,
            second_step_seconds=steps.second_step_seconds,
            new_cache_entries=cache_entries(self.cache) - entries,
        )

    def compile(self, cell: Cell) -> CompileReply:
        """Compile ahead of time, if the framework offers that."""
        return self._ask(CompileReply, cell, self.limits.compile_seconds, phase=cell.phase)

    def first_steps(self, cell: Cell) -> FirstStepsReply:
        """Run the first and the second step, each fenced."""
        return self._ask(FirstStepsReply, cell, self.limits.compile_seconds, phase=cell.phase)

    def answer(
        self, cell: Cell, *, rounds: int, graded: int, steps: int, limit_bytes: int
    ) -> dict[str, NDArray[Any]]:
        """Return the arm's answers for the gate, by name; they take ``limit_bytes`` at most.

        ``rounds``: rounds over the input sets whose outputs are computed. ``graded``: the number of
        sets whose gradients are computed. ``steps``: training steps.
        """
        with self._answers(cell) as path:
            self.process.ask(
                AnswerReply,
                self.limits.compile_seconds,
                phase=cell.phase,
                rounds=rounds,
                graded=graded,
                steps=steps,
                path=str(path),
            )
            return read_arrays(path, limit_bytes=limit_bytes)

    @contextmanager
    def _answers(self, cell: Cell) -> Iterator[Path]:
        """Yield the path where the arm writes arrays.

        Its folder is empty, so that no earlier file is mistaken for the answers. The note in the
        run stays until the answers have been read.
        """
        folder = self.scratch / "answers"
        remove(folder)
        folder.mkdir(parents=True)
        with self._held(cell):
            yield folder / "answer.npz"
        remove(folder)

    def warm_up(self, cell: Cell, effort: Effort) -> WarmUpReply:
        """Run steps until steady."""
        return self._ask(
            WarmUpReply,
            cell,
            self.limits.step_seconds + effort.warm_up_cap_seconds,
            phase=cell.phase,
            seconds=effort.warm_up_seconds,
            steps=effort.warm_up_steps,
            slice_seconds=effort.slice_seconds,
            cap_seconds=effort.warm_up_cap_seconds,
        )

    def calibrate(self, cell: Cell, step_seconds: float, effort: Effort) -> CalibrateReply:
        """Cut slices of steps that take ``step_seconds``."""
        return self._ask(
            CalibrateReply,
            cell,
            self.limits.step_seconds,
            phase=cell.phase,
            step_seconds=step_seconds,
            slice_seconds=effort.slice_seconds,
        )

    def check_fence(
        self, cell: Cell, *, steps: int, repeats: int, budget_seconds: float
    ) -> CheckFenceReply:
        """Return seconds that show whether the fence of ``steps`` steps waits for everything."""
        return self._ask(
            CheckFenceReply,
            cell,
            self.limits.step_seconds + budget_seconds,
            phase=cell.phase,
            steps=steps,
            repeats=repeats,
            budget_seconds=budget_seconds,
        )

    def slot(
        self,
        cell: Cell,
        steps: int,
        *,
        extra: int,
        kinds: Sequence[str],
        rewarm_seconds: float | None,
    ) -> Slot:
        """Time a slice of each kind.

        ``rewarm_seconds``: how long to warm up after parking; None for not at all.
        """
        with self._held(cell), self.process.counted() as use:
            begin = time.perf_counter()
            reply = self.process.ask(
                SlotReply,
                self.limits.step_seconds,
                phase=cell.phase,
                steps=steps,
                extra=extra,
                kinds=list(kinds),
                rewarm_seconds=rewarm_seconds,
            )
            host_seconds = time.perf_counter() - begin
        return Slot(reply, host_seconds, use)

    def check_handles(
        self, cell: Cell, *, repeats: int, budget_seconds: float
    ) -> CheckHandlesReply:
        """Return seconds that show whether earlier steps are computed when the last is fenced."""
        return self._ask(
            CheckHandlesReply,
            cell,
            self.limits.step_seconds + budget_seconds,
            phase=cell.phase,
            repeats=repeats,
            budget_seconds=budget_seconds,
        )

    def kept(self, cell: Cell, *, limit_bytes: int) -> dict[str, NDArray[Any]]:
        """Return the answers of the timed load, by name; they take ``limit_bytes`` at most."""
        with self._answers(cell) as path:
            self.process.ask(
                KeptReply, self.limits.compile_seconds, phase=cell.phase, path=str(path)
            )
            return read_arrays(path, limit_bytes=limit_bytes)

    def closing(
        self, cell: Cell, *, kinds: Sequence[str], unread: int, read: int, limit_bytes: int
    ) -> tuple[dict[str, NDArray[Any]], ClosingReply]:
        """Return the arm's answers after its last slice, by name, and the seconds that they took.

        The arrays take ``limit_bytes`` at most.
        """
        with self._answers(cell) as path:
            reply = self.process.ask(
                ClosingReply,
                self.limits.compile_seconds,
                phase=cell.phase,
                kinds=list(kinds),
                unread=unread,
                read=read,
                path=str(path),
            )
            return read_arrays(path, limit_bytes=limit_bytes), reply

    def steps(self, cell: Cell, steps: int) -> None:
        """Run untimed steps, fenced."""
        self._ask(StepsReply, cell, self.limits.step_seconds, phase=cell.phase, steps=steps)

    def learn(
        self, cell: Cell, lesson: Lesson
    ) -> tuple[tuple[float, ...], dict[str, NDArray[Any]]]:
        """Train on a loaded lesson -> loss of each epoch's last step, outputs on its tests."""
        specs = lesson.case.summary.outputs
        shapes = {
            f"output/{epoch}/{number}/{spec.name}": spec.shape
            for epoch in range(lesson.epochs)
            for number in range(lesson.test_sets)
            for spec in specs
        }
        with self._answers(cell) as path:
            reply = self.process.ask(
                LearnReply,
                self.limits.step_seconds + self.limits.compile_seconds,
                epochs=lesson.epochs,
                train_sets=lesson.train_sets,
                test_sets=lesson.test_sets,
                path=str(path),
            )
            limit = sum(ENTRY_BYTES + 8 * math.prod(shape) for shape in shapes.values())
            outputs = read_arrays(path, limit_bytes=limit)
        if {name: value.shape for name, value in outputs.items()} != shapes:
            raise WorkerFailure(
                "failed", f"its outputs on the test data are not {len(shapes)} arrays of {specs}"
            )
        return reply.train_losses, outputs

    def profile(self, cell: Cell, steps: int, folder: Path) -> ProfileReply:
        """Run untimed steps under the framework's own profiler, which puts its trace in ``folder``.

        The folder is made empty. The adapter may load and compile again.
        """
        remove(folder)
        make_folder(folder)
        limits = self.limits
        return self._ask(
            ProfileReply,
            cell,
            limits.load_seconds + 2 * limits.compile_seconds + 3 * limits.step_seconds,
            phase=cell.phase,
            steps=steps,
            folder=str(folder),
        )

    def memory(self) -> MemoryReply:
        """Return the peak memory since the last call, and begin again."""
        return self._ask(MemoryReply, None, self.limits.load_seconds)
