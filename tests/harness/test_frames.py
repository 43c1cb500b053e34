"""Frames: exactly as documented, nothing of wrong cells, no cell lost, the same to the byte."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from levelfield.harness.analysis.summary import peak_ends, summary
from levelfield.harness.analysis.verdicts import judge, verdict_frame
from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.records.columns import COLUMNS
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.records.kinds import KINDS
from levelfield.harness.records.runs import UnreadableRun
from levelfield.harness.records.store import (
    CLOSED_SINCE,
    SCHEMA,
    STATUSES,
    Run,
    TornRecord,
    open_run,
    read_records,
)
from levelfield.harness.report import export
from levelfield.harness.report.export import write_csv, write_parquet
from tests.support.synthetic import (
    ARMS,
    MODELS,
    add_round,
    appending,
    empty_run,
    gate_checks,
    process,
    write_run,
)

NAMES = [field.name for field in dataclasses.fields(Frames)]
ROOT = Path(__file__).parents[2]
MEASURED = [
    column
    for column, (dtype, _) in COLUMNS["summary"].items()
    if dtype in ("float64", "Int64") and "error" not in column and column != "flops"
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def full(path: Path) -> Frames:
    return load(path)


def tables(loaded: Frames) -> dict[str, pandas.DataFrame]:
    tables = {name: getattr(loaded, name) for name in NAMES}
    return {**tables, "summary": summary(loaded), "verdicts": verdict_frame(judge(loaded))}


def assert_as_documented(loaded: Frames) -> None:
    for name, frame in tables(loaded).items():
        expected = [(column, dtype) for column, (dtype, _) in COLUMNS[name].items()]
        assert [(column, str(frame[column].dtype)) for column in frame.columns] == expected, name
        assert isinstance(frame.index, pandas.RangeIndex)
        texts = [column for column, (dtype, _) in COLUMNS[name].items() if dtype == "str"]
        assert not frame[texts].isna().any(axis=None)


# -- a small run by hand ----------------------------------------------------------------------


def start(run: Run, cell: str, number: int, *, purpose: str = "resident") -> None:
    described = next(c for c in run.description["cells"] if c["id"] == cell)
    fields = process(random.Random(number), number, described, purpose)
    block = number if purpose == "resident" else None
    run.append(KINDS["process"](**{**fields, "import_seconds": float(number), "block": block}))


def gate(run: Run, cell: str, number: int, *, passed: bool = True, **change: Any) -> None:
    check = {"name": "outputs/logits", "error": 1e-7, "tolerance": 1e-5, "passed": passed}
    run.append(
        KINDS["gate"](cell=cell, process=number, passed=passed, checks=[{**check, **change}])
    )
    close(run, cell, number)


def close(run: Run, cell: str, number: int, *, passed: bool = True) -> None:
    """The closing gate, which every cell with slices has passed."""
    check = {"name": "clock", "error": 0.9, "tolerance": 1.0, "passed": passed}
    run.append(KINDS["closing"](cell=cell, process=number, passed=passed, checks=[check]))


OWN = {"cpu_seconds": 0.5, "wait_seconds": 0.1, "switches": 1, "major_faults": 0}


def throughput(run: Run, cell: str, number: int, *seconds: float, first: int = 0) -> None:
    """Slices of the rounds from ``first`` on, in the block that has the process's number."""
    for index, duration in enumerate(seconds, first):
        fields = {"block": number, "round": index, "statistic": "throughput", "steps": 10}
        run.append(KINDS["slice"](cell=cell, process=number, **fields, seconds=duration, **OWN))
        rounds(run, number, index)


def rounds(run: Run, block: int, index: int, *, loud: bool = False) -> None:
    add_round(appending(run), "k001", block, index, ["c0001"], loud=loud)


def latency(run: Run, cell: str, number: int, index: int, seconds: list[float]) -> None:
    fields = {"block": number, "round": index, "statistic": "latency", "steps": len(seconds)}
    total = {"seconds": sum(seconds), "step_seconds": seconds}
    run.append(KINDS["slice"](cell=cell, process=number, **fields, **total, **OWN))


def startup(run: Run, cell: str, number: int, first: float, *, new: int | None = None) -> None:
    fields = {"build_seconds": 0.5, "first_step_seconds": first, "second_step_seconds": 0.2}
    run.append(KINDS["startup"](cell=cell, process=number, **fields, new_cache_entries=new))


def memory(run: Run, cell: str, number: int, **peaks: int | None) -> None:
    for phase, peak in peaks.items():
        run.append(KINDS["memory"](cell=cell, process=number, phase=phase, peak_bytes=peak))


