"""The folders of workers: what one process leaves behind meets no other."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from levelfield.harness.engine import session
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.workers import (
    ForeignFiles,
    StartFailure,
    Workers,
    file_name_of,
)
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine.resources import cache_entries, make_own_folders
from levelfield.harness.plan.arms import Framework, get_arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Limits
from tests.support.synthetic import empty_run

pytestmark = pytest.mark.alone

CELL = Cell(
    **{"id": "c0001", "comparison": "k001", "arm": "misbehaving:well", "framework": "misbehaving"},
    **{"mode": "well", "model": "mlp", "preset": "tiny", "phase": "training", "batch": 8},
    **{"optimizer": "sgd", "numeric": "float32", "device": "cpu", "threads": 1},
    profile="default",
)


@pytest.fixture
def workers(misbehaving: Framework, tmp_path: Path) -> Iterator[Workers]:
    resolutions = session.resolve_arms([CELL.arm], {})
    with empty_run(tmp_path / "results") as run:
        run.description["adapters"] = {misbehaving.name: misbehaving.identity()}
        yield Workers(run, Limits(), resolutions, tmp_path / "scratch", random.Random(0))


def variable(worker: Worker, name: str) -> Path:
    """A variable of the worker's environment, as the kernel knows it."""
    text = Path(f"/proc/{worker.process.pid}/environ").read_text()
    (value,) = (
        entry[len(name) + 1 :] for entry in text.split("\0") if entry.startswith(name + "=")
    )
    return Path(value)


def test_every_worker_has_an_empty_folder_for_temporary_files_of_its_own(workers: Workers) -> None:
    arm, folders, caches = get_arm(CELL.arm), [], []
    for purpose in ("qualification", "resident"):
        with workers.start(arm, CELL, purpose=purpose) as worker:
            folders.append(variable(worker, "TMPDIR"))
            caches.append(variable(worker, "XDG_CACHE_HOME"))
            assert folders[-1] == worker.own / "tmp"
            assert list(folders[-1].iterdir()) == []
            headers = folders[-1] / "headers"
            headers.mkdir(mode=0o500)  # what a framework compiled, in a folder that it protects
            (folders[-1] / "compiled.h").write_text("x")
        assert not folders[-1].parent.exists()
    assert len({*folders}) == 2
    assert caches[0] == caches[1], "the cache is the arm's, and warm for its second process"
    assert len(str(folders[0])) - len(str(workers.scratch)) < 20


def test_workers_that_live_at_once_share_no_folder_for_temporary_files(workers: Workers) -> None:
    arm = get_arm(CELL.arm)
    with (
        workers.start(arm, CELL, purpose="resident") as one,
        workers.start(arm, CELL, purpose="resident") as other,
    ):
        assert one.own != other.own
        # The host solves cases where its own temporary files are, answers included.
        assert Path(tempfile.gettempdir()) not in (one.own / "tmp", other.own / "tmp")
        (one.own / "tmp" / "mine").write_text("x")
        assert list((other.own / "tmp").iterdir()) == []


def test_a_worker_that_dies_leaves_no_temporary_files(workers: Workers) -> None:
    arm = get_arm(CELL.arm)
    with workers.start(arm, CELL, purpose="resident") as worker:
        (worker.own / "tmp" / "compiled.h").write_text("x")
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(WorkerFailure):
            worker.memory()
    assert not worker.own.exists()
    assert list((workers.scratch / "workers").iterdir()) == []


def test_a_worker_that_does_not_start_leaves_no_temporary_files(workers: Workers) -> None:
    resolution = workers.resolutions[CELL.arm]
    missing = replace(resolution, interpreter=workers.scratch / "no python")
    workers.resolutions = {CELL.arm: missing}
    with (
        pytest.raises(StartFailure),
        workers.start(get_arm(CELL.arm), CELL, purpose="qualification"),
    ):
        pytest.fail("it started")
    assert list((workers.scratch / "workers").iterdir()) == []


def test_a_cache_that_another_program_wrote_into_is_emptied(workers: Workers) -> None:
    arm = get_arm(CELL.arm)
    with workers.start(arm, CELL, purpose="qualification") as worker:
        mine = worker.cache / "mine"
        mine.write_text("compiled")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with (
            workers.start(arm, CELL, purpose="resident") as one,
            workers.start(arm, CELL, purpose="resident") as other,
        ):
            assert mine.read_text() == "compiled"
            (one.cache / "ours").write_text("by a process of the arm")
            assert one.cache == other.cache
        with workers.start(arm, CELL, purpose="resident"):
            assert {path.name for path in mine.parent.iterdir()} == {"mine", "ours"}
    mine.write_text("replaced")
    with (
        pytest.warns(ForeignFiles, match="the cache of misbehaving:well changed"),
        workers.start(arm, CELL, purpose="resident"),
    ):
        assert not mine.exists()


def test_a_cache_that_another_arm_filled_beforehand_is_emptied(workers: Workers) -> None:
    cache = workers.scratch / "arms" / f"{file_name_of(CELL.arm)}-1" / "cache"
    cache.mkdir(parents=True)
    (cache / "foreign").write_text("x")
    with (
        pytest.warns(ForeignFiles, match="another program wrote there"),
        workers.start(get_arm(CELL.arm), CELL, purpose="qualification") as worker,
    ):
        assert list(worker.cache.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_place_of_a_folder_is_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "own" / "home"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("x")
    else:
        place.symlink_to(tmp_path / "nowhere")
    make_own_folders(tmp_path / "own")
    assert sorted(path.name for path in place.parent.iterdir()) == ["home", "tmp"]
    assert place.is_dir() and not place.is_symlink()


def test_files_that_vanish_while_a_cache_is_looked_through_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stays", "goes"):
        (tmp_path / name).write_text("x")
    lstat = Path.lstat

    def gone(path: Path) -> os.stat_result:
        if path.name == "goes":
            raise FileNotFoundError
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", gone)
    assert cache_entries(tmp_path) == 1


def test_an_adapter_that_changed_since_the_run_began_is_not_started(workers: Workers) -> None:
    framework = get_arm(CELL.arm).framework
    changed = {**framework.identity(), "hash": "0" * 64}
    workers.run.description["adapters"] = {framework.name: changed}
    with (
        pytest.raises(StartFailure, match="files of its adapter changed since the run began"),
        workers.start(get_arm(CELL.arm), CELL, purpose="resident"),
    ):
        pytest.fail("it started")


def test_no_two_arms_share_a_folder() -> None:
    arms = [
        *("my_fw:x", "my-fw:x", "my+fw:x", "my+5f+fw:x"),
        *("a:b-c", "a-b:c", "a:b_c", "a_b:c"),
        *("torch:eager-2", "torch:eager#2", "torch:eager#+2%", "torch@2.1:eager", "torch:eager@2"),
    ]
    assert len({file_name_of(arm) for arm in arms}) == len(arms)
    assert file_name_of("torch@2.8.0:eager") == "torch@2.8.0_eager"
    assert not set("".join(map(file_name_of, arms))) & set(":#%/ ")
