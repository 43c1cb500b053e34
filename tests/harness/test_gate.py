"""The gate: every tolerance from both sides, everything that can be missing, and its margin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.gate import TOLERANCES, Outcome, judge
from harness.suite import load_suite, plan, suite_names
from reference.case import Answers, Case, draw_case, run_jax, settled_case

Arrays = dict[str, NDArray[Any]]
FLOAT32 = TOLERANCES["float32"]
ROUNDING_MARGIN = 10
TRAINED_MARGIN = 5  # a unit of 512 that falls to the other side of a tie is 5e-3 of 5e-2
# Which tolerance stands for an array of the answer file; the index within it that is spoiled.
KINDS = {
    "initial/parameter/hidden1/kernel": None,
    "output/0/logits": "outputs",
    "output/3/logits": "outputs",
    "loss": "loss",
    "gradient/hidden1/kernel": "gradients",
    "gradient/logits/bias": "gradients",
    "step/0/loss": "step_losses",
    "step/9/loss": "step_losses",
    "stepped/parameter/hidden1/bias": "stepped",
    "trained/parameter/logits/kernel": "trained",
}


@cache
def solved() -> tuple[Case, Answers]:
    case = draw_case("mlp", "tiny", 7, batch=4)
    return case, run_jax(case)


def as_answered(case: Case, answers: Answers, optimizer: str | None) -> Arrays:
    """Answers of a case in the form in which a worker writes its own."""
    got = {f"initial/parameter/{name}": value for name, value in case.parameters.items()}
    for number, outputs in enumerate(answers.outputs):
        got.update({f"output/{number}/{name}": value for name, value in outputs.items()})
    if optimizer:
        got["loss"] = np.asarray(answers.losses[0])
        got.update({f"gradient/{name}": value for name, value in answers.gradients.items()})
        for number, loss in enumerate(answers.step_losses[optimizer]):
            got[f"step/{number}/loss"] = np.asarray(loss)
        for when, moved in (("stepped", answers.stepped), ("trained", answers.trained)):
            got.update({f"{when}/parameter/{name}": v for name, v in moved[optimizer].items()})
    return got


def perfect(optimizer: str | None = "adam") -> Arrays:
    return as_answered(*solved(), optimizer)


def judged(got: Arrays, optimizer: str | None = "adam") -> Outcome:
    case, answers = solved()
    phase = "training" if optimizer else "inference"
    return judge(case, answers, got, phase=phase, optimizer=optimizer)


def failures(outcome: Outcome) -> list[str]:
    return [check.name for check in outcome.checks if not check.passed]


@pytest.mark.parametrize("optimizer", [None, "sgd", "momentum", "adam"])
def test_perfect_answers_pass_without_any_error(optimizer: str | None) -> None:
    outcome = judged(perfect(optimizer), optimizer)
    assert outcome.passed
    assert outcome.reason == ""
    assert outcome.worst("") == 0


def test_inference_is_judged_by_its_outputs_alone() -> None:
    names = {check.name for check in judged(perfect(None), None).checks}
    assert {name.split("/")[0] for name in names} == {"parameter count", "parameter", "outputs"}


def base(key: str) -> NDArray[Any]:
    """What an array's error is relative to."""
    case, answers = solved()
    value = np.asarray(perfect()[key], np.float64)
    if key.startswith(("stepped/", "trained/")):
        return value - case.parameters[key.split("/parameter/")[1]]
    if key.startswith("step/"):
        return np.asarray(answers.step_losses["adam"])
    return value


@pytest.mark.parametrize("key", KINDS)
def test_a_tolerance_is_enforced_from_both_sides(key: str) -> None:
    kind = KINDS[key]
    tolerance = getattr(FLOAT32, kind) if kind else 1e-7
    exact = np.asarray(perfect()[key], np.float64)
    direction = np.ones_like(exact) / np.sqrt(exact.size)
    for share, passes in ((0.99, True), (1.01, False)):
        change = share * tolerance * np.linalg.norm(base(key)) * direction
        outcome = judged({**perfect(), key: exact + change})
        assert outcome.passed is passes
        assert max(check.error / (check.tolerance or 1) for check in outcome.checks) == (
            pytest.approx(share, rel=1e-3)
        )
        assert len(failures(outcome)) == (0 if passes else 1)


@pytest.mark.parametrize("key", KINDS)
def test_a_missing_array_is_named(key: str) -> None:
    got = perfect()
    del got[key]
    outcome = judged(got)
    assert not outcome.passed
    if key.startswith("initial/"):
        assert outcome.reason.startswith("parameter count: ")
    elif key.startswith("step/"):
        assert outcome.reason == f"step losses: {key} is missing"
    else:
        assert outcome.reason.endswith(": missing from the answer")


