"""Runs seeded faults and known quantities through the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas

from levelfield.harness.analysis.summary import summary
from levelfield.harness.plan.arms import PACKAGE_FOLDER, Framework, read_framework, registered
from levelfield.harness.plan.suite import Effort
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.selftest.goals import Finding, caught
from levelfield.harness.selftest.machinery import Say, mutant_suite, run_suite
from levelfield.harness.selftest.misbehaving.timing import (
    CHILD_BYTES,
    COMPILE_SECONDS,
    DEVICE_SECONDS,
    HOARD_BYTES,
)

PART = "probe"
# Fault -> how its cell must end.
FAULTS = {
    "no-fence": "failed: fence read",
    "partial-fence": "failed: fence",
    "oversubscribes": "failed: affinity",
    "child-computes": "failed: affinity",
    "child-spins": "failed: affinity",
    "late-child": "failed: affinity",
    "recompiles": "failed: recompilation",
    "tf32": "wrong",
    "half-precision": "wrong",
    "wrong-activation": "wrong",
    "stale-parameter": "wrong",
    "weight-decay": "wrong",
    "nan": "wrong",
    # These faults pass every gate of a process that is not timed.
    "half-working": "wrong: after its last slice: step/0/loss",
    "idle-later": "wrong: after its last slice: step/0/loss",
    "quarter-batch-later": "wrong: after its last slice: step/0/loss",
    "half-precision-later": "wrong: after its last slice: step/0/loss",
    "idle-when-tired": "failed: after its last slice: as after a load",
    "second-core-when-timed": "failed: affinity",
    "slow-clock": "failed: clock",
    "halves-slices": "failed: slice seconds",
}
# Faults that show in inference alone -> how their cells must end.
INFERENCE_FAULTS = {
    "lazy": "failed: earlier steps",
    "half-precision-when-tired": "wrong: after its last slice: as timed, outputs/",
    "caches": "failed: after its last slice: first visit",
}
# Faults that show in generation alone -> how their cells must end.
GENERATION_FAULTS = {
    "idle-first-token": "wrong: first/0/tokens",
    "idle-first-token-when-timed": "wrong: after its last slice: first/0/tokens",
    "idle-first-token-when-tired": "wrong: after its last slice: as timed, first/",
    "caches-first-token": "failed: after its last slice: first visit, first token",
}
# Phase -> (the model in which its faults are seeded, the faults).
SEEDED = {
    "training": ("mlp", FAULTS),
    "inference": ("mlp", INFERENCE_FAULTS),
    "generation": ("gpt2", GENERATION_FAULTS),
}
IMPORT_SECONDS = 3.0  # sleepy's import time, repeated here because importing sleepy would take it
PLANTED_QUANTITIES = {
    "import_seconds": ("import", "sleepy:well", IMPORT_SECONDS),
    "device_seconds": ("device", "misbehaving:slow-device", DEVICE_SECONDS),
    "compile_seconds": ("compile", "misbehaving:slow-compile", COMPILE_SECONDS),
}
STAGE_ATTEMPTS = 3
PARENT_BYTES = 1 << 30
SHARE, SECONDS, BYTES = 0.01, 0.005, 2 << 20  # 1 % or 5 ms; for memory 2 MiB in addition to 1 %
EFFORT = Effort(
    rounds=2,
    slice_seconds=0.01,
    warm_up_seconds=0.05,
    warm_up_cap_seconds=2.0,
    quiet_seconds=0.0,
    ceilings=False,
    accuracy=False,
    memory=False,
    memory_processes=1,
)
# Arms that lie after many steps of one load need slices of many steps, also on a slow machine.
FAULTS_EFFORT = replace(EFFORT, slice_seconds=0.1)


def frameworks() -> list[Framework]:
    """The frameworks with which the harness tests itself."""
    return [
        read_framework(name, f"levelfield.harness.selftest.{name}", PACKAGE_FOLDER)
        for name in ("misbehaving", "sleepy")
    ]


def probed(folder: Path, say: Say) -> Iterator[Finding]:
    """Run every probe that needs the engine; each takes some seconds."""
    with ExitStack() as stack:
        for framework in frameworks():
            stack.enter_context(registered(framework))
        yield from faults(folder, say)
        yield from stages(folder, say)
        yield from memory(folder, say)


def faults(folder: Path, say: Say) -> Iterator[Finding]:
    """Run a cell per fault, and one cell of each phase without a fault."""
    timed: set[str] = set()
    for phase, (model, seeded) in SEEDED.items():
        arms = ["misbehaving:well", *(f"misbehaving:{mode}" for mode in seeded)]
        suite = mutant_suite(
            f"faults-{phase}", arms, effort=FAULTS_EFFORT, phases=(phase,), models=(model,)
        )
        frames = load(run_suite(folder, suite, say))
        ends = {
            row["mode"]: f"{row['status']}: {row['reason']}".rstrip(": ")
            for row in frames.cells.to_dict("records")
        }
        for mode, expected in seeded.items():
            yield caught(PART, f"seeded fault: {mode}", ends[mode], expected)
        yield caught(PART, f"no fault, {phase}", ends["well"], "ok")
        timed |= set(frames.slices["mode"])
    yield caught(
        PART,
        "numbers of faulty arms in the results",
        "none" if timed == {"well"} else f"of {', '.join(sorted(timed - {'well'}))}",
        "none",
    )


def stages(folder: Path, say: Say) -> Iterator[Finding]:
    """Planted seconds of import, configuration and compilation.

    If one run is not near enough, the least of a few runs counts: a busy machine only adds time.
    """
    arms = [f"misbehaving:{mode}" for mode in ("well", "slow-device", "slow-compile")]
    suite = mutant_suite("stages", [*arms, "sleepy:well"], effort=EFFORT)
    tables: list[pandas.DataFrame] = []
    for _ in range(STAGE_ATTEMPTS):
        table = summary(load(run_suite(folder, suite, say))).set_index("arm")
        tables.append(table[list(PLANTED_QUANTITIES)].fillna(0.0))
        findings = list(planted(pandas.concat(tables).groupby("arm").min(), len(tables)))
        if all(finding.met for finding in findings):
            break
    yield from findings


def planted(least: pandas.DataFrame, runs: int) -> Iterator[Finding]:
    """Judge the least seconds of each stage in so many runs, by arm.

    The planted arm is compared with the fastest of all others.
    """
    for column, (stage, arm, seconds) in PLANTED_QUANTITIES.items():
        off = float(least[column][arm] - least[column].drop(arm).min() - seconds)
        limit = max(SHARE * seconds, SECONDS)
        yield Finding(
            PART,
            f"planted {seconds:g} s of {stage}",
            f"within {1000 * limit:.0f} ms",
            f"{1000 * off:+.1f} ms",
            off,
            abs(off) <= limit,
            note=f"the least of {runs} runs, against the fastest other arm" if runs > 1 else "",
        )


def memory(folder: Path, say: Say) -> Iterator[Finding]:
    """Known allocations in a known phase, under a host that is larger than any of them."""
    parent = np.ones(PARENT_BYTES, np.uint8)
    modes = {
        "hoards-build": "build",
        "hoards-compile": "compile",
        "hoards-first-step": "first_step",
    }
    arms = ["well", *modes, "forks"]
    suite = mutant_suite(
        "memory",
        [f"misbehaving:{mode}" for mode in arms],
        effort=replace(EFFORT, memory=True),
    )
    frames = load(run_suite(folder, suite, say))
    for mode, stage in modes.items():
        off = _peak(frames, mode, stage, "peak_bytes") - _peak(frames, "well", stage, "peak_bytes")
        yield _size(f"{HOARD_BYTES >> 20} MiB taken in the stage {stage}", off, HOARD_BYTES)
    others = [stage for stage in modes.values() if stage != "build"]
    off = max(_peak(frames, "hoards-build", stage, "peak_bytes") for stage in others) - max(
        _peak(frames, "well", stage, "peak_bytes") for stage in others
    )
    yield _size("nothing taken in the later stages", off, 0)
    off = _peak(frames, "forks", "compile", "tree_bytes") - _peak(
        frames, "well", "compile", "tree_bytes"
    )
    yield _size(
        f"{CHILD_BYTES >> 20} MiB and an interpreter in a child process",
        off,
        CHILD_BYTES,
        interpreter=True,
    )
    import_bytes = _peak(frames, "well", "interpreter", "peak_bytes")
    yield Finding(
        PART,
        "peak of a fresh interpreter under a parent of 1 GiB",
        "below 64 MiB",
        f"{import_bytes / 2**20:.1f} MiB",
        import_bytes,
        import_bytes < 64 << 20,
        note="a measure that is inherited through exec would show the parent's",
    )
    del parent


def _peak(frames: Frames, mode: str, stage: str, column: str) -> int:
    rows = frames.memory[(frames.memory["mode"] == mode) & (frames.memory["stage"] == stage)]
    return int(rows[column].iloc[0])


def _size(what: str, found_bytes: int, planted_bytes: int, *, interpreter: bool = False) -> Finding:
    limit = SHARE * planted_bytes + BYTES
    # A child is an interpreter as well, of some MiB that partly share the parent's pages.
    most = limit + (16 << 20 if interpreter else 0)
    off = found_bytes - planted_bytes
    return Finding(
        PART,
        f"memory: {what}",
        f"within 1 % + 2 MiB{', plus an interpreter of up to 16 MiB' if interpreter else ''}",
        f"{off / 2**20:+.2f} MiB",
        off,
        -limit <= off <= most,
    )
