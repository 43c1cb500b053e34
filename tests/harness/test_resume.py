"""Runs cut short: what was measured is kept, nothing is measured twice, nobody survives."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from levelfield.harness.analysis.summary import summary as summarised
from levelfield.harness.records import frames, store
from tests.support.long import long_unless
from tests.support.processes import PATIENCE_SECONDS, POLL_SECONDS, wait_until
from tests.support.terminal import (
    CONSOLE_SCRIPT,
    Done,
    Terminal,
    installed_misbehaving,
    variables,
    write_suite,
)

FEW_KILLS, MANY_KILLS = 3, 20  # `make test` finds a beginning and a middle, `make test-long` all
ROUNDS = 30
GOES_ON = "levelfield: was stopped by a signal (Ctrl-Z, or a program) and goes on"


@dataclass(frozen=True)
class Place:
    """Where the runs of this file are made; every process of theirs carries ``marker``."""

    folder: Path
    environment: Mapping[str, str]
    marker: str


@dataclass
class Started:
    """A command in a process group of its own, what it prints in files."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    def done(self) -> Done:
        code = self.process.wait(PATIENCE_SECONDS)
        return Done(code, self.output.read_text(), self.errors.read_text())


Start = Callable[..., Started]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("cut short")
    marker = folder / "temporary"
    marker.mkdir()
    site = installed_misbehaving(tmp_path_factory)
    write_suite(folder / "suite.toml", "well", "own-loop", rounds=ROUNDS)
    # The host keeps the folders of its workers below its own TMPDIR, their TMPDIR among them.
    environment = variables(tmp_path_factory, site, TMPDIR=str(marker))
    return Place(folder, environment, str(marker))


@pytest.fixture(scope="module")
def start(place: Place) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(*arguments: str | Path) -> Started:
            output, errors = place.folder / "output", place.folder / "errors"
            with output.open("wb") as out, errors.open("wb") as err:
                process = subprocess.Popen(
                    [CONSOLE_SCRIPT, "run", *arguments],
                    cwd=place.folder,
                    env=place.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    # What a shell's background job inherits would make Ctrl-C unheard.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
                )
            stack.callback(end, process)
            return Started(process, output, errors)

        yield begin


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def records_of(run: Path) -> bytes:
    path = run / "records.jsonl"
    return path.read_bytes() if path.exists() else b""


def whole(data: bytes) -> bytes:
    """Without a torn last line."""
    return data[: data.rfind(b"\n") + 1]


