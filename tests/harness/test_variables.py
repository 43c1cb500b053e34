"""Environment variables: workers get what is declared, the reference gets no settings at all."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from levelfield.harness.cli.options import tell_of_dropped_variables
from levelfield.harness.engine import session
from levelfield.harness.engine.workers import Workers
from levelfield.harness.errors import BadInput
from levelfield.harness.machine.resources import dropped_variables, is_reserved, reference_variables
from levelfield.harness.machine.supervised import completed
from levelfield.harness.plan.arms import Arm, Framework, get_arm, read_framework
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Limits, Suite
from levelfield.harness.proof import cases
from levelfield.harness.proof.cases import Cases
from levelfield.harness.records.store import read_records
from tests.support.synthetic import empty_run

SETTINGS = {
    "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    "JAX_LOG_COMPILES": "1",
    "OMP_PROC_BIND": "close",
    "OMP_NUM_THREADS": "7",
    "LD_PRELOAD": "",
}
CELL = Cell(
    **{"id": "c0001", "comparison": "k001", "arm": "misbehaving:well", "framework": "misbehaving"},
    **{"mode": "well", "model": "mlp", "preset": "tiny", "phase": "inference", "batch": 8},
    **{"optimizer": None, "numeric": "float32", "device": "cpu", "threads": 1},
    profile="default",
)
SUITE = Suite(name="s", title="t", models=("mlp",), arms=("misbehaving:well",), presets=("tiny",))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has set all of them."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def workers(misbehaving: Framework, tmp_path: Path) -> Iterator[Workers]:
    resolutions = session.resolve_arms([CELL.arm], {})
    with empty_run(tmp_path / "results") as run:
        run.description["adapters"] = {misbehaving.name: misbehaving.identity()}
        yield Workers(run, Limits(), resolutions, tmp_path / "scratch", random.Random(0))


def environment(workers: Workers, arm: Arm) -> dict[str, str]:
    """The variables of a worker, as the kernel knows them."""
    with workers.start(arm, CELL, purpose="gate") as worker:
        text = Path(f"/proc/{worker.process.pid}/environ").read_text()
    return dict(entry.split("=", 1) for entry in text.split("\0") if entry)


def test_a_worker_gets_what_is_declared_and_nothing_else_of_the_user(workers: Workers) -> None:
    plain = environment(workers, get_arm(CELL.arm))
    assert not set(plain) & (set(SETTINGS) - {"OMP_NUM_THREADS"})
    assert plain["OMP_NUM_THREADS"] == "1"
    workers.variables = {"XLA_FLAGS": "of the suite", "OMP_PROC_BIND": "spread"}
    arm = get_arm(CELL.arm)
    own = replace(arm, mode=replace(arm.mode, variables={"XLA_FLAGS": "of the mode"}))
    declared = environment(workers, own)
    assert declared["XLA_FLAGS"] == "of the mode"
    assert declared["OMP_PROC_BIND"] == "spread"
    first, second = (
        record for record in read_records(workers.run) if record["record"] == "process"
    )
    assert first["asked"]["variables"] is None
    assert second["asked"]["variables"] == {"XLA_FLAGS": "of the mode", "OMP_PROC_BIND": "spread"}


def test_a_worker_finds_a_name_for_its_user(workers: Workers) -> None:
    """getpass.getuser() fails without these, where the user has no entry in passwd(5)."""
    assert {"USER", "LOGNAME"} <= set(environment(workers, get_arm(CELL.arm)))


def mode_with(folder: Path, variables: str) -> Framework:
    package = folder / "mine"
    package.mkdir(exist_ok=True)
    (package / "env.toml").write_text(
        'title = "Mine"\ndocumentation = ""\n'
        '[environments.default]\npython = ">=3.11"\nrequirements = []\nimports = []\n'
        f'[modes.tuned]\nsummary = "tuned"\nvariables = {variables}\n'
    )
    return read_framework("mine", "mine", package)


def test_a_mode_declares_variables(tmp_path: Path) -> None:
    mode = mode_with(tmp_path, '{ XLA_FLAGS = "--a=1" }').modes["tuned"]
    assert mode.variables == {"XLA_FLAGS": "--a=1"}
    for bad, words in (
        ('{ OMP_NUM_THREADS = "2" }', "Levelfield decides what workers get as OMP_NUM_THREADS"),
        ("{ XLA_FLAGS = 1 }", "1 should be a text"),
        ('{ "A=B" = "1" }', "cannot be an environment variable"),
        ('"XLA_FLAGS"', "env.toml"),
    ):
        with pytest.raises(BadInput, match=words):
            mode_with(tmp_path, bad)


def test_the_settings_that_no_worker_gets_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SETTINGS) <= set(dropped_variables())
    tell_of_dropped_variables(SUITE)
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert all(name in output for name in SETTINGS)
    assert "[variables]" in output
    assert "XLA_FLAGS" not in dropped_variables(["XLA_FLAGS"])
    tell_of_dropped_variables(replace(SUITE, variables=dict.fromkeys(dropped_variables(), "")))
    assert capsys.readouterr().err == ""


def test_variables_that_a_worker_inherits_are_neither_dropped_nor_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME"):
        monkeypatch.setenv(name, "0")
        assert name not in dropped_variables()
        assert is_reserved(name)


def test_the_reference_runs_without_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/cache")
    variables = reference_variables()
    assert not set(variables) & set(SETTINGS)
    assert variables["PYTHONPATH"] == "/somewhere", "its Python is the host's own"
    assert variables["JAX_COMPILATION_CACHE_DIR"] == "/cache"
    assert variables["JAX_PLATFORMS"] == "cpu"


def test_a_case_is_solved_without_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(command: object, **options: object) -> object:
        seen.append(options["variables"])
        return completed(["/bin/false"], cores=None)

    monkeypatch.setattr(cases, "completed", watched)
    with pytest.raises(cases.WorkerFailure):
        Cases(SUITE, tmp_path).solved(CELL)
    (variables,) = seen
    assert not set(json.loads(json.dumps(variables))) & set(SETTINGS)
