"""Profiles two arms of a run, each in a process that is never timed."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from levelfield import reference
from levelfield.harness.analysis.explanation import (
    FILE_KIND,
    FILE_SCHEMA,
    ExplainedArm,
    ExplainedLayer,
    Explanation,
)
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.session import cores_folder, describe_run
from levelfield.harness.engine.workers import Workers, file_name_of
from levelfield.harness.environments.sealed import Resolution
from levelfield.harness.errors import RunFailed, WorkerFailure
from levelfield.harness.machine import locks
from levelfield.harness.machine.scratch import scratch_folder
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.proof.replies import ProfileReply, cut
from levelfield.harness.records import store
from levelfield.reference.trace import layer_operations

PROFILED_SECONDS = 1.0  # of steps, within the limits of their number
LEAST_PROFILED, MOST_PROFILED = 5, 20
LONGEST_SECONDS = 60.0  # of a slice; fewer steps are profiled where they take longer
TRACE_LIMIT_BYTES = 1 << 30
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Published:
    """Seconds per step that a run reports of an arm: median and interval; None if it has none."""

    seconds: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Profiling:
    """The cells to profile: a comparison's cells of two arms, by the suite of their run.

    ``steps``: None to choose their number by the time that they take. ``output``: the folder for
    the traces, which exists.
    """

    suite: Suite
    cells: Sequence[Cell]
    resolutions: Mapping[str, Resolution]
    steps: int | None
    output: Path


def profiled_arms(
    profiling: Profiling,
    published: Mapping[str, Published],
    *,
    say: Callable[[str], None] = lambda words: None,
) -> tuple[ExplainedArm, ...]:
    """Profile each cell's arm, one after the other. Raises RunFailed.

    ``published``: by arm. ``say`` gets a line when an arm begins.
    """
    suite, cells = profiling.suite, profiling.cells
    with scratch_folder() as folder:
        description = describe_run(suite, cells, profiling.resolutions)
        with (
            store.create(folder, "explain", description, elsewhere="export TMPDIR=DIR") as run,
            locks.held_cores(
                cores_folder(), cells[0].threads, run=str(run.path), busy="share"
            ) as cores,
        ):
            workers = Workers(
                *(run, suite.limits, profiling.resolutions, folder, random.Random(suite.seed)),
                cores=cores,
                variables=suite.variables,
            )
            case = Cases(suite, folder).drawn(cells[0])
            arms = []
            for cell in cells:
                say(f"profiling {cell.arm}")
                arms.append(_profiled(workers, cell, case, profiling, published[cell.arm]))
            return tuple(arms)


def _profiled(
    workers: Workers, cell: Cell, case: CaseFile, profiling: Profiling, published: Published
) -> ExplainedArm:
    effort = replace(profiling.suite.effort, warm_up_seconds=1.0, warm_up_cap_seconds=30.0)
    try:
        with workers.start(get_arm(cell.arm), cell, purpose="profile") as worker:
            worker.start_up(cell, case)
            warm = worker.warm_up(cell, effort)
            steps = profiling.steps or chosen_steps(warm.step_seconds)
            folder = worker.scratch / "profile"
            reply = worker.profile(cell, steps, folder)
            trace = None
            if reply.trace is not None:
                trace = f"trace-{cell.comparison}-{file_name_of(cell.arm)}{_ending(reply.trace)}"
                keep_trace(folder / reply.trace, profiling.output / trace)
            _refuse_nonsense(worker, cell, case)
    except WorkerFailure as failure:
        log = _last_line(workers.run.path / "logs" / failure.log) if failure.log else ""
        words = f"{cell.arm} cannot be profiled: {failure.reason}"
        raise RunFailed(f"{words} (its log ends: {log})" if log else words) from failure
    version = version_of(workers.run, cell.arm)
    return _explained(cell, reply, steps=steps, trace=trace, published=published, version=version)


def explanation_name(comparison: str, arms: Sequence[str]) -> str:
    """Return the name of the file of an explanation."""
    return f"explanation-{comparison}-{'-'.join(map(file_name_of, arms))}.json"


def chosen_steps(step_seconds: float) -> int:
    """Return how many steps to profile, by the seconds of one."""
    steps = min(max(round(PROFILED_SECONDS / step_seconds), LEAST_PROFILED), MOST_PROFILED)
    return max(min(steps, int(LONGEST_SECONDS / step_seconds)), 1)


def _ending(trace: str) -> str:
    return ".json.gz" if trace.endswith(".gz") else ".json"


def keep_trace(path: Path, target: Path) -> None:
    """Copy a trace out of the folder of a worker. Raises WorkerFailure if it is none."""
    try:
        # A link could lead to any file of the user, and opening a pipe could wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise WorkerFailure("failed", f"its trace cannot be read: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > TRACE_LIMIT_BYTES:
        os.close(descriptor)
        words = f"its trace is no plain file of at most {TRACE_LIMIT_BYTES} bytes"
        raise WorkerFailure("failed", words)
    with open(descriptor, "rb") as file:
        begin = file.read(2)
        if begin != GZIP and begin[:1] not in (b"{", b"["):
            raise WorkerFailure("failed", "its trace is neither JSON nor compressed JSON")
        file.seek(0)
        try:
            with open(target, "wb") as copy:
                shutil.copyfileobj(file, copy)
        except OSError as error:
            raise store.writing_failed(error, target, advice="choose --output DIR") from error


def _refuse_nonsense(worker: Worker, cell: Cell, case: CaseFile) -> None:
    """Raise WorkerFailure if the process that was profiled does not compute finite numbers."""
    limit_bytes = 16 * case.intact().stat().st_size + (1 << 30)
    arrays = worker.kept(cell, limit_bytes=limit_bytes)
    if not arrays or not all(np.isfinite(value).all() for value in arrays.values()):
        raise WorkerFailure("failed", "what it computes is not finite")


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return cut(lines[-1], 200) if lines else ""


def version_of(run: store.Run, arm: str) -> str:
    """Return the version that an arm's framework reported when its process started."""
    for record in reversed(store.read_records(run)):
        if record["record"] == "process" and record["arm"] == arm:
            return str(record["describe"].get("version", ""))
    return ""


