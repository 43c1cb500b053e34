"""Fixtures for several files: a framework that misbehaves, runs of it, and a small disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelfield.harness.engine import session
from levelfield.harness.plan import arms
from levelfield.harness.plan.arms import PACKAGE_FOLDER, Framework, read_framework
from levelfield.harness.plan.suite import Effort, Limits, Suite, validated
from levelfield.harness.records import store
from tests.support.engine import NO_LIMITS, TINY_EFFORT, RunModes, Silent
from tests.support.solved import remember_answers


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[Framework]:
    """The misbehaving framework, registered beside the real ones."""
    framework = read_framework(
        "misbehaving", "levelfield.harness.selftest.misbehaving", PACKAGE_FOLDER
    )
    with arms.registered(framework):
        yield framework


@pytest.fixture
def solved_once(answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of a test do not wait for what the reference answered to an earlier one."""
    remember_answers(monkeypatch, answers)


@pytest.fixture(scope="module")
def run_modes(
    misbehaving: Framework, answers: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunModes:
    """Run the engine on modes of the misbehaving framework; returns the run's folder."""

    def run(
        *modes: str,
        model: str = "mlp",
        preset: str = "tiny",
        batch: int = 8,
        phases: tuple[str, ...] = ("training",),
        optimizers: tuple[str, ...] = ("sgd",),
        limits: Limits = NO_LIMITS,
        effort: Effort = TINY_EFFORT,
        level: str = "smoke",
        twin: str = "none",
        residency: str = "resident",
        python: Path | None = None,
        budget_seconds: float | None = None,
    ) -> Path:
        suite = validated(
            Suite(
                name="misbehaving",
                title="tests",
                models=(model,),
                arms=tuple(f"misbehaving:{mode}" for mode in modes),
                presets=(preset,),
                phases=phases,
                optimizers=optimizers,
                batches=(batch,),
                level=level,
                twin=twin,
                residency=residency,
                effort=effort,
                limits=limits,
            )
        )
        given = {"misbehaving": python} if python else {}
        cells, resolutions = session.planned(suite, session.resolve_arms(suite.arms, given))
        description = session.describe_run(suite, cells, resolutions)
        results = tmp_path_factory.mktemp("results")
        with (
            store.create(results, "run", description) as created,
            pytest.MonkeyPatch.context() as patch,
        ):
            remember_answers(patch, answers)
            session.measure(
                created,
                suite,
                cells,
                resolutions=resolutions,
                progress=Silent(),
                budget_seconds=budget_seconds,
            )
        return created.path

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB, which only root can mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "levelfield-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, where containers allow it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
