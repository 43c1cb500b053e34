"""Adapters whose replies, answers or deeds are nonsense: each costs its own cell alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from levelfield.harness.engine import in_hand, session
from levelfield.harness.engine.process import WorkerProcess
from levelfield.harness.plan import arms
from levelfield.harness.plan.arms import read_framework
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import Suite, validated
from levelfield.harness.proof.cases import Cases
from levelfield.harness.proof.replies import Reply
from levelfield.harness.records import frames, store
from tests.support.engine import TINY_EFFORT, Silent, statuses
from tests.support.processes import PATIENCE_SECONDS
from tests.support.solved import remember_answers

# Right in its arithmetic; its mode says what it does besides.
ADAPTER = """
import json, os, shutil, signal, sys, time

import numpy as np

from levelfield.adapters.base import Adapter as Base
from levelfield.harness.selftest.misbehaving.computing import Adapter as Sound

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
    with open(os.path.dirname(__file__) + "/seen", "a") as log:
        for path in files():
            mode = os.stat(path).st_mode & 0o777
            log.write("%s %o %o\\n" % (path, mode, os.stat(os.path.dirname(path)).st_mode & 0o777))


def kill_host():
    # The parent is the supervisor, and that one's parent measures.
    with open("/proc/%d/stat" % os.getppid()) as stat:
        host = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(host, signal.SIGKILL)
    time.sleep(60)


def litter():
    # How many entries the folders of this process hold, each of which it leaves a file in.
    found = {}
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        os.makedirs(os.environ[name], exist_ok=True)
        found[name] = len(os.listdir(os.environ[name]))
        with open(os.path.join(os.environ[name], str(os.getpid())), "w") as file:
            file.write("warm")
    return found


DEEDS = {"deletes": delete, "falsifies": falsify, "spies": spy}


def helper():
    return json.loads("no JSON")


class Panic(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Adapter(Sound):
    def __init__(self, device, mode, threads, precision):
        Sound.__init__(self, device, "well", threads, precision)
        self.name, self.infers, self.loads, self.judged = mode, 0, 0, False
        if mode == "kills-at-once":
            kill_host()

    def describe(self):
        if self.name == "talks":
            return {"version": "1\\x1b[2J", "more": "x" * (5 << 20), "list": [1]}
        if self.name == "scalars":
            return {"version": np.float32(1)}
        if self.name == "shouts":
            return {"version": "x" * (50 << 20)}
        if self.name == "litters":
            return dict(litter(), version="1.0")
        return {"version": "1.0", "threads": 1}

    def load(self, module, case):
        Sound.load(self, module, case)
        self.loads += 1
        if self.name in RAW and "timed" not in self.name:
            os.write(REPLIES, RAW[self.name])
        if self.name == "endless":
            for _ in range(40):
                os.write(REPLIES, b"x" * (1 << 20))

    def infer(self):
        self.infers += 1
        # A process of a block loads once, that of the qualification more often.
        late = self.loads == 1 and self.infers > 20
        if self.name == "kills" or (self.name == "ambushes" and late):
            kill_host()
        if self.infers in (1, 60) and self.name in DEEDS:
            DEEDS[self.name]()
        if self.name == "null-when-timed" and self.late_infers() == 60:
            once = os.path.join(os.environ["XDG_CACHE_HOME"], "once")
            if not os.path.exists(once):
                os.makedirs(once)
                os.write(REPLIES, RAW[self.name])
        outputs = Sound.infer(self)
        if self.name == "nameless":
            return {7: outputs["logits"]}
        if self.name == "misnamed":
            return {"logits": outputs["logits"], "a\\x1b[2J" + "b" * 1000: outputs["logits"]}
        change = OUTPUTS.get(self.name)
        return {"logits": change(outputs["logits"])} if change else outputs

    def late_infers(self):
        # In a process whose parameters nobody has asked for: no gate has judged it.
        return 0 if self.judged else self.infers

    def parameters(self):
        self.judged = True
        if self.name == "methodless":
            return Base.parameters(self)
        if self.name in ("panics", "mute"):
            raise Panic("a thread panicked") if self.name == "panics" else Mute()
        return helper() if self.name == "raises" else Sound.parameters(self)

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
    "methodless": ("failed", "the adapter foreign has no method 'parameters'; adapters/base.py"),
    "raises": (
        "failed",
        "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (outside0/foreign/__",
    ),
    "panics": ("failed", "Panic: a thread panicked (outside0/foreign/__"),
    "mute": ("failed", "Mute (outside0/foreign/__"),
    "guesses": ("failed", "the reply to 'slot' has NaN for 'compiled'"),
}


