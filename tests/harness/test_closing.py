"""The closing gate: what a timed process answers, and what its slices say of each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from levelfield.harness.engine import closing as closing_gate
from levelfield.harness.engine.closing import CLOCK_ATTEMPTS, ClosingGate, _as_fresh
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.machine.supervised import TreeUse
from levelfield.harness.plan.cells import Cell
from levelfield.harness.proof.cases import CaseFile, Cases
from levelfield.harness.proof.checks import (
    Slot,
    doubled_check,
    first_visit_check,
    fresh_check,
    handles_check,
    roofline_check,
    slices_checks,
)
from levelfield.harness.proof.closing_gate import LEAST_LOSSES, judge_closing
from levelfield.harness.proof.outcome import Check, Outcome
from levelfield.harness.proof.replies import CheckHandlesReply, ClosingReply, Slice, SlotReply
from levelfield.harness.proof.tolerances import closing_loose
from levelfield.harness.records import frames
from levelfield.harness.worker.measure import check_handles, shares_of_use
from levelfield.reference import closing as closing_module
from levelfield.reference.answers import run_jax
from levelfield.reference.case import Case, draw_case
from levelfield.reference.closing import (
    CLOSING_LOOSEST,
    CLOSING_STEPS,
    FEWEST_STEPS,
    FURTHER,
    READ,
    Closing,
    closing_case,
    read_closing,
    solve,
    write_closing,
)
from levelfield.reference.optimizers import EPSILON_HAT, OPTIMIZERS
from levelfield.reference.settled import settled_case
from tests.support.engine import TINY_EFFORT, RunModes, quiet

# mode -> (phase, status, what its reason holds)
LIARS = {
    "half-working": ("training", "wrong", "step/0/loss"),
    "idle-later": ("training", "wrong", "step/0/loss"),
    "quarter-batch-later": ("training", "wrong", "step/0/loss"),
    "half-precision-later": ("training", "wrong", "step/0/loss"),
    "halves-slices": ("training", "failed", "slice seconds: its throughput slices"),
    "lazy": ("inference", "failed", "earlier steps: reading an earlier step takes"),
    "caches": ("inference", "failed", "first visit: an input set takes"),
    "idle-first-token": ("generation", "wrong", "first/0/tokens: "),
    "idle-first-token-when-timed": ("generation", "wrong", "slice: first/0/tokens: "),
    "caches-first-token": ("generation", "failed", "first visit, first token: an input set takes"),
}

# The same of what lies after more steps of one load than the closing gate makes.
TIRED = {
    "idle-when-tired": ("training", "failed", "as after a load: a timed step takes"),
    "half-precision-when-tired": ("inference", "wrong", "as timed, outputs/logits/0: "),
    "idle-first-token-when-tired": ("generation", "wrong", "as timed, first/0/tokens: "),
}

PHASES = {"training": "mlp", "inference": "mlp", "generation": "gpt2"}  # and a model of each


@pytest.fixture(scope="module")
def ended(run_modes: RunModes) -> dict[str, tuple[str, str]]:
    """mode -> (status, reason) of the phase in which it lies; "well" of each."""
    answers: dict[str, tuple[str, str]] = {}
    for phase, model in PHASES.items():
        modes = [mode for mode, (where, *_) in LIARS.items() if where == phase]
        folder = run_modes(*modes, "well", phases=(phase,), model=model)
        loaded = frames.load(folder)
        assert set(loaded.slices["mode"]) == {"well"}
        for row in loaded.cells.to_dict("records"):
            name = f"well, {phase}" if row["mode"] == "well" else row["mode"]
            answers[name] = (row["status"], row["reason"])
    return answers


@pytest.mark.alone
@pytest.mark.parametrize("mode", LIARS)
def test_what_passes_the_gate_and_lies_later_is_refused(
    ended: dict[str, tuple[str, str]], mode: str
) -> None:
    _, status, words = LIARS[mode]
    assert ended[mode][0] == status
    assert words in ended[mode][1]


@pytest.mark.alone
@pytest.mark.parametrize("mode", TIRED)
def test_what_lies_after_more_steps_than_the_closing_gate_makes_is_refused(
    run_modes: RunModes, mode: str
) -> None:
    phase, status, words = TIRED[mode]
    effort = replace(TINY_EFFORT, slice_seconds=0.1, accuracy=False)
    folder = run_modes(mode, "well", phases=(phase,), model=PHASES[phase], effort=effort)
    loaded = frames.load(folder)
    ends = {row["mode"]: row for row in loaded.cells.to_dict("records")}
    assert (ends["well"]["status"], ends["well"]["reason"]) == ("ok", "")
    assert ends[mode]["status"] == status
    assert words in ends[mode]["reason"]
    assert set(loaded.slices["mode"]) == {"well"}


@pytest.mark.parametrize(("disagreeing", "status", "draws"), [(1, "ok", 2), (9, "wrong", 3)])
def test_a_training_that_disagrees_is_repeated_with_other_input_sets(
    run_modes: RunModes,
    monkeypatch: pytest.MonkeyPatch,
    disagreeing: int,
    status: str,
    draws: int,
) -> None:
    """Played: a right arm that rounding led another way, and a wrong one."""
    judged_inputs = []

    def judge(case: Case, closing: Closing, got: Any, **facts: Any) -> Outcome:
        judged_inputs.append(case.inputs[-1]["features"].tobytes())
        outcome = judge_closing(case, closing, got, **facts)
        assert outcome.passed
        if len(judged_inputs) > disagreeing:
            return outcome
        return Outcome((Check("trained/logits/bias", 0.3, 0.05, ""),))

    monkeypatch.setattr(closing_gate, "judge_closing", judge)
    loaded = frames.load(run_modes("well", phases=("training",)))
    assert loaded.cells["status"].tolist() == [status]
    assert loaded.closings["draws"].tolist() == [draws]
    assert len(set(judged_inputs)) == draws


@pytest.mark.alone
@pytest.mark.parametrize("phase", PHASES)
def test_a_sound_arm_passes_the_closing_gate(ended: dict[str, tuple[str, str]], phase: str) -> None:
    assert ended[f"well, {phase}"] == ("ok", "")


def test_the_outputs_before_a_diverging_training_are_judged(
    run_modes: RunModes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first loss; the record says what was not judged and how many seconds it took."""

    def closing(cases: Cases, cell: Cell, draw: int = 0) -> tuple[CaseFile, Case, Closing]:
        file, case, _ = honest(cases, cell, draw)
        first = cases.solved(cell)[2].step_losses["sgd"]["loss"][0]
        nothing = dict.fromkeys(CLOSING_LOOSEST, 0.0)
        left = Closing(losses={"loss": (first,)}, scatter=nothing, forms=nothing, note="nothing")
        return file, case, left

    honest = Cases.closing
    monkeypatch.setattr(Cases, "closing", closing)
    begin = time.perf_counter()
    folder = run_modes("well")
    elapsed = time.perf_counter() - begin
    loaded = frames.load(folder)
    assert [*loaded.cells["status"]] == ["ok"]
    names = {name for name in loaded.checks["name"] if name.startswith(("step/", "trained/"))}
    assert names == {"step/0/loss of 1 steps"}
    (row,) = loaded.closings.to_dict("records")
    assert (row["passed"], row["note"]) == (True, "nothing")
    assert 0 < row["reference_seconds"] < elapsed
    assert 0 < row["worker_seconds"] < elapsed


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a machine of one core has no second one")
def test_a_core_that_is_taken_only_while_timed_is_seen(run_modes: RunModes) -> None:
    (row,) = frames.load(run_modes("second-core-when-timed")).cells.to_dict("records")
    assert row["status"] == "failed"
    assert row["reason"].startswith("affinity: its threads may run on the cores")


