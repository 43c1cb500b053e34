"""Reports as records of PyTorch's benchmark database, the table ``oss_ci_benchmark_v3``.

Each record is one metric of one arm in one comparison. The fields that describe a job of PyTorch's
CI (repository, branch, workflow, job, time) are added by the program that uploads the records.

Format: https://github.com/pytorch/test-infra, the table in
``clickhouse_db_schema/benchmark.oss_ci_benchmark_v3/schema.sql``, and its reader
``.github/scripts/upload_benchmark_results.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.logs import block_seconds, measured
from levelfield.harness.machine.describe import recorded
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.provenance import versions
from levelfield.harness.report.text import ABSENT

BENCHMARK = "levelfield"  # the benchmark's name in the database
# Metrics with a value per block, by the statistic of the slices.
BLOCK_METRICS = {
    "throughput": "step_seconds",
    "first_token": "first_token_seconds",
    "further_token": "further_token_seconds",
}
# Metrics with one value: columns of the summary, and their units.
SINGLE_METRICS = {
    **dict.fromkeys(("latency_p50_seconds", "latency_p95_seconds", "latency_p99_seconds"), "s"),
    "startup_seconds": "s",
    "peak_bytes": "B",
    "output_error": "1",
    "test_accuracy": "1",
}
_LARGEST = 2**32 - 1  # of a UInt32, which the table has for counts
_GIB = 2**30


def pytorch_json(frames: Frames, comparisons: Sequence[Comparison]) -> str:
    """Every metric of every arm that is ok, as JSON: a list of records.

    Times per step and per token have a value for each block, in seconds: the geometric mean of the
    block's slices, without the machine's drift. Other metrics have one value. The format has no
    room for verdicts.
    """
    logs = measured(frames)
    seconds = {
        metric: {key: part.tolist() for key, part in blocks.groupby(level=["run", "cell"])}
        for statistic, metric in BLOCK_METRICS.items()
        if len(blocks := block_seconds(logs, statistic))
    }
    owners = {run["run"]: run for run in frames.runs.to_dict("records")}
    runners = {run: [_runner(recorded(row["machine"]))] for run, row in owners.items()}
    arms = {run: _versions(frames, run) for run in owners}
    records = []
    for comparison in comparisons:
        run = comparison.run
        suite = recorded(owners[run]["suite"]).get("name")
        for cell in comparison.rows.to_dict("records"):
            if cell["status"] != "ok":
                continue
            common = {
                "benchmark": _benchmark(comparison, cell, suite),
                "model": _model(cell),
                "runners": [{"name": cell["device"], **runners[run][0]}],
                "dependencies": _dependencies(cell, arms[run]),
            }
            blocks = {name: values.get((run, cell["cell"])) for name, values in seconds.items()}
            records += [{**common, "metric": metric} for metric in _metrics(cell, blocks)]
    return json.dumps(records, indent=1, allow_nan=False) + "\n"


def _metrics(cell: Mapping[Any, Any], blocks: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the metrics of a cell. ``blocks``: seconds per block by the metric's name, or None."""
    for name, values in blocks.items():
        if values:
            yield _metric(name, values, "s", "block")
    if steps := blocks.get("step_seconds"):
        rates = [cell["batch"] / value for value in steps]
        yield _metric("examples_per_second", rates, "1/s", "block")
    for name, unit in SINGLE_METRICS.items():
        value = _number(cell[name])
        if value is not None:
            yield _metric(name, [value], unit, "run")


def _metric(name: str, values: Sequence[float], unit: str, of: str) -> dict[str, Any]:
    return {
        "name": name,
        "benchmark_values": [*values],
        "extra_info": {"unit": unit, "value_of_each": of},
    }


def _benchmark(comparison: Comparison, cell: Mapping[Any, Any], suite: Any) -> dict[str, Any]:
    extra = {
        "suite": suite,
        "comparison": comparison.id,
        "batch": cell["batch"],
        "optimizer": cell["optimizer"],
        "threads": cell["threads"],
        "profile": cell["profile"],
        "device": cell["device"],
        "run": comparison.run,
    }
    return {
        "name": BENCHMARK,
        "mode": cell["phase"],
        "dtype": cell["numeric"],
        "extra_info": _texts(extra),
    }


def _model(cell: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "name": f"{cell['model']}/{cell['preset']}",
        "type": "model",
        "backend": cell["arm"],
        "origins": [BENCHMARK],
    }


def _runner(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the machine of a run; a fact that run.json lacks is left out."""
    memory, gpus = _number(machine.get("memory_bytes")), machine.get("gpus")
    boards = [str(board) for board in gpus] if isinstance(gpus, list) else []
    counts = {
        "cpu_count": _number(machine.get("logical_cores")),
        "avail_mem_in_gb": None if memory is None else memory / _GIB,
        "gpu_count": len(boards) or None,
    }
    facts = {
        "type": machine.get("processor"),
        "cpu_info": machine.get("architecture"),
        "gpu_info": ", ".join(boards),
    }
    extra = {"system": machine.get("system"), "cores": machine.get("cores")}
    return {
        **_texts(facts),
        **{
            name: int(count)
            for name, count in counts.items()
            if count is not None and 0 <= count <= _LARGEST
        },
        "extra_info": _texts(extra),
    }


def _versions(frames: Frames, run: str) -> dict[str, str]:
    """Arm -> the version that its processes reported."""
    rows = versions(frames, run)
    return {row["arm"]: row["version"] for row in rows if row["version"] != ABSENT}


def _dependencies(cell: Mapping[Any, Any], arms: Mapping[str, str]) -> dict[str, dict[str, str]]:
    version = arms.get(cell["arm"])
    return {} if version is None else {cell["framework"]: {"version": version}}


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as texts, because the database's maps hold texts only; without those that are empty."""
    return {name: str(fact) for name, fact in facts.items() if fact is not None and fact != ""}


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else, such as pandas.NA."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
