"""Every built-in arm for real: its sealed environment, the tiny presets, one worker for all models.

An arm whose environment is not built is skipped, saying which command builds it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import environments, frames, session, store
from harness.arms import arms
from harness.suite import load_suite, plan, validated

BUILT_IN = sorted(name for name, arm in arms().items() if arm.framework.package[:9] == "adapters.")


@pytest.mark.real
@pytest.mark.parametrize("arm", BUILT_IN)
def test_an_arm_proves_and_times_every_tiny_cell(arm: str, tmp_path: Path) -> None:
    spec = arms()[arm].mode.environment
    if environments.find(spec) is None:
        pytest.skip(f"no sealed environment; type: levelfield env build {spec.label}")
    tiny = load_suite("tiny")
    # Memory probes start a process per cell; they are tested with one arm below.
    suite = validated(replace(tiny, arms=(arm,), effort=replace(tiny.effort, memory=False)))
    cells = plan(suite)
    resolutions = session.resolve_arms(suite.arms, {})
    assert resolutions[arm].how == "sealed"
    with store.create(tmp_path, "tiny", session.describe_run(suite, cells, resolutions)) as run:
        session.measure(
            run, suite, cells, resolutions=resolutions, progress=lambda cell, stage: None
        )
    loaded = frames.load(run.path)
    summary = frames.summary(loaded)
    offered = summary[summary["phase"].isin(arms()[arm].mode.phases)]
    failed = offered[offered["status"] != "ok"]
    assert failed[["model", "phase", "optimizer", "status", "reason"]].to_dict("records") == []
    assert len(loaded.processes) == 1, "one worker serves all cells of an arm"
    assert (offered["step_seconds"] > 0).all()
    assert (offered["first_step_seconds"] > 0).all()
    assert (offered["output_error"] < 1e-5).all()
    learned = offered[(offered["model"] == "lenet5") & (offered["phase"] == "training")]
    assert (learned["test_accuracy"] > 0).all()


@pytest.mark.real
def test_all_arms_learn_the_digits_alike(tmp_path: Path) -> None:
    """Same data, same order, same start: what differs at the end is arithmetic alone."""
    names = ("reference:jax", "torch:eager", "tensorflow:function", "jax:jit", "flax:jit")
    names = tuple(n for n in names if environments.find(arms()[n].mode.environment) is not None)
    if len(names) < 2:
        pytest.skip("fewer than two sealed environments; type: levelfield env build")
    tiny = load_suite("tiny")
    suite = validated(
        replace(
            tiny,
            arms=names,
            models=("mlp",),
            presets=("small",),
            phases=("training",),
            optimizers=("adam",),
            batches=(64,),
            effort=replace(tiny.effort, accuracy_epochs=5),
        )
    )
    cells = plan(suite)
    resolutions = session.resolve_arms(suite.arms, {})
    with store.create(tmp_path, "digits", session.describe_run(suite, cells, resolutions)) as run:
        session.measure(
            run, suite, cells, resolutions=resolutions, progress=lambda cell, stage: None
        )
    summary = frames.summary(frames.load(run.path))
    assert list(summary["status"]) == ["ok"] * len(names)
    assert (summary["test_accuracy"] > 0.9).all()
    # One test image is 1/360; rounding may tip a few that lie on the border.
    assert summary["test_accuracy"].max() - summary["test_accuracy"].min() <= 3 / 360
    assert (summary["test_loss"] / summary["test_loss"].mean() - 1).abs().max() < 0.02
    # A framework's import alone takes more than the bare interpreter: the memory phases are real.
    assert (summary["peak_bytes"] > 30e6).all()
    assert (summary["peak_over_import_bytes"] > 0).all()
