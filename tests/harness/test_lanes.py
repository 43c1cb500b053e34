"""Lanes: work goes on side by side, and what is timed has the machine alone."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from levelfield.harness.engine import lanes, qualifier, session
from levelfield.harness.engine.lanes import Group, Queue, run_side_by_side
from levelfield.harness.engine.process import Launch, WorkerProcess
from levelfield.harness.engine.qualification import Qualification
from levelfield.harness.engine.requests import Worker
from levelfield.harness.errors import RunFailed, WorkerFailure
from levelfield.harness.machine import locks, supervisor, topology
from levelfield.harness.machine.locks import CoresInUse, held_cores, spare_cores
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.machine.supervised import completed
from levelfield.harness.machine.turns import Turns
from levelfield.harness.plan import arms
from levelfield.harness.plan.arms import PACKAGE_FOLDER, Arm, read_framework
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite, validated
from levelfield.harness.proof.cases import Cases
from levelfield.harness.proof.replies import StartReply
from levelfield.harness.records import frames, store
from tests.support.engine import TINY_EFFORT, Silent
from tests.support.processes import PATIENCE_SECONDS, alive, wait_until

pytestmark = pytest.mark.alone

several_cores = pytest.mark.skipif(
    len(available_cores()) < 2, reason="a machine of one core has no spare core for lanes"
)
# Works until a file appears; says its own number in another file.
WORK = """
import os, sys, pathlib
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
while not os.path.exists(sys.argv[2]):
    pass
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The files of a process that works: ``pid`` when it runs, ``end`` to let it end."""
    files = SimpleNamespace(pid=tmp_path / "pid", end=tmp_path / "end")
    files.work = [sys.executable, "-c", WORK, str(files.pid), str(files.end)]
    files.number = lambda: int(files.pid.read_text())
    files.begun = lambda: files.pid.exists() and files.pid.read_text() != ""
    yield files
    files.end.touch()


def test_one_lane_at_a_time_runs_code_of_the_host_and_processes_run_side_by_side() -> None:
    turns, inside, most, asleep = Turns(), [0], [0], [0, 0]

    def lane() -> None:
        for _ in range(20):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1
            with turns.away():
                asleep[0] += 1
                asleep[1] = max(asleep)
                time.sleep(0.01)
                asleep[0] -= 1

    run_side_by_side(turns, [lane] * 4)
    assert most == [1]
    assert asleep[1] > 1


def test_a_lane_that_is_alone_parks_the_processes_of_the_others(place: SimpleNamespace) -> None:
    turns, states = Turns(), []

    def works() -> None:
        assert completed(place.work, turns=turns).returncode == 0

    def times() -> None:
        with turns.away():
            wait_until(place.begun)
        with turns.alone():
            assert turns.are_parked()
            begin = time.monotonic()
            while time.monotonic() < begin + 0.2:
                states.append(supervisor.states(place.number()))
        assert not turns.are_parked()
        states.append(supervisor.states(place.number()))
        place.end.touch()

    run_side_by_side(turns, [times, works])
    assert set.union(*states[:-1]) == {"T"}
    assert states[-1] != {"T"}
    assert turns.parked_seconds() >= 0.2


def test_processes_that_a_lane_starts_while_it_is_alone_run(place: SimpleNamespace) -> None:
    turns = Turns()

    def times() -> None:
        with turns.away():
            wait_until(place.begun)
        with turns.alone():
            assert completed(["/bin/true"], turns=turns).returncode == 0
            assert supervisor.states(place.number()) == {"T"}
        place.end.touch()

    run_side_by_side(turns, [times, lambda: completed(place.work, turns=turns)])


ADAPTER = """
import time
class Adapter:
    def __init__(self, device, mode, threads, precision):
        pass
    def describe(self):
        time.sleep(0.7)
        return {}