DEEDS = ("deletes", "falsifies", "spies")
KILLERS = ("kills", "kills-at-once", "ambushes")


@pytest.fixture(scope="module", autouse=True)
def solved_once(answers: Path) -> Iterator[None]:
    """All runs of this file have one case, and the reference takes seconds to solve it."""
    with pytest.MonkeyPatch.context() as patch:
        remember_answers(patch, answers)
        yield


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("outside") / "foreign"
    folder.mkdir()
    (folder / "__init__.py").write_text(ADAPTER)
    names = [*EXPECTED, *DEEDS, *KILLERS, "litters", "well", "well2"]
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
            twin="none",
            effort=replace(TINY_EFFORT, memory=False),
            **{
                "level": "smoke",
                "presets": ("tiny",),
                "phases": ("inference",),
                "batches": (8,),
                "arms": tuple(f"foreign:{mode}" for mode in modes),
                **options,
            },
        )
    )
    cells = plan(suite)
    resolutions = session.resolve_arms(suite.arms, {})
    description = session.describe_run(suite, cells, resolutions)
    with store.create(folder, "run", description) as created:
        session.measure(created, suite, cells, resolutions=resolutions, progress=Silent())
    return created.path


def resume(folder: Path) -> None:
    """Go on with a run, as ``levelfield run --resume`` does."""
    with store.open_run(folder) as opened:
        suite, cells, resolutions = session.reopened(opened, {})
        session.measure(opened, suite, cells, resolutions=resolutions, progress=Silent())


