"""A case that the reference cannot solve costs its own cells, and the rest is measured."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.engine import session
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine.supervised import completed
from levelfield.harness.plan.arms import Framework
from levelfield.harness.plan.suite import Limits, Suite, validated
from levelfield.harness.proof import cases
from levelfield.harness.proof.cases import Cases
from levelfield.harness.records import frames, store
from tests.support.engine import TINY_EFFORT, Silent
from tests.support.solved import remember_answers

HUGE = 1 << 20  # the largest that a suite may have
SUITE = Suite(
    name="s",
    title="t",
    models=("mlp",),
    arms=("misbehaving:well", "misbehaving:own-loop"),
    presets=("tiny",),
    phases=("inference",),
    batches=(8, HUGE),
    level="smoke",
    twin="none",
    effort=replace(TINY_EFFORT, memory=False, accuracy=False),
    limits=Limits(memory_gib=1.5),
)


def measured(folder: Path, suite: Suite) -> Path:
    cells, resolutions = session.planned(suite, session.resolve_arms(suite.arms, {}))
    description = session.describe_run(suite, cells, resolutions)
    with store.create(folder, "run", description) as run:
        session.measure(run, suite, cells, resolutions=resolutions, progress=Silent())
    return run.path


def test_a_batch_that_is_too_large_costs_its_own_cells(
    misbehaving: Framework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(command: list[str], **options: Any) -> Any:
        asked.append(command)
        return completed(command, **options)

    monkeypatch.setattr(cases, "completed", counted)
    folder = measured(tmp_path, validated(SUITE))
    rows = frames.load(folder).cells.to_dict("records")
    by_batch = {(row["batch"], row["mode"]): (row["status"], row["reason"]) for row in rows}
    for mode in ("well", "own-loop"):
        assert by_batch[8, mode] == ("ok", "")
        status, reason = by_batch[HUGE, mode]
        assert status == "out-of-memory"
        words = f"the reference could not solve mlp/tiny with batch {HUGE}: memory ran out ("
        assert reason.startswith(words)
    huge = [command for command in asked if str(HUGE) in command]
    assert len(huge) == 1, "it is not tried again for the second arm"


@pytest.mark.parametrize(
    ("program", "kills", "status", "words"),
    [
        ("import sys; sys.exit('ValueError: odd')", 0, "failed", "ValueError: odd"),
        ("open('/absent')", 0, "failed", "FileNotFoundError: No such file or directory: '/absent'"),
        ("import sys; sys.exit(3)", 0, "failed", "it left with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", 0, "failed", "it died of SIGKILL"),
        ("import os; os.kill(os.getpid(), 9)", 1, "out-of-memory", "memory ran out (it died of"),
        ("x = bytearray(1 << 40)", 0, "out-of-memory", "memory ran out (MemoryError"),
        (
            "import os, sys; print('std::bad_alloc', file=sys.stderr, flush=True); os.abort()",
            0,
            "out-of-memory",
            "memory ran out (it died of SIGABRT",
        ),
    ],
)
def test_why_a_case_was_not_solved_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    kills: int,
    status: str,
    words: str,
) -> None:
    counts = iter([5, 5 + kills])
    monkeypatch.setattr(cases, "oom_kills", lambda: next(counts))
    monkeypatch.setattr(
        cases, "completed", lambda command, **options: completed([sys.executable, "-c", program])
    )
    with pytest.raises(WorkerFailure) as caught:
        Cases(SUITE, tmp_path)._reference(("levelfield.reference", "mlp", "tiny", 8))
    assert caught.value.status == status
    assert words in caught.value.reason


def test_a_program_has_the_memory_that_it_was_given() -> None:
    program = "import resource; print(*resource.getrlimit(resource.RLIMIT_DATA))"
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    done = completed([sys.executable, "-c", program], memory_limit_bytes=1 << 30)
    assert done.stdout.split() == [str(1 << 30), str(hard)]
    done = completed([sys.executable, "-c", program], memory_limit_bytes=None)
    assert done.stdout.split()[1] == str(hard)


def test_a_lower_hard_limit_of_the_user_stays() -> None:
    limit = 1 << 29
    question = (
        "import sys; from levelfield.harness.machine.supervised import completed;"
        "print(completed([sys.executable, '-c', 'import resource;"
        "print(*resource.getrlimit(resource.RLIMIT_DATA))'], memory_limit_bytes=1 << 40).stdout)"
    )
    shell = f'ulimit -d {limit >> 10}; exec "$@"'
    done = completed(["/bin/sh", "-c", shell, "sh", sys.executable, "-c", question])
    assert done.stdout.split() == [str(limit)] * 2, done.stderr


def test_what_tests_remember_of_the_reference_is_the_answer_to_the_same_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same arguments, content of files, and limit; a failure is not remembered."""
    asked = []

    def answer(self: Cases, task: tuple[Any, ...], *arguments: str) -> str:
        asked.append(arguments)
        if arguments[0] == "bad":
            raise WorkerFailure("failed", "no")
        (Path(arguments[-1]) / "answers").write_text(f"{len(asked)}")
        return f"printed {len(asked)}"

    def ask(what: str, question: str = "1", suite: Suite = SUITE) -> tuple[str, str]:
        folder = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "question").write_text(question)
        printed = Cases(suite, tmp_path)._reference(("m", "mlp"), what, str(folder))
        assert (folder / "question").read_text() == question
        return printed, (folder / "answers").read_text()

    monkeypatch.setattr(Cases, "_reference", answer)
    (tmp_path / "kept").mkdir()
    remember_answers(monkeypatch, tmp_path / "kept")
    assert ask("a") == ask("a") == ("printed 1", "1")
    assert ask("b") == ("printed 2", "2")
    assert ask("a", question="2") == ("printed 3", "3")
    assert ask("a", suite=replace(SUITE, limits=Limits(memory_gib=1.0))) == ("printed 4", "4")
    for _ in range(2):
        with pytest.raises(WorkerFailure, match="no"):
            ask("bad")
    assert len(asked) == 6