"""


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """A worker whose adapter needs 0.7 s to describe itself."""
    (tmp_path / "sleepy").mkdir()
    (tmp_path / "sleepy" / "__init__.py").write_text(ADAPTER)
    return Launch(
        interpreter=Path(sys.executable),
        variables={},
        cores=available_cores(),
        packages={"sleepy": tmp_path / "sleepy"},
        log=tmp_path / "log",
    )


def describe(process: WorkerProcess, limit_seconds: float) -> None:
    process.ask(
        StartReply,
        limit_seconds,
        **{"adapter": "sleepy", "device": "cpu", "mode": "x", "threads": 1},
        precision="float32",
    )


def test_a_process_that_has_the_machine_alone_keeps_its_time_limit(
    launch: Launch, place: SimpleNamespace
) -> None:
    turns = Turns()
    ended = []

    def times() -> None:
        with WorkerProcess(launch, timeout_seconds=PATIENCE_SECONDS, turns=turns) as process:
            with turns.away():
                wait_until(place.begun)
            with process.alone():
                assert turns.are_parked()
                with pytest.raises(WorkerFailure, match=r"took longer than 0\.2 s") as failure:
                    describe(process, 0.2)
                ended.append(failure.value.status)
        place.end.touch()

    run_side_by_side(turns, [times, lambda: cast(None, completed(place.work, turns=turns))])
    assert ended == ["timeout"]


def test_time_limits_stand_still_while_a_process_is_parked(launch: Launch) -> None:
    turns, asked = Turns(), threading.Event()
    described = []

    def asks() -> None:
        with WorkerProcess(launch, timeout_seconds=PATIENCE_SECONDS, turns=turns) as process:
            asked.set()
            # Parked for longer than its limit, it gets what it had left.
            describe(process, 2.0)
            described.append(turns.parked_seconds())

    def times() -> None:
        with turns.away():
            asked.wait()
            time.sleep(0.3)
        with turns.alone():
            time.sleep(2.5)

    run_side_by_side(turns, [times, asks])
    assert described[0] >= 2.5


@pytest.mark.parametrize("first", [0, 1])
def test_the_error_of_a_lane_ends_the_others_and_their_processes(
    place: SimpleNamespace, first: int
) -> None:
    turns = Turns()

    def fails() -> None:
        with turns.away():
            wait_until(place.begun)
        raise RunFailed("the disk is full")

    def works() -> None:
        completed(place.work, turns=turns)

    both = [fails, works]
    with pytest.raises(RunFailed, match="the disk is full"):
        run_side_by_side(turns, [both[first], both[1 - first]])
    assert not alive(place.number())


@pytest.mark.parametrize("first", [0, 1])
def test_a_lane_that_waits_for_another_ends_with_it(first: int) -> None:
    turns = Turns()

    def fails() -> None:
        with turns.away():
            time.sleep(0.05)
        raise RunFailed("no")

    both = [fails, lambda: turns.wait_until(lambda: False)]
    with pytest.raises(RunFailed, match="no"):
        run_side_by_side(turns, [both[first], both[1 - first]])


def test_a_thread_that_is_no_lane_is_never_held_up() -> None:
    turns = Turns()
    with turns.away(), turns.alone(), turns.away():
        assert not turns.are_parked()
    assert turns.number == 0


# -- who does what ----------------------------------------------------------------------------


def group(name: str, interpreter: str = "") -> Group:
    return Group("", cast(Arm, name), Path(interpreter or name), ())


def served(groups: Sequence[Group], *, lanes_count: int, until: str = "") -> list[str]:
    """Which groups were handed out; checks that no interpreter served two lanes at once."""
    turns, at_work, names = Turns(), [], []
    queue = Queue([*groups], turns, lambda group: cast(str, group.arm) != until)

    def lane() -> None:
        while True:
            with queue.next() as taken:
                if taken is None:
                    return
                names.append(cast(str, taken.arm))
                at_work.append(taken.interpreter)
                assert len({*at_work}) == len(at_work)
                with turns.away():
                    time.sleep(0.01)
                at_work.remove(taken.interpreter)

    run_side_by_side(turns, [lane] * lanes_count)
    return names


def test_arms_of_one_interpreter_follow_each_other() -> None:
    groups = [group("a", "x"), group("b", "x"), group("c", "y"), group("d", "y"), group("e", "z")]
    assert served(groups, lanes_count=1) == ["a", "b", "c", "d", "e"]
    assert served(groups, lanes_count=2)[:2] == ["a", "c"]
    assert sorted(served(groups, lanes_count=4)) == ["a", "b", "c", "d", "e"]


def test_the_first_group_without_time_ends_the_queue() -> None:
    groups = [group("a"), group("b"), group("c"), group("d")]
    assert served(groups, lanes_count=2, until="c") == ["a", "b"]
    assert served(groups, lanes_count=1, until="a") == []


def test_work_that_two_lanes_need_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, solved = Turns(), []
    cases = Cases(cast(Suite, None), tmp_path, turns)
    cell = cast(Cell, SimpleNamespace(model="mlp", preset="tiny", batch=8))

    def solve(self: Cases, cell: Cell) -> tuple[None, None]:
        solved.append(threading.get_ident())
        with turns.away():
            time.sleep(0.1)
        return None, None

    monkeypatch.setattr(Cases, "_solve", solve)
    monkeypatch.setattr(Cases, "_file", lambda *_: None)
    run_side_by_side(turns, [lambda: cast(None, cases.solved(cell))] * 3)
    assert len(solved) == 1


@pytest.mark.parametrize(
    ("timed", "closings"), [(True, ["good closing", "fine closing"]), (False, [])]
)
def test_closing_cases_are_solved_last_and_a_failed_task_is_its_cell_s(
    timed: bool, closings: list[str]
) -> None:
    asked = []

    class Failing:
        def solved(self, cell: str) -> None:
            asked.append(cell)
            if cell == "bad":
                raise WorkerFailure("failed", "it cannot be solved")

        def lesson(self, cell: str, seed: int) -> str | None:
            return "no data" if seed else None

        def learned(self, cell: str, seed: int) -> None:
            asked.append(f"{cell} {seed}")

        def closing(self, cell: str) -> None:
            asked.append(f"{cell} closing")

    cells = cast(Sequence[Cell], ["bad", "good", "fine"])
    steps = lanes.prepare(cast(Cases, Failing()), cells, lambda _: range(2), timed=timed)
    assert len([*steps]) == 4 + len(closings)
    assert asked == ["bad", "good", "good 0", "fine", "fine 0", *closings]


# -- spare cores ------------------------------------------------------------------------------


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight hardware threads on four physical cores: 0 and 4, 1 and 5, ..."""
    monkeypatch.setattr(locks, "available_cores", lambda: [*range(8)])
    monkeypatch.setattr(topology, "siblings", lambda core: {core % 4, core % 4 + 4})
    monkeypatch.setattr(topology, "_kinds", lambda cores: dict.fromkeys(cores, 0))