# -- what slices say ------------------------------------------------------------------------------


def slot(
    *,
    throughput: float = 0.05,
    latency: float = 0.055,
    cpu: float = 1.0,
    worker: float = 1.0,
    window: float = 1.0,
) -> Slot:
    """A slot with 50 steps a slice; ``cpu``: of the throughput slice's CPU seconds."""
    host = throughput + latency + 0.05
    slices = {
        "throughput": Slice(throughput, cpu * throughput),
        "latency": Slice(latency, latency, (latency / 50,) * 50),
    }
    return Slot(SlotReply(slices, 0, worker * host, throughput / window), host, TreeUse())


def failed(**change: float) -> set[str]:
    checks = slices_checks([slot(**change)] * 3, steps=50, threads=1, device="cpu")
    return {check.name for check in checks if not check.passed}


def test_sound_slices_agree_with_each_other() -> None:
    assert failed() == set()
    assert failed(throughput=0.03, cpu=1.0) == set()  # half of the dispatch overlaps


def test_a_throughput_slice_that_leaves_steps_out_is_refused() -> None:
    assert failed(throughput=0.001) == {"overlap", "CPU seconds per step"}


def test_a_throughput_slice_with_too_little_work_is_refused() -> None:
    assert failed(cpu=0.3) == {"CPU seconds per step"}


