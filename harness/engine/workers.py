"""Starts the workers of a run and sends them requests, each with its time limit."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from levelfield.harness.engine.in_hand import InHand
from levelfield.harness.engine.process import Launch, WorkerProcess
from levelfield.harness.environments.sealed import Resolution
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import topology
from levelfield.harness.machine.describe import shown
from levelfield.harness.machine.resources import (
    available_cores,
    cache_entries,
    cache_state,
    make_folder,
    make_own_folders,
    memory_limit_bytes,
    worker_variables,
)
from levelfield.harness.machine.scratch import remove, roomy
from levelfield.harness.machine.turns import Turns
from levelfield.harness.plan.arms import PACKAGE_FOLDER, Arm, models_identity
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
    SlotReply,
    StartReply,
    StepsReply,
    WarmUpReply,
    read_arrays,
)
from levelfield.harness.records.kinds import ProcessRecord
from levelfield.harness.records.store import Run
from levelfield.reference.registry import outside, outside_variables

UNTIMED = frozenset({"gate", "memory"})  # purposes of processes of which no time is published
PADDING_BYTES = 4096  # most padding of the environment, which shifts where the stack begins


class ForeignFiles(UserWarning):
    """A program wrote to a place where only another program should."""


class StartFailure(WorkerFailure):
    """A worker failed before its first request for a cell."""


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

    def memory(self) -> MemoryReply:
        """Return the peak memory since the last call, and begin again."""
        return self._ask(MemoryReply, None, self.limits.load_seconds)


@dataclass
class Workers:
    """Starts workers; ``resolutions``: arm name -> the interpreter that serves it.

    ``scratch`` holds a folder for each arm and number of threads. The private cache in it lasts as
    long as the run: the first process of an arm finds it cold, the later ones warm. Each process
    has folders of its own for its home and its temporary files, which are deleted when it ends.
    ``processes`` counts the processes, including those before a run was resumed. ``cores``: the
    cores to measure on; a worker gets as many as it has threads, from the first one on.
    ``variables``: the environment variables that the suite declares. ``turns``: those of the run's
    lanes. ``spare_cores``: further cores, for all lanes but the first; each has as many as the
    widest cell has threads.

    Adapters are trusted code, but damage that one does to another by mistake is reported. A cache
    that changed while none of its arm's processes ran is emptied, with a warning. An arm whose
    adapter was changed since the run began is not started.
    """

    run: Run
    limits: Limits
    resolutions: Mapping[str, Resolution]
    scratch: Path
    generator: random.Random
    processes: int = 0
    cores: Sequence[int] = field(default_factory=available_cores)
    variables: Mapping[str, str] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)
    spare_cores: Sequence[int] = ()
    _living: Counter[Path] = field(default_factory=Counter)  # processes, by their cache
    _left: dict[Path, set[Any]] = field(default_factory=dict)  # how the last of them left it

    @contextmanager
    def start(
        self, arm: Arm, cell: Cell, *, purpose: str, block: int | None = None
    ) -> Iterator[Worker]:
        """Start a worker for the device and threads of ``cell``. Raises StartFailure."""
        self.processes += 1
        number, in_hand = self.processes, InHand(self.run.path, self.turns.number)
        self._refuse_changed(arm)
        # A worker is given no folder that holds files of another arm or lies next to such files.
        scratch = self.scratch / "arms" / f"{_file_name(arm.name)}-{cell.threads}"
        cache = scratch / "cache"
        self._check_untouched(cache, arm.name)
        make_folder(cache)
        entries = cache_entries(cache)
        # A short path: multiprocessing puts sockets there, whose paths have 107 bytes at most.
        own_folder = self.scratch / "workers" / str(number)
        cores, lane_cores = self._cores(cell.threads)
        timed = purpose not in UNTIMED
        begin_cores = cores if timed else lane_cores
        launch = self._launch(arm, cell, number, cache=cache, own=own_folder, cores=begin_cores)
        with ExitStack() as stack:
            stack.callback(remove, own_folder)
            self._living[cache] += 1
            stack.callback(self._left_by, cache)
            make_own_folders(own_folder)
            try:
                with (
                    in_hand.held(arm.name, None),
                    roomy(self.scratch),
                    self.turns.alone() if timed else nullcontext(),
                ):
                    process = self._process(launch)
                    stack.enter_context(process)
                    started, stages = self._begin(process, arm, cell, staged=purpose == "memory")
            except WorkerFailure as failure:
                raise StartFailure(failure.status, failure.reason, failure.log) from failure
            process.move(begin_cores, lane_cores)
            worker = Worker(
                *(process, arm, number, begin_cores, lane_cores, scratch, own_folder),
                *(self.limits, in_hand, stages),
            )
            self._record(
                worker, cell, launch, started, purpose=purpose, block=block, entries=entries
            )
            yield worker

    def _cores(self, threads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the cores on which this lane's next worker is timed, and those of the lane."""
        cores = tuple(self.cores[:threads])
        if not self.turns.number:
            return cores, cores
        first = (self.turns.number - 1) * len(self.cores)
        return cores, tuple(self.spare_cores[first : first + threads])

    def _refuse_changed(self, arm: Arm) -> None:
        """Raise StartFailure if the arm's adapter or an outside model changed in this run."""
        framework = arm.framework
        if framework.identity() != self.run.description["adapters"][framework.name]:
            reason = "the files of its adapter changed since the run began; start a new run"
            raise StartFailure("failed", reason)
        models = self.run.description.get("models", {})
        if models_identity(models) != models:
            reason = "the files of its models changed since the run began; start a new run"
            raise StartFailure("failed", reason)

    def _launch(
        self,
        arm: Arm,
        cell: Cell,
        number: int,
        *,
        cache: Path,
        own: Path,
        cores: Sequence[int],
    ) -> Launch:
        """Return how process ``number`` is started; draws its hash seed, then its padding."""
        interpreter = self.resolutions[arm.name].interpreter
        assert interpreter is not None
        variables = worker_variables(
            threads=cell.threads,
            cache=cache,
            own=own,
            hash_seed=self.generator.randrange(2**32),
            device=cell.device,
        )
        variables |= {**self.variables, **arm.mode.variables, **outside_variables()}
        variables["LEVELFIELD_PADDING"] = "x" * self.generator.randrange(PADDING_BYTES)
        return Launch(
            interpreter=interpreter,
            variables=variables,
            cores=cores,
            packages={
                "levelfield": PACKAGE_FOLDER,
                arm.framework.package.split(".")[0]: arm.framework.root,
                **{models.package: models.folder for models in outside()},
            },
            log=self.run.path / "logs" / f"{number:04d}-{_file_name(arm.name)}.log",
            memory_limit_bytes=memory_limit_bytes(self.limits.memory_gib),
        )

    def _process(self, launch: Launch) -> WorkerProcess:
        return WorkerProcess(launch, timeout_seconds=self.limits.start_seconds, turns=self.turns)

    def _begin(
        self, process: WorkerProcess, arm: Arm, cell: Cell, *, staged: bool
    ) -> tuple[StartReply, dict[str, MemoryReply]]:
        """Import the framework; return the reply, and the peak memory by stage if ``staged``."""
        seconds, stages = self.limits.start_seconds, {}
        if staged:
            stages["interpreter"] = process.ask(MemoryReply, seconds)
        started = process.ask(
            StartReply,
            seconds,
            adapter=arm.framework.package,
            device=cell.device,
            mode=arm.mode.name,
            threads=cell.threads,
            precision=cell.numeric,
        )
        if staged:
            stages["import"] = process.ask(MemoryReply, seconds)
        return started, stages

    def _record(
        self,
        worker: Worker,
        cell: Cell,
        launch: Launch,
        started: StartReply,
        *,
        purpose: str,
        block: int | None,
        entries: int,
    ) -> None:
        """Append the record of a process that started."""
        resolution = self.resolutions[worker.arm.name]
        self.run.append(
            ProcessRecord(
                process=worker.number,
                arm=worker.arm.name,
                purpose=purpose,
                block=block,
                interpreter=shown(launch.interpreter),
                how=resolution.how,
                python=worker.process.python,
                lock_hash=resolution.lock_hash,
                asked={
                    "device": cell.device,
                    "threads": cell.threads,
                    "numeric": cell.numeric,
                    "hash_seed": launch.variables["PYTHONHASHSEED"],
                    "padding_bytes": len(launch.variables["LEVELFIELD_PADDING"]),
                    "cores": list(launch.cores),
                    "remark": topology.remark(launch.cores) or None,
                    "variables": {**self.variables, **worker.arm.mode.variables} or None,
                },
                describe=started.describe,
                # By the worker's own word, which may be earlier than its start.
                interpreter_seconds=max(worker.process.interpreter_seconds, 0.0),
                import_seconds=started.import_seconds,
                device_seconds=started.device_seconds,
                cache_entries=entries,
            )
        )

    def _check_untouched(self, cache: Path, arm: str) -> None:
        """Empty a cache that has changed since the last process of its arm ended."""
        last_state = self._left.get(cache, set())  # the scratch folder of a run begins empty
        if self._living[cache] or last_state == cache_state(cache):
            return
        warnings.warn(
            f"the cache of {arm} changed while none of its processes ran: another program wrote"
            " there, so it is emptied",
            ForeignFiles,
            stacklevel=2,
        )
        remove(cache)

    def _left_by(self, cache: Path) -> None:
        """Note in which state an ended process left the cache of its arm."""
        self._living[cache] -= 1
        self._left[cache] = cache_state(cache)


def _file_name(arm: str) -> str:
    """An arm's name in letters that every file system accepts; no two arms share a file name.

    A colon becomes "_". Any other letter that is not plain becomes its code between two "+".
    """

    def written(letter: str) -> str:
        if letter.isascii() and (letter.isalnum() or letter in "-.@"):
            return letter
        return "_" if letter == ":" else f"+{ord(letter):x}+"

    return "".join(map(written, arm))
