"""Temporary folders: nothing of a killed host stays, and a full disk costs no cell its result."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import scratch
from levelfield.harness.records import store
from tests.support.disks import fill
from tests.support.terminal import (
    COMMAND,
    ROOT,
    Done,
    installed_misbehaving,
    variables,
    write_suite,
)

# A host that says where its folder is, and goes on when it is told to.
HOST = """
import os, sys
from levelfield.harness.machine.scratch import scratch_folder
with scratch_folder() as folder:
    inner = folder / "locked" / "deep"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    inner.chmod(0o555)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of this process and of the hosts that it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def host() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOST],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def folder_of(process: subprocess.Popen[str]) -> Path:
    assert process.stdout
    return Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_host_is_swept_and_that_of_a_living_host_is_not(
    temporary: Path,
) -> None:
    with host() as killed, host() as living:
        left, used = folder_of(killed), folder_of(living)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.parent == used.parent == temporary
        (other,) = (temporary / "levelfield-check-logs-1",)
        other.mkdir()
        with scratch.scratch_folder() as own:
            assert set(temporary.iterdir()) == {own, used, other}
        living.communicate("")
    assert set(temporary.iterdir()) == {other}


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_a_folder_that_is_swept_while_it_is_made_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    swept: list[str] = []

    def sweep(folder: str) -> None:
        if not swept:
            swept.append(folder)
            os.rmdir(folder)

    def mkdtemp(prefix: str, dir: Path) -> str:
        folder = tempfile.mkdtemp(prefix=prefix, dir=dir)
        if moment == "before it is opened":
            sweep(folder)
        return folder

    def flock(lock: int, how: int) -> None:
        sweep(os.readlink(f"/proc/self/fd/{lock}"))
        fcntl.flock(lock, how)

    monkeypatch.setattr(scratch, "fcntl", SimpleNamespace(**{**vars(fcntl), "flock": flock}))
    played = SimpleNamespace(mkdtemp=mkdtemp, gettempdir=tempfile.gettempdir)
    monkeypatch.setattr(scratch, "tempfile", played)
    with scratch.scratch_folder() as folder:
        assert folder.is_dir()
    assert swept != [str(folder)]


def test_a_folder_that_cannot_be_made_is_named(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user chose it: no other is taken in silence."""
    monkeypatch.setenv("TMPDIR", str(temporary / "missing"))
    words = "missing: cannot write there: No such file or directory; make room, or choose another"
    with pytest.raises(scratch.NoRoom, match=words), scratch.scratch_folder():
        pass


def test_a_failure_with_room_left_is_the_arms_own(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailure, match="broke"), scratch.roomy(tmp_path):
        raise WorkerFailure("failed", "broke")
    with pytest.raises(PermissionError), scratch.roomy(tmp_path):
        raise PermissionError(1, "no")


@pytest.mark.parametrize(
    "error",
    [
        WorkerFailure("failed", "OSError: [Errno 28] No space left on device: 'x'"),
        WorkerFailure("failed", "OSError: [Errno 122] Disk quota exceeded"),
        OSError(28, "No space left on device", "x"),
    ],
    ids=repr,
)
def test_a_failure_for_want_of_room_is_no_arms(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(scratch.NoRoom, match="the disk is full; make room"),
        scratch.roomy(tmp_path),
    ):
        raise error


def test_a_failure_on_a_full_disk_is_no_arms(small_disk: Path) -> None:
    fill(small_disk, 0)
    with pytest.raises(scratch.NoRoom), scratch.roomy(small_disk):
        raise WorkerFailure("failed", "died of SIGBUS during 'load'")


# Bytes that are left: for nothing, and for the case and not for a worker's answers.
@pytest.mark.parametrize("room", [0, 500 << 10])
def test_a_run_on_a_full_disk_ends_in_one_line_and_can_be_resumed(
    small_disk: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, room: int
) -> None:
    site = installed_misbehaving(tmp_path_factory)
    suite = write_suite(tmp_path / "suite.toml", "well")
    fill(small_disk, room)

    def typed(*words: str | Path) -> Done:
        done = subprocess.run(
            [*COMMAND, "run", *words],
            cwd=tmp_path,
            env=variables(tmp_path_factory, site, TMPDIR=str(small_disk)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    done = typed(suite, "--phases", "inference", "--presets", "small")
    (run,) = (tmp_path / "results").iterdir()
    lines = [line for line in done.errors.splitlines() if line.startswith("levelfield: ")]
    assert (done.code, done.output) == (1, ""), done
    assert lines == [
        f"levelfield: {small_disk}: the disk is full; make room, or choose another folder: export"
        " TMPDIR=FOLDER; to go on, type: levelfield run --resume"
        f" {run.relative_to(tmp_path)}"
    ]
    assert "Traceback" not in done.errors
    assert store.finished(store.open_run(run)) == set()
    (small_disk / "fill").unlink()
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = typed("--resume", run)
    assert again.code == 0, again
    assert set(store.statuses(store.open_run(run)).values()) == {"ok"}