@pytest.mark.alone
def test_a_slow_clock_is_refused(run_modes: RunModes) -> None:
    effort = replace(TINY_EFFORT, slice_seconds=0.05, latency=False, accuracy=False, memory=False)
    (row,) = frames.load(run_modes("slow-clock", effort=effort)).cells.to_dict("records")
    assert (row["status"], row["reason"][:6]) == ("failed", "clock:")


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_clock_unlike_the_hosts_is_refused(share: float) -> None:
    assert failed(worker=share) == {"clock"}


def test_seconds_that_a_slice_leaves_out_are_missed() -> None:
    assert failed(window=0.5) == {"slice seconds"}


def test_a_second_core_is_seen_in_timed_slices() -> None:
    assert failed(cpu=1.2) == {"timed concurrency"}


def test_slots_in_which_the_host_waited_longer_decide_nothing() -> None:
    slots = [slot(), slot(worker=0.3), slot(worker=0.3)]
    checks = slices_checks(slots, steps=50, threads=1, device="cpu")
    assert all(check.passed for check in checks)


@pytest.mark.parametrize(
    ("name", "of", "shares", "attempts"),
    [
        ("clock", "worker", [0.3, 1.0], 2),
        ("clock", "worker", [0.5], None),
        ("slice seconds", "window", [1.0], 3),
        ("slice seconds", "window", [0.6], None),
    ],
)
def test_a_clock_is_compared_again_before_it_is_refused(
    name: str, of: str, shares: list[float], attempts: int | None
) -> None:
    """Other programs disturbed every slice of a short run; not all further ones.

    ``attempts``: how many further slices clear the arm; None if none does.
    """
    waited, further = [slot(**{of: 0.6})] * 2, cycle(shares)
    asked = []

    def again(*arguments: Any, **options: Any) -> Slot:
        asked.append(options["rewarm_seconds"])
        return slot(**{of: next(further)})

    worker = SimpleNamespace(slot=again, alone=nullcontext)
    cell = SimpleNamespace(threads=1, device="cpu")
    gate = ClosingGate(cast(Any, None), cast(Any, None), quiet)
    checks = gate._timed(cast(Any, worker), cast(Any, cell), waited, slice_steps=50, kinds=())
    refused = [check.name for check in checks if not check.passed]
    assert refused == ([] if attempts else [name])
    assert len(asked) == (attempts or CLOCK_ATTEMPTS)


def test_an_arm_without_latency_is_not_compared_with_it() -> None:
    slices = {"throughput": Slice(0.001, 0.001)}
    alone = Slot(SlotReply(slices, 0, 0.02, 0.001), 0.02, TreeUse())
    checks = slices_checks([alone], steps=50, threads=1, device="cpu")
    assert {check.name for check in checks} == {"clock", "slice seconds", "timed concurrency"}
    assert all(check.passed for check in checks)


def test_on_a_gpu_a_launch_may_be_all_that_overlaps() -> None:
    short = slot(throughput=50 * 5e-6, latency=50 * 60e-6)
    checks = {c.name: c for c in slices_checks([short], steps=50, threads=1, device="cuda")}
    assert checks["overlap"].passed
    assert "CPU seconds per step" not in checks


