"""Reading runs is linear in their records, and fast."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from harness.frames import load, summary
from harness.store import open_run, read_records
from tests.synthetic import empty_run, write_run

SIZES = (1_000, 10_000, 100_000)
SECONDS_OF_100_000 = 2.0
GROWTH_SLACK = 2.0  # how much worse than linear ten times the records may be


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs by their number of records: two thirds throughput slices, one third latency's."""
    folder = tmp_path_factory.mktemp("results")
    paths = {}
    for size in SIZES:
        path = write_run(folder, name=f"run{size}", slices=2, latency_slices=0, statuses={})
        lines = (path / "records.jsonl").read_bytes().splitlines(keepends=True)
        ids = [cell["id"] for cell in open_run(path).description["cells"]]
        for index in range(size - len(lines)):
            record: dict[str, Any] = {
                "record": "slice",
                "at": 1.76e9 + index,
                "cell": ids[index % len(ids)],
                "process": index % len(ids),
                "index": index // len(ids),
                "statistic": "throughput",
                "steps": 123,
                "seconds": 0.2 + 1e-6 * (index % 1000),
            }
            if index % 3 == 0:
                record |= {"statistic": "latency", "steps": 5, "step_seconds": [0.0123456789] * 5}
            lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        (path / "records.jsonl").write_bytes(b"".join(lines[:size]))
        paths[size] = path
    return paths


def tables(path: Path) -> int:
    return len(summary(load(path)))


@pytest.mark.parametrize("size", SIZES)
def test_load(benchmark: Any, runs: dict[int, Path], size: int) -> None:
    benchmark.pedantic(tables, args=(runs[size],), rounds=3, warmup_rounds=1)


def test_read_records(benchmark: Any, runs: dict[int, Path]) -> None:
    assert len(benchmark.pedantic(read_records, args=(open_run(runs[10_000]),), rounds=3)) == 10_000


def test_append(benchmark: Any, tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        fields = {"cell": "c0001", "process": 1, "index": 0, "statistic": "throughput"}
        benchmark(run.append, "slice", **fields, steps=100, seconds=0.2)


def test_loading_is_linear_and_fast(runs: dict[int, Path]) -> None:
    seconds = {}
    for size in SIZES:
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            tables(runs[size])
            best = min(best, time.process_time() - begin)
        seconds[size] = best
    assert seconds[100_000] < SECONDS_OF_100_000
    assert seconds[100_000] < 10 * GROWTH_SLACK * seconds[10_000]
