"""Adapters whose replies, answers or deeds are nonsense: each costs its own cell alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import arms, frames, session, store
from harness.arms import read_framework
from harness.suite import Suite, plan, validated
from tests.harness.conftest import TINY_EFFORT, Silent

pytestmark = pytest.mark.alone

# Right in its arithmetic; its mode says what it does besides.
ADAPTER = """
import os, shutil, sys

import numpy as np

from harness.selftest.misbehaving.computing import Adapter as Sound

REPLIES = int(sys.argv[2])
RAW = {
    "null": b"null\\n",
    "list": b"[1,2]\\n",
    "empty": b"{}\\n",
    "ok-alone": b'{"ok": true}\\n',
    "status": b'{"ok": false, "status": "tired", "reason": "x"}\\n',
    "failed-ok": b'{"ok": false, "status": "ok", "reason": ""}\\n',
    "twice": b'{"ok": true, "build_seconds": 1}\\n{"ok": true}\\n',
    "null-when-timed": b"null\\n",
}
OUTPUTS = {
    "objects": lambda array: array.astype(object),
    "text": lambda array: array.astype(str),
    "bytes": lambda array: array.astype(bytes),
    "complex": lambda array: array.astype(complex),
    "dates": lambda array: array.astype("datetime64[s]"),
    "structures": lambda array: array.astype([("a", "f4")]),
    "truth": lambda array: array.astype(bool),
    "half": lambda array: array.astype(np.float16),
    "integers": lambda array: array.astype(np.int64),
    "vast": lambda array: np.zeros((1 << 16, 1 << 10), np.float32),
    "none": lambda array: None,
    "text-alone": lambda array: "hello",
}


class Adapter(Sound):
    def __init__(self, device, mode, threads, precision):
        Sound.__init__(self, device, "well", threads, precision)
        self.name, self.infers = mode, 0

    def describe(self):
        if self.name == "talks":
            return {"version": "1\\x1b[2J", "more": "x" * (5 << 20), "list": [1]}
        if self.name == "scalars":
            return {"version": np.float32(1)}
        if self.name == "shouts":
            return {"version": "x" * (50 << 20)}
        return {"version": "1.0", "threads": 1}

    def load(self, module, case):
        Sound.load(self, module, case)
        if self.name in RAW and "timed" not in self.name:
            os.write(REPLIES, RAW[self.name])
        if self.name == "endless":
            for _ in range(40):
                os.write(REPLIES, b"x" * (1 << 20))

    def infer(self):
        self.infers += 1
        if self.infers == 60 and self.name == "null-when-timed":
            os.write(REPLIES, RAW[self.name])
        outputs = Sound.infer(self)
        if self.name == "nameless":
            return {7: outputs["logits"]}
        if self.name == "misnamed":
            return {"logits": outputs["logits"], "a\\x1b[2J" + "b" * 1000: outputs["logits"]}
        change = OUTPUTS.get(self.name)
        return {"logits": change(outputs["logits"])} if change else outputs

    def compilations(self):
        return float("nan") if self.name == "guesses" else None
"""
ENVIRONMENT = """
title = "Foreign"
documentation = "https://example.org"
generic = true

[environments.default]
python = ">=3.6"
requirements = ["numpy"]
imports = ["numpy"]