@pytest.mark.parametrize(("ratio", "passed"), [(1.0, False), (1.3, True), (3, True), (6, False)])
def test_twice_the_batch_has_bounds_on_both_sides(ratio: float, passed: bool) -> None:
    check = doubled_check(0.01, 0.01 * ratio)
    assert check.passed is passed
    assert bool(check.note) is not passed


def test_nothing_is_faster_than_the_machine() -> None:
    assert roofline_check(1.2).passed
    assert not roofline_check(1.3).passed
    assert roofline_check(float("nan")).passed  # without ceilings there is nothing to compare


class Lazy:
    """Steps that take 2 ms, when they are made or when they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lazy: bool) -> None:
        self.now, self.lazy = 0.0, lazy
        monkeypatch.setattr("levelfield.harness.worker.measure.time.perf_counter", lambda: self.now)

    def step(self) -> dict[str, bool]:
        self.now += 1e-6 if self.lazy else 0.002
        return {"done": not self.lazy}

    def wait(self, handle: dict[str, bool]) -> None:
        self.now += 1e-7 if handle["done"] else 0.002
        handle["done"] = True

    def read(self, handle: dict[str, bool]) -> None:
        self.wait(handle)
        self.now += 1e-5


@pytest.mark.parametrize("lazy", [False, True])
def test_a_step_that_waits_to_be_read_is_seen(monkeypatch: pytest.MonkeyPatch, lazy: bool) -> None:
    machine = Lazy(monkeypatch, lazy=lazy)
    check = handles_check(CheckHandlesReply(**check_handles(machine, machine.step, 12, 0.5)))
    assert check.passed is not lazy


def test_a_cache_of_answers_is_seen_by_the_first_visit() -> None:
    assert first_visit_check([0.1, 0.001, 0.0011, 0.0012], [0.001] * 4).passed
    assert not first_visit_check([0.1, 0.001, 0.0011, 0.0012], [0.00001] * 4).passed


# -- the closing case -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlp() -> tuple[Case, Closing]:
    case, answers = settled_case("mlp", "tiny", 1, optimizers=["adam"])
    wider = closing_case(case)
    return wider, solve(wider, "training", "adam", answers.gradients)


def test_a_closing_case_has_the_known_sets_and_as_many_new_ones(mlp: tuple[Case, Closing]) -> None:
    wider, closing = mlp
    known = draw_case("mlp", "tiny", 1, attempt=wider.attempt)
    assert len(wider.inputs) == len(known.inputs) + FURTHER
    for ours, theirs in zip(wider.inputs, known.inputs, strict=False):
        np.testing.assert_array_equal(ours["features"], theirs["features"])
    assert closing.unread + READ == CLOSING_STEPS  # a small net stays clear of chaos


def test_another_draw_has_the_known_sets_and_none_of_the_new_ones() -> None:
    case = draw_case("mlp", "tiny", 1)
    first, second = (closing_case(case, draw).inputs for draw in (0, 1))
    known = len(case.inputs)
    for ours, theirs in zip(first[:known], second[:known], strict=True):
        np.testing.assert_array_equal(ours["features"], theirs["features"])
    new = [inputs["features"].tobytes() for inputs in (*first[known:], *second[known:])]
    assert len(set(new)) == 2 * FURTHER


def test_closing_answers_survive_their_file(mlp: tuple[Case, Closing], tmp_path: Path) -> None:
    _, closing = mlp
    write_closing(closing, tmp_path / "closing.npz")
    again = read_closing(tmp_path / "closing.npz")
    assert (again.unread, again.still, again.losses) == (
        closing.unread,
        closing.still,
        closing.losses,
    )
    assert again.scatter == closing.scatter
    for name, moved in closing.trained.items():
        np.testing.assert_array_equal(again.trained[name], moved)


def given(case: Case, closing: Closing) -> dict[str, Any]:
    """What a perfect arm answers."""
    answers: dict[str, Any] = {}
    for name, losses in closing.losses.items():
        answers.update({f"step/{n}/{name}": np.float32(loss) for n, loss in enumerate(losses)})
    for name, start in case.parameters.items():
        moved = start + closing.trained.get(name, 0.0)
        answers[f"trained/parameter/{name}"] = moved.astype(np.float32)
    return answers


def judged(case: Case, closing: Closing, answers: dict[str, Any]) -> Outcome:
    return judge_closing(case, closing, answers, phase="training")


def test_a_perfect_training_passes(mlp: tuple[Case, Closing]) -> None:
    assert judged(*mlp, given(*mlp)).passed


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_a_training_of_another_rate_is_wrong(mlp: tuple[Case, Closing], share: float) -> None:
    case, closing = mlp
    scaled = replace(closing, trained={n: share * m for n, m in closing.trained.items()})
    assert not judged(case, closing, given(case, scaled)).passed


def test_a_missing_loss_is_wrong_and_not_a_crash(mlp: tuple[Case, Closing]) -> None:
    answers = given(*mlp)
    del answers["step/0/loss"]
    assert "missing from the answer" in judged(*mlp, answers).reason


def trained(monkeypatch: pytest.MonkeyPatch, **constants: float) -> tuple[Case, Closing]:
    """The closing case of mlp/tiny under SGD with constants of ``closing`` or a rate."""
    rate = constants.pop("learning_rate", None)
    if rate is not None:
        monkeypatch.setitem(OPTIMIZERS, "sgd", {"learning_rate": rate})
    for name, value in constants.items():
        monkeypatch.setattr(f"levelfield.reference.closing.{name}", value)
    case = closing_case(draw_case("mlp", "tiny", 1))
    gradients = run_jax(case, steps=0, optimizers=["sgd"]).gradients
    return case, solve(case, "training", "sgd", gradients)


def tolerances_of(case: Case, closing: Closing) -> list[tuple[str, float]]:
    outcome = judged(case, closing, given(case, closing))
    assert outcome.passed
    return [(check.name, check.tolerance) for check in outcome.checks]


def test_parameters_that_scatter_too_far_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where losses can still be compared, they are, and the record says what cannot."""
    monkeypatch.setitem(CLOSING_LOOSEST, "losses", 1.0)
    case, closing = trained(monkeypatch, NOISE=0.1)
    assert closing.unread == FEWEST_STEPS - READ
    assert closing.note.startswith("closing trained not at all: the reference's own differ by ")
    named = tolerances_of(case, closing)
    assert {name.split("/")[0] for name, _ in named} == {"step"}
    assert all(np.isfinite(tolerance) for _, tolerance in named)


