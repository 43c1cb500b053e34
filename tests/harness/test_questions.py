"""The questions that people ask of runs, from Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import levelfield
from levelfield import UnknownName
from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.questions import Runs
from levelfield.harness.errors import BadInput
from tests.support.synthetic import write_run

ROOT = Path(__file__).parents[2]
ARMS = ("jax:jit", "torch:eager")
EXAMPLES = re.findall(r"```python\n(.+?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which torch takes twice as long as jax everywhere."""
    speed = {"torch:eager": 2.0, "jax:jit": 1.0}
    return write_run(
        tmp_path_factory.mktemp("runs"), arms=ARMS, statuses={}, speed=speed, models=("mlp", "vae")
    )


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return levelfield.load(folder)


def test_results_have_no_copies_of_arms(runs: Runs) -> None:
    assert set(runs.cells["arm"]) == {*ARMS, "jax:jit#2"}
    assert set(runs.results()["arm"]) == set(ARMS)
    assert len(runs.results()) == len(runs.cells) * 2 // 3


def test_the_table_has_milliseconds_of_every_arm(runs: Runs) -> None:
    table = runs.table()
    assert list(table.columns) == sorted(ARMS) and len(table) == 4
    seconds = runs.results().query("arm == 'jax:jit' and model == 'vae' and phase == 'training'")
    row = table.loc[(slice(None), "vae", slice(None), "training"), "jax:jit"]
    assert row.item() == pytest.approx(1e3 * seconds["step_seconds"].item())


def test_a_speedup_is_above_1_for_the_faster_arm(runs: Runs) -> None:
    over_torch, over_jax = (runs.speedup(over=arm) for arm in ("torch:eager", "jax:jit"))
    assert list(over_torch["arm"]) == ["jax:jit"] * 4
    assert (over_torch["speedup"].between(1.9, 2.1)).all()
    assert (over_torch["low"] < over_torch["speedup"]).all()
    assert (over_torch["speedup"] < over_torch["high"]).all()
    assert set(over_torch["faster"]) == {"jax:jit"}
    assert set(over_torch["model"]) == {"mlp", "vae"}
    np.testing.assert_allclose(over_jax["speedup"], 1 / over_torch["speedup"])


def test_a_mean_speedup_counts_verdicts_and_has_no_interval_of_few_tasks(runs: Runs) -> None:
    (row,) = runs.mean_speedup(over="torch:eager").to_dict("records")
    assert row["arm"] == "jax:jit" and row["speedup"] == pytest.approx(2, rel=0.05)
    assert (row["wins"], row["ties"], row["losses"], row["open"]) == (4, 0, 0, 0)
    assert np.isnan(row["low"]) and np.isnan(row["high"])


@pytest.mark.parametrize("number", [-1, float("nan"), 10**29, "many", None])
def test_a_number_that_cannot_be_is_refused(runs: Runs, number: Any) -> None:
    with pytest.raises(BadInput, match=r"steps is .*; expected a number of steps"):
        runs.total(steps=number)
    with pytest.raises(BadInput, match=r"accuracy is .*; expected a share from 0 to 1"):
        runs.time_to(accuracy=number)


def test_a_percentage_is_no_share(runs: Runs) -> None:
    with pytest.raises(BadInput, match="accuracy is 95; expected a share from 0 to 1"):
        runs.time_to(accuracy=95)


@pytest.mark.parametrize("question", ["speedup", "mean_speedup"])
def test_an_arm_that_no_run_has_is_unknown(runs: Runs, question: str) -> None:
    with pytest.raises(UnknownName, match="unknown arm 'torch:eagre'; did you mean torch:eager"):
        getattr(runs, question)(over="torch:eagre")


def test_the_front_has_every_arm_that_no_other_beats(runs: Runs) -> None:
    table = runs.results()
    bytes_of = {"jax:jit": 2e8, "torch:eager": 1e8}  # each is better in one of the two
    object.__setattr__(runs, "_summary", table.assign(peak_bytes=table["arm"].map(bytes_of)))
    assert runs.pareto()["on_front"].all()
    bytes_of["torch:eager"] = 2e8
    object.__setattr__(runs, "_summary", table.assign(peak_bytes=table["arm"].map(bytes_of)))
    front = runs.pareto()
    object.__delattr__(runs, "_summary")
    assert front.groupby("arm")["on_front"].all().to_dict() == {
        "jax:jit": True,
        "torch:eager": False,
    }
    assert not front.loc[front["arm"] == "torch:eager", "on_front"].any()


