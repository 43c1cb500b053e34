"""Starts the workers of a run, with their cores, variables and folders."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from levelfield.harness.engine.in_hand import InHand
from levelfield.harness.engine.process import Launch, WorkerProcess
from levelfield.harness.engine.requests import Worker
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
from levelfield.harness.plan.suite import Limits
from levelfield.harness.proof.replies import MemoryReply, StartReply
from levelfield.harness.records.kinds import ProcessRecord
from levelfield.harness.records.store import Run
from levelfield.reference.registry import outside, outside_variables

UNTIMED = frozenset(
    {"gate", "memory", "profile"}
)  # purposes of processes of which no time is published
PADDING_BYTES = 4096  # most padding of the environment, which shifts where the stack begins


class ForeignFiles(UserWarning):
    """A program wrote to a place where only another program should."""


class StartFailure(WorkerFailure):
    """A worker failed before its first request for a cell."""


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
        scratch = self.scratch / "arms" / f"{file_name_of(arm.name)}-{cell.threads}"
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
            log=self.run.path / "logs" / f"{number:04d}-{file_name_of(arm.name)}.log",
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


def file_name_of(arm: str) -> str:
    """An arm's name in letters that every file system accepts; no two arms share a file name.

    A colon becomes "_". Any other letter that is not plain becomes its code between two "+".
    """

    def written(letter: str) -> str:
        if letter.isascii() and (letter.isalnum() or letter in "-.@"):
            return letter
        return "_" if letter == ":" else f"+{ord(letter):x}+"

    return "".join(map(written, arm))
