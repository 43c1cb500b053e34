"""PyTorch's benchmark records and MLPerf's log lines, checked by their formats.

The records are checked by a JSON Schema that follows the column types of PyTorch's table
oss_ci_benchmark_v3 (pytorch/test-infra, commit 61a7757 of 2026-08-21), and more strictly than
ClickHouse does, which ignores fields that it does not know. The log is read by MLPerf's own parser.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mlperf_logging.compliance_checker.mlp_parser import parse_file
from mlperf_logging.mllog import constants

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.logs import block_seconds, measured
from levelfield.harness.analysis.summary import counted, summary
from levelfield.harness.cli.report import report_command
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import load
from levelfield.harness.report import write_report
from levelfield.harness.report.mlperf import mlperf_log
from levelfield.harness.report.pytorch import pytorch_json
from tests.support.reports import ARMS, frames_of
from tests.support.synthetic import write_run
from tests.support.terminal import ROOT

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}  # UInt32
TEXTS = {"type": "object", "additionalProperties": TEXT}  # Map(String, String)


def tuple_of(required: tuple[str, ...], **members: Any) -> dict[str, Any]:
    """A named tuple of the table; members that are not required have default values there."""
    return {
        "type": "object",
        "properties": members,
        "required": [*required],
        "additionalProperties": False,
    }


SCHEMA = {
    "type": "array",
    "items": tuple_of(
        ("benchmark", "model", "metric"),
        benchmark=tuple_of(
            ("name", "mode", "dtype"), name=TEXT, mode=TEXT, dtype=TEXT, extra_info=TEXTS
        ),
        model=tuple_of(
            ("name", "backend"),
            **dict.fromkeys(("name", "type", "backend"), TEXT),
            origins={"type": "array", "items": TEXT},
            extra_info=TEXTS,
        ),
        runners={
            "type": "array",
            "items": tuple_of(
                ("name",),
                **dict.fromkeys(
                    ("name", "type", "cpu_info", "mem_info", "gpu_info", "gpu_mem_info"), TEXT
                ),
                **dict.fromkeys(
                    ("cpu_count", "avail_mem_in_gb", "gpu_count", "avail_gpu_mem_in_gb"), COUNT
                ),
                extra_info=TEXTS,
            ),
        },
        dependencies={
            "type": "object",
            "additionalProperties": tuple_of(
                ("version",),
                **dict.fromkeys(("repo", "branch", "sha", "version"), TEXT),
                extra_info=TEXTS,
            ),
        },
        metric=tuple_of(
            ("name", "benchmark_values"),
            name=TEXT,
            benchmark_values={
                "type": "array",
                "minItems": 1,
                "items": {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38},  # Float32
            },
            target_value={"type": "number"},
            extra_info=TEXTS,
        ),
    ),
}


def records_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file, which have no constants such as NaN that JSON lacks."""

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    records = json.loads(path.read_text(), parse_constant=refuse)
    jsonschema.validate(records, SCHEMA)
    return list(records)


def test_pytorchs_table_takes_every_metric(tmp_path: Path) -> None:
    run = write_run(tmp_path, models=("mlp",), phases=("inference", "training", "generation"))
    (path,) = write_report([run], tmp_path / "report", formats=("pytorch",))
    records = records_of(path)
    assert {record["benchmark"]["mode"] for record in records} == {
        *("inference", "training", "generation")
    }
    assert {record["metric"]["name"] for record in records} >= {
        *("step_seconds", "examples_per_second", "latency_p50_seconds", "startup_seconds"),
        *("peak_bytes", "output_error"),
    }


