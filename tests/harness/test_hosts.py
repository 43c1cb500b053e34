"""Unusual hosts: missing system calls and files in /proc, no passwd entry, clocks that step."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import json
import math
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.analysis import forecast
from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.engine.blocks import Noise
from levelfield.harness.environments import interpreters, sealed
from levelfield.harness.errors import BadInput
from levelfield.harness.machine import describe, doctor, noise, resources, supervised
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.plan.suite import load_suite
from levelfield.harness.records import frames
from levelfield.harness.report import findings
from levelfield.harness.worker import measure
from tests.support.engine import RunModes, statuses
from tests.support.synthetic import write_mlp_run

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
# Files that the host reads, all of which a host may lack.
LACKING = (
    *("/proc/stat", "/proc/meminfo", "/proc/cpuinfo", "/proc/loadavg", "/proc/vmstat"),
    *("/proc/pressure", "/proc/sys", "/proc/self/cgroup", "/proc/swaps", "/sys"),
)
ZEROS = "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nctxt 0\n"
DAY = 86400.0


def unknown(*_: Any) -> Any:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host without these files and system calls."""
    real = io.open

    def opened(file: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(file, str | Path) and str(file).startswith(LACKING):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        return real(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        patch.setattr(os, "getloadavg", unknown)
        patch.setattr(os, "memfd_create", unknown)
        patch.delattr(os, "pidfd_open", raising=False)
        yield


def test_a_host_that_says_nothing_of_itself_is_described(bare: None) -> None:
    facts = describe.describe_machine()
    assert facts["cores"] == len(available_cores())
    assert facts["load_average"] is None
    assert facts["memory_bytes"] > facts["memory_available_bytes"] > 0
    assert facts["memory_limit_bytes"] == facts["quota_cores"] == "none"
    assert resources.memory_limit_bytes(0.0) == facts["memory_bytes"] * 3 // 4
    json.dumps(facts)


def test_the_doctor_says_what_it_cannot_read(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WATCH_SECONDS", 0.5)
    facts = doctor.examine()
    rows = {row.what: row for row in doctor.rows(facts)}
    for what in ("other programs", "stolen by the hypervisor", "huge pages", "last-level cache"):
        assert (rows[what].found, rows[what].state) == ("not readable", "unknown")
    assert "a host that does" in rows["other programs"].advice
    assert doctor.conclusion(facts)


def test_load_that_is_not_counted_is_unknown_and_no_load(bare: None) -> None:
    noises = Noise(available_cores()[:1], "cpu")
    noises.begin([])
    stretch = noises.end([])
    assert stretch.watched_cores is None
    assert math.isnan(stretch.other.foreign_seconds)
    assert stretch.other.throttled_seconds is None
    assert stretch.other.wall_seconds > 0
    assert replace(stretch, canaries=[]).suspect(0) is None


@pytest.mark.parametrize("text", [ZEROS, ""])
def test_counters_that_stand_still_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """As gVisor has them; a machine that was ever started has counted something."""
    monkeypatch.setattr(noise, "_text", lambda path: text)
    assert noise.watched_cores([0]) is None
    quiet = noise.wait_until_quiet(60.0, sleep=lambda seconds: None)
    assert quiet.quiet is None, "it neither waits a minute nor calls the machine quiet"


def test_a_kernel_that_does_not_count_waiting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.open

    def opened(file: Any, *arguments: Any) -> Any:
        if str(file).endswith("/schedstat"):
            raise FileNotFoundError(file)
        return real(file, *arguments)

    assert measure.own_use()[0] is not None
    monkeypatch.setattr(builtins, "open", opened)
    assert measure.own_use()[0] is None


def test_a_program_runs_without_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", unknown)
    done = supervised.completed([sys.executable, "-c", "print('a' * 100_000); raise SystemExit(3)"])
    assert (done.returncode, len(done.stdout)) == (3, 100_001)


def test_a_run_on_a_bare_host_whose_clock_steps(
    run_modes: RunModes, bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, true = itertools.cycle((0.0, -DAY, DAY)), time.time
    monkeypatch.setattr(time, "time", lambda: true() + next(steps))
    folder = run_modes("well")
    assert statuses(folder) == {"well": ("ok", "")}
    loaded = frames.load(folder)
    assert loaded.rounds["wall_seconds"].between(0, DAY / 2).all()
    # A busy machine may spread the canaries; nothing else can be seen on such a host.
    assert set(loaded.rounds["rule"]) <= {"", "canary"}
    (group,) = comparisons_of(loaded)
    words = findings.noise(loaded, group)
    assert words.startswith("Noise: foreign load not counted by this host; canary spread ")
    assert words.endswith("; stolen not counted.")


def test_a_clock_that_stepped_does_not_spoil_a_forecast(tmp_path: Path) -> None:
    folder, suite = write_mlp_run(tmp_path), load_suite("quick")
    before = forecast.most_seconds(frames.load(folder), suite)
    path = folder / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    middle = len(lines) // 2
    for step in (-DAY, DAY):
        stepped = [
            {**line, "at": line["at"] + step * (number > middle)}
            for number, line in enumerate(lines)
        ]
        path.write_text("".join(f"{json.dumps(record)}\n" for record in stepped))
        after = forecast.most_seconds(frames.load(folder), suite)
        assert before and after
        assert before / 2 < after < 2 * before


# -- a user whom the system does not know ------------------------------------------------------


@pytest.fixture
def unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in passwd(5), as in many containers."""

    def none(number: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", none)
    for name in ("HOME", "XDG_CACHE_HOME", "LEVELFIELD_CACHE", "PYENV_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_a_user_without_a_home_is_no_traceback(
    unknown_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert describe.shown(Path("/opt/python")) == "/opt/python"
    assert interpreters._usual_folders() == [Path("/usr/local/bin"), Path("/usr/bin")]
    with pytest.raises(BadInput, match="no home folder is known for this user; name a folder"):
        sealed.cache_folder()
    monkeypatch.setenv("LEVELFIELD_CACHE", "/tmp/levelfield")
    assert sealed.cache_folder() == Path("/tmp/levelfield")


def test_a_cache_in_the_home_of_nobody_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVELFIELD_CACHE", "~nosuchuser/x")
    with pytest.raises(BadInput, match="no home folder is known for ~nosuchuser/x"):
        sealed.cache_folder()


# A user without an entry in passwd. He may read all files: the interpreter may be in root's home.
STRANGER = [
    *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="this machine has no setpriv")
@pytest.mark.parametrize("command", ["list suites", "env list", "doctor --json"])
def test_commands_of_a_real_user_without_a_passwd_entry(command: str) -> None:
    program = "import os; os.umask(0); from levelfield.harness.cli import main; main()"
    done = subprocess.run(
        [*STRANGER, sys.executable, "-c", program, *command.split()],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or done.stderr.count("\n") == 1
