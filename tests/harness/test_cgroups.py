"""Control groups: quota, throttling, memory and deaths, of version 1 and 2, nested, and real."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from levelfield.harness.machine import cgroups, resources
from levelfield.harness.machine.describe import describe_machine, difference
from tests.support.processes import PATIENCE_SECONDS

pytestmark = pytest.mark.alone

GIBIBYTE = 2**30
UNLIMITED = "9223372036854771712\n"
Played = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """Plays /proc/self/cgroup and files below /sys/fs/cgroup; "proc/..." is below /proc."""

    def play(groups: str, files: Mapping[str, str]) -> None:
        for name, text in {"proc/self/cgroup": groups, **files}.items():
            path = tmp_path / (name if name.startswith("proc/") else f"cgroups/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(cgroups, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path / "cgroups")
    return play


V1_CPU = {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        pytest.param("0::/a\n", {"a/cpu.max": "50000 100000\n"}, 0.5, id="version 2"),
        pytest.param("0::/a\n", {"a/cpu.max": "max 100000\n"}, None, id="no quota"),
        pytest.param(
            "0::/a/b\n",
            {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "150000 100000\n"},
            1.5,
            id="a tighter quota of the group around it",
        ),
        pytest.param("0::/a/b\n", {"a/cpu.max": "200000 100000"}, 2.0, id="only around it"),
        pytest.param("0::/\n", {"cpu.max": "300000 100000\n"}, 3.0, id="its own namespace"),
        pytest.param("4:cpu,cpuacct:/a\n0::/\n", V1_CPU, 0.5, id="version 1"),
        pytest.param("4:cpu,cpuacct:/a/b\n", V1_CPU, 0.5, id="version 1, nested"),
        pytest.param(
            "4:cpu:/docker/7\n",
            {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2.5,
            id="version 1, the path outside of the container",
        ),
        pytest.param(
            "4:cpu:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            None,
            id="version 1, no quota",
        ),
        pytest.param("4:cpuset:/a\n", V1_CPU, None, id="another controller"),
        pytest.param("0::/a\n", {"unified/a/cpu.max": "50000 100000\n"}, 0.5, id="both mounted"),
        pytest.param("0::/a\n", {"a/cpu.max": "50000 0\n"}, None, id="nonsense"),
        pytest.param("0::/a\n", {}, None, id="no files"),
    ],
)
def test_the_lowest_quota_from_the_own_group_up_holds(
    played: Played, groups: str, files: dict[str, str], expected: float | None
) -> None:
    played(groups, files)
    assert cgroups.quota_cores() == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a\n", {"a/cpu.stat": "usage_usec 9\nthrottled_usec 2500000\n"}, 2.5),
        (
            "0::/a/b\n",
            {"a/b/cpu.stat": "throttled_usec 500000\n", "a/cpu.stat": "throttled_usec 2000000\n"},
            2.5,
        ),
        ("4:cpu:/a\n", {"cpu/a/cpu.stat": "nr_throttled 3\nthrottled_time 2500000000\n"}, 2.5),
        ("0::/a\n", {"a/cpu.stat": "usage_usec 9\n"}, None),
        ("0::/a\n", {"a/cpu.stat": "throttled_usec 0\n"}, 0.0),
    ],
)
def test_throttling_of_every_group_around_is_counted(
    played: Played, groups: str, files: dict[str, str], expected: float | None
) -> None:
    played(groups, files)
    assert cgroups.throttled_seconds() == expected


@pytest.mark.parametrize(
    ("groups", "files", "limit", "left"),
    [
        pytest.param(
            "0::/a\n",
            {
                "a/memory.max": f"{2 * GIBIBYTE}\n",
                "a/memory.current": f"{GIBIBYTE}\n",
                "a/memory.stat": f"anon 5\ninactive_file {GIBIBYTE // 2}\n",
            },
            2 * GIBIBYTE,
            3 * GIBIBYTE // 2,
            id="version 2, files can be dropped",
        ),
        pytest.param(
            "0::/a/b\n",
            {
                "a/b/memory.max": "max\n",
                "a/memory.max": f"{2 * GIBIBYTE}\n",
                "a/memory.current": f"{GIBIBYTE}\n",
            },
            2 * GIBIBYTE,
            GIBIBYTE,
            id="the group around it",
        ),
        pytest.param(
            "4:memory:/a\n",
            {
                "memory/a/memory.limit_in_bytes": f"{2 * GIBIBYTE}\n",
                "memory/a/memory.usage_in_bytes": f"{GIBIBYTE}\n",
                "memory/a/memory.stat": f"total_inactive_file {GIBIBYTE}\n",
                "memory/memory.limit_in_bytes": UNLIMITED,
            },
            2 * GIBIBYTE,
            2 * GIBIBYTE,
            id="version 1",
        ),
        pytest.param(
            "4:memory:/a\n", {"memory/a/memory.limit_in_bytes": UNLIMITED}, None, None, id="none"
        ),
    ],
)
def test_the_memory_of_the_groups_bounds_workers_and_residency(
    played: Played,
    monkeypatch: pytest.MonkeyPatch,
    groups: str,
    files: dict[str, str],
    limit: int | None,
    left: int | None,
) -> None:
    played(groups, files)
    whole = SimpleNamespace(total=16 * GIBIBYTE, available=8 * GIBIBYTE)
    monkeypatch.setattr(resources.psutil, "virtual_memory", lambda: whole)
    assert cgroups.memory_limit_bytes() == limit
    assert resources.memory_limit_bytes(0.0) == (limit or whole.total) * 3 // 4
    assert resources.memory_limit_bytes(5.0) == 5 * GIBIBYTE
    assert resources.memory_available_bytes() == (left or whole.available)
    assert describe_machine()["memory_available_bytes"] == (left or whole.available)


@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (1.0, 1), (2.9, 2), (99.0, 8)])
def test_a_quota_bounds_the_threads(
    played: Played, monkeypatch: pytest.MonkeyPatch, quota: float, threads: int
) -> None:
    monkeypatch.setattr(resources, "available_cores", lambda: list(range(8)))
    played("0::/a\n", {"a/cpu.max": f"{quota * 100000:.0f} 100000\n"})
    assert resources.most_threads() == threads


def test_another_quota_is_another_machine(played: Played) -> None:
    played("0::/a\n", {"a/cpu.max": "max 100000\n"})
    before = describe_machine()
    played("0::/a\n", {"a/cpu.max": "150000 100000\n"})
    assert difference(before, describe_machine()) == ["cores by quota none, now 1.5"]


EVENTS = "low 0\nhigh 0\nmax 9\noom 5\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
VMSTAT = "nr_free_pages 5\noom_kill {}\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.events": 1, "a/memory.events": 2, "proc/vmstat": 9}, 1),
        ("0::/a/b\n", {"a/memory.events": 2, "proc/vmstat": 9}, 2),  # counts for those within it
        ("0::/\n", {"memory.events": 3, "proc/vmstat": 9}, 3),  # a container, itself as root
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.oom_control": 4, "proc/vmstat": 9}, 4),
        ("4:memory:/docker/7\n", {"memory/memory.oom_control": 5, "proc/vmstat": 9}, 5),
        ("4:cpuset:/a\n0::/\n", {"proc/vmstat": 9}, 9),
        ("", {"proc/vmstat": 9}, 9),
        ("0::/\n", {}, None),
    ],
)
def test_the_nearest_counter_of_the_kernel_is_read(
    played: Played, groups: str, files: dict[str, int], expected: int | None
) -> None:
    texts = {"events": EVENTS, "oom_control": CONTROL, "vmstat": VMSTAT}
    played(
        groups,
        {name: texts[name.split("/")[-1].split(".")[-1]].format(n) for name, n in files.items()},
    )
    assert cgroups.oom_kills() == expected


def test_this_kernel_counts_what_it_killed() -> None:
    count = cgroups.oom_kills()
    assert count is not None and count >= 0


# -- real control groups ----------------------------------------------------------------------

TOP = Path("/sys/fs/cgroup")
QUESTION = """
import json, os, sys, time
from levelfield.harness.machine import cgroups, noise, resources
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
end = time.monotonic() + float(sys.argv[2])
while not noise.read().throttled_seconds and time.monotonic() < end:
    pass
