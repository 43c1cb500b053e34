"""The engine with frameworks that misbehave: each costs its own cell and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import frames, store
from harness.suite import Limits
from tests.harness.conftest import RunModes

FAULTS = (
    "wrong-activation",
    "transposed-kernel",
    "missing-bias",
    "sum-for-mean",
    "momentum-for-sgd",
    "dropout",
    "half-precision",
    "tf32",
    "stale-parameter",
    "nan",
    "weight-decay",
    "extra-step",
    "wrong-shape",
    "wrong-name",
)
MISFORTUNES = {
    "raises-at-import": ("failed", "RuntimeError: this framework needs a moon phase"),
    "unsupported": ("unsupported", "only works on Sundays"),
    "homeless": ("no-environment", "type: levelfield env build misbehaving/missing"),
    "raises-in-step": ("failed", "ValueError: shapes (3,4)"),
    "exits": ("failed", "exit code 7"),
    "segfaults": ("failed", "SIGSEGV"),
    "allocates": ("out-of-memory", "Memory"),
    "killed": ("out-of-memory", "SIGKILL"),
    "inference-only": ("unsupported", "offers inference only"),
    "fails-when-timed": ("failed", "no more steps today"),
}


def statuses(folder: Path) -> dict[str, tuple[str, str]]:
    """mode -> (status, reason)."""
    cells = frames.load(folder).cells
    return {row["mode"]: (row["status"], row["reason"]) for row in cells.to_dict("records")}


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [r for r in store.read_records(store.open_run(folder)) if r["record"] == kind]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_right_framework_is_measured_in_every_way(run_modes: RunModes, optimizer: str) -> None:
    folder = run_modes("well", optimizers=(optimizer,), phases=("inference", "training"))
    summary = frames.summary(frames.load(folder))
    assert list(summary["status"]) == ["ok", "ok"]
    assert (summary["step_seconds"] > 0).all()
    assert (summary["latency_p50_seconds"] > 0).all()
    assert (summary["first_step_seconds"] > 0).all()
    assert (summary["peak_bytes"] > 5e6).all()
    assert (summary["output_error"] < 1e-6).all()
    assert len(records(folder, "slice")) == 2 * 2 * 2


@pytest.fixture(scope="module")
def faulty(run_modes: RunModes) -> Path:
    return run_modes(*FAULTS, "well")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_catches_every_fault(faulty: Path, fault: str) -> None:
    status, reason = statuses(faulty)[fault]
    assert status == "wrong"
    assert reason


def test_no_number_of_a_wrong_arm_leaves(faulty: Path) -> None:
    right = [c["id"] for c in store.open_run(faulty).description["cells"] if c["mode"] == "well"]
    for kind in ("slice", "startup", "memory", "accuracy"):
        assert {record["cell"] for record in records(faulty, kind)} == set(right)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_faults_of_the_update_are_caught_under_every_optimizer(
    run_modes: RunModes, optimizer: str
) -> None:
    faults = ("stale-parameter", "weight-decay", "extra-step")
    found = statuses(run_modes(*faults, "well", optimizers=(optimizer,)))
    assert {mode: status for mode, (status, _) in found.items()} == {
        **dict.fromkeys(faults, "wrong"),
        "well": "ok",
    }


@pytest.fixture(scope="module")
def unfortunate(run_modes: RunModes) -> Path:
    return run_modes(*MISFORTUNES, "well", limits=Limits(memory_gib=0.5))


@pytest.mark.parametrize("mode", MISFORTUNES)
def test_every_misfortune_has_its_status_and_reason(unfortunate: Path, mode: str) -> None:
    status, reason = statuses(unfortunate)[mode]
    expected, words = MISFORTUNES[mode]
    assert status == expected
    assert words in reason
    assert "\n" not in reason


def test_no_misfortune_harms_another_cell(unfortunate: Path) -> None:
    assert statuses(unfortunate)["well"][0] == "ok"


def test_what_hangs_is_ended_at_its_time_limit(run_modes: RunModes) -> None:
    found = statuses(run_modes("hangs", "well", limits=Limits(compile_seconds=5)))
    assert found["hangs"] == ("timeout", "'first_steps' took longer than 5 s")
    assert found["well"][0] == "ok"


def test_output_without_end_is_kept_within_bounds_and_harms_nothing(run_modes: RunModes) -> None:
    folder = run_modes("floods", phases=("inference",))
    assert statuses(folder)["floods"][0] == "ok"
    sizes = [log.stat().st_size for log in (folder / "logs").iterdir()]
    assert max(sizes) > 1_000_000
    assert max(sizes) < 1_200_000


def test_what_a_framework_prints_is_never_taken_for_a_reply(run_modes: RunModes) -> None:
    folder = run_modes("forges", phases=("inference",))
    assert statuses(folder)["forges"][0] == "ok"
    assert all(record["seconds"] > 0 for record in records(folder, "slice"))


def test_a_crash_costs_one_cell_of_an_arm_not_the_next(run_modes: RunModes) -> None:
    folder = run_modes("fails-when-timed", phases=("training", "inference"))
    cells = frames.load(folder).cells
    assert list(cells["status"]) == ["failed", "ok"]


def test_a_mode_with_its_own_loop_has_no_latency(run_modes: RunModes) -> None:
    folder = run_modes("own-loop", phases=("inference",))
    assert {record["statistic"] for record in records(folder, "slice")} == {"throughput"}