def test_losses_may_scatter_by_a_share_of_what_the_training_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CLOSING_LOOSEST, "losses", 0.0)
    monkeypatch.setitem(CLOSING_LOOSEST, "trained", 0.0)
    case, closing = trained(monkeypatch, NOISE=1e-4, learning_rate=0.5)
    assert closing.note.startswith("closing trained not at all")
    assert closing.scatter["losses"] > 0
    named = dict(tolerances_of(case, closing))
    expected = closing.losses["loss"]
    idle = run_jax(case, steps=0, optimizers=["sgd"]).losses[(closing.unread) % 8]["loss"]
    assert max(named.values()) < abs(idle - expected[0]) / expected[0]
    case, closing = trained(monkeypatch, NOISE=1e-4, learning_rate=0.5, IDLE_SHARE=0.0)
    assert "the reference's own trainings diverge" in closing.note


def test_a_training_that_diverges_is_judged_by_its_first_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, closing = trained(monkeypatch, learning_rate=1e30)
    assert (closing.unread, dict(closing.trained)) == (0, {})
    assert "the reference's own trainings diverge, by inf of a loss" in closing.note
    assert tolerances_of(case, closing) == [("step/0/loss of 1 steps", LEAST_LOSSES)]
    (loss,) = closing.losses["loss"]
    assert not judged(case, closing, {"step/0/loss": np.float32(1.001 * loss)}).passed