def _explained(
    cell: Cell,
    reply: ProfileReply,
    *,
    steps: int,
    trace: str | None,
    published: Published,
    version: str,
) -> ExplainedArm:
    profiled = reply.profiled_seconds
    return ExplainedArm(
        arm=cell.arm,
        version=version,
        steps=steps,
        plain_seconds=reply.plain_seconds / steps,
        profiled_seconds=None if profiled is None else profiled / steps,
        published_seconds=published.seconds,
        published_low=published.low,
        published_high=published.high,
        profiler=reply.profiler,
        trace=trace,
        counts=reply.counts,
        new_counts=reply.new_counts,
        operators=tuple(
            replace(one, calls=one.calls / steps, seconds=one.seconds / steps)
            for one in reply.operators
        ),
    )


def layers_of(cell: Cell) -> tuple[ExplainedLayer, ...]:
    """Return the layers of a cell's definition with their operations in a step."""
    layers = layer_operations(reference.get(cell.model), cell.preset, cell.batch, cell.phase)
    return tuple(ExplainedLayer(**vars(layer)) for layer in layers)


def explained(
    run: store.Run,
    cell: Cell,
    arms: tuple[ExplainedArm, ...],
    *,
    title: str,
    details: str,
    product_per_second: float | None,
    notes: Sequence[str],
) -> Explanation:
    """Return the explanation of two profiles of a comparison, which is that of ``cell``."""
    return Explanation(
        kind=FILE_KIND,
        schema=FILE_SCHEMA,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        run=run.identity,
        comparison=cell.comparison,
        title=title,
        details=details,
        product_per_second=product_per_second,
        notes=tuple(notes),
        sentences=(),
        arms=arms,
        layers=layers_of(cell),
    )
