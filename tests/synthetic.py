"""Runs that were never run, with realistic records of every kind, for tests of what reads runs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.store import STATUSES, Run, create, record_line

ARMS = (
    *("torch:eager", "torch:compile", "tensorflow:function", "tensorflow:xla"),
    *("jax:jit", "keras:jax", "onnxruntime:default", "reference:numpy"),
)
MODELS = ("mlp", "lenet", "resnet")
SPEED = {"eager": 1.0, "compile": 0.8, "function": 1.15, "xla": 0.9, "jit": 0.75, "numpy": 6.0}
REASONS = {
    "wrong": "gradient/hidden1/kernel is 0.31 off, tolerance 0.0001",
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
    "first_step": 500,
    "steady": 480,
}
START = 1_760_000_000.0  # seconds since 1970, of the first record


def write_run(
    folder: Path,
    *,
    arms: Sequence[str] = ARMS,
    models: Sequence[str] = MODELS,
    phases: Sequence[str] = ("inference", "training"),
    slices: int = 12,
    latency_slices: int = 3,
    latency_steps: int = 40,
    seed: int = 0,
    name: str = "synthetic",
    speed: Mapping[str, float] | None = None,
    statuses: Mapping[int, str] | None = None,
) -> Path:
    """Write a run below ``folder`` and return its path.

    ``speed``: arm -> how many times slower than the fastest. ``statuses``: number of a cell ->
    its status, or "unfinished"; unless given, runs of 24 cells and more have one of each.
    """
    random.Random(seed)
    cells = planned_cells(arms, models, phases)
    bad = [*STATUSES[1:], "unfinished"]
    if statuses is None:
        few = len(cells) < 3 * len(bad)
        statuses = {} if few else {(2 * n + 1) * len(cells) // 16: s for n, s in enumerate(bad)}
    records = _Records(random.Random(seed))
    for number, cell in enumerate(cells):
        factor = (speed or {}).get(cell["arm"]) or SPEED.get(cell["mode"], 1.1)
        cost = 1e-3 * 3.0 ** models.index(cell["model"]) * PHASE_COST[cell["phase"]]
        status = statuses.get(number, "ok")
        shape = (slices, latency_slices, latency_steps)
        _write_cell(records, cell, status, cost * factor, shape)
    with create(folder, name, description(cells, seed)) as run:
        run.records_path.write_bytes(b"".join(records.lines))
    return run.path


class _Records:
    """The lines of a run to be, on a clock of their own."""

    def __init__(self, generator: random.Random) -> None:
        self.generator, self.clock, self.processes = generator, START, 0
        self.lines: list[bytes] = []

    def add(self, kind: str, **fields: Any) -> None:
        self.clock += self.generator.uniform(0.01, 1.0)
        self.lines.append(record_line(kind, {"at": round(self.clock, 3), **fields}))

    def start(self, cell: Mapping[str, Any], purpose: str) -> dict[str, Any]:
        """A process for a cell; returns what its records begin with."""
        self.processes += 1
        self.add("process", **process(self.generator, self.processes, cell, purpose))
        return {"cell": cell["id"], "process": self.processes}


def _write_cell(
    records: _Records,
    cell: Mapping[str, Any],
    status: str,
    seconds: float,
    shape: tuple[int, int, int],
) -> None:
    """Whatever a cell leaves behind that ends with ``status``; ``seconds`` are those of a step."""
    if status not in ("unsupported", "unwritten", "no-environment"):
        where = records.start(cell, "timing")
        if status not in ("failed", "out-of-memory"):
            checks = gate_checks(records.generator, cell, wrong=status == "wrong")
            passed = all(check["passed"] for check in checks)
            records.add("gate", **where, passed=passed, checks=checks)
            if passed:
                slices, latency_slices, latency_steps = shape
                if status != "ok":  # stopped half way
                    slices, latency_slices = slices // 2, 0
                _write_timing(
                    records, cell, where, seconds, (slices, latency_slices, latency_steps)
                )
        if status == "ok":
            _write_lesson_and_memory(records, cell, where)
    if status != "unfinished":
        records.add("status", cell=cell["id"], status=status, reason=REASONS.get(status))


def _write_timing(
    records: _Records,
    cell: Mapping[str, Any],
    where: Mapping[str, Any],
    seconds: float,
    shape: tuple[int, int, int],
) -> None:
    generator = records.generator
    typical = seconds * generator.uniform(0.97, 1.03)
    compiles = cell["mode"] in ("compile", "xla", "jit")
    records.add(
        "startup",
        **where,
        build_seconds=0.05 * generator.uniform(0.9, 1.2),
        compile_seconds=2.0 * generator.uniform(0.9, 1.4) if compiles else None,
        first_step_seconds=typical + (1.5 if compiles else 0.1) * generator.uniform(0.9, 1.2),
        second_step_seconds=typical * 1.2,
    )
    slices, latency_slices, latency_steps = shape
    for index in range(slices):
        steps = max(1, round(0.2 / typical))
        total = typical * steps * generator.lognormvariate(0, 0.03)
        fields = {"index": index, "statistic": "throughput", "steps": steps, "seconds": total}
        records.add("slice", **where, **fields)
    for index in range(latency_slices):
        each = [typical * generator.lognormvariate(0.02, 0.08) for _ in range(latency_steps)]
        fields = {"index": index, "statistic": "latency", "steps": latency_steps}
        records.add("slice", **where, **fields, seconds=sum(each), step_seconds=each)


def _write_lesson_and_memory(
    records: _Records, cell: Mapping[str, Any], where: Mapping[str, Any]
) -> None:
    if cell["phase"] == "training":
        accuracy = records.generator.uniform(0.96, 0.97)
        fields = {"test_accuracy": accuracy, "test_loss": 0.12, "train_loss": 0.09}
        records.add("accuracy", **where, **fields, train_steps=400, reason=None)
    where = records.start(cell, "memory")
    for stage, mebibytes in STAGE_MEBIBYTES.items():
        peak = int(mebibytes * 2**20 * records.generator.uniform(0.99, 1.01))
        records.add("memory", **where, phase=stage, peak_bytes=peak, reason=None)


def planned_cells(
    arms: Sequence[str], models: Sequence[str], phases: Sequence[str]
) -> list[dict[str, Any]]:
    """Every arm with every model in every phase, as in run.json."""
    triples = [(model, phase, arm) for model in models for phase in phases for arm in arms]
    return [
        {
            "id": f"c{number:04d}",
            "arm": arm,
            "framework": arm.split(":")[0],
            "mode": arm.split(":")[1],
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
        for number, (model, phase, arm) in enumerate(triples, 1)
    ]


def description(cells: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """What goes into run.json."""
    labels = sorted({cell["framework"] for cell in cells})
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "suite": {"name": "synthetic", "slices": 12},
        "seed": seed,
        "machine": {"processor": "Example 9000", "cores": 2, "memory_bytes": 2**33},
        "locks": {
            label: {"hash": f"{label}-0000", "lock": [f"{label}==1.2.3"], "python": "3.11.9"}
            for label in labels
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
        "cache_entries": 0,
        "purpose": purpose,
    }


def gate_checks(
    generator: random.Random, cell: Mapping[str, Any], *, wrong: bool = False
) -> list[dict[str, Any]]:
    """The checks of a gate, one of them failed if ``wrong``."""
    checks = [
        ("parameter count", 0.0, 0.0),
        ("shape/hidden1/kernel", 0.0, 0.0),
        ("outputs/logits", generator.uniform(1e-7, 5e-7), 1e-5),
        ("loss", generator.uniform(1e-8, 1e-7), 1e-5),
    ]
    if cell["phase"] == "training":
        checks += [
            ("gradient/hidden1/kernel", generator.uniform(1e-6, 5e-6), 1e-4),
            ("gradient/hidden1/bias", generator.uniform(1e-6, 5e-6), 1e-4),
            ("steps/adam losses", generator.uniform(1e-5, 5e-5), 1e-3),
            ("trained/hidden1/kernel", generator.uniform(1e-5, 5e-5), 1e-3),
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