def parsed(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def marked(place: Place) -> list[psutil.Process]:
    """Every living process that a command of this file started."""
    numbers = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(place.marker):
                numbers.append(process)
        except psutil.Error:
            continue
    return numbers


def assert_nobody_survives(place: Place) -> None:
    """The kernel tells workers of their host's death at once, and they need a moment to die."""
    wait_until(lambda: not marked(place))


Slice = tuple[str, str, int, int]


def slices_of(records: list[dict[str, Any]]) -> list[Slice]:
    return [
        (r["cell"], r["statistic"], r["block"], r["round"])
        for r in records
        if r["record"] == "slice"
    ]


def statuses_of(records: list[dict[str, Any]]) -> dict[str, str]:
    ends = [(r["cell"], r["status"]) for r in records if r["record"] == "status"]
    assert len(ends) == len(dict(ends)), "a cell has two statuses"
    return dict(ends)


def assert_complete(run: Path) -> None:
    """Every cell its one status, one whole block, and in it every round once and in order."""
    cells = store.open_run(run).description["cells"]
    data = records_of(run)
    assert whole(data) == data
    records = parsed(data)
    assert statuses_of(records) == {cell["id"]: "ok" for cell in cells}
    (block,) = (record["block"] for record in records if record["record"] == "block")
    measured: dict[str, list[int]] = {}
    for cell, statistic, number, index in slices_of(records):
        if statistic == "throughput" and number == block:
            measured.setdefault(cell, []).append(index)
    assert measured == {cell["id"]: list(range(ROUNDS)) for cell in cells}
    assert max(Counter(slices_of(records)).values()) == 1
    summary = summarised(frames.load(run))
    assert list(summary["status"]) == ["ok"] * len(cells)
    assert (summary["step_seconds"] > 0).all()
    assert (run / "report" / "report.md").is_file()


@dataclass(frozen=True)
class Undisturbed:
    """A run to its end: its folder, how long it took and how many lines it wrote."""

    run: Path
    seconds: float
    lines: int


@pytest.fixture(scope="module")
def undisturbed(place: Place, start: Start) -> Undisturbed:
    begin = time.monotonic()
    done = start("suite.toml", "--results", "undisturbed").done()
    seconds = time.monotonic() - begin
    assert done.code == 0, done
    (run,) = (place.folder / "undisturbed").iterdir()
    return Undisturbed(run, seconds, records_of(run).count(b"\n"))


def test_an_undisturbed_run_is_complete(undisturbed: Undisturbed) -> None:
    assert_complete(undisturbed.run)


def begun(results: Path) -> Path | None:
    """The run that was begun last, if it came as far as saying what it is."""
    folders = sorted(results.glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    return folders[-1].parent if folders else None


def watch(started: Started, results: Path, moment: Callable[[int], bool], before: bytes) -> bytes:
    """Read along until the moment has come or the command has ended; returns what was read."""
    seen, run = before, None
    while started.process.poll() is None and not moment(seen.count(b"\n") - before.count(b"\n")):
        time.sleep(POLL_SECONDS)
        run = run or begun(results)
        if run and (run / "records.jsonl").exists():
            with (run / "records.jsonl").open("rb") as file:
                file.seek(len(seen))
                seen += whole(file.read())
    return seen


@pytest.mark.parametrize("count", [FEW_KILLS, long_unless(False, MANY_KILLS)])
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    count: int, place: Place, start: Start, undisturbed: Undisturbed
) -> None:
    stream = random.Random(20261120)
    kills = hits = rounds = 0
    results = place.folder / f"{count} kills 0"
    while kills < count:
        rounds += 1
        assert rounds < 3 * count
        run = begun(results)
        before = whole(records_of(run)) if run else b""
        settled = set(statuses_of(parsed(before)))
        # In turn by the clock, which also finds the beginning and the end of a run, and by what
        # is on disk, which also finds the middle where a busy machine stretches the clock.
        if rounds % 2:
            until = time.monotonic() + stream.uniform(0, undisturbed.seconds)
            moment = lambda lines, until=until: time.monotonic() >= until  # noqa: E731
        else:
            least = stream.randrange(1, undisturbed.lines // 4)
            moment = lambda lines, least=least: lines >= least  # noqa: E731
        begin = ("--resume", run) if run else ("suite.toml", "--results", results)
        started = start(*begin)
        seen = watch(started, results, moment, before)
        if not rounds % 2:
            time.sleep(stream.uniform(0, 0.02))
        if started.process.poll() is not None:
            assert started.done().code == 0, started.done()
            run = begun(results)
            assert run
            assert_complete(run)
            results = place.folder / f"{count} kills {rounds}"
            continue
        os.killpg(started.process.pid, signal.SIGKILL)
        started.process.wait()
        kills += 1
        # These kills come from outside, and two at one point would blame the cell in hand.
        for note in results.glob("*/in-hand-*"):
            note.unlink()
        assert_nobody_survives(place)
        run = begun(results)
        after = records_of(run) if run else b""
        assert after.startswith(seen), "a line that was on disk is gone"
        assert seen.startswith(before)
        new = parsed(whole(after)[len(before) :])
        assert settled.isdisjoint(record.get("cell") for record in new)
        assert max(Counter(slices_of(parsed(whole(after)))).values(), default=1) == 1
        hits += bool(new)
    assert hits >= count // 3, "nearly all kills came before anything was measured"
    run = begun(results)
    begin = ("--resume", run) if run else ("suite.toml", "--results", results)
    done = start(*begin).done()
    assert done.code == 0, done
    run = begun(results)
    assert run
    assert_complete(run)
    assert_nobody_survives(place)


@pytest.fixture(scope="module")
def half(place: Place, undisturbed: Undisturbed) -> Path:
    """A run whose cells are qualified and whose block had some rounds."""
    folder = place.folder / "half"
    shutil.copytree(undisturbed.run, folder, ignore=shutil.ignore_patterns("report", "lock"))
    lines = records_of(folder).splitlines(keepends=True)
    taken = [n for n, line in enumerate(lines) if b'"record":"slice"' in line]
    (folder / "records.jsonl").write_bytes(b"".join(lines[: taken[ROUNDS]]))
    return folder


@pytest.fixture
def interrupted(half: Path, tmp_path: Path) -> Path:
    """A copy of it for the test to go on with."""
    return Path(shutil.copytree(half, tmp_path / "a run"))


def test_what_the_tests_below_go_on_from_is_half_a_run(half: Path) -> None:
    records = parsed(records_of(half))
    assert not statuses_of(records)
    kinds = Counter(record["record"] for record in records)
    assert kinds["calibration"] == len(store.open_run(half).description["cells"])
    assert kinds["slice"] == ROUNDS
    assert kinds["block"] == 0


def test_what_was_qualified_is_not_qualified_again(start: Start, interrupted: Path) -> None:
    before = Counter(record["record"] for record in parsed(records_of(interrupted)))
    assert start("--resume", interrupted).done().code == 0
    after = Counter(record["record"] for record in parsed(records_of(interrupted)))
    for kind in ("gate", "check", "calibration", "memory"):
        assert after[kind] == before[kind]
    assert_complete(interrupted)


@pytest.mark.parametrize("last", ["process", "slice"])
def test_a_block_cut_short_before_its_first_round_leaves_its_number_to_no_other(
    start: Start, undisturbed: Undisturbed, tmp_path: Path, last: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed.run, run, ignore=shutil.ignore_patterns("report", "lock"))
    lines = records_of(run).splitlines(keepends=True)
    kinds = [record["record"] for record in parsed(b"".join(lines))]
    beginning = kinds[: kinds.index("round")]
    cut = len(beginning) - beginning[::-1].index(last)
    (run / "records.jsonl").write_bytes(b"".join(lines[:cut]))
    assert start("--resume", run).done().code == 0
    assert_complete(run)
    processes = [r for r in parsed(records_of(run)) if r["record"] == "process"]
    assert max(Counter(process["process"] for process in processes).values()) == 1
    arms = len({cell["arm"] for cell in store.open_run(run).description["cells"]})
    served = Counter(process["block"] for process in processes if process.get("block"))
    assert max(served.values()) == arms, "two blocks have one number"


def lines_of(done: Done) -> list[str]:
    """What was said besides progress."""
    return [line for line in done.errors.splitlines() if not re.match(r"\[\d+/\d+\] |\d+% ", line)]


def await_slices(started: Started, run: Path, before: bytes) -> None:
    """Until some more slices are on disk: the command is in the middle of measuring."""

    def measuring() -> bool:
        assert started.process.poll() is None, started.done()
        return len(slices_of(parsed(whole(records_of(run)[len(before) :])))) > 2

    wait_until(measuring)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name
)
def test_an_interruption_says_in_one_line_how_to_go_on(
    place: Place, start: Start, interrupted: Path, number: signal.Signals
) -> None:
    before = records_of(interrupted)
    scratch = set(Path(place.marker).iterdir())  # of runs that had no time to tidy up
    started = start("--resume", interrupted)
    await_slices(started, interrupted, before)
    started.process.send_signal(number)  # the host alone: its workers have sessions of their own
    if number == signal.SIGTERM:
        started.process.send_signal(signal.SIGCONT)  # as timeout does
    done = started.done()
    assert done.code == 128 + number
    assert done.output == ""
    assert lines_of(done) == [
        "interrupted; the measurements so far are kept; to continue, type: "
        f"levelfield run --resume '{interrupted}'"
    ]
    assert_nobody_survives(place)
    assert set(Path(place.marker).iterdir()) == scratch
    after = records_of(interrupted)
    assert after.startswith(before)
    assert whole(after) == after


def test_of_two_that_resume_at_once_the_second_is_refused(
    start: Start, terminal: Terminal, interrupted: Path
) -> None:
    before = records_of(interrupted)
    first = start("--resume", interrupted)
    await_slices(first, interrupted, before)
    first.process.send_signal(signal.SIGSTOP)
    held = records_of(interrupted)
    second = terminal("run", "--resume", interrupted)
    assert (second.code, second.output) == (2, "")
    assert second.errors == (
        f"levelfield: {interrupted} is being written by process {first.process.pid}: "
        "wait until it ends, or stop it\n"
    )
    assert records_of(interrupted) == held
    first.process.send_signal(signal.SIGCONT)
    done = first.done()
    assert done.code == 0
    assert GOES_ON in lines_of(done)
    assert_complete(interrupted)


def test_a_disk_that_fills_up_loses_one_record_and_a_resume_makes_it_good(
    place: Place, start: Start, interrupted: Path
) -> None:
    before = records_of(interrupted)
    started = start("--resume", interrupted)
    await_slices(started, interrupted, before)
    started.process.send_signal(signal.SIGSTOP)
    room = len(records_of(interrupted)) + 1000  # some records and a part of one
    resource.prlimit(started.process.pid, resource.RLIMIT_FSIZE, (room, room))
    started.process.send_signal(signal.SIGCONT)
    done = started.done()
    assert (done.code, done.output) == (1, "")
    goes_on, lines = lines_of(done)
    assert goes_on == GOES_ON
    assert lines.startswith(f"levelfield: {interrupted / 'records.jsonl'}: the disk is full; ")
    assert lines.endswith(f"levelfield run --resume '{interrupted}'")
    assert_nobody_survives(place)
    after = records_of(interrupted)
    assert room - 1000 <= len(after) <= room
    assert whole(after) == after
    (interrupted / "records.jsonl").write_bytes(after + b'{"record":"slice","ce')
    resumed = start("--resume", interrupted).done()
    assert resumed.code == 0, resumed
    warning = f"{interrupted / 'records.jsonl'}: dropped a torn last record of 21 bytes"
    assert f"levelfield: {warning}\n" in resumed.errors
    assert "Warning" not in resumed.errors
    assert_complete(interrupted)


@pytest.fixture(scope="module")
def terminal(place: Place) -> Iterator[Terminal]:
    unmarked = {name: value for name, value in place.environment.items() if name != "TMPDIR"}
    shell = Terminal(unmarked, place.folder)
    yield shell
    shell.close()


def test_resuming_what_is_finished_reports_and_does_nothing_else(
    terminal: Terminal, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed.run, run, ignore=shutil.ignore_patterns("report"))
    logs = sorted(os.listdir(run / "logs"))
    done = terminal("run", "--resume", run)
    assert (done.code, done.errors) == (0, "")
    assert "misbehaving:well" in done.output
    assert (run / "report" / "report.md").is_file()
    assert records_of(run) == records_of(undisturbed.run)
    assert sorted(os.listdir(run / "logs")) == logs


def test_packages_that_have_changed_are_not_mixed_into_a_run(
    terminal: Terminal, interrupted: Path
) -> None:
    description = json.loads((interrupted / "run.json").read_text())
    own = description["locks"]["misbehaving:own-loop"]
    own["hash"], own["lock"] = "0" * 64, [*own["lock"], "moon==1.0", "sun==2.0", "star==3.0"]
    (interrupted / "run.json").write_text(json.dumps(description))
    before = records_of(interrupted)
    done = terminal("run", "--resume", interrupted)
    assert (done.code, done.output) == (2, "")
    assert done.errors == (
        f"levelfield: the packages of misbehaving:own-loop are not those that {interrupted} began "
        "with (no longer moon==1.0, star==3.0 and more), and one run cannot mix them; install them "
        "again, or start a new run of the suite's file: levelfield run suite.toml\n"
    )
    assert records_of(interrupted) == before


def test_a_run_of_another_machine_is_not_resumed_here(
    terminal: Terminal, interrupted: Path
) -> None:
    description = json.loads((interrupted / "run.json").read_text())
    machine = description["machine"]
    cores = machine["cores"]
    machine.update(processor="Example 9000", cores=cores + 1)
    (interrupted / "run.json").write_text(json.dumps(description))
    before = records_of(interrupted)
    done = terminal("run", "--resume", interrupted)
    assert (done.code, done.output) == (2, "")
    assert done.errors.startswith(
        f"levelfield: this is not the machine that {interrupted} began on (processor Example 9000, "
    )
    assert done.errors.endswith(
        f"available cores {cores + 1}, now {cores}), and one run cannot mix them; resume it there, "
        "or start a new run of the suite's file: levelfield run suite.toml\n"
    )
    assert records_of(interrupted) == before


def test_a_run_does_not_go_on_without_the_cores_that_it_measured_on(
    terminal: Terminal, interrupted: Path
) -> None:
    gone, file = 4000, interrupted / "records.jsonl"
    available = os.sched_getaffinity(0)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (session,) = [record for record in lines if record["record"] == "session"]
    session["cores"] = [gone]
    file.write_text("".join(json.dumps(record) + "\n" for record in lines))
    before = records_of(interrupted)
    done = terminal("run", "--resume", interrupted)
    assert (done.code, done.output) == (2, "")
    listed = ", ".join(map(str, sorted(available)))
    assert done.errors == (
        f"levelfield: {interrupted} measured on core {gone}, and this process may use "
        f"{'core' if len(available) == 1 else 'cores'} {listed} alone; one run cannot mix cores; "
        f"type: taskset --cpu-list {gone} levelfield run --resume {shlex.quote(str(interrupted))}; "
        "or start a new run of the suite's file: levelfield run suite.toml\n"
    )
    assert records_of(interrupted) == before


def test_an_adapter_that_has_changed_is_not_mixed_into_a_run(
    terminal: Terminal, interrupted: Path
) -> None:
    description = json.loads((interrupted / "run.json").read_text())
    own = description["adapters"]["misbehaving"]
    assert own["distribution"] == "bad_company"
    own["hash"] = "0" * 64
    (interrupted / "run.json").write_text(json.dumps(description))
    before = records_of(interrupted)
    done = terminal("run", "--resume", interrupted)
    assert (done.code, done.output) == (2, "")
    assert done.errors == (
        f"levelfield: the adapter misbehaving is not the one that {interrupted} began with (its "
        "files have changed), and one run cannot mix them; restore it, or start a new run of "
        "the suite's file: levelfield run suite.toml\n"
    )
    assert records_of(interrupted) == before


@pytest.mark.parametrize("key", ["suite", "locks", "adapters", "machine"])
def test_a_description_that_lacks_something_is_refused_in_one_line(
    terminal: Terminal, interrupted: Path, key: str
) -> None:
    description = json.loads((interrupted / "run.json").read_text())
    del description[key]
    (interrupted / "run.json").write_text(json.dumps(description))
    done = terminal("run", "--resume", interrupted)
    assert (done.code, done.output) == (2, "")
    assert done.errors.count("\n") == 1
    assert f"run.json cannot be resumed: KeyError('{key}')" in done.errors