[modes]
"""
# mode -> (status, words of its reason)
EXPECTED = {
    "null": ("failed", "the reply to 'load' "),
    "list": ("failed", "the reply to 'load' "),
    "empty": ("failed", "the reply to 'load' "),
    "ok-alone": ("failed", "the reply to 'load' "),
    "status": ("failed", "the reply to 'load' "),
    "failed-ok": ("failed", "the reply to 'load' "),
    "twice": ("failed", "the reply to 'load' "),
    "endless": ("failed", "the reply to 'load' is too long"),
    "null-when-timed": ("failed", "is null"),
    "shouts": ("failed", "the reply to 'start' is too long"),
    "scalars": ("failed", "TypeError"),
    "talks": ("ok", ""),
    "objects": ("failed", "its answers cannot be read"),
    "text": ("failed", "'output/0/logits' has the type <U"),
    "bytes": ("failed", "'output/0/logits' has the type |S"),
    "complex": ("failed", "'output/0/logits' has the type complex128"),
    "dates": ("failed", "'output/0/logits' has the type datetime64[s]"),
    "structures": ("failed", "'output/0/logits' has the type"),
    "truth": ("failed", "'output/0/logits' has the type bool"),
    "half": ("wrong", "outputs/logits/0: error"),
    "integers": ("wrong", "outputs/logits/0: error"),
    "vast": ("failed", "more than the limit"),
    "none": ("failed", "its answers cannot be read"),
    "text-alone": ("failed", "'output/0/logits' has the type <U5"),
    "nameless": ("failed", "TypeError"),
    "misnamed": ("failed", "it has an array named"),
    "guesses": ("failed", "the reply to 'slot' has NaN for 'compiled'"),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("packages") / "foreign"
    folder.mkdir()
    (folder / "__init__.py").write_text(ADAPTER)
    modes = "".join(f'{mode} = {{ summary = "x" }}\n' for mode in [*EXPECTED, "well"])
    (folder / "env.toml").write_text(ENVIRONMENT + modes)
    with arms.registered(read_framework("foreign", "foreign", folder)):
        yield folder


def run(folder: Path, *modes: str, **options: Any) -> Path:
    """Run the engine on modes of the framework; returns the run's folder."""
    suite = validated(
        Suite(
            name="foreign",
            title="tests",
            models=("mlp",),
            arms=tuple(f"foreign:{mode}" for mode in modes),
            presets=("tiny",),
            phases=("inference",),
            batches=(8,),
            level="smoke",
            twin="none",
            effort=replace(TINY_EFFORT, memory=False),
            **options,
        )
    )
    cells = plan(suite)
    resolutions = session.resolve_arms(suite.arms, {})
    description = session.describe_run(suite, cells, resolutions)
    with store.create(folder, "run", description) as created:
        session.measure(created, suite, cells, resolutions=resolutions, progress=Silent())
    return created.path


def statuses(folder: Path) -> dict[str, tuple[str, str]]:
    """mode -> (status, reason)."""
    cells = frames.load(folder).cells
    return {row["mode"]: (row["status"], row["reason"]) for row in cells.to_dict("records")}


@pytest.fixture(scope="module")
def nonsense(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("results"), *EXPECTED, "well")


def test_a_sound_arm_between_them_is_measured(nonsense: Path) -> None:
    assert statuses(nonsense)["well"] == ("ok", "")
    (cell,) = [c for c in store.open_run(nonsense).description["cells"] if c["mode"] == "well"]
    records = store.read_records(store.open_run(nonsense))
    slices = [each for each in records if each["record"] == "slice" and each["cell"] == cell["id"]]
    assert len(slices) >= TINY_EFFORT.rounds


@pytest.mark.parametrize("mode", EXPECTED)
def test_nonsense_costs_its_own_cell_and_names_itself(nonsense: Path, mode: str) -> None:
    status, reason = statuses(nonsense)[mode]
    expected, words = EXPECTED[mode]
    assert status == expected, reason
    assert words in reason
    assert reason.isprintable()
    assert len(reason) <= 700


def test_what_it_says_of_itself_is_kept_clean_and_short(nonsense: Path) -> None:
    (said,) = {
        (each["describe"]["version"], each["describe"]["list"], len(each["describe"]["more"]))
        for each in store.read_records(store.open_run(nonsense))
        if each["record"] == "process" and each["arm"] == "foreign:talks"
    }
    assert said == ("1 [2J", "[1]", 1000)
    assert (nonsense / "records.jsonl").stat().st_size < 4 << 20