def test_time_to_an_accuracy_is_start_up_and_steps(runs: Runs) -> None:
    # The lessons of the synthetic run have three epochs of 400 steps in all, and end at 0.96.
    late = runs.time_to(accuracy=0.95).set_index(["arm", "model"])
    assert (late["steps"] == 400).all()
    rows = runs.results().query("phase == 'training'").set_index(["arm", "model"])
    expected = rows["startup_seconds"] + 400 * rows["step_seconds"]
    pandas.testing.assert_series_equal(
        late["seconds"].sort_index(), expected.sort_index(), check_names=False
    )
    never = runs.time_to(accuracy=0.999)
    assert len(never) == len(late) and never["seconds"].isna().all()


def test_the_total_time_is_ordered(runs: Runs) -> None:
    few, many = runs.total(steps=0), runs.total(steps=10**9)
    assert (few["total_seconds"] == few["startup_seconds"]).all()
    assert set(many.groupby("comparison")["arm"].first()) == {"jax:jit"}


def test_scaling_compares_values_of_one_sweep(folder: Path, tmp_path: Path) -> None:
    description = json.loads((folder / "run.json").read_text())
    for cell in description["cells"]:
        batch = 64 if cell["model"] == "vae" else 32
        cell.update(model="mlp", batch=batch)
    (tmp_path / "run.json").write_text(json.dumps(description))
    (tmp_path / "records.jsonl").write_bytes((folder / "records.jsonl").read_bytes())
    swept = levelfield.load(tmp_path)
    table = swept.scaling(by="batch")
    assert list(table["batch"]) == [32, 64] * 4
    assert (table.loc[table["batch"] == 32, "speedup"] == 1).all()
    # The second model of the run takes three times as long for each of twice the examples.
    assert table.loc[table["batch"] == 64, "speedup"].between(0.6, 0.7).all()
    assert swept.scaling(by="threads").empty
    with pytest.raises(UnknownName, match="unknown sweep 'batches'; did you mean batch"):
        swept.scaling(by="batches")


def test_verdicts_name_their_task(runs: Runs) -> None:
    table = runs.verdicts()
    assert set(table["model"]) == {"mlp", "vae"} and set(table["phase"]) == {
        "inference",
        "training",
    }
    assert len(table) == len(levelfield.verdict_frame(levelfield.judge(runs)))


def test_machines_have_a_row_for_each_run(runs: Runs) -> None:
    assert list(runs.machines().index) == list(runs.runs["run"])
    assert "processor" in runs.machines()


def test_runs_show_themselves_in_short(runs: Runs) -> None:
    assert repr(runs).startswith("Runs(synthetic; runs: 1, cells: 12, processes: ")
    assert "<td>cells</td><td>12</td>" in runs._repr_html_()


def test_the_examples_of_the_page_take_at_most_three_lines_and_run() -> None:
    assert len(EXAMPLES) == 11
    assert all(len(example.strip().splitlines()) <= 3 for example in EXAMPLES)
    subprocess.run([sys.executable, "-c", "\n".join(EXAMPLES)], cwd=ROOT, check=True)


@pytest.mark.parametrize("frame", [field.name for field in fields(levelfield.Frames)])
def test_rows_that_a_program_removed_are_as_if_never_recorded(runs: Runs, frame: str) -> None:
    left = replace(runs, **{frame: getattr(runs, frame).iloc[::2]})
    assert len(levelfield.summary(left)) == len(left.cells)
    assert len(left.results()) == len(left.cells) - left.cells["arm"].str.endswith("#2").sum()
    assert set(left.verdicts()["run"]) <= set(left.cells["run"])
    assert [len(comparison.rows) for comparison in comparisons_of(left)] == [
        *left.results().groupby("comparison", sort=False).size()
    ]


def test_without_rows_of_runs_there_are_times_and_no_verdicts(runs: Runs) -> None:
    left = replace(runs, runs=runs.runs.iloc[:0])
    assert len(comparisons_of(left)) == len(comparisons_of(runs))
    assert left.verdicts().empty