def test_spare_cores_are_those_that_nobody_measures_on(tmp_path: Path, eight: None) -> None:
    with held_cores(tmp_path, 1, run="/results/first") as first:
        assert first == (0,)
        with spare_cores(tmp_path, first, most=2, run="/results/first") as spare:
            assert spare == (1, 2)
            with (
                pytest.warns(CoresInUse, match="this run takes core 3"),
                held_cores(tmp_path, 1, run="/results/second") as second,
            ):
                assert second == (3,)
                with spare_cores(tmp_path, second, most=8, run="/results/second") as none_left:
                    assert none_left == ()
                with spare_cores(tmp_path, second, most=1, run="x", lock=False) as shared:
                    assert shared == (0,)
        with spare_cores(tmp_path, first, most=9, run="/results/first") as later:
            assert sorted(later) == [1, 2, 3, 5, 6, 7]


def test_a_run_that_begins_meanwhile_is_told_who_has_the_cores(tmp_path: Path, eight: None) -> None:
    with (
        held_cores(tmp_path, 1, run="/results/first") as first,
        spare_cores(tmp_path, first, most=3, run="/results/first"),
        pytest.raises(RunFailed, match=r"/results/first \(process \d+\) measures on core 0"),
        held_cores(tmp_path, 1, run="/results/second", busy="refuse"),
    ):
        pass


def test_a_folder_without_locks_costs_no_lane(tmp_path: Path, eight: None) -> None:
    (tmp_path / "file").touch()
    with spare_cores(tmp_path / "file", (0,), most=2, run="x") as spare:
        assert spare == (1, 2)


# -- whole runs -------------------------------------------------------------------------------