def test_adams_other_form_widens_nothing_where_it_diverges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(*arguments: Any) -> dict[int, Closing]:
        answers = honest(*arguments)
        if arguments[2] != EPSILON_HAT:
            return answers
        return {
            length: replace(answer, trained={n: np.nan * m for n, m in answer.trained.items()})
            for length, answer in answers.items()
        }

    honest = closing_module._train
    monkeypatch.setattr(closing_module, "_train", train)
    case = closing_case(draw_case("mlp", "tiny", 1))
    gradients = run_jax(case, steps=0, optimizers=["adam"]).gradients
    closing = solve(case, "training", "adam", gradients)
    assert dict(closing.forms) == {"losses": 0.0, "trained": 0.0}
    assert (closing.unread, closing.note) == (FEWEST_STEPS - READ, "")
    assert max(tolerance for _, tolerance in tolerances_of(case, closing)) < 1e-2


def test_a_closing_gate_says_what_it_judged_loosely(mlp: tuple[Case, Closing]) -> None:
    case, closing = mlp
    assert closing_loose(tolerances_of(case, closing)) == {}
    wide = replace(closing, scatter={"losses": 2e-3, "trained": 2e-2})
    assert closing_loose(tolerances_of(case, wide)) == {
        "closing losses": pytest.approx(2e-2),
        "closing trained": pytest.approx(0.2),
    }


def test_the_first_token_is_judged_alone() -> None:
    case = draw_case("gpt2", "tiny", 1)
    tokens = np.arange(24, dtype=np.int32).reshape(8, 3)
    closing = Closing(tokens=(tokens,))
    first, again = "first/0/tokens", "again/0/tokens"
    right = {first: tokens[:, :1], again: tokens[:, :1], "output/0/tokens": tokens}
    assert judge_closing(case, closing, right, phase="generation").passed
    for key in (first, again):
        lies = {**right, key: 0 * tokens[:, :1]}
        outcome = judge_closing(case, closing, lies, phase="generation")
        assert outcome.reason.startswith(key)


@pytest.mark.parametrize(
    ("latency", "waited", "cpu", "passed"),
    [
        (0.055, 0.7, 0.3, True),  # fresh steps took 3.3 times as long, for the core was shared
        (0.055, 0.0, 0.3, False),  # nothing else ran, so the timed steps did less
        (0.001, 0.7, 0.3, False),
        (0.001, 2.0, 1.0, False),  # idle threads waited, too; the CPU seconds are the least
    ],
)
def test_fresh_steps_are_judged_without_their_wait_for_a_core(
    latency: float, waited: float, cpu: float, passed: bool
) -> None:
    fresh = (0.055 / 50 / 0.3,) * 8
    reply = ClosingReply((), fresh, (), (), fresh[0], waited_share=waited, cpu_share=cpu)
    arm = cast(Any, SimpleNamespace(mode=SimpleNamespace(statistics=("throughput", "latency"))))
    (check,) = _as_fresh([slot(latency=latency)] * 3, reply, 50, arm, threads=1)
    assert check.passed is passed


@pytest.mark.alone
def test_a_step_that_sleeps_does_not_wait_for_a_core() -> None:
    shares = shares_of_use()
    time.sleep(0.05)
    waited, cpu = shares()
    assert waited < 0.5 and cpu < 0.5


@pytest.mark.alone
def test_a_step_that_shares_its_core_waits_for_it() -> None:
    core = available_cores()[0]
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    before = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", code]) as burner:
        try:
            os.sched_setaffinity(0, {core})
            time.sleep(0.2)
            shares, end = shares_of_use(), time.perf_counter() + 1.0
            while time.perf_counter() < end:
                pass
            waited, cpu = shares()
        finally:
            os.sched_setaffinity(0, before)
            burner.kill()
    assert waited > 0.25
    assert waited + cpu == pytest.approx(1.0, abs=0.15)


def test_a_fresh_step_of_no_time_is_no_division_by_zero() -> None:
    assert fresh_check([0.1], [0.0] * 4).passed
    refused = fresh_check([0.001], [0.1] * 4)
    assert not refused.passed
    assert refused.note == "a timed step takes 0.01 of what it takes after a fresh load"