def test_a_record_has_the_seconds_of_every_block(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong"}, loud=[(1, 0)])
    records = json.loads(pytorch_json(frames, comparisons_of(frames)))
    jsonschema.validate(records, SCHEMA)
    seconds = block_seconds(measured(frames), "throughput")
    table = summary(frames)
    fine = table[(table["status"] == "ok") & ~table["arm"].str.endswith("#2")]
    steps = [record for record in records if record["metric"]["name"] == "step_seconds"]
    expected = {
        (row["arm"], row["phase"]): seconds.loc[row["run"], row["cell"]].tolist()
        for row in fine.to_dict("records")
    }
    assert {
        (record["model"]["backend"], record["benchmark"]["mode"]): record["metric"][
            "benchmark_values"
        ]
        for record in steps
    } == expected
    assert len(steps) == len(fine) < len(table)


def test_a_number_that_was_not_measured_is_no_metric(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    frames.memory["peak_bytes"] = frames.memory["peak_bytes"].mask(frames.memory["arm"] == ARMS[0])
    records = json.loads(pytorch_json(frames, comparisons_of(frames)))
    with_memory = {r["model"]["backend"] for r in records if r["metric"]["name"] == "peak_bytes"}
    assert with_memory == {*ARMS} - {ARMS[0]}


def test_each_run_has_its_own_machine(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, arms=ARMS, models=("mlp",), name=name) for name in ("one", "two")]
    description = json.loads((paths[1] / "run.json").read_text())
    odd = {"processor": "Other\n:::MLLOG {}", "memory_bytes": None, "logical_cores": None}
    description["machine"] = {**description["machine"], **odd, "gpus": ["Board", "Board"]}
    (paths[1] / "run.json").write_text(json.dumps(description))
    (path,) = write_report(paths, tmp_path / "report", formats=("pytorch",))
    (runner,) = {
        json.dumps(record["runners"])
        for record in records_of(path)
        if record["benchmark"]["extra_info"]["run"] == "two"
    }
    assert json.loads(runner)[0]["type"] == odd["processor"]
    assert json.loads(runner)[0]["gpu_info"] == "Board, Board"
    assert json.loads(runner)[0]["gpu_count"] == 2
    assert not {"avail_mem_in_gb", "cpu_count"} & json.loads(runner)[0].keys()
    (path,) = write_report(paths, tmp_path / "report", formats=("mlperf",))
    lines, errors = parse_file(path, ruleset="6.1.0")
    assert not errors
    assert odd["processor"] in {line.value["value"] for line in lines}


def test_mlperfs_parser_reads_every_line(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), blocks=2, statuses={2: "wrong"})
    (path,) = write_report([run], tmp_path / "report", formats=("mlperf",))
    lines, errors = parse_file(path, ruleset="6.1.0")
    assert not errors
    assert len(lines) == len(path.read_text().splitlines())
    keys = {line.key for line in lines}
    known = {value for name, value in vars(constants).items() if name.isupper()}
    assert keys <= known
    assert keys >= {"submission_benchmark", "seed", "global_batch_size", "opt_name"}
    assert keys >= {"block_start", "block_stop"}
    times = [line.timestamp for line in lines]
    assert times == sorted(times)


def test_the_log_has_every_throughput_slice_of_the_arms_that_are_ok(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong"}, loud=[(1, 0)])
    text = mlperf_log(frames, comparisons_of(frames))
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in text.splitlines()]
    slices = counted(frames.slices, "throughput", "comparison", "arm", "seconds", "steps", "batch")
    slices = slices[~slices["arm"].str.endswith("#2")]
    ok = {cell for cell, status in frames.cells[["cell", "status"]].to_numpy() if status == "ok"}
    slices = slices[slices["cell"].isin(ok)]
    for (run, comparison, arm), part in slices.groupby(["run", "comparison", "arm"]):
        mine = [event for event in events if event["namespace"] == f"{run}/{comparison}/{arm}"]
        stops = [event for event in mine if event["key"] == "block_stop"]
        starts = [event for event in mine if event["key"] == "block_start"]
        seconds = [
            (stop["time_ms"] - start["time_ms"]) / 1000
            for start, stop in zip(starts, stops, strict=True)
        ]
        assert sorted(seconds) == pytest.approx(sorted(part["seconds"]), abs=2e-6)
        samples = int((part["steps"] * part["batch"]).sum())
        assert stops[-1]["metadata"]["samples_count"] == samples
        assert [stop["metadata"]["samples_count"] for stop in stops[:-1]] == [
            start["metadata"]["samples_count"] for start in starts[1:]
        ]
    assert sum(event["key"] == "block_stop" for event in events) == len(slices)
    assert any(event["metadata"].get("disturbed") for event in events)


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("example", {"test_accuracy"}),
        ("families", {"first_token_seconds", "further_token_seconds"}),
    ],
)
def test_published_runs_are_read(tmp_path: Path, name: str, metrics: set[str]) -> None:
    run = ROOT / "results" / name
    log, records = tmp_path / "mlperf.log", tmp_path / "pytorch-benchmark.json"
    written = write_report(run, tmp_path, formats=("pytorch", "mlperf"))
    assert {*written} == {log, records}
    lines, errors = parse_file(log, ruleset="6.1.0")
    assert not errors
    frames = load(run)
    accuracies = [line for line in lines if line.key == "eval_accuracy"]
    twins = frames.epochs["arm"].str.endswith("#2")
    ok = frames.epochs["cell"].isin(frames.cells.loc[frames.cells["status"] == "ok", "cell"])
    assert len(accuracies) == int((ok & ~twins & frames.epochs["test_accuracy"].notna()).sum()) > 0
    assert all(math.isfinite(line.value["value"]) for line in accuracies)
    assert metrics <= {record["metric"]["name"] for record in records_of(records)}


def test_the_command_writes_the_format_that_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), blocks=2)
    target = tmp_path / "out"
    report_command([run], output=target, formats=["pytorch"])
    assert [path.name for path in target.iterdir()] == ["pytorch-benchmark.json"]
    assert f"report: {target / 'pytorch-benchmark.json'}" in capsys.readouterr().out
    report_command([run], output=target, formats=["mlperf", "latex"])
    assert {path.name for path in target.iterdir()} == {
        *("pytorch-benchmark.json", "mlperf.log", "tables.tex")
    }


def test_an_unknown_format_is_refused_before_any_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), blocks=2)
    with pytest.raises(BadInput, match=r"--format: 'pdf' is none of markdown.*pytorch, mlperf"):
        report_command([run], formats=["pdf"])
    assert not capsys.readouterr().out
    assert not (run / "report").exists()