print(json.dumps([
    cgroups.quota_cores(),
    noise.read().throttled_seconds,
    cgroups.memory_limit_bytes(),
    resources.memory_limit_bytes(0.0),
    resources.memory_available_bytes(),
]))
"""


@contextlib.contextmanager
def real_group(controller: str, *settings: tuple[str, str, str]) -> Iterator[Path]:
    """A real group within another one; ``settings``: (file of version 1, of version 2, text).

    The limits are those of the outer group. Yields the file to which a process is added.
    """
    version_1 = (TOP / controller / "cgroup.procs").exists()
    top = TOP / controller if version_1 else TOP
    outer = top / f"levelfield-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        if not version_1:
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
        outer.mkdir()
        if not version_1:
            (outer / "cgroup.subtree_control").write_text(f"+{controller}")
        inner.mkdir()
        for old, new, text in settings:
            if name := old if version_1 else new:
                (outer / name).write_text(text)
    except OSError as error:
        for folder in (inner, outer):
            with contextlib.suppress(OSError):
                folder.rmdir()
        pytest.skip(f"this machine lets no test make control groups: {error}")
    try:
        yield inner / "cgroup.procs"
    finally:
        time.sleep(0.05)  # the kernel lets go of a group some moments after its last process
        for folder in (inner, outer):
            folder.rmdir()


def asked_within(procs: Path, seconds: float) -> list[float | None]:
    """The answers of a process in the group, which waits so long to be throttled."""
    done = subprocess.run(
        [sys.executable, "-c", QUESTION, str(procs), str(seconds)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[float | None] = json.loads(done.stdout)
    return answers


def test_a_real_quota_is_seen_and_what_it_costs() -> None:
    with real_group(
        "cpu",
        ("cpu.cfs_period_us", "", "100000"),
        ("cpu.cfs_quota_us", "cpu.max", "5000"),
    ) as procs:
        quota, throttled, *_ = asked_within(procs, PATIENCE_SECONDS)
    assert quota == 0.05
    assert throttled is not None and throttled > 0


def test_a_real_limit_of_memory_bounds_workers_and_residency() -> None:
    limit = 2 * GIBIBYTE
    with real_group("memory", ("memory.limit_in_bytes", "memory.max", str(limit))) as procs:
        _, _, group, of_worker, available = asked_within(procs, 0.0)
    assert group == limit
    assert of_worker == limit * 3 // 4
    assert available is not None and limit // 2 < available < limit