@pytest.fixture
def frameworks(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Copies of the misbehaving framework with interpreters of their own: name -> its path."""
    interpreters = {}
    with ExitStack() as stack:
        for name in ("first", "second", "third"):
            copied = read_framework(name, "levelfield.harness.selftest.misbehaving", PACKAGE_FOLDER)
            stack.enter_context(arms.registered(copied))
            script = tmp_path / f"python-{name}"
            script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            interpreters[name] = script
        yield interpreters


def measured(
    folder: Path, interpreters: dict[str, Path], *names: str, accuracy: bool = True, **options: Any
) -> Path:
    """Run arms of several frameworks on mlp; returns the run's folder."""
    suite = validated(
        Suite(
            name="lanes",
            title="tests",
            models=("mlp",),
            arms=names,
            presets=("small",),
            phases=("inference", "training"),
            optimizers=("sgd",),
            batches=(8,),
            level="smoke",
            twin="none",
            effort=replace(TINY_EFFORT, accuracy=accuracy),
        )
    )
    cells, resolutions = session.planned(suite, session.resolve_arms(suite.arms, interpreters))
    description = session.describe_run(suite, cells, resolutions)
    with store.create(folder, "run", description) as created:
        session.measure(
            created, suite, cells, resolutions=resolutions, progress=Silent(), **options
        )
    return created.path


ARMS = ("first:well", "second:well", "third:well")


@several_cores
def test_arms_are_proved_side_by_side_and_timed_alone(
    tmp_path: Path, frameworks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, neighbours, together = Turns.alone, [], []

    @contextmanager
    def watched(self: Turns, own: int = 0) -> Iterator[None]:
        with alone(self, own):
            begun = {root: [*supervisor.living(root)] for root in self._trees - {own}}
            yield
            for root, pids in begun.items():
                running = [p for p in supervisor.living(root) if p in pids]
                states = [supervisor.states(pid) <= supervisor.STILL for pid in running]
                neighbours.extend(states)

    ask = WorkerProcess.ask

    def asking(self: WorkerProcess, *arguments: Any, **options: Any) -> Any:
        together.append(len(self._turns._trees))
        return ask(self, *arguments, **options)

    monkeypatch.setattr(Turns, "alone", watched)
    monkeypatch.setattr(WorkerProcess, "ask", asking)
    folder = measured(tmp_path, frameworks, *ARMS)
    loaded = frames.load(folder)
    assert set(loaded.cells["status"]) == {"ok"}
    assert neighbours
    assert all(neighbours)
    assert max(together) > 1
    records = store.read_records(store.open_run(folder))
    (measuring,) = {tuple(r["cores"]) for r in records if r["record"] == "session"}
    cores = {r["purpose"]: set[int]() for r in records if r["record"] == "process"}
    for record in records:
        if record["record"] == "process":
            cores[record["purpose"]].update(record["asked"]["cores"])
    # Nothing is timed but on the cores of the session; memory is measured on any.
    assert cores["qualification"] == cores["resident"] == {*measuring}
    assert cores["memory"] > {*measuring}


@several_cores
@pytest.mark.usefixtures("solved_once")
def test_a_check_that_times_nothing_parks_nobody(
    tmp_path: Path, frameworks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(self: Turns, own: int = 0) -> None:
        raise AssertionError("nothing is timed")

    monkeypatch.setattr(Turns, "alone", alone)
    folder = measured(tmp_path, frameworks, *ARMS, only_gate=True)
    assert set(frames.load(folder).cells["status"]) == {"ok"}


@several_cores
@pytest.mark.usefixtures("solved_once")
@pytest.mark.parametrize("status", ["timeout", "out-of-memory"])
def test_what_other_lanes_may_be_to_blame_for_is_tried_again_alone(
    tmp_path: Path, frameworks: dict[str, Path], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    qualify, tried = Qualification.qualify, []

    def failing(self: Qualification, worker: Worker, cell: Cell) -> tuple[str, str]:
        tried.append(cell.id)
        if tried.count(cell.id) == 1 and cell.arm == "second:well":
            return status, "it had too little"
        return qualify(self, worker, cell)

    monkeypatch.setattr(Qualification, "qualify", failing)
    folder = measured(tmp_path, frameworks, *ARMS, accuracy=False)
    loaded = frames.load(folder)
    assert set(loaded.cells["status"]) == {"ok"}
    assert sorted(tried.count(cell) for cell in loaded.cells["cell"]) == [1, 1, 1, 1, 2, 2]


@several_cores
@pytest.mark.usefixtures("solved_once")
def test_after_a_death_one_cell_at_a_time_is_in_hand(
    tmp_path: Path, frameworks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []

    def counted(turns: Turns, works: Sequence[Callable[[], None]]) -> None:
        sides.append(len(works))
        run_side_by_side(turns, works)

    monkeypatch.setattr(qualifier, "run_side_by_side", counted)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(
            Qualification, "qualify", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        )
        measured(tmp_path, frameworks, *ARMS, accuracy=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    # As if a worker of each of two lanes had been asked.
    for lane, arm in enumerate(ARMS[:2]):
        note = f'{{"arm": "{arm}", "cell": null}}'
        (tmp_path / "run" / f"in-hand-{lane}").write_text(note)
    with store.open_run(tmp_path / "run") as run:
        suite, cells, resolutions = session.reopened(run, frameworks)
        session.measure(run, suite, cells, resolutions=resolutions, progress=Silent())
    assert sides == [1]
    deaths = [r["arm"] for r in store.read_records(run) if r["record"] == "death"]
    assert deaths == [*ARMS[:2]]
    assert set(frames.load(tmp_path / "run").cells["status"]) == {"ok"}
