"""Two runs at once: no two measure on the same cores, and a lock dies with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from levelfield.harness.cli.application import app
from levelfield.harness.engine import session
from levelfield.harness.errors import RunFailed
from levelfield.harness.machine import locks, topology
from levelfield.harness.machine.locks import CoresInUse, held_cores
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.plan.arms import Framework
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.records import frames
from levelfield.harness.records.store import Run, open_run, read_records
from levelfield.harness.report.provenance import run_facts
from tests.support.engine import RunModes, Silent
from tests.support.synthetic import empty_run

pytestmark = pytest.mark.alone

CELL = Cell(
    **{"id": "c0001", "comparison": "k001", "arm": "misbehaving:well", "framework": "misbehaving"},
    **{"mode": "well", "model": "mlp", "preset": "tiny", "phase": "training", "batch": 8},
    **{"optimizer": "sgd", "numeric": "float32", "device": "cpu", "threads": 1},
    profile="default",
)
HOLDER = """
import sys
from pathlib import Path
from levelfield.harness.machine import locks
locks.available_cores = lambda: [0, 1]
with locks.held_cores(Path(sys.argv[1]), 1, run="/results/first") as cores:
    print(*cores, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four cores without siblings."""
    monkeypatch.setattr(locks, "available_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(topology, "siblings", lambda core: {core})


@pytest.fixture
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_run_alone_takes_the_first_cores_in_silence(
    tmp_path: Path, four: None, silent: None
) -> None:
    for threads in (1, 4, 2):  # the earlier ones have ended
        with held_cores(tmp_path, threads, run="/results/first") as cores:
            assert cores == tuple(range(threads))


def test_a_second_run_takes_other_cores_and_says_so(tmp_path: Path, four: None) -> None:
    with held_cores(tmp_path, 2, run="/results/first") as first:
        assert first == (0, 1)
        with (
            pytest.warns(CoresInUse) as warned,
            held_cores(tmp_path, 2, run="/results/second") as second,
        ):
            assert second == (2, 3)
    assert [str(warning.message) for warning in warned] == [
        f"/results/first (process {os.getpid()}) measures on cores 0, 1; this run takes cores 2, 3"
    ]


def test_a_second_run_waits_where_too_few_cores_are_free(tmp_path: Path, four: None) -> None:
    first = held_cores(tmp_path, 3, run="/results/first")
    first.__enter__()
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            first.__exit__(None, None, None)

    with (
        pytest.warns(CoresInUse) as warned,
        held_cores(tmp_path, 2, run="/results/second", sleep=sleep) as second,
    ):
        assert second == (0, 1)
    assert len(slept) == 3
    assert [str(warning.message) for warning in warned] == [
        f"waiting: /results/first (process {os.getpid()}) measures on cores 0, 1"
    ]


def test_a_second_run_waits_no_longer_than_its_budget(tmp_path: Path, four: None) -> None:
    slept: list[float] = []
    with (
        held_cores(tmp_path, 4, run="/results/first"),
        pytest.warns(CoresInUse, match="waiting: "),
        pytest.raises(RunFailed, match="for as long as the budget; after its end, type: ") as gone,
        held_cores(tmp_path, 2, run="/results/second", patience_seconds=5.0, sleep=slept.append),
    ):
        pass
    assert 5 <= sum(slept) < 10
    assert str(gone.value).endswith("levelfield run --resume /results/second")


def test_a_second_run_is_refused_by_choice(tmp_path: Path, four: None) -> None:
    with (
        held_cores(tmp_path, 4, run="/results/first"),
        pytest.raises(
            RunFailed, match=r"^/results/first \(process \d+\) measures on core 0; after"
        ) as refused,
        held_cores(tmp_path, 1, run="/my results/second", busy="refuse"),
    ):
        pytest.fail("it began")
    assert str(refused.value).endswith("levelfield run --resume '/my results/second'")
    with held_cores(tmp_path, 1, run="/results/second", busy="refuse") as cores:
        assert cores == (0,), "a refused run leaves no locks"


def test_a_run_that_times_nothing_shares_cores(tmp_path: Path, four: None, silent: None) -> None:
    with (
        held_cores(tmp_path, 4, run="/results/first"),
        held_cores(tmp_path, 1, run="/results/check", busy="share") as cores,
    ):
        assert cores == (0,)
    with (
        held_cores(tmp_path, 1, run="/results/check", busy="share"),
        pytest.warns(CoresInUse, match="check .* this run takes core 1"),
        held_cores(tmp_path, 1, run="/results/first") as cores,
    ):
        assert cores == (1,)


def test_the_sibling_of_a_measured_core_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "siblings", lambda core: {core % 2, core % 2 + 2})
    monkeypatch.setattr(locks, "available_cores", lambda: [0])
    with held_cores(tmp_path, 1, run="/results/first") as first:
        assert first == (0,)
        monkeypatch.setattr(locks, "available_cores", lambda: [2, 3])
        with (
            pytest.warns(CoresInUse, match="first .* measures on core 2; this run takes core 3"),
            held_cores(tmp_path, 1, run="/results/second") as second,
        ):
            assert second == (3,)


def test_a_run_goes_on_where_it_was(tmp_path: Path, four: None) -> None:
    with held_cores(tmp_path, 1, run="/results/first", before=[2]) as cores:
        assert cores == (2,)
        with (
            pytest.raises(RunFailed, match="measures on core 2"),
            held_cores(tmp_path, 1, run="/results/second", before=[2], busy="refuse"),
        ):
            pytest.fail("it began elsewhere")
    for gone in ([9], []):
        with held_cores(tmp_path, 2, run="/results/first", before=gone) as cores:
            assert cores == (0, 1)


def test_a_lock_dies_with_its_holder(tmp_path: Path, four: None) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == "0\n"
        words = rf"/results/first \(process {holder.pid}\) measures on cores 0, 1, 2, 3"
        with (
            pytest.raises(RunFailed, match=words),
            held_cores(tmp_path, 4, run="/results/second", busy="refuse"),
        ):
            pytest.fail("it began")
        holder.send_signal(signal.SIGKILL)
    with held_cores(tmp_path, 4, run="/results/second", busy="refuse") as cores:
        assert cores == (0, 1, 2, 3)


def test_without_locks_a_run_goes_on_with_a_warning(tmp_path: Path, four: None) -> None:
    folder = tmp_path / "a file"
    folder.write_text("")
    with (
        pytest.warns(CoresInUse, match="cannot lock cores in .*a file .Not a directory."),
        held_cores(folder, 2, run="/results/first") as cores,
    ):
        assert cores == (0, 1)


def test_the_locks_of_boots_long_past_are_deleted(
    tmp_path: Path, four: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(locks, "BOOT", boot)
    folder = tmp_path / "cores"
    for name in ("old", "young", "now"):
        boot.write_text(f"{name}\n")
        with held_cores(folder, 1, run="/results/first"):
            pass
        age = 2 * locks.OLD_SECONDS if name == "old" else 0.0
        status = (folder / name).stat()
        os.utime(folder / name, (status.st_atime - age, status.st_mtime - age))
    with held_cores(folder, 1, run="/results/first"):
        assert sorted(path.name for path in folder.iterdir()) == ["now", "young"]
    boot.unlink()
    with held_cores(folder, 1, run="/results/first"):
        assert len(list(folder.iterdir())) == 3, "a host that has no name for its boot"


def measured_on(folder: Path) -> str:
    """What the report says about the cores of a run."""
    loaded = frames.load(folder)
    (facts,) = (dict(run_facts(run, loaded)) for run in loaded.runs.to_dict("records"))
    return facts["measured on"]


def test_the_report_says_on_which_cores_a_run_measured(run_modes: RunModes) -> None:
    (core,) = topology.choose(available_cores(), 1)
    folder = run_modes("well")
    assert measured_on(folder) == f"core {core}"
    (began,) = (
        record for record in read_records(open_run(folder)) if record["record"] == "session"
    )
    assert began["cores"] == [core]


@pytest.mark.skipif(len(available_cores()) < 2, reason="a machine of one core has no other core")
def test_a_run_measures_on_the_cores_that_it_locked(run_modes: RunModes) -> None:
    with (
        held_cores(session.cores_folder(), 1, run="/results/first") as first,
        pytest.warns(CoresInUse, match=r"/results/first .* this run takes"),
    ):
        folder = run_modes("well")
    assert measured_on(folder).startswith("core ")
    assert measured_on(folder) != f"core {first[0]}"


def test_no_wait_reaches_the_lock(tmp_path: Path) -> None:
    every = len(available_cores())
    with (
        held_cores(session.cores_folder(), every, run="/results/first"),
        empty_run(tmp_path) as run,
        pytest.raises(RunFailed, match=r"/results/first .* measures on core"),
    ):
        session.measure(
            *(run, cast(Suite, None), [CELL]), resolutions={}, progress=Silent(), wait=False
        )


@pytest.mark.parametrize("option", [[], ["--no-wait"]])
def test_the_option_of_the_command(
    misbehaving: Framework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str]
) -> None:
    asked = []

    def measure(run: Run, *_: object, wait: bool, **__: object) -> None:
        asked.append(wait)
        raise RunFailed("the test needs no more")

    monkeypatch.setattr(session, "measure", measure)
    arguments = ["run", "tiny", "--arms", "misbehaving:well", "--twin", "none"]
    done = CliRunner().invoke(app, [*arguments, "--results", str(tmp_path), *option])
    assert isinstance(done.exception, RunFailed), done.output
    assert asked == [not option]
