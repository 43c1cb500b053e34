"""Appending is fast; reading and reporting runs is linear in their records, and fast."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.summary import summary
from levelfield.harness.records.frames import load
from levelfield.harness.records.kinds import SliceRecord
from levelfield.harness.records.store import open_run, read_records
from levelfield.harness.report.tables import comparison_tables, markdown
from tests.support.synthetic import empty_run, write_run

pytestmark = pytest.mark.alone

SIZES = (1_000, 10_000, 100_000)
MILLION = 1_000_000
# The most CPU seconds that loading and reporting may take, without the drawing of charts, over
# those of parsing the same bytes: the machine's speed drops out. Seen were 14 and 7, beside
# another test. They guard the growth; the goals, 2 and 10 seconds, are a machine's and not theirs.
PARSINGS_OF_100_000, PARSINGS_OF_A_MILLION = 20, 10
GROWTH_SLACK = 2.0  # how much worse than linear ten times the records may be
ARMS = ("torch:eager", "jax:jit", "flax:jit", "keras:jax", "tensorflow:xla", "torch:compile")


def run_of(folder: Path, size: int) -> Path:
    """A run of about so many records: more rounds of the same blocks make it longer."""
    few = write_run(folder, name=f"few{size}", arms=ARMS, rounds=4, latency_steps=4, statuses={})
    lines = (few / "records.jsonl").read_bytes().splitlines(keepends=True)
    kinds = (b'"record":"slice"', b'"record":"round"')
    rounds = [line for line in lines if any(kind in line for kind in kinds)]
    copies = max(0, (size - len(lines)) // len(rounds) + 1)
    records = [json.loads(line) for line in rounds]
    more: list[bytes] = []
    for _ in range(copies):
        for record in records:
            record["round"] += 4
        more += [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records]
    ends = [line for line in lines if b'"record":"status"' in line]
    rest = [line for line in lines if b'"record":"status"' not in line]
    kept = [*rest, *more][: max(size - len(ends), len(rest))]
    (few / "records.jsonl").write_bytes(b"".join([*kept, *ends]))
    return few


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Runs by their number of records, made when they are first asked for."""
    folder, made = tmp_path_factory.mktemp("results"), {}

    def run(size: int) -> Path:
        if size not in made:
            made[size] = run_of(folder, size)
        return Path(made[size])

    return run


def tables(path: Path) -> int:
    return len(summary(load(path)))


def report(path: Path) -> str:
    frames = load(path)
    return markdown(comparison_tables(frames, comparisons_of(frames)))


@pytest.mark.parametrize("size", SIZES)
def test_load(benchmark: Any, runs: Callable[[int], Path], size: int) -> None:
    benchmark.pedantic(tables, args=(runs(size),), rounds=3, warmup_rounds=1)


def test_report(benchmark: Any, runs: Callable[[int], Path]) -> None:
    benchmark.pedantic(report, args=(runs(10_000),), rounds=3, warmup_rounds=1)


def test_read_records(benchmark: Any, runs: Callable[[int], Path]) -> None:
    run = open_run(runs(10_000))
    assert len(benchmark.pedantic(read_records, args=(run,), rounds=3)) >= 10_000


def test_append(benchmark: Any, tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        place = {"cell": "c0001", "process": 1, "block": 1, "round": 0}
        record = SliceRecord(
            **place, statistic="throughput", steps=100, seconds=0.2, cpu_seconds=0.2
        )
        benchmark(run.append, record)


def parse(path: Path) -> None:
    """The yardstick: what the machine does to the same bytes, whatever it is."""
    for line in (path / "records.jsonl").read_bytes().splitlines():
        orjson.loads(line)


def seconds_of(work: Callable[[Path], Any], path: Path, times: int = 3) -> float:
    best = float("inf")
    for _ in range(times):
        begin = time.process_time()
        work(path)
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.long
def test_loading_and_reporting_are_linear_and_fast(runs: Callable[[int], Path]) -> None:
    for work in (tables, report):
        few, many = (seconds_of(work, runs(size)) for size in SIZES[1:])
        assert many < PARSINGS_OF_100_000 * seconds_of(parse, runs(SIZES[-1]))
        assert many < 10 * GROWTH_SLACK * few


@pytest.mark.long
def test_a_million_records_are_loaded_and_reported(runs: Callable[[int], Path]) -> None:
    parsed = seconds_of(parse, runs(MILLION))
    assert seconds_of(report, runs(MILLION), times=1) < PARSINGS_OF_A_MILLION * parsed
