"""Runs that were never run, with realistic records of every kind, for tests of what reads runs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from levelfield.harness.records.kinds import KINDS, STATUSES
from levelfield.harness.records.store import Run, create, record_line

ARMS = (
    *("torch:eager", "torch:compile", "tensorflow:function", "tensorflow:xla"),
    *("jax:jit", "keras:jax", "onnxruntime:default", "reference:numpy"),
)
MODELS = ("mlp", "lenet", "resnet")
SPEED = {"eager": 1.0, "compile": 0.8, "function": 1.15, "xla": 0.9, "jit": 0.75, "numpy": 6.0}
REASONS = {
    "wrong": "gradient/hidden1/kernel/0: error 0.31, tolerance 1e-04",
    "failed": 'RuntimeError: Illegal instruction <in kernel> & "more"',
    "timeout": "no answer within 600 s to 'slice'",
    "out-of-memory": "MemoryError: cannot allocate 3.2 GiB",
    "unsupported": "no training in an inference runtime",
    "unwritten": "no file of this model beside the adapter",
    "no-environment": "type: levelfield env build onnxruntime",
}
PHASE_COST = {"inference": 1.0, "training": 3.0, "generation": 20.0}
STAGE_MEBIBYTES = {
    "interpreter": 30,
    "import": 300,
    "build": 350,
    "compile": 400,
    "first_step": 500,
    "steady": 480,
}
START = 1_760_000_000.0  # seconds since 1970, of the first record
AUDIT = 6  # number of the audit block
PROCESS_SD, ROUND_SD, DRIFT_SD = 0.005, 0.005, 0.01  # of logs of seconds


def write_run(
    folder: Path,
    *,
    arms: Sequence[str] = ARMS,
    models: Sequence[str] = MODELS,
    phases: Sequence[str] = ("inference", "training"),
    blocks: int = 7,
    rounds: int = 6,
    latency_steps: int = 8,
    level: str = "quick",
    twin: bool = True,
    seed: int = 0,
    name: str = "synthetic",
    speed: Mapping[str, float] | None = None,
    statuses: Mapping[int, str] | None = None,
    loud: Collection[tuple[int, int]] = (),
    memory_processes: int = 1,
) -> Path:
    """Write a run below ``folder`` and return its path.

    The first arm has an A/A twin unless ``twin`` is false; block ``AUDIT`` is an audit. ``speed``:
    arm -> how many times slower than the fastest. ``statuses``: number of a cell -> its status, or
    "unfinished"; unless given, runs of 24 cells and more have one of each. ``loud``: (block, round)
    in which others used the machine. ``memory_processes``: how many measured a cell's memory.
    """
    named = [arms[0], f"{arms[0]}#2", *arms[1:]] if twin and arms else list(arms)
    cells = planned_cells(named, models, phases)
    bad = [*STATUSES[1:], "unfinished"]
    if statuses is None:
        few = len(cells) < 3 * len(bad)
        statuses = {} if few else {(2 * n + 1) * len(cells) // 16: s for n, s in enumerate(bad)}
    records = _Records(random.Random(seed), memory_processes)
    records.add("session", quiet=True, waited_seconds=5.0, foreign_share=0.01)
    for size in (1 << 20, 1 << 27):
        records.add("ceiling", threads=2, what="copy", size_bytes=size, per_second=2e10)
    records.add("ceiling", threads=2, what="matrix product", size_bytes=1 << 22, per_second=1e11)
    fine = []
    for number, cell in enumerate(cells):
        status = statuses.get(number, "ok")
        if _qualify(records, cell, status):
            fine.append(cell)
    for block in range(1, blocks + 1):
        _write_block(records, fine, block, rounds, latency_steps, _seconds(models, speed), loud)
    for number, cell in enumerate(cells):
        status = statuses.get(number, "ok")
        if status in ("ok", "timeout"):
            records.add("status", cell=cell["id"], status=status, reason=REASONS.get(status))
    with create(folder, name, description(cells, seed, level)) as run:
        run.records_path.write_bytes(b"".join(records.lines))
    return run.path


def write_mlp_run(folder: Path, **options: Any) -> Path:
    """Write a run of the MLP alone, in which every cell is ok unless ``options`` say otherwise."""
    return write_run(folder, **{"models": ("mlp",), "statuses": {}, **options})


def _seconds(
    models: Sequence[str], speed: Mapping[str, float] | None
) -> Callable[[Mapping[str, Any]], float]:
    """Of a step of a cell, without any noise."""

    def seconds(cell: Mapping[str, Any]) -> float:
        arm = cell["arm"].partition("#")[0]
        factor = (speed or {}).get(arm) or SPEED.get(cell["mode"], 1.1)
        return 1e-3 * 3.0 ** models.index(cell["model"]) * PHASE_COST[cell["phase"]] * factor

    return seconds


def line(kind: str, **fields: Any) -> bytes:
    """A record of a kind, as the line of a file."""
    return record_line(KINDS[kind](**fields))


def appending(run: Run) -> Callable[..., None]:
    """A function that adds a record of a kind to a run."""

    def add(kind: str, **fields: Any) -> None:
        run.append(KINDS[kind](**fields))

    return add


class _Records:
    """The lines of a run to be, on a clock of their own."""

    def __init__(self, generator: random.Random, memory_processes: int = 1) -> None:
        self.generator, self.clock, self.processes = generator, START, 0
        self.memory_processes = memory_processes
        self.lines: list[bytes] = []

    def add(self, kind: str, **fields: Any) -> None:
        self.clock += self.generator.uniform(0.01, 1.0)
        self.lines.append(line(kind, at=round(self.clock, 3), **fields))

    def start(self, cell: Mapping[str, Any], purpose: str, block: int | None = None) -> int:
        """A process for the arm of a cell; returns its number."""
        self.processes += 1
        fields = process(self.generator, self.processes, cell, purpose)
        self.add("process", **{**fields, "block": block})
        return self.processes


def _qualify(records: _Records, cell: Mapping[str, Any], status: str) -> bool:
    """What a cell leaves behind before its blocks; whether it goes on to them."""
    if status not in ("unsupported", "unwritten", "no-environment"):
        where = {"cell": cell["id"], "process": records.start(cell, "qualification")}
        if status not in ("failed", "out-of-memory"):
            checks = gate_checks(records.generator, cell, wrong=status == "wrong")
            passed = all(check["passed"] for check in checks)
            records.add("gate", **where, passed=passed, checks=checks)
            if passed:
                _believe(records, cell, where)
                return True
    if status != "unfinished":
        records.add("status", cell=cell["id"], status=status, reason=REASONS.get(status))
    return False


def _believe(records: _Records, cell: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    records.add("startup", **where, **startup_fields(records.generator, cell, new=3))
    checks = [
        {"name": name, "error": error, "tolerance": most, "note": "", "passed": True}
        for name, error, most in (("fence read", 0.001, 0.05), ("concurrency", 1.0, 1.05))
    ]
    records.add("check", **where, passed=True, checks=checks)
    records.add("calibration", **where, step_seconds=0.001, slice_steps=50, fence_seconds=1e-6)
    if cell["phase"] == "training":
        accuracy = records.generator.uniform(0.96, 0.97)
        fields = {"test_accuracy": accuracy, "test_loss": 0.12, "train_loss": 0.09}
        for epoch, behind in enumerate((0.3, 0.1, 0.0), start=1):
            learned = {**fields, "test_accuracy": accuracy - behind}
            of_epoch = {**where, "seed": 1, "epoch": epoch, **learned}
            records.lines.append(line("epoch", at=records.clock, **of_epoch))
        records.add("accuracy", **where, **fields, train_steps=400, reason=None)
    for _ in range(records.memory_processes):
        number = records.start(cell, "memory")
        for stage, mebibytes in STAGE_MEBIBYTES.items():
            peak = int(mebibytes * 2**20 * records.generator.uniform(0.99, 1.01))
            fields = {"phase": stage, "peak_bytes": peak, "tree_bytes": peak + 1, "reason": None}
            records.add("memory", cell=cell["id"], process=number, **fields)
    joules = {"steps": 9000, "seconds": 30.0, "joules_per_step": 0.5, "idle_watts": 60.0}
    records.add("energy", cell=cell["id"], process=number, **joules)


def startup_fields(
    generator: random.Random, cell: Mapping[str, Any], *, new: int = 0
) -> dict[str, Any]:
    """Of a startup record."""
    compiles = cell["mode"] in ("compile", "xla", "jit")
    return {
        "build_seconds": 0.05 * generator.uniform(0.9, 1.2),
        "compile_seconds": 2.0 * generator.uniform(0.9, 1.4) if compiles else None,
        "first_step_seconds": (1.5 if compiles else 0.1) * generator.uniform(0.9, 1.2),
        "second_step_seconds": 0.01,
        "warm_up_seconds": generator.uniform(1.0, 1.2),
        "warm_up_steps": 100,
        "capped": False,
        "new_cache_entries": new,
    }


def _write_block(
    records: _Records,
    cells: Sequence[Mapping[str, Any]],
    number: int,
    rounds: int,
    latency_steps: int,
    seconds: Callable[[Mapping[str, Any]], float],
    loud: Collection[tuple[int, int]],
) -> None:
    generator = records.generator
    residency = "audit" if number == AUDIT else "resident"
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    served = {
        arm: records.start(next(c for c in cells if c["arm"] == arm), residency, number)
        for arm in arms
    }
    comparisons = list(dict.fromkeys(cell["comparison"] for cell in cells))
    for comparison in comparisons:
        present = [cell for cell in cells if cell["comparison"] == comparison]
        effect = {cell["id"]: generator.gauss(0, PROCESS_SD) for cell in present}
        for cell in present:
            where = {"cell": cell["id"], "process": served[cell["arm"]]}
            records.add("startup", **where, **startup_fields(generator, cell))
        for index in range(rounds):
            drift = generator.gauss(0, DRIFT_SD)
            for cell in present:
                log = drift + effect[cell["id"]] + generator.gauss(0, ROUND_SD)
                place = {"cell": cell["id"], "process": served[cell["arm"]]}
                place |= {"block": number, "round": index}
                typical = seconds(cell) * math.exp(log)
                _write_slices(records, place, typical, latency_steps)
            order = [cell["id"] for cell in present]
            add_round(records.add, comparison, number, index, order, loud=(number, index) in loud)
        for cell in present if number == 1 else ():
            place = {"cell": cell["id"], "process": served[cell["arm"]]}
            records.lines.append(closing(records.clock, **place))
    records.add(
        "block",
        block=number,
        residency=residency,
        arms=arms,
        comparisons=comparisons,
        rounds=rounds,
        seed=number,
    )


def closing(at: float, *, passed: bool = True, **place: Any) -> bytes:
    """The line of a closing record of one check."""
    check = {"name": "clock", "error": 0.9 if passed else 2.0, "tolerance": 1.0, "note": ""}
    checks = [{**check, "passed": passed}]
    return line("closing", at=at, **place, passed=passed, checks=checks)


def _write_slices(
    records: _Records, place: Mapping[str, Any], typical: float, latency_steps: int
) -> None:
    steps = max(1, round(0.05 / typical))
    total = typical * steps
    own = {"cpu_seconds": total, "wait_seconds": 0.0, "switches": 0, "major_faults": 0}
    fields = {"statistic": "throughput", "steps": steps, "seconds": total}
    records.add("slice", **place, **fields, **own)
    if latency_steps:
        step_seconds = [
            typical * records.generator.lognormvariate(0, 0.002) for _ in range(latency_steps)
        ]
        fields = {"statistic": "latency", "steps": latency_steps, "seconds": sum(step_seconds)}
        records.add("slice", **place, **fields, step_seconds=step_seconds, **own)


def add_round(
    add: Callable[..., None],
    comparison: str,
    block: int,
    index: int,
    order: Sequence[str],
    *,
    loud: bool = False,
) -> None:
    """A round record by ``add(kind, **fields)``, disturbed if ``loud``."""
    add(
        "round",
        comparison=comparison,
        block=block,
        round=index,
        order=list(order),
        canaries=[[0.0002]] * (len(order) + 1),
        wall_seconds=0.5,
        foreign_seconds=0.4 if loud else 0.001,
        steal_seconds=0.0,
        throttled_seconds=None,
        pressure_seconds=0.01,
        load=0.5,
        frequency_mhz=None,
        major_faults=0,
        suspect="foreign load" if loud else None,
    )


def planned_cells(
    arms: Sequence[str], models: Sequence[str], phases: Sequence[str]
) -> list[dict[str, Any]]:
    """Every arm with every model in every phase, as in run.json."""
    pairs = [(model, phase) for model in models for phase in phases]
    triples = [(number, *pair, arm) for number, pair in enumerate(pairs, 1) for arm in arms]
    return [
        {
            "id": f"c{number:04d}",
            "comparison": f"k{comparison:03d}",
            "arm": arm,
            "framework": arm.split(":")[0],
            "mode": arm.split(":")[1].partition("#")[0],
            "model": model,
            "preset": "small",
            "phase": phase,
            "batch": 32,
            "optimizer": "adam" if phase == "training" else None,
            "numeric": "float32",
            "device": "cpu",
            "threads": 2,
            "profile": "default",
        }
        for number, (comparison, model, phase, arm) in enumerate(triples, 1)
    ]


def description(
    cells: Sequence[Mapping[str, Any]], seed: int = 0, level: str = "quick"
) -> dict[str, Any]:
    """What goes into run.json."""
    arms = sorted({cell["arm"] for cell in cells})
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "suite": {
            "name": "synthetic",
            "title": "Runs that were never run",
            "models": sorted({cell["model"] for cell in cells}),
            "arms": arms,
            "level": level,
            "margin": 0.02,
        },
        "seed": seed,
        "machine": {
            "processor": "Example 9000",
            "cores": 2,
            "logical_cores": 2,
            "memory_bytes": 2**33,
        },
        "locks": {
            arm: {
                "how": "sealed",
                "interpreter": "/environments/example/bin/python",
                "hash": f"{arm.split(':')[0]}-0000",
                "lock": [f"{arm.split(':')[0]}==1.2.3"],
            }
            for arm in arms
        },
        "code_version": "0.0.0+synthetic",
        "cells": [dict(cell) for cell in cells],
    }


def process(
    generator: random.Random, number: int, cell: Mapping[str, Any], purpose: str
) -> dict[str, Any]:
    """The fields of a process record."""
    return {
        "process": number,
        "arm": cell["arm"],
        "interpreter": "/environments/example/bin/python",
        "how": "sealed",
        "python": "3.11.9",
        "lock_hash": f"{cell['framework']}-0000",
        "asked": {key: cell[key] for key in ("threads", "device", "numeric")},
        "describe": {"framework": cell["framework"], "version": "1.2.3", "threads": 2},
        "interpreter_seconds": generator.uniform(0.02, 0.03),
        "import_seconds": generator.uniform(0.8, 1.2),
        "device_seconds": generator.uniform(0.01, 0.02),
        "cache_entries": 0,
        "purpose": purpose,
    }


def gate_checks(
    generator: random.Random, cell: Mapping[str, Any], *, wrong: bool = False
) -> list[dict[str, Any]]:
    """The checks of a gate, one of them failed if ``wrong``."""
    checks = [
        ("parameter count", 0.0, 0.0),
        ("parameter/hidden1/kernel", 0.0, 1e-7),
        ("outputs/logits/0", generator.uniform(1e-7, 5e-7), 1e-5),
        ("loss/0", generator.uniform(1e-8, 1e-7), 1e-5),
    ]
    if cell["phase"] == "training":
        checks += [
            ("gradient/hidden1/kernel/0", generator.uniform(1e-6, 5e-6), 1e-4),
            ("gradient/hidden1/bias/0", generator.uniform(1e-6, 5e-6), 1e-4),
            ("step losses", generator.uniform(1e-5, 5e-5), 1e-3),
            ("trained/hidden1/kernel", generator.uniform(1e-5, 5e-5), 5e-2),
        ]
    if wrong:
        name, _, tolerance = checks[-1]
        checks[-1] = (name, 0.31, tolerance)
    return [
        {"name": name, "error": error, "tolerance": tolerance, "passed": error <= tolerance}
        for name, error, tolerance in checks
    ]


def empty_run(folder: Path, *, cells: int = 3, name: str = "empty") -> Run:
    """A run just created, of which the caller is the writer."""
    arms = [f"framework{number}:eager" for number in range(cells)]
    return create(folder, name, description(planned_cells(arms, ["mlp"], ["training"])))