@pytest.mark.parametrize(
    "key",
    [
        "initial/parameter/extra",
        "output/0/extra",
        "output/4/logits",
        "gradient/extra/bias",
        "stepped/parameter/extra",
        "trained/parameter/extra",
    ],
)
def test_an_array_that_the_model_does_not_have_is_refused(key: str) -> None:
    outcome = judged({**perfect(), key: np.zeros(3)})
    assert key in failures(outcome)


@pytest.mark.parametrize("key", [key for key in KINDS if key not in ("loss", "step/0/loss")])
def test_a_misnamed_array_does_not_pass_for_the_right_one(key: str) -> None:
    got = perfect()
    got[key.replace("logits", "scores").replace("hidden1", "hidden").replace("9", "10")] = got.pop(
        key
    )
    assert not judged(got).passed


@pytest.mark.parametrize("key", [key for key in KINDS if not key.startswith("step/")])
def test_a_wrong_shape_is_named_with_the_right_one(key: str) -> None:
    got = perfect()
    shape = got[key].shape
    got[key] = got[key].reshape((1, *shape))
    outcome = judged(got)
    assert failures(outcome)
    assert outcome.reason.endswith(f"shape {(1, *shape)} instead of {shape}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", KINDS)
def test_one_number_that_is_not_finite_fails(key: str, value: float) -> None:
    spoiled = np.array(perfect()[key], np.float64)
    spoiled.flat[-1] = value
    outcome = judged({**perfect(), key: spoiled})
    assert len(failures(outcome)) == 1
    assert outcome.reason.endswith(": not finite")


def test_a_parameter_that_never_moved_has_error_one() -> None:
    case, _ = solved()
    for name, start in case.parameters.items():
        for when in ("stepped", "trained"):
            outcome = judged({**perfect(), f"{when}/parameter/{name}": start})
            assert failures(outcome) == [f"{when}/{name}"]
            assert outcome.worst(f"{when}/{name}") == 1


def test_the_number_of_parameters_is_counted() -> None:
    got = perfect()
    case, _ = solved()
    got["initial/parameter/logits/bias"] = np.zeros(11, np.float32)
    outcome = judged(got)
    count = case.summary.parameter_count
    assert outcome.reason.startswith(
        f"parameter count: {count + 1} parameters instead of {count} (and "
    )


def test_the_reason_names_the_first_failure_and_counts_the_rest() -> None:
    got = perfect()
    for key in ("output/2/logits", "loss", "gradient/hidden1/bias"):
        got[key] = 1.5 * got[key]
    outcome = judged(got)
    assert outcome.reason == "outputs/logits/2: error 0.5, tolerance 1e-05 (and 2 more)"
    only = judged({**perfect(), "loss": 2 * perfect()["loss"]})
    assert only.reason == "loss: error 1, tolerance 1e-05"


def test_nothing_compared_is_nothing_proved() -> None:
    assert not Outcome(()).passed


@pytest.mark.parametrize(
    "order", [lambda a: a[::-1], lambda a: a.astype(np.float16), lambda a: a * 2 - a.mean()]
)
def test_permuted_rounded_or_shifted_outputs_fail(
    order: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    assert not judged({**perfect(), "output/1/logits": order(perfect()["output/1/logits"])}).passed


def shipped() -> list[tuple[str, str, int, int, tuple[str, ...]]]:
    """(model, preset, batch, seed, optimizers) of everything that the shipped suites train."""
    found: dict[tuple[str, str, int, int], set[str]] = {}
    for suite in map(load_suite, suite_names()):
        for cell in plan(suite):
            trained = found.setdefault((cell.model, cell.preset, cell.batch, suite.seed), set())
            trained |= {cell.optimizer} if cell.optimizer else set()
    return [(*key, tuple(sorted(trained))) for key, trained in sorted(found.items())]


@pytest.mark.parametrize(("model", "preset", "batch", "seed", "optimizers"), shipped())
def test_rounding_alone_stays_far_below_every_tolerance(
    model: str, preset: str, batch: int, seed: int, optimizers: tuple[str, ...]
) -> None:
    case, exact = settled_case(model, preset, seed, batch=batch, optimizers=optimizers)
    rounded = run_jax(case, dtype="float32", optimizers=optimizers)
    assert set(exact.step_losses) == set(optimizers)
    for optimizer in optimizers:
        got = as_answered(case, rounded, optimizer)
        outcome = judge(case, exact, got, phase="training", optimizer=optimizer)
        margins = {
            check.name: TRAINED_MARGIN if check.name.startswith("trained/") else ROUNDING_MARGIN
            for check in outcome.checks
        }
        near = [c for c in outcome.checks if margins[c.name] * c.error > c.tolerance]
        assert near == []
        for kind in ("outputs", "loss", "gradient", "step losses", "stepped", "trained"):
            assert outcome.worst(kind) > 0, "float32 was computed in float64"


def test_the_tolerances_of_single_computations_are_those_of_the_design() -> None:
    assert set(TOLERANCES) == {"float32"}
    assert (FLOAT32.outputs, FLOAT32.gradients, FLOAT32.step_losses) == (1e-5, 1e-4, 1e-3)