def exit_code(work: Callable[..., Any], *arguments: Any) -> int | None:
    """Do the work in a process that may be killed."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(PATIENCE_SECONDS)
    return process.exitcode


@pytest.fixture(scope="module")
def nonsense(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("results"), *EXPECTED, "well")


def test_a_sound_arm_between_them_is_measured(nonsense: Path) -> None:
    assert statuses(nonsense)["well"] == ("ok", "")
    (cell,) = [c for c in store.open_run(nonsense).description["cells"] if c["mode"] == "well"]
    records = store.read_records(store.open_run(nonsense))
    slices = [
        record for record in records if record["record"] == "slice" and record["cell"] == cell["id"]
    ]
    assert len(slices) >= TINY_EFFORT.rounds


@pytest.mark.parametrize("mode", EXPECTED)
def test_nonsense_costs_its_own_cell_and_names_itself(nonsense: Path, mode: str) -> None:
    status, reason = statuses(nonsense)[mode]
    expected, words = EXPECTED[mode]
    assert status == expected, reason
    assert words in reason
    assert reason.isprintable()
    assert len(reason) <= 700


@pytest.mark.parametrize("residency", ["resident", "sequential"])
def test_a_cell_that_ends_its_worker_costs_no_other_cell_of_its_arm(
    foreign: Path, tmp_path: Path, residency: str
) -> None:
    # Nonsense comes once in the run, from whichever cell is timed first.
    folder = run(tmp_path, "null-when-timed", "well", batches=(8, 16), residency=residency)
    cells = frames.load(folder).cells
    ends = {mode: sorted(rows["status"]) for mode, rows in cells.groupby("mode")}
    assert ends == {"null-when-timed": ["failed", "ok"], "well": ["ok", "ok"]}
    (reason,) = cells["reason"][cells["status"] == "failed"]
    assert "is null" in reason
    started = [
        record["arm"]
        for record in store.read_records(store.open_run(folder))
        if record["record"] == "process" and record.get("block") is not None
    ]
    assert sorted(started) == [*2 * ["foreign:null-when-timed"], "foreign:well"]


def test_a_reason_names_the_line_of_the_adapter_and_the_log_has_the_whole_of_it(
    nonsense: Path,
) -> None:
    (line,) = [n for n, text in enumerate(ADAPTER.splitlines(), 1) if 'json.loads("no' in text]
    assert statuses(nonsense)["raises"][1].endswith(f"(outside0/foreign/__init__.py:{line})")
    cells = {c["id"]: c["mode"] for c in store.open_run(nonsense).description["cells"]}
    logs = {
        cells[record["cell"]]: record.get("log")
        for record in store.read_records(store.open_run(nonsense))
        if record["record"] == "status"
    }
    assert logs["well"] is None
    assert logs["raises"].endswith("-foreign_raises.log")
    log = (nonsense / "logs" / logs["raises"]).read_text()
    assert "Traceback" in log
    assert "in helper" in log
    assert (nonsense / "logs" / logs["shouts"]).exists()


def test_a_method_that_no_class_of_the_adapter_has_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "class Adapter:\n"
        "    def __init__(self, device, mode, threads, precision): pass\n"
        "    def describe(self): return {}\n"
    )
    (folder / "env.toml").write_text(ENVIRONMENT + 'well = { summary = "x" }')
    with arms.registered(read_framework("bare", "bare", folder)):
        done = run(tmp_path / "results", "well", arms=("bare:well",))
    assert statuses(done)["well"] == (
        "failed",
        "the adapter bare has no method 'load'; adapters/base.py says what it does",
    )


def test_what_it_says_of_itself_is_kept_clean_and_short(nonsense: Path) -> None:
    (description,) = {
        (record["describe"]["version"], record["describe"]["list"], len(record["describe"]["more"]))
        for record in store.read_records(store.open_run(nonsense))
        if record["record"] == "process" and record["arm"] == "foreign:talks"
    }
    assert description == ("1 [2J", "[1]", 1000)
    assert (nonsense / "records.jsonl").stat().st_size < 4 << 20


def test_an_arm_that_deletes_or_falsifies_what_lies_in_the_run_s_folder_costs_itself_only(
    foreign: Path, tmp_path: Path
) -> None:
    modes = ("well", "deletes", "falsifies", "well2")
    for residency in ("resident", "sequential"):
        folder = run(tmp_path / residency, *modes, residency=residency)
        outcomes = statuses(folder)
        assert {outcomes[mode] for mode in ("well", "well2")} == {("ok", "")}
        assert all(status in ("ok", "wrong", "failed") for status, _ in outcomes.values())


def test_no_answers_lie_where_a_worker_reads_and_no_case_can_be_written(
    foreign: Path, tmp_path: Path
) -> None:
    folder = run(tmp_path / "results", "spies", "well")
    assert {status for status, _ in statuses(folder).values()} == {"ok"}
    lines = (foreign / "seen").read_text().splitlines()
    seen = {line.split()[0]: line.split()[1:] for line in lines}
    cases = {path: modes for path, modes in seen.items() if path.endswith(".npz")}
    assert set(map(tuple, cases.values())) == {("444", "555")}
    assert {Path(path).name for path in cases} == {"case.npz"}


def test_a_process_finds_nothing_of_the_user_or_of_earlier_processes_but_its_arm_s_cache(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".theanorc").write_text("settings of the user")
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    folder = run(tmp_path / "results", "litters", "well")
    assert statuses(folder)["litters"] == ("ok", "")
    processes = [
        record
        for record in store.read_records(store.open_run(folder))
        if record["record"] == "process" and record["arm"] == "foreign:litters"
    ]
    assert len(processes) >= 2
    for name in ("HOME", "TMPDIR"):
        assert {process["describe"][name] for process in processes} == {0}
    # The cache is the arm's own and said to be warm; another run starts with a cold one.
    counts = [process["describe"]["XDG_CACHE_HOME"] for process in processes]
    assert counts == [process["cache_entries"] for process in processes] == [*range(len(processes))]
    again = run(tmp_path / "again", "litters")
    first, *_ = [
        record
        for record in store.read_records(store.open_run(again))
        if record["record"] == "process"
    ]
    assert first["describe"]["XDG_CACHE_HOME"] == first["cache_entries"] == 0
    assert {path.name for path in home.iterdir()} == {".theanorc"}


@pytest.mark.parametrize("killer", KILLERS)
def test_an_arm_that_kills_the_measuring_process_is_failed_when_that_died_twice(
    foreign: Path, tmp_path: Path, killer: str
) -> None:
    assert exit_code(run, tmp_path, "well", killer) == -signal.SIGKILL
    folder = tmp_path / "run"
    assert exit_code(resume, folder) == -signal.SIGKILL
    assert exit_code(resume, folder) == 0
    assert statuses(folder) == {"well": ("ok", ""), killer: ("failed", in_hand.REASON)}
    assert not [*folder.glob("in-hand*")]


def test_an_interruption_and_an_error_leave_no_note(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        assert (tmp_path / "run" / "in-hand-0").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("levelfield.harness.engine.qualification.Qualification._check", interrupt)
        run(tmp_path, "well")
    assert not [*(tmp_path / "run").glob("in-hand*")]
    resume(tmp_path / "run")
    assert statuses(tmp_path / "run") == {"well": ("ok", "")}
    kinds = [record["record"] for record in store.read_records(store.open_run(tmp_path / "run"))]
    assert "death" not in kinds


def test_a_note_stands_while_a_worker_is_asked_and_not_while_the_reference_solves(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, set[bool]] = {}
    solved: dict[str, Any] = {}
    ask, reference = WorkerProcess.ask, Cases._reference
    note = in_hand.InHand(tmp_path / "run")

    def asking(self: WorkerProcess, kind: type[Reply], *arguments: Any, **options: Any) -> Reply:
        asked.setdefault(kind.do, set()).add(note.left() is not None)
        return ask(self, kind, *arguments, **options)

    def solving(self: Cases, task: tuple[Any, ...], *arguments: str) -> str:
        solved[task[0]] = note.left()
        return reference(self, task, *arguments)

    monkeypatch.setattr(WorkerProcess, "ask", asking)
    monkeypatch.setattr(Cases, "_reference", solving)
    run(tmp_path, "well", presets=("small",), phases=("training",), optimizers=("sgd",))
    assert solved == dict.fromkeys(
        ("levelfield.reference", "levelfield.reference.closing", "levelfield.reference.learning")
    )
    assert {"start", "load", "answer", "slot", "closing", "learn", "memory"} <= set(asked)
    assert {stood for stands in asked.values() for stood in stands} == {True}


def test_deaths_while_the_reference_solves_are_no_arm_s(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Cases, "_solve", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert exit_code(run, tmp_path, "well") == -signal.SIGKILL
        assert exit_code(resume, tmp_path / "run") == -signal.SIGKILL
    resume(tmp_path / "run")
    assert statuses(tmp_path / "run") == {"well": ("ok", "")}


def history(*kinds: str) -> list[dict[str, Any]]:
    """Records of the cell c1: of what kind, or "start" for a death at the start of its worker."""
    return [
        {"record": "death", "arm": "a", "cell": None}
        if kind == "start"
        else {"record": kind, "arm": "a", "cell": "c1"}
        for kind in kinds
    ]


@pytest.mark.parametrize(
    ("kinds", "blamed"),
    [
        ("death", False),
        ("death death", True),
        ("start start", True),
        ("start death", False),
        ("gate death gate death", True),
        ("death gate death", False),
        ("gate check calibration death death", True),
        ("death gate check calibration death", False),
        ("gate check calibration slice death slice slice death", False),
        ("gate check calibration slice slice death startup slice slice death", True),
        ("death gate death gate death", True),
        ("start gate check calibration start", False),
        ("gate check calibration slice start slice start", False),
        ("gate check calibration slice start slice start start start", True),
    ],
)
def test_only_two_deaths_in_a_row_at_one_point_condemn_a_cell(kinds: str, blamed: bool) -> None:
    cell = SimpleNamespace(id="c1", arm="a")
    other = SimpleNamespace(id="c2", arm="b")
    condemned = in_hand.condemned(history(*kinds.split()), [cell, other])  # type: ignore[list-item]
    assert condemned == ([cell] if blamed else [])


@pytest.mark.parametrize("content", ["", "null", "[1]", "{}", '{"arm": 1}', "x" * 600])
def test_a_note_that_is_no_note_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "in-hand-0").write_text(content)
    assert in_hand.InHand(tmp_path).left() is None
