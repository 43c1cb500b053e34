"""Which machine and which run: neither is taken for another one."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from levelfield.harness.analysis.history import history
from levelfield.harness.analysis.machines import machine_numbers, unlike_machines
from levelfield.harness.analysis.questions import UnlikeMachines
from levelfield.harness.analysis.questions import load as load_runs
from levelfield.harness.analysis.sessions import OTHER_MACHINE, compare
from levelfield.harness.analysis.verdicts import judge
from levelfield.harness.cli.application import app
from levelfield.harness.cli.compare import compare_command
from levelfield.harness.engine import session
from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.machine.describe import describe_machine, difference
from levelfield.harness.records import store
from levelfield.harness.records.frames import load
from levelfield.harness.records.runs import CopiedRun
from levelfield.harness.report.curves import trend_chart
from levelfield.harness.report.series import trend_data
from tests.support.reports import texts
from tests.support.synthetic import empty_run, write_mlp_run

MACHINE: dict[str, Any] = {
    "processor": "Example 9000",
    "processor_flags": ["avx", "avx2", "fma"],
    "architecture": "x86_64",
    "cores": 2,
    "logical_cores": 4,
    "physical_cores": 2,
    "memory_bytes": 2**34,
    "memory_available_bytes": 2**33,
    "load_average": [0.1, 0.2, 0.3],
    "frequency_governor": "performance",
    "gpus": ["Example GPU"],
    "system": "Linux 6.18.44-generic",
    "python": "3.11.7",
}

# -- the machine ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"processor": "Example 7000"}, "processor Example 9000, now Example 7000"),
        ({"architecture": "aarch64"}, "architecture x86_64, now aarch64"),
        ({"processor_flags": ["avx"]}, "instruction sets avx2, fma only on one of them"),
        (
            {"processor_flags": ["avx", "avx2", "fma", *(f"avx512{n}" for n in range(9))]},
            "instruction sets avx5120, avx5121, avx5122 and 6 more only on one of them",
        ),
        ({"cores": 1}, "available cores 2, now 1"),
        ({"logical_cores": 8}, "logical cores 4, now 8"),
        ({"physical_cores": 4}, "physical cores 2, now 4"),
        ({"memory_bytes": 2**33}, "memory 16.0 GiB, now 8.0 GiB"),
        ({"gpus": []}, "GPUs Example GPU, now none"),
        ({"gpus": ["Example GPU"] * 2}, "GPUs Example GPU, now Example GPU, Example GPU"),
        ({"system": "Linux 6.8.1"}, "system Linux 6.18.44-generic, now Linux 6.8.1"),
        ({"system": "Darwin 24"}, "system Linux 6.18.44-generic, now Darwin 24"),
    ],
)
def test_what_differs_between_two_machines_is_named(change: dict[str, Any], words: str) -> None:
    assert difference(MACHINE, {**MACHINE, **change}) == [words]


@pytest.mark.parametrize(
    "change",
    [
        {"load_average": [9.0, 9.0, 9.0], "memory_available_bytes": 1},
        {"frequency_governor": "powersave", "python": "3.12.1"},
        {"memory_bytes": 2**34 - 500_000_000 // 2},
        {"system": "Linux 6.18.50-generic"},
        {"processor": None, "gpus": None, "cores": None},
    ],
)
def test_a_machine_stays_itself_from_boot_to_boot(change: dict[str, Any]) -> None:
    assert difference(MACHINE, {**MACHINE, **change}) == []
    assert difference({**MACHINE, **change}, MACHINE) == []


def test_two_facts_that_differ_are_two_texts() -> None:
    assert len(difference(MACHINE, {**MACHINE, "cores": 1, "processor": "Example 7000"})) == 2


def test_what_an_older_or_edited_record_does_not_tell_is_not_compared() -> None:
    assert difference({}, MACHINE) == []
    odd = {"processor_flags": 5, "memory_bytes": "much", "system": ["Linux"], "cores": {"a": 1}}
    assert len(difference(odd, MACHINE)) == len(odd)


def test_this_machine_is_itself() -> None:
    assert difference(describe_machine(), describe_machine()) == []


# -- the run ----------------------------------------------------------------------------------

ARMS = ("torch:eager", "jax:jit")
SPEED = {"torch:eager": 1.04, "jax:jit": 1.0}  # near enough for a verdict to be provisional


def write(folder: Path, name: str, seed: int, **options: Any) -> Path:
    chosen = {"arms": ARMS, "phases": ("training",), "speed": SPEED, "level": "standard"}
    chosen |= {"blocks": 25, "rounds": 12, "latency_steps": 0}
    return write_mlp_run(folder, **{**chosen, "name": name, "seed": seed, **options})


def edited(run: Path, **changes: Any) -> Path:
    """The run with other fields in its run.json; those that are None are missing."""
    content = {**json.loads((run / "run.json").read_text()), **changes}
    kept = {name: value for name, value in content.items() if value is not None}
    (run / "run.json").write_text(json.dumps(kept))
    return run


def copied(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder, ignore=shutil.ignore_patterns("lock")))


def provisional(*runs: Path) -> int:
    return sum(pair.provisional for judged in judge(load(runs)) for pair in judged.verdicts.pairs)


def test_a_run_says_who_it_is(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        with empty_run(tmp_path) as run:
            content = json.loads((run.path / "run.json").read_text())
            assert store.open_run(run.path).identity == run.identity == content["id"]
            ids.append(run.identity)
    assert len({*ids}) == 2
    assert all(len(text) == 32 and int(text, 16) for text in ids)


@pytest.mark.parametrize("made", ["now", "before runs had an id"])
def test_a_copy_is_the_same_run_and_agrees_with_nobody(tmp_path: Path, made: str) -> None:
    first, second = write(tmp_path, "one", 1), write(tmp_path, "two", 2)
    for number, run in enumerate((first, second)):
        load_average = [0.1 * number, 0.2, 0.3]
        edited(run, **({} if made == "now" else {"id": None, "machine": {"load": load_average}}))
    copy = copied(first, tmp_path / "copy")
    alone = provisional(first)
    assert alone > 0
    with pytest.warns(CopiedRun) as warned:
        assert provisional(first, copy) == alone
    (warning,) = warned
    assert str(warning.message) == (
        f"{copy} is a copy of the run in {first} and is left out: two copies are no two"
        " measurements"
    )
    assert provisional(first, second) < 2 * alone  # what a second session says, counts
    with pytest.warns(CopiedRun, match=f"{first} is a copy of the run in {copy}"):
        assert load(tmp_path).runs["run"].tolist() == ["one", "two"]


def test_another_machine_confirms_no_provisional_verdict(tmp_path: Path) -> None:
    first, second = write(tmp_path, "one", 1), write(tmp_path, "two", 2)
    for run in (first, second):
        edited(run, machine={"cores": 2})
    assert provisional(first, second) < provisional(first) + provisional(second)
    edited(second, machine={"cores": 64})
    assert provisional(first, second) == provisional(first) + provisional(second) > 0


def test_one_folder_by_two_paths_is_no_copy(tmp_path: Path) -> None:
    run = write(tmp_path / "results", "one", 1)
    (tmp_path / "link").symlink_to(run)
    assert len(load([run, tmp_path / "link", run / ".." / "one"]).runs) == 1


def test_a_run_is_not_compared_with_its_copy(tmp_path: Path) -> None:
    run = write(tmp_path, "one", 1)
    copy = copied(run, tmp_path / "copy")
    with pytest.raises(BadInput, match="hold one run") as caught:
        compare(run, copy)
    assert "\n" not in str(caught.value)
    with (
        pytest.warns(CopiedRun, match="copy"),
        pytest.raises(BadInput, match="not synthetic once"),
    ):
        history([tmp_path])


# -- runs on unlike machines ------------------------------------------------------------------

SLOWER = {"torch:eager": 1.04, "jax:jit": 2.0}
VERDICTS = ("slower", "faster", "no change", "open", "agree", "contradict")
OTHER = {**MACHINE, "cores": 1}


def pair(folder: Path, second: dict[str, Any]) -> list[Path]:
    """Two runs of which the second, on the machine ``second``, has an arm that became slower."""
    runs = [
        edited(write(folder, "a", 1), machine=MACHINE, created="2026-01-01T00:00:00+00:00"),
        write(folder, "b", 2, speed=SLOWER),
    ]
    edited(runs[1], machine=second, created="2026-01-02T00:00:00+00:00")
    return runs


def said(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_runs_on_one_machine_have_verdicts(tmp_path: Path) -> None:
    runs = pair(tmp_path, {**MACHINE, "load_average": [7.0, 7.0, 7.0]})
    compared = compare(*runs)
    assert compared.machines == ()
    assert [change.word for change in compared.changes] == ["slower"]
    assert {agreement.word for agreement in compared.agreements} == {"contradict"}
    steps = history(runs)
    assert steps.machines == ()
    assert [step.change.word for step in steps.steps] == ["slower"]
    for command in ("compare", "history"):
        output = said(command, *runs)
        assert "slower" in output
        assert "other machine" not in output


def test_runs_on_unlike_machines_have_none(tmp_path: Path) -> None:
    runs = pair(tmp_path, OTHER)
    compared = compare(*runs)
    assert compared.machines == ("available cores 2, now 1",)
    assert {agreement.word for agreement in (*compared.changes, *compared.agreements)} == {
        OTHER_MACHINE
    }
    assert compared.changes[0].ratio == pytest.approx(2.0, rel=0.05)
    with pytest.raises(RunFailed, match=r"these runs give no verdict \(other machine\)"):
        compare_command(*runs, fail_above="5%")
    steps = history(runs)
    assert steps.machines == ("a and b: available cores 2, now 1",)
    assert {step.change.word for step in steps.steps} == {OTHER_MACHINE}


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("compare", "other machine, so no verdicts: available cores 2, now 1"),
        ("history", "other machine, so no verdicts: a and b: available cores 2, now 1"),
    ],
)
def test_another_machine_is_said_before_any_number(
    tmp_path: Path, command: str, first: str
) -> None:
    runs = pair(tmp_path, OTHER)
    lines = said(command, *runs).splitlines()
    assert lines[0] == first
    rows = [line for line in lines if "jax:jit" in line]
    assert rows and all("other machine" in row for row in rows)
    rest = "\n".join(lines[1:])
    assert [word for word in VERDICTS if word in rest] == []
    content = json.loads(said(command, *runs, "--json"))
    assert next(iter(content)) == "machines"
    assert content["machines"] == [first.removeprefix("other machine, so no verdicts: ")]


@pytest.mark.parametrize("machine", [MACHINE, OTHER], ids=["one machine", "unlike machines"])
def test_every_other_output_says_first_that_machines_are_unlike(
    tmp_path: Path, machine: dict[str, Any]
) -> None:
    runs = pair(tmp_path, machine)
    unlike = machine is OTHER
    difference_words = "available cores 2, now 1"
    comment = said("compare", *runs, "--markdown").splitlines()
    assert (comment[2] == f"other machine, so no verdicts: {difference_words}.") == unlike
    first = (
        "Unlike machines, so no verdict compares an arm of one with an arm of the other: a and b:"
        f" {difference_words}"
    )
    report = said(
        "report", *runs, "--output", tmp_path / "report", "--format", "markdown", "--format", "html"
    )
    assert (report.splitlines()[0] == first) == unlike
    written = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert (written[2] == first) == unlike
    page = (tmp_path / "report" / "report.html").read_text()
    assert (f"<p><strong>{first}</strong></p>" in page) == unlike
    loaded = load_runs(runs)
    assert loaded.machines()["machine"].tolist() == ([1, 2] if unlike else [1, 1])
    assert ("a, b on 2 unlike machines" in repr(loaded)) == unlike
    assert ("a, b on 2 unlike machines" in loaded._repr_html_()) == unlike
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded.mean_speedup(over="torch:eager")
    words = [f"unlike machines are pooled: a and b: {difference_words}"] if unlike else []
    assert [str(one.message) for one in caught if one.category is UnlikeMachines] == words


def test_each_machine_is_compared_with_the_first(tmp_path: Path) -> None:
    machines = [MACHINE, OTHER, MACHINE, {**MACHINE, "cores": 64}, OTHER]
    paths = [
        edited(write(tmp_path, name, 1), machine=machine, created="2026-01-01T00:00:00+00:00")
        for name, machine in zip("abcde", machines, strict=True)
    ]
    frames = load(paths)
    assert machine_numbers(frames) == dict(zip("abcde", [1, 2, 1, 3, 2], strict=True))
    assert unlike_machines(frames) == [
        "a and b: available cores 2, now 1",
        "a and d: available cores 2, now 64",
    ]


def test_a_chart_starts_again_on_another_machine(tmp_path: Path) -> None:
    runs = pair(tmp_path, OTHER)
    third = write(tmp_path, "c", 3)
    edited(third, machine=OTHER, created="2026-01-03T00:00:00+00:00")
    data = trend_data(history([*runs, third]))
    assert data["run"].tolist() == ["a", "b", "b", "c"]
    assert data["version"].tolist() == ["", "", "other machine", ""]
    assert data["level"].iloc[:3].tolist() == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert data["level"].iloc[3] == pytest.approx(0.5, rel=0.05)
    assert "other machine" in [text.get_text() for text in texts(trend_chart(data))]


def test_a_machine_that_was_not_recorded_is_no_other_one(tmp_path: Path) -> None:
    runs = pair(tmp_path, MACHINE)
    edited(runs[0], machine=None)
    assert compare(*runs).machines == ()


def test_going_on_with_another_levelfield_is_told(tmp_path: Path) -> None:
    run = SimpleNamespace(path=tmp_path, description={"code_version": session.code_version()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session._tell_of_other_code(run)  # type: ignore[arg-type]
    run.description["code_version"] = {"version": "0.0.1", "commit": "a" * 40}
    with pytest.warns(
        session.OtherCode, match=r"began with levelfield of version 0\.0\.1, commit a"
    ):
        session._tell_of_other_code(run)  # type: ignore[arg-type]
