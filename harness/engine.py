"""The engine: brings models and frameworks together, one process per arm, cell after cell.

Order of events for a cell: load, first steps (start-up), the gate, and only behind it warm-up,
slices, learning; then peak memory in a process of its own; then its one status. Every record is
on disk before the next thing begins, so a run that is killed goes on where it was.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from harness import gate
from harness.arms import Arm, get_arm
from harness.digits import Lesson, draw_lesson
from harness.environments import Resolution
from harness.errors import RunFailed, WorkerFailure
from harness.machine import shown
from harness.process import Launch, WorkerProcess
from harness.resources import (
    available_cores,
    cache_entries,
    memory_limit_bytes,
    worker_variables,
)
from harness.store import Run
from harness.suite import Cell, Suite
from reference.case import STEPS, Answers, Case, draw_case, read_answers, write_case

ROOT = Path(__file__).resolve().parent.parent
Progress = Callable[[Cell, str], None]


@dataclass
class Engine:
    """Runs the cells of one run. ``resolutions``: arm name -> the interpreter that serves it.

    ``only_gate``: prove and stop, for ``levelfield check``. ``progress`` hears of every cell and of
    the stage that it enters; "done" is the last.
    """

    run: Run
    suite: Suite
    resolutions: Mapping[str, Resolution]
    progress: Progress
    only_gate: bool = False
    slices_done: dict[tuple[str, str], int] = field(default_factory=dict)
    processes: int = 0
    _scratch: Path = field(init=False)
    _cases: dict[tuple[str, str, int], tuple[Path, Case, Answers]] = field(
        init=False, default_factory=dict
    )
    _lessons: dict[tuple[str, str, int], tuple[Path, Lesson] | str] = field(
        init=False, default_factory=dict
    )

    def measure(self, cells: Sequence[Cell]) -> None:
        """Bring every cell to a status. Raises RunFailed only for faults of the host itself."""
        with tempfile.TemporaryDirectory(prefix="levelfield-") as scratch:
            self._scratch = Path(scratch)
            for (arm, _), group in groupby(cells, key=lambda cell: (cell.arm, cell.threads)):
                self._measure_arm(get_arm(arm), list(group))

    def _measure_arm(self, arm: Arm, cells: Sequence[Cell]) -> None:
        left = [cell for cell in cells if not self._settled_unmeasured(arm, cell)]
        while left:
            try:
                with self._worker(arm, left[0], "timing") as worker:
                    while left and worker.process.alive:
                        cell = left.pop(0)
                        self._finish(cell, *self._measure(worker, arm, cell))
            except _StartFailure as failure:
                # What happened before any cell was asked for happens to all of them.
                for cell in left:
                    self._finish(cell, failure.status, failure.reason)
                return

    def _settled_unmeasured(self, arm: Arm, cell: Cell) -> bool:
        """Give a status to a cell that no process can serve."""
        resolution = self.resolutions[arm.name]
        if cell.phase not in arm.mode.phases:
            phases = " and ".join(arm.mode.phases)
            self._finish(cell, "unsupported", f"{arm.name} offers {phases} only")
        elif not arm.framework.generic and not arm.framework.model_module(cell.model).exists():
            missing = arm.framework.model_module(cell.model).name
            self._finish(cell, "unwritten", f"{arm.framework.package}: {missing} is missing")
        elif resolution.interpreter is None:
            self._finish(cell, "no-environment", resolution.reason)
        else:
            return False
        return True

    def _finish(self, cell: Cell, status: str, reason: str) -> None:
        self.run.append("status", cell=cell.id, status=status, reason=reason)
        self.progress(cell, "done")

    def _measure(self, worker: _Arm, arm: Arm, cell: Cell) -> tuple[str, str]:
        try:
            reason = self._prove(worker, cell)
            if reason:
                return "wrong", reason
            if self.only_gate:
                return "ok", ""
            self._time(worker, cell)
            if self.suite.effort.accuracy and cell.phase == "training":
                self._learn(worker, cell)
        except WorkerFailure as failure:
            return failure.status, failure.reason
        if self.suite.effort.memory:
            self._remember(arm, cell)
        return "ok", ""

    # -- the worker ---------------------------------------------------------------------------

    @contextmanager
    def _worker(self, arm: Arm, cell: Cell, purpose: str) -> Iterator[_Arm]:
        """A started worker. Raises _StartFailure when it does not come up."""
        self.processes += 1
        number, limits = self.processes, self.suite.limits
        resolution = self.resolutions[arm.name]
        assert resolution.interpreter is not None
        cache = self._scratch / "cache" / f"{arm.name.replace(':', '-')}-{cell.threads}"
        cache.mkdir(parents=True, exist_ok=True)
        entries = cache_entries(cache)
        launch = Launch(
            interpreter=resolution.interpreter,
            variables=worker_variables(
                threads=cell.threads, cache=cache, hash_seed=random.randrange(2**32)
            ),
            cores=available_cores()[: cell.threads],
            packages={
                "adapters": ROOT / "adapters",
                "harness": ROOT / "harness",
                "reference": ROOT / "reference",
                arm.framework.package.split(".")[0]: arm.framework.root,
            },
            log=self.run.path / "logs" / f"{number:04d}-{arm.name.replace(':', '-')}.log",
            memory_limit_bytes=memory_limit_bytes(limits.memory_gib),
        )
        try:
            process = WorkerProcess(launch, timeout_seconds=limits.start_seconds)
        except WorkerFailure as failure:
            raise _StartFailure(failure.status, failure.reason) from failure
        with process:
            memory = {}
            try:
                if purpose == "memory":
                    memory["interpreter"] = process.ask("memory", limits.start_seconds)
                started = process.ask(
                    "start",
                    limits.start_seconds,
                    adapter=arm.framework.package,
                    device=cell.device,
                    mode=arm.mode.name,
                    threads=cell.threads,
                    precision=cell.numeric,
                )
                if purpose == "memory":
                    memory["import"] = process.ask("memory", limits.start_seconds)
            except WorkerFailure as failure:
                raise _StartFailure(failure.status, failure.reason) from failure
            self.run.append(
                "process",
                process=number,
                arm=arm.name,
                purpose=purpose,
                interpreter=shown(resolution.interpreter),
                how=resolution.how,
                python=process.python,
                lock_hash=resolution.lock_hash,
                asked={
                    "device": cell.device,
                    "threads": cell.threads,
                    "numeric": cell.numeric,
                    "hash_seed": launch.variables["PYTHONHASHSEED"],
                },
                describe=started["describe"],
                interpreter_seconds=process.interpreter_seconds,
                import_seconds=started["import_seconds"],
                cache_entries=entries,
            )
            yield _Arm(process, arm, number, memory)

    def _load(self, worker: _Arm, cell: Cell, path: Path) -> dict[str, Any]:
        return worker.process.ask(
            "load",
            self.suite.limits.load_seconds,
            case=str(path),
            optimizer=cell.optimizer or "sgd",
            module=None if worker.arm.framework.generic else cell.model,
        )

    # -- the stages ---------------------------------------------------------------------------

    def _prove(self, worker: _Arm, cell: Cell) -> str:
        """Start-up and gate. The start-up times are held back until the gate is passed."""
        limits = self.suite.limits
        self.progress(cell, "start-up")
        path, case, answers = self._case(cell)
        built = self._load(worker, cell, path)
        first = worker.process.ask("first_steps", limits.compile_seconds, phase=cell.phase)
        self.progress(cell, "gate")
        self._load(worker, cell, path)
        answer = self._scratch / "answer.npz"
        worker.process.ask(
            "answer", limits.compile_seconds, phase=cell.phase, steps=STEPS, path=str(answer)
        )
        with np.load(answer, allow_pickle=False) as stored:
            got = {name: stored[name] for name in stored.files}
        outcome = gate.judge(
            case,
            answers,
            got,
            phase=cell.phase,
            optimizer=cell.optimizer,
            numeric=cell.numeric,
        )
        self.run.append(
            "gate",
            cell=cell.id,
            process=worker.number,
            passed=outcome.passed,
            checks=outcome.to_json(),
        )
        if outcome.passed:
            self.run.append(
                "startup",
                cell=cell.id,
                process=worker.number,
                build_seconds=built["build_seconds"],
                **{key: value for key, value in first.items() if key.endswith("_seconds")},
            )
        return outcome.reason

    def _time(self, worker: _Arm, cell: Cell) -> None:
        """Warm up, then slices of both kinds in turn, as many as are still missing."""
        effort, limits = self.suite.effort, self.suite.limits
        self.progress(cell, "warm-up")
        warm = worker.process.ask(
            "warm_up",
            limits.step_seconds + effort.warm_up_seconds,
            phase=cell.phase,
            seconds=effort.warm_up_seconds,
            steps=effort.warm_up_steps,
            slice_seconds=effort.slice_seconds,
        )
        steps = warm["slice_steps"]
        # One slice of each kind untimed: what a framework prepares for this number of steps, it
        # prepares here.
        worker.process.ask("steps", limits.step_seconds, phase=cell.phase, steps=steps)
        self.progress(cell, "timing")
        for index in range(effort.slices):
            for statistic in worker.arm.mode.statistics:
                if index < self.slices_done.get((cell.id, statistic), 0):
                    continue
                reply = worker.process.ask(
                    "slice",
                    limits.step_seconds,
                    kind=statistic,
                    phase=cell.phase,
                    steps=steps,
                )
                self.run.append(
                    "slice",
                    cell=cell.id,
                    process=worker.number,
                    index=index,
                    statistic=statistic,
                    steps=steps,
                    **{key: value for key, value in reply.items() if key.endswith("seconds")},
                )

    def _learn(self, worker: _Arm, cell: Cell) -> None:
        """Train on real data and test; a model that the data do not fit says so."""
        self.progress(cell, "accuracy")
        lesson = self._lesson(cell)
        if isinstance(lesson, str):
            self._record_accuracy(worker, cell, reason=lesson)
            return
        path, drawn = lesson
        self._load(worker, cell, path)
        answer = self._scratch / "learned.npz"
        seconds = self.suite.limits.step_seconds + self.suite.limits.compile_seconds
        reply = worker.process.ask("learn", seconds, train_sets=drawn.train_sets, path=str(answer))
        with np.load(answer, allow_pickle=False) as stored:
            accuracy, loss = drawn.score(stored)
        self._record_accuracy(
            worker,
            cell,
            test_accuracy=accuracy,
            test_loss=loss,
            train_loss=reply["last_train_loss"],
            train_steps=drawn.train_sets,
        )

    def _record_accuracy(self, worker: _Arm, cell: Cell, **values: Any) -> None:
        empty = dict.fromkeys(
            ("test_accuracy", "test_loss", "train_loss", "train_steps", "reason"), None
        )
        self.run.append("accuracy", cell=cell.id, process=worker.number, **{**empty, **values})

    def _remember(self, arm: Arm, cell: Cell) -> None:
        """Peak memory by phase, in a process of its own that is never timed.

        A failure here costs the cell its memory figures and nothing else; the reason is kept.
        """
        self.progress(cell, "memory")
        limits = self.suite.limits
        number, reason = self.processes + 1, None
        peaks: dict[str, Any] = {}
        try:
            with self._worker(arm, cell, "memory") as worker:
                peaks.update(worker.memory)
                path, _, _ = self._case(cell)
                self._load(worker, cell, path)
                peaks["build"] = worker.process.ask("memory", limits.load_seconds)
                worker.process.ask("first_steps", limits.compile_seconds, phase=cell.phase)
                peaks["first_step"] = worker.process.ask("memory", limits.load_seconds)
                worker.process.ask(
                    "steps",
                    limits.step_seconds,
                    phase=cell.phase,
                    steps=self.suite.effort.memory_steps,
                )
                peaks["steady"] = worker.process.ask("memory", limits.load_seconds)
        except WorkerFailure as failure:
            reason = str(failure)
        for phase in ("interpreter", "import", "build", "first_step", "steady"):
            self.run.append(
                "memory",
                cell=cell.id,
                process=number,
                phase=phase,
                peak_bytes=peaks.get(phase, {}).get("peak_bytes"),
                reason=None if phase in peaks else reason,
            )

    # -- cases --------------------------------------------------------------------------------

    def _case(self, cell: Cell) -> tuple[Path, Case, Answers]:
        """The case of a cell: drawn here, solved by the reference in a process of its own."""
        key = (cell.model, cell.preset, cell.batch)
        if key not in self._cases:
            folder = self._scratch / "-".join(map(str, ("case", *key)))
            folder.mkdir()
            model, preset, batch = map(str, key)
            command = [
                sys.executable,
                "-P",
                "-m",
                "reference",
            ]  # -P: nothing from the working folder
            command += [model, preset, batch, str(self.suite.seed), str(folder)]
            command += self.suite.optimizers
            done = subprocess.run(command, capture_output=True, text=True, check=False)
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
            self._cases[key] = (folder / "case.npz", case, answers)
        return self._cases[key]

    def _lesson(self, cell: Cell) -> tuple[Path, Lesson] | str:
        key = (cell.model, cell.preset, cell.batch)
        if key not in self._lessons:
            lesson = draw_lesson(
                cell.model,
                cell.preset,
                batch=cell.batch,
                seed=self.suite.seed,
                epochs=self.suite.effort.accuracy_epochs,
            )
            if isinstance(lesson, str):
                self._lessons[key] = lesson
            else:
                path = self._scratch / ("-".join(map(str, ("lesson", *key))) + ".npz")
                write_case(lesson.case, path)
                self._lessons[key] = (path, lesson)
        return self._lessons[key]


@dataclass(frozen=True)
class _Arm:
    """A worker that is up, with what was learned of its memory on the way."""

    process: WorkerProcess
    arm: Arm
    number: int
    memory: Mapping[str, Any]


class _StartFailure(WorkerFailure):
    """A worker that failed before it was asked for a cell."""
