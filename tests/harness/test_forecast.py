"""Forecasts of how long a run takes, by what an earlier run took."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.analysis.forecast import Forecast, costs_of, forecast
from levelfield.harness.plan.cells import Cell
from levelfield.harness.records import frames, store
from tests.support.synthetic import write_mlp_run

PUBLISHED = Path(__file__).parents[2] / "results"


def cells_of(folder: Path) -> list[Cell]:
    names = {field.name for field in fields(Cell)}
    cells = json.loads((folder / "run.json").read_text(encoding="utf-8"))["cells"]
    return [Cell(**{key: cell[key] for key in names & cell.keys()}) for cell in cells]


def seconds_on_the_clock(folder: Path) -> float:
    """From the first process of a run to its last round."""
    loaded = frames.load(folder)
    return float(loaded.rounds["at_seconds"].max() - loaded.processes["at_seconds"].min())


@pytest.mark.parametrize("name", ["families", "example", "digits"])
def test_the_costs_of_the_cells_of_a_run_are_what_it_took(name: str) -> None:
    folder = PUBLISHED / name
    costs = costs_of(frames.load(folder)).values()
    whole = sum(cost.seconds for cost in costs)
    assert whole == pytest.approx(seconds_on_the_clock(folder), rel=0.05)


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "run.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        description[key] = {**description[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(description), encoding="utf-8")
    return folder


def judged(folder: Path) -> Forecast | None:
    with store.open_run(folder) as run:
        return forecast(run, cells_of(folder))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A run that is about to begin, in a folder with an earlier one."""
    write_mlp_run(tmp_path, name="1-earlier")
    folder = write_mlp_run(tmp_path, name="2-new", seed=1)
    (folder / "records.jsonl").write_text("")
    return edited(folder, id="new")


def test_the_same_run_again_takes_what_it_took(new: Path) -> None:
    made = judged(new)
    assert made is not None and made.run.name == "1-earlier"
    assert made.known == len(made.costs) == len(cells_of(new))
    assert made.seconds == pytest.approx(seconds_on_the_clock(made.run), rel=0.05)


def test_the_newest_run_that_can_be_read_is_the_judge(new: Path) -> None:
    for name in ("1-later", "3-broken"):
        shutil.copytree(new.parent / "1-earlier", edited(new).parent / name)
    (new.parent / "3-broken" / "run.json").write_text("{")
    made = judged(new)
    assert made is not None and made.run.name == "1-later"


@pytest.mark.parametrize(
    "changes",
    [{"machine": {"processor": "another"}}, {"suite": {"level": "thorough"}}, {"cells": []}],
    ids=["another machine", "another level", "other tasks"],
)
def test_a_run_unlike_it_is_no_judge(new: Path, changes: dict[str, Any]) -> None:
    edited(new.parent / "1-earlier", **changes)
    assert judged(new) is None


@pytest.mark.parametrize("name", ["suite", "machine", "cells"])
def test_a_run_whose_description_is_odd_ends_no_other(new: Path, name: str) -> None:
    path = new.parent / "1-earlier" / "run.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    del description[name]
    path.write_text(json.dumps(description), encoding="utf-8")
    assert judged(new) is None


def test_a_torn_run_costs_no_warning(new: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = new.parent / "1-earlier" / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert judged(new) is not None
    assert [warning for warning in recwarn if "torn" in str(warning.message)] == []


def test_a_run_without_blocks_is_no_judge(new: Path) -> None:
    path = new.parent / "1-earlier" / "records.jsonl"
    kept = [line for line in path.read_text().splitlines() if json.loads(line).get("block") is None]
    path.write_text("".join(f"{line}\n" for line in kept))
    assert judged(new) is None


def test_an_arm_that_was_not_measured_costs_the_mean_of_its_task(tmp_path: Path) -> None:
    write_mlp_run(tmp_path, name="1-earlier", arms=("jax:jit", "torch:eager"))
    new = edited(write_mlp_run(tmp_path, name="2-new", arms=("flax:jit", "jax:jit")), id="new")
    made = judged(new)
    assert made is not None
    earlier = costs_of(frames.load(tmp_path / "1-earlier"))
    cells = [cell for cell in cells_of(new) if cell.arm == "flax:jit"]
    assert cells
    for cell in cells:
        same = [cost.seconds for key, cost in earlier.items() if cell.phase in key]
        assert min(same) < made.costs[cell.id].seconds < max(same)