def test_shares_are_of_the_watched_cores_and_in_older_runs_of_the_machine(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        for index, watched in enumerate(([5], [5, 37], None)):

            def add(kind: str, watched: list[int] | None = watched, **fields: Any) -> None:
                own = {} if watched is None else {"watched_cores": watched}
                run.append(KINDS[kind](**{**fields, "foreign_seconds": 0.04, **own}))

            add_round(add, "k001", 1, index, ["c0001"])
    rounds = load(run.path).rounds
    machine = run.description["machine"]["logical_cores"]
    assert rounds["watched_cores"].tolist() == [1, 2, machine]
    assert rounds["foreign_share"].tolist() == pytest.approx([0.08, 0.04, 0.08 / machine])
    assert rounds["rule"].tolist()[:2] == ["foreign load"] * 2


@pytest.mark.parametrize("watched", [["0"], "0", 1, {"0": 1}])
def test_watched_cores_that_are_no_list_are_refused(tmp_path: Path, watched: Any) -> None:
    with empty_run(tmp_path) as run:

        def add(kind: str, **fields: Any) -> None:
            run.append(KINDS[kind](**fields, watched_cores=watched))

        add_round(add, "k001", 1, 0, ["c0001"])
    with pytest.raises(BadInput, match=r"watched.cores"):
        load(run.path)


# -- as documented ----------------------------------------------------------------------------


def test_full_frames_are_as_documented(full: Frames) -> None:
    assert_as_documented(full)
    assert all(len(frame) for frame in tables(full).values())


def test_empty_frames_are_as_documented(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    assert_as_documented(load(run.path))
    run = empty_run(tmp_path, cells=0)
    assert_as_documented(load(run.path))
    assert_as_documented(load([]))


def test_every_frame_is_documented() -> None:
    assert [*COLUMNS] == [*NAMES, "summary", "verdicts"]
    for columns in COLUMNS.values():
        for column, (dtype, description) in columns.items():
            assert dtype in ("float64", "str", "int64", "Int64", "bool"), column
            assert description
            assert "\n" not in description
            if column.endswith("_seconds") or column == "seconds":
                assert dtype == "float64"
            if column.endswith("_bytes"):
                assert dtype == "Int64"


def test_cells_are_those_planned(path: Path, full: Frames) -> None:
    planned = open_run(path).description["cells"]
    for table in (full.cells, summary(full)):
        assert table["cell"].tolist() == [cell["id"] for cell in planned]
        assert table["arm"].tolist() == [cell["arm"] for cell in planned]
        assert table["optimizer"].tolist() == [cell["optimizer"] or "" for cell in planned]
        assert set(table["status"]) == {*STATUSES, "unfinished"}
        assert (table["reason"] == "")[table["status"] == "ok"].all()
        assert (table["reason"] != "")[~table["status"].isin(["ok", "unfinished"])].all()


def test_counts_match_the_records(path: Path, full: Frames) -> None:
    records = read_records(open_run(path))

    def count(kind: str) -> int:
        return sum(record["record"] == kind for record in records)

    assert len(full.slices) == count("slice")
    assert len(full.processes) == count("process")
    assert len(full.startup) == count("startup")
    assert len(full.memory) == count("memory")
    assert len(full.gate) == sum(len(r["checks"]) for r in records if r["record"] == "gate")
    steps = [r.get("step_seconds") or () for r in records if r["record"] == "slice"]
    assert len(full.steps) == sum(map(len, steps))
    assert full.runs["cells"].tolist() == [(len(ARMS) + 1) * len(MODELS) * 2]
    assert len(full.rounds) == count("round")
    assert len(full.blocks) == count("block")
    assert len(full.ceilings) == count("ceiling")
    assert len(full.calibrations) == count("calibration")


# -- the summary against plain arithmetic -----------------------------------------------------


def test_summary_by_hand(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=2) as run:
        start(run, "c0001", 1)
        gate(run, "c0001", 1)
        startup(run, "c0001", 1, first=0.9)
        throughput(run, "c0001", 1, 1.0, 4.0, 2.0)
        latency(run, "c0001", 1, 1, [0.1, 0.3, 0.2])
        latency(run, "c0001", 1, 2, [0.5])
        start(run, "c0001", 2, purpose="memory")
        memory(run, "c0001", 2, interpreter=5, build=70, steady=60, first_step=None)
        memory(run, "c0001", 2, **{"import": 20})
        start(run, "c0001", 3)
        throughput(run, "c0001", 3, 8.0)
        fields = {"test_accuracy": 0.75, "test_loss": 0.5, "train_loss": 0.25, "train_steps": 9}
        run.append(KINDS["accuracy"](cell="c0001", process=1, **fields))
        run.append(KINDS["status"](cell="c0001", status="ok"))
    loaded = load(run.path)
    row = summary(loaded).iloc[0]
    assert row.step_seconds == pytest.approx(0.4)  # blocks of 0.2 and 0.8
    spread = math.log(4) / 2 * 12.706204736  # standard error of two blocks, t with 1 degree
    assert row.step_seconds_low == pytest.approx(0.4 / math.exp(spread))
    assert row.step_seconds_high == pytest.approx(0.4 * math.exp(spread))
    assert row.examples_per_second == pytest.approx(32 / 0.4)
    assert (row.blocks, row.slices) == (2, 4)
    assert row.concurrency == pytest.approx(0.1875)  # of 0.5, 0.125, 0.25 and 0.0625
    assert row.startup_seconds > 1.0 + 0.5 + 0.9
    pooled = [0.1, 0.2, 0.3, 0.5]
    for percent in (50, 95, 99):
        assert row[f"latency_p{percent}_seconds"] == pytest.approx(
            numpy.percentile(pooled, percent), rel=1e-12
        )
    assert row.import_seconds == 1.0
    assert row.build_seconds == 0.5
    assert row.first_step_seconds == 0.9
    assert row.first_step_extra_seconds == pytest.approx(0.5)
    assert math.isnan(row.compile_seconds)
    assert row.peak_bytes == 70
    assert row.peak_over_import_bytes == 50
    assert row.output_error == 1e-7
    assert row.worst_error_share == pytest.approx(0.01)
    assert row.test_accuracy == 0.75
    assert row.test_loss == 0.5
    assert loaded.slices["step_seconds"].tolist() == [0.1, 0.4, 0.2, 0.2, 0.5, 0.8]
    assert loaded.steps["step_seconds"].tolist() == [0.1, 0.3, 0.2, 0.5]
    assert loaded.steps["round"].tolist() == [1, 1, 1, 2]
    assert loaded.steps["step"].tolist() == [0, 1, 2, 0]
    other = summary(loaded).iloc[1]
    assert other.status == "unfinished"
    assert (other.blocks, other.slices) == (0, 0)
    assert other[MEASURED].isna().all()


def test_a_first_step_is_cold_where_its_process_found_nothing_compiled(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=4) as run:
        start(run, "c0001", 1, purpose="qualification")
        startup(run, "c0001", 1, first=9.0, new=3)
        startup(run, "c0002", 1, first=0.5, new=0)  # all of it compiled for the cell before
        startup(run, "c0003", 1, first=8.0, new=1)
        start(run, "c0004", 2, purpose="qualification")
        startup(run, "c0004", 2, first=0.4, new=0)
        for cell, number in (("c0001", 1), ("c0002", 1), ("c0003", 1), ("c0004", 2)):
            gate(run, cell, number)
    table = summary(load(run.path))
    assert list(table["cache"]) == ["cold", "warm", "cold", "none"]
    assert table["cold_first_step_seconds"].tolist() == pytest.approx(
        [9, math.nan, 8, 0.4], nan_ok=True
    )


def test_what_a_resumed_run_compiles_again_is_no_usual_start_up(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=2) as run:
        for number, (first, new) in enumerate(((2.0, 0), (9.0, 3), (4.0, 0)), start=1):
            start(run, "c0001", number)
            startup(run, "c0001", number, first=first, new=new)
        start(run, "c0002", 4)
        startup(run, "c0002", 4, first=7.0, new=2)
        for cell, number in (("c0001", 1), ("c0002", 4)):
            gate(run, cell, number)
    assert summary(load(run.path))["first_step_seconds"].tolist() == [3.0, 7.0]


def test_errors_of_the_gate(tmp_path: Path) -> None:
    checks = [
        {"name": "parameter count", "error": 0, "tolerance": 0, "passed": True},
        {"name": "shape/x", "error": None, "tolerance": None, "passed": True},
        {"name": "outputs/logits", "error": 1e-6, "tolerance": 1e-5, "passed": True},
        {"name": "outputs/hidden", "error": 3e-6, "tolerance": 1e-5, "passed": True},
        {"name": "gradient/a", "error": math.nan, "tolerance": 1e-4, "passed": False},
        {"name": "gradient/b", "error": 0.5, "tolerance": 1e-4, "passed": False},
    ]
    with empty_run(tmp_path) as run:
        run.append(KINDS["gate"](cell="c0001", process=1, passed=False, checks=checks))
        run.append(KINDS["status"](cell="c0001", status="wrong", reason="gradient/a is NaN"))
    loaded = load(run.path)
    row = summary(loaded).iloc[0]
    assert row.output_error == 3e-6
    assert row.loose == ""
    assert row.gradient_error == math.inf
    assert row.worst_error_share == math.inf
    assert loaded.gate["error"].isna().tolist() == [False, True, False, False, True, False]


def test_a_loose_gate_is_told_of_its_cell(tmp_path: Path) -> None:
    checks = [
        {"name": f"{kind}/{name}", "error": 0.1, "tolerance": tolerance, "passed": True}
        for kind, name, tolerance in (
            ("trained", "a", 0.5),
            ("trained", "b", 0.67),
            ("trained by rounding", "c", 1.0),
            ("stepped", "a", 6e-4),  # as a settled draw may have it
            ("gradient", "a/0", 4e-4),
            ("gradient scale", "a/0", 6e-3),
        )
    ]
    with empty_run(tmp_path) as run:
        run.append(KINDS["gate"](cell="c0001", process=1, passed=True, checks=checks))
    rows = summary(load(run.path))
    assert rows["loose"].tolist()[:2] == ["gradient scale up to 0.006, trained up to 0.67", ""]


def test_a_loose_closing_gate_is_told_of_its_cell(tmp_path: Path) -> None:
    def check(name: str, tolerance: float) -> dict[str, Any]:
        return {"name": name, "error": 0.0, "tolerance": tolerance, "passed": True}

    wide = [check("step/0/loss of 12 steps", 0.02), check("step/3/loss of 12 steps", 0.03)]
    close = [check("step/0/loss of 48 steps", 1e-3), check("trained/a", 2e-2)]
    note = "closing trained not at all: the reference's own differ by 0.3 after 12 steps"
    with empty_run(tmp_path) as run:
        run.append(KINDS["closing"](cell="c0001", process=1, passed=True, checks=wide, note=note))
        run.append(KINDS["closing"](cell="c0002", process=2, passed=True, checks=close))
        for cell in ("c0001", "c0002"):
            strict = [{**check("trained/a", 5e-2)}]
            run.append(KINDS["gate"](cell=cell, process=3, passed=True, checks=strict))
    rows = summary(load(run.path))
    assert rows["loose"].tolist()[:2] == [f"closing losses up to 0.03, {note}", ""]


def test_the_seconds_of_closing_gates_are_in_their_frame(tmp_path: Path) -> None:
    check = {"name": "clock", "error": 0.9, "tolerance": 1.0, "passed": True}
    with empty_run(tmp_path) as run:
        seconds = {"reference_seconds": 30.0, "worker_seconds": 2.0}
        run.append(
            KINDS["closing"](cell="c0001", process=1, passed=True, checks=[check], **seconds)
        )
        run.append(KINDS["closing"](cell="c0002", process=2, passed=True, checks=[check]))
    closings = load(run.path).closings
    assert closings["reference_seconds"].tolist()[0] == 30.0
    assert closings["worker_seconds"].tolist()[0] == 2.0
    assert closings["worker_seconds"].isna().tolist() == [False, True]
    assert closings["note"].tolist() == ["", ""]


def test_disturbed_rounds_count_for_less(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        start(run, "c0001", 1)
        gate(run, "c0001", 1)
        throughput(run, "c0001", 1, 1.0)
        own = {"seconds": 9.0, **OWN}
        for index, loud in ((1, True), (2, None)):  # a round that was never closed counts neither
            fields = {"block": 1, "round": index, "statistic": "throughput", "steps": 10}
            run.append(KINDS["slice"](cell="c0001", process=1, **fields, **own))
            if loud:
                rounds(run, 1, index, loud=True)
    loaded = load(run.path)
    assert loaded.slices["disturbed"].tolist() == [False, True, True]
    assert loaded.rounds["rule"].tolist() == ["", "foreign load"]
    assert summary(loaded).iloc[0].step_seconds == pytest.approx(0.1)


def test_audits_do_not_count(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        gate(run, "c0001", 1)
        for number, purpose in ((1, "resident"), (2, "audit")):
            start(run, "c0001", number, purpose=purpose)
            throughput(run, "c0001", number, float(number))
    loaded = load(run.path)
    assert loaded.slices["residency"].tolist() == ["resident", "audit"]
    assert summary(loaded).iloc[0].step_seconds == pytest.approx(0.1)


def test_a_failed_check_withholds_like_a_failed_gate(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        everything(run, "c0001")
        gate(run, "c0001", 1)
        check = {"name": "fence read", "error": 1.0, "tolerance": 0.05, "passed": False}
        run.append(KINDS["check"](cell="c0001", process=1, passed=False, checks=[check]))
    loaded = load(run.path)
    assert [*loaded.checks["passed"]] == [False, True]  # the closing gate's stand there, too
    assert not len(loaded.slices)
    assert summary(loaded).iloc[0][MEASURED].isna().all()


def test_slices_without_a_closing_gate_are_withheld(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        everything(run, "c0001")
        check = {"name": "outputs/logits", "error": 1e-7, "tolerance": 1e-5, "passed": True}
        run.append(KINDS["gate"](cell="c0001", process=1, passed=True, checks=[check]))
    loaded = load(run.path)
    assert not len(loaded.slices)
    assert not len(loaded.steps)
    assert len(loaded.startup) == 1


def test_slices_of_runs_older_than_the_closing_gate_count(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        everything(run, "c0001")
        check = {"name": "outputs/logits", "error": 1e-7, "tolerance": 1e-5, "passed": True}
        run.append(KINDS["gate"](cell="c0001", process=1, passed=True, checks=[check]))
    described = run.path / "run.json"
    older = described.read_text().replace(f'"schema": {SCHEMA}', f'"schema": {CLOSED_SINCE - 1}')
    described.write_text(older)
    assert len(load(run.path).slices) == 2


def test_a_failed_closing_gate_withholds_everything(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        everything(run, "c0001")
        gate(run, "c0001", 1)
        close(run, "c0001", 2, passed=False)
    loaded = load(run.path)
    assert not len(loaded.slices)
    assert summary(loaded).iloc[0][MEASURED].isna().all()


# -- no number before the answers agree -------------------------------------------------------


def everything(run: Run, cell: str) -> None:
    start(run, cell, 1)
    startup(run, cell, 1, first=0.9)
    throughput(run, cell, 1, 1.0)
    latency(run, cell, 1, 3, [0.1])
    memory(run, cell, 1, steady=60)
    learned = {"test_accuracy": 1.0, "test_loss": 0.0}
    run.append(KINDS["accuracy"](cell=cell, process=1, **learned))
    run.append(KINDS["epoch"](cell=cell, process=1, seed=1, epoch=1, train_loss=0.1, **learned))


WRONG: dict[str, Callable[[Run], None]] = {
    "no gate": lambda run: None,
    "failed": lambda run: gate(run, "c0001", 1, passed=False),
    "passed, but a check": lambda run: run.append(
        KINDS["gate"](cell="c0001", process=1, passed=True, checks=[{"name": "a", "passed": False}])
    ),
    "failed, no check": lambda run: run.append(
        KINDS["gate"](cell="c0001", process=1, passed=False, checks=[{"name": "a", "passed": True}])
    ),
    "nothing checked": lambda run: run.append(
        KINDS["gate"](cell="c0001", process=1, passed=True, checks=[])
    ),
    "failed later": lambda run: [
        gate(run, "c0001", number, passed=number == 1) for number in (1, 2)
    ],
    "one of two in a process": lambda run: [
        gate(run, "c0001", 1, passed=passed) for passed in (False, True)
    ],
    "status wrong": lambda run: [
        gate(run, "c0001", 1),
        run.append(KINDS["status"](cell="c0001", status="wrong")),
    ],
}


@pytest.mark.parametrize("how", WRONG)
def test_no_number_of_a_wrong_cell(tmp_path: Path, how: str) -> None:
    with empty_run(tmp_path) as run:
        everything(run, "c0001")
        WRONG[how](run)
    loaded = load(run.path)
    for name in ("startup", "slices", "steps", "memory", "accuracy", "epochs"):
        assert len(getattr(loaded, name)) == 0, name
    row = summary(loaded).iloc[0]
    assert row[MEASURED].isna().all()
    assert row.slices == 0
    assert row.cell == "c0001"
    assert_as_documented(loaded)


def test_the_same_numbers_of_a_right_cell(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        everything(run, "c0001")
        gate(run, "c0001", 1)
    loaded = load(run.path)
    for name in ("startup", "slices", "steps", "memory", "accuracy", "epochs"):
        assert len(getattr(loaded, name)) > 0, name


def test_every_wrong_cell_of_a_run(full: Frames) -> None:
    table = summary(full)
    wrong = table["status"].isin(
        ["wrong", "failed", "out-of-memory", "unsupported", "unwritten", "no-environment"]
    )
    assert wrong.sum() == 6
    assert table.loc[wrong, MEASURED].isna().all(axis=None)
    assert table.loc[table["status"] == "ok", "step_seconds"].notna().all()


# -- resumed runs -----------------------------------------------------------------------------


def test_resumed_cells(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        for number, first in ((1, 0.9), (3, 0.8)):
            start(run, "c0001", number)
            gate(run, "c0001", number, error=1e-7 * number)
            startup(run, "c0001", number, first=first)
            throughput(run, "c0001", number, 1.0 * number)
            memory(run, "c0001", number, steady=100 // number)
        run.append(KINDS["status"](cell="c0001", status="timeout", reason="slow"))
        run.append(KINDS["status"](cell="c0001", status="ok"))
    loaded = load(run.path)
    assert loaded.slices["process"].tolist() == [1, 3]  # slices of both count
    assert loaded.startup["process"].tolist() == [1, 3]
    for frame in (loaded.gate, loaded.memory):
        assert frame["process"].tolist() == [3]  # of these the latest wins
    row = summary(loaded).iloc[0]
    assert row.status == "ok"
    assert row.reason == ""
    assert row.import_seconds == 2.0  # the median of the processes
    assert row.step_seconds == pytest.approx(math.sqrt(0.1 * 0.3))
    assert row.peak_bytes == 33


def test_every_process_of_the_last_qualification_keeps_its_memory(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=2) as run:
        for cell, first in (("c0001", 1), ("c0002", 11), ("c0001", 21)):
            gate(run, cell, first)
            for number, peak in ((first + 1, 100), (first + 2, 104), (first + 3, 300)):
                memory(run, cell, number, **{"import": 10}, steady=peak)
        gate(run, "c0002", 31)  # the run ended before the memory was measured once more
    loaded = load(run.path)
    kept = loaded.memory.groupby("cell")["process"].unique()
    assert [kept["c0001"].tolist(), kept["c0002"].tolist()] == [[22, 23, 24], [12, 13, 14]]
    table = summary(loaded)
    assert table["peak_bytes"].tolist() == [104, 104]
    assert table["peak_over_import_bytes"].tolist() == [94, 94]


def test_a_process_that_failed_costs_its_own_figures_of_memory(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=2) as run:
        for cell, processes in (("c0001", (2, 3, 4)), ("c0002", (7,))):
            gate(run, cell, processes[0] - 1)
            for number in processes:
                memory(run, cell, number, build=100 * number)
                failed = "timeout: too slow" if number in (3, 7) else None
                peak = None if failed else 1000 * number + 1
                fields = {"phase": "steady", "peak_bytes": peak, "reason": failed}
                run.append(KINDS["memory"](cell=cell, process=number, **fields))
    loaded = load(run.path)
    assert summary(loaded)["peak_bytes"].tolist() == [3001, 700]
    ends = peak_ends(loaded).droplevel("run")
    assert ends.loc["c0001"].tolist() == [2001, 4001, 2]
    assert ends.loc["c0002"].tolist() == [700, 700, 1]


def test_a_torn_run_is_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, blocks=1)
    records = path / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-1])
    with pytest.warns(TornRecord):
        assert (load(path).cells["status"] == "unfinished").sum() == 2


# -- several runs -----------------------------------------------------------------------------


def test_folders_of_runs(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "a")):
        write_run(tmp_path, name=name, blocks=1, seed=number)
    (tmp_path / "unrelated").mkdir()
    together = load(tmp_path)
    assert together.runs["run"].tolist() == ["a", "b"]
    assert load([tmp_path / "b", tmp_path / "a"]).runs["run"].tolist() == ["b", "a"]
    assert load([tmp_path / "a", str(tmp_path / "a" / ".." / "a")]).runs["run"].tolist() == ["a"]
    alone = summary(load(tmp_path / "b"))
    part = summary(together).query("run == 'b'").reset_index(drop=True)
    pandas.testing.assert_frame_equal(alone, part)
    assert_as_documented(together)


def test_runs_of_the_same_name(tmp_path: Path) -> None:
    for place in ("old", "new"):
        write_run(tmp_path / place, name="nightly", blocks=1)
    write_run(tmp_path / "new", name="other", blocks=1)
    labels = load([tmp_path / "old", tmp_path / "new"]).runs["run"].tolist()
    assert labels == ["old/nightly", "new/nightly", "other"]


@pytest.mark.parametrize("process", [None, 99])
def test_two_slices_of_one_cell_kind_and_round_are_refused(
    path: Path, tmp_path: Path, process: int | None
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(path, folder)
    lines = read_records(open_run(folder))
    doubled = next(record for record in lines if record["record"] == "slice")
    again = {**doubled, "process": process or doubled["process"]}
    with (folder / "records.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    with pytest.raises(BadInput) as error:
        load(folder)
    words = str(error.value)
    first, last = lines.index(doubled) + 1, len(lines) + 1
    assert words.startswith(f"{folder}/records.jsonl, line {last}: slice record whose cell, block,")
    assert f"are those of line {first} (processes" in words
    assert f"processes {doubled['process']} and {again['process']})" in words
    assert "\n" not in words


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run folder"):
        load(tmp_path)
    path = write_run(tmp_path, blocks=1)
    with pytest.raises(BadInput, match="missing"):
        load([path, tmp_path / "missing"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text("{}")
    with pytest.raises(BadInput, match="foreign"):
        load(tmp_path / "foreign")


@pytest.mark.parametrize("file", ["run.json", "records.jsonl"])
def test_an_unreadable_run_in_a_folder_hides_no_other(tmp_path: Path, file: str) -> None:
    for name in ("bad", "good"):
        write_run(tmp_path, name=name, blocks=1)
    bad = tmp_path / "bad" / file
    bad.write_text(bad.read_text().replace('"cell', '"sell'))
    with pytest.warns(UnreadableRun, match=f"left out: {bad}") as warned:
        loaded = load(tmp_path)
    assert len(warned) == 1
    assert loaded.runs["run"].tolist() == ["good"]
    # A run that is named itself is not left out, nor is the only one.
    with pytest.raises(BadInput, match=str(bad)):
        load([tmp_path / "bad", tmp_path / "good"])
    shutil.rmtree(tmp_path / "good")
    with pytest.raises(BadInput, match=str(bad)):
        load(tmp_path)


# -- what records may hold --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"c0001"', '"c9999"', "status record of cell 'c9999'"),
        ('"c0001"', '["c0001"]', r"line 7: status record whose cell is \['c0001'\], not a text"),
        ('"fine"', "3", "line 7: status record whose reason is 3, not a text"),
        ('"seconds":0.25', '"seconds":"fast"', "slice"),
        (
            '"seconds":0.25',
            '"seconds":true',
            "line 3: slice record whose seconds is True, not a number",
        ),
        (
            '"steps":10',
            '"steps":1.5',
            "line 3: slice record whose steps is 1.5, not a whole number",
        ),
        ("[0.125]", "[[1]]", r"line 5: slice record whose step_seconds\[0\] is \[1\]"),
        ("[0.125]", "0.125", "line 5: slice record whose step_seconds is 0.125, not a list"),
        (
            '"peak_bytes":7',
            '"peak_bytes":7.5',
            "line 6: memory record whose peak_bytes is 7.5, not a whole number",
        ),
        ('"peak_bytes":7', f'"peak_bytes":{2**70}', "line 6: memory record whose peak_bytes is 1"),
        ('"process":1,"block"', f'"process":{2**70},"block"', "process"),
        (
            '"canaries":[[',
            '"canaries":[["x",',
            r"line 4: round record whose canaries\[0\]\[0\] is 'x', not a number",
        ),
        (
            '"checks":[',
            '"checks":[1,',
            r"line 2: closing record whose checks\[0\] is 1, not an object",
        ),
    ],
)
def test_records_that_make_no_sense(tmp_path: Path, old: str, new: str, words: str) -> None:
    with empty_run(tmp_path) as run:
        gate(run, "c0001", 1)
        throughput(run, "c0001", 1, 0.25)
        latency(run, "c0001", 1, 0, [0.125])
        memory(run, "c0001", 1, steady=7)
        run.append(KINDS["status"](cell="c0001", status="ok", reason="fine"))
    load(run.path)
    text = run.records_path.read_text()
    head, tail = text.rsplit(old, 1)
    run.records_path.write_text(head + new + tail)
    with pytest.raises(BadInput, match=words) as error:
        load(run.path)
    assert "\n" not in str(error.value)


def test_floats_that_are_not_finite_come_back(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        gate(run, "c0001", 1)
        for loss in (math.nan, math.inf, -math.inf, 1.0):
            run.append(KINDS["accuracy"](cell="c0001", process=1, test_loss=loss))
        run.append(KINDS["status"](cell="c0001", status="ok", reason="nan"))
    loaded = load(run.path)
    numpy.testing.assert_array_equal(
        loaded.accuracy["test_loss"], [math.nan, math.inf, -math.inf, 1.0]
    )
    assert loaded.cells["reason"][0] == "nan"


HOSTILE = [
    "two\nlines\r\nand\ralone",
    "\"quotes\" and 'quotes', and \\ ;\t",
    "<script>alert('&amp;')</script>",
    "zażółć 模型 🙂 \u2028",
    " padded ",
    "\x1b[31m",
    "NA",
]


def test_hostile_strings_survive_the_exports(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=len(HOSTILE) + 1) as run:
        for number, text in enumerate([*HOSTILE, "\ud83d"], 1):
            run.append(KINDS["status"](cell=f"c{number:04d}", status="failed", reason=text))
    loaded = load(run.path)
    assert loaded.cells["reason"].tolist() == [*HOSTILE, "\\ud83d"]
    write_csv(loaded, tmp_path / "csv")
    write_parquet(loaded, tmp_path / "parquet")
    for name in ("cells", "summary"):
        back = pandas.read_csv(tmp_path / "csv" / f"{name}.csv", keep_default_na=False)
        assert back["reason"].tolist() == [*HOSTILE, "\\ud83d"]
        back = pandas.read_parquet(tmp_path / "parquet" / f"{name}.parquet")
        assert back["reason"].tolist() == [*HOSTILE, "\\ud83d"]


# -- exports ----------------------------------------------------------------------------------


def test_parquet_keeps_everything(tmp_path: Path, full: Frames) -> None:
    paths = write_parquet(full, tmp_path)
    assert [path.name for path in paths] == [f"{name}.parquet" for name in COLUMNS]
    for name, frame in tables(full).items():
        pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / f"{name}.parquet"), frame)


def test_csv_keeps_every_digit(tmp_path: Path, full: Frames) -> None:
    write_csv(full, tmp_path)
    for name, frame in tables(full).items():
        back = pandas.read_csv(tmp_path / f"{name}.csv", dtype=str, keep_default_na=False)
        assert list(back) == list(frame)
        assert len(back) == len(frame)
        for column, (dtype, _) in COLUMNS[name].items():
            if dtype == "float64":
                values = [float(text or "nan") for text in back[column]]
                numpy.testing.assert_array_equal(values, frame[column], strict=False)
            else:
                assert back[column].tolist() == [
                    "" if value is pandas.NA else str(value) for value in frame[column].tolist()
                ]


EXPORT = """
import sys
from pathlib import Path
from levelfield.harness.report.export import write_csv, write_parquet
from levelfield.harness.records.frames import load
for write in (write_csv, write_parquet):
    write(load(sys.argv[1]), Path(sys.argv[2]))
"""


def test_the_same_to_the_byte(tmp_path: Path, path: Path) -> None:
    shutil.copytree(path, tmp_path / "elsewhere" / "renamed")
    sources = [path, path, tmp_path / "elsewhere" / "renamed"]
    outcomes = []
    for number, source in enumerate(sources):
        folder = tmp_path / str(number)
        command = [sys.executable, "-c", EXPORT, str(source), str(folder)]
        seed = {**os.environ, "PYTHONHASHSEED": str(number)}
        subprocess.run(command, cwd=ROOT, env=seed, check=True)
        outcomes.append({file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    assert len(outcomes[0]) == 2 * len(COLUMNS)
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_the_synthetic_run_is_the_same_to_the_byte(tmp_path: Path, path: Path) -> None:
    again = write_run(tmp_path)
    assert (again / "records.jsonl").read_bytes() == (path / "records.jsonl").read_bytes()
    contents = [json.loads((run / "run.json").read_text()) for run in (path, again)]
    ids = [content.pop("id") for content in contents]
    assert ids[0] != ids[1]
    assert contents[0] == contents[1]


def test_exports_where_nothing_can_be_written(
    tmp_path: Path, full: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    for write in (write_csv, write_parquet):
        with pytest.raises(BadInput, match="choose a folder"):
            write(full, tmp_path / "file")

    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_atomically", fail)
    with pytest.raises(RunFailed, match="the disk is full"):
        write_csv(full, tmp_path)


def test_gate_names_of_the_synthetic_run(full: Frames) -> None:
    expected = {c["name"] for c in gate_checks(random.Random(0), {"phase": "training"})}
    assert set(full.gate["name"]) == expected


def test_a_further_token_is_what_a_generation_takes_beyond_its_first(tmp_path: Path) -> None:
    """Two rounds of a cell of five tokens; the second has no first token beside it."""
    with empty_run(tmp_path, cells=1) as run:
        run.description["cells"][0] |= {
            "model": "gpt2",
            "preset": "tiny",
            "phase": "generation",
            "tokens": 5,
        }
        start(run, "c0001", 1)
        gate(run, "c0001", 1)
        throughput(run, "c0001", 1, 9.0, 8.0)
        first = {"statistic": "first_token", "steps": 2, "seconds": 0.2, "step_seconds": [0.1, 0.1]}
        run.append(KINDS["slice"](cell="c0001", process=1, block=1, round=0, **first, **OWN))
        run.append(KINDS["status"](cell="c0001", status="ok"))
        rewrite(run)
    loaded = load(run.path)
    assert_as_documented(loaded)
    further = loaded.slices[loaded.slices["statistic"] == "further_token"]
    assert further["step_seconds"].tolist() == [pytest.approx(0.2)]  # (0.9 - 0.1) / 4
    assert (further["round"].item(), further["steps"].item()) == (0, 10)
    assert further["seconds"].isna().all()
    row = summary(loaded).iloc[0]
    assert row.first_token_seconds == pytest.approx(0.1)
    assert row.further_token_seconds == pytest.approx(0.2)


def rewrite(run: Run) -> None:
    """Its description as changed."""
    (run.path / "run.json").write_text(json.dumps(run.description))


def test_a_cell_without_tokens_has_no_further_ones(full: Frames) -> None:
    assert "further_token" not in set(full.slices["statistic"])
