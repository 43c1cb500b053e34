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


def scratch():
    # The folder of the whole run: what this process was told of lies somewhere in it.
    folder = os.environ["XDG_CACHE_HOME"]
    while not os.path.basename(folder).startswith("levelfield-"):
        folder = os.path.dirname(folder)
    return folder


def files():
    found = [os.path.join(at, name) for at, _, names in os.walk(scratch()) for name in names]
    assert found
    return found


def delete():
    for name in os.listdir(scratch()):
        shutil.rmtree(os.path.join(scratch(), name))


def falsify():
    # Other values in all cases, in files that look as before.
    for path in files():
        if path.endswith(".npz"):
            status = os.stat(path)
            with open(path, "rb") as file:
                content = bytearray(file.read())
            for at in range(len(content) // 2, len(content) // 2 + 400):
                content[at] ^= 0x55
            os.chmod(path, 0o644)
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, status.st_mode)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def spy():
    # What is on disk that could be answers, and whether it could change a case.
    with open(os.environ["HOME"] + "/seen", "a") as log:
        for path in files():
            mode = os.stat(path).st_mode & 0o777
            log.write("%s %o %o\\n" % (path, mode, os.stat(os.path.dirname(path)).st_mode & 0o777))


DEEDS = {"deletes": delete, "falsifies": falsify, "spies": spy}


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
        if self.infers in (1, 60) and self.name in DEEDS:
            DEEDS[self.name]()
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


DEEDS = ("deletes", "falsifies", "spies")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("packages") / "foreign"
    folder.mkdir()
    (folder / "__init__.py").write_text(ADAPTER)
    names = [*EXPECTED, *DEEDS, "well", "well2"]
    modes = "".join(f'{name} = {{ summary = "x" }}\n' for name in names)
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
            twin="none",
            effort=replace(TINY_EFFORT, memory=False),
            **{"level": "smoke", **options},
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


def test_an_arm_that_deletes_or_falsifies_what_lies_in_the_run_s_folder_costs_itself_only(
    foreign: Path, tmp_path: Path
) -> None:
    modes = ("well", "deletes", "falsifies", "well2")
    for residency in ("resident", "sequential"):
        folder = run(tmp_path / residency, *modes, residency=residency)
        found = statuses(folder)
        assert {found[mode] for mode in ("well", "well2")} == {("ok", "")}
        assert all(status in ("ok", "wrong", "failed") for status, _ in found.values())


def test_no_answers_lie_where_a_worker_reads_and_no_case_can_be_written(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = run(tmp_path / "results", "spies", "well")
    assert {status for status, _ in statuses(folder).values()} == {"ok"}
    lines = (tmp_path / "seen").read_text().splitlines()
    seen = {line.split()[0]: line.split()[1:] for line in lines}
    cases = {path: modes for path, modes in seen.items() if path.endswith(".npz")}
    assert set(map(tuple, cases.values())) == {("444", "555")}
    assert {Path(path).name for path in cases} == {"case.npz"}
