"""The definitions against closed forms, published counts, and each other's arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import reference
from adapters.base import read_case
from harness.gate import relative_error
from reference.case import read_answers, run_jax, run_numpy, write_answers, write_case
from reference.layers_numpy import NumpyLayers
from reference.optimizers import OPTIMIZERS, initial_state, update
from reference.spec import Sizes

MODELS = ("mlp", "lenet5")
PRESETS = ("tiny", "small", "paper")


def mlp_count(sizes: Sizes) -> int:
    widths = [sizes["features"], *sizes["hidden"], sizes["classes"]]
    return sum((a + 1) * b for a, b in pairwise(widths))


def lenet_count(sizes: Sizes) -> int:
    first, second = sizes["filters"]
    rows, columns = (((sizes[side] // 2) - 4) // 2 for side in ("height", "width"))
    widths = [rows * columns * second, *sizes["hidden"], sizes["classes"]]
    convolutions = (25 * sizes["channels"] + 1) * first + (25 * first + 1) * second
    return convolutions + sum((a + 1) * b for a, b in pairwise(widths))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "closed_form"), [("mlp", mlp_count), ("lenet5", lenet_count)])
def test_parameter_counts_follow_the_closed_form(name, closed_form, preset) -> None:  # type: ignore[no-untyped-def]
    model = reference.get(name)
    summary = reference.summarize(model, preset, 3)
    assert summary.parameter_count == closed_form(model.sizes(preset))


@pytest.mark.parametrize(
    ("name", "preset", "published"),
    [("mlp", "tiny", 2_762), ("mlp", "paper", 669_706), ("lenet5", "paper", 61_706)],
)
def test_parameter_counts_are_the_published_ones(name: str, preset: str, published: int) -> None:
    assert reference.summarize(reference.get(name), preset, 1).parameter_count == published


def test_operations_of_lenet_follow_the_closed_form() -> None:
    # Per example: conv1 28*28*6 outputs of 25 products; conv2 10*10*16 of 150; dense layers.
    dense = 400 * 120 + 120 * 84 + 84 * 10
    products = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + dense
    summary = reference.summarize(reference.get("lenet5"), "paper", 5)
    assert summary.inference_operations == 5 * 2 * products
    # Backward: twice forward, except that nobody needs the gradient of the image.
    backward = 2 * products - 28 * 28 * 6 * 25
    assert summary.training_operations == 5 * 2 * (products + backward)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_numpy_and_jax_agree_in_float64(name: str, preset: str) -> None:
    case = reference.draw_case(name, preset, seed=3, batch=4)
    by_numpy, by_jax = run_numpy(case), run_jax(case, steps=0)
    for one, other in zip(by_numpy.outputs, by_jax.outputs, strict=True):
        assert relative_error(other["logits"], one["logits"]) < 1e-13
    np.testing.assert_allclose(by_numpy.losses, by_jax.losses, rtol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree_with_central_differences(name: str) -> None:
    """Directional derivatives of every parameter; the error falls as the square of the step."""
    case = reference.draw_case(name, "tiny", seed=5, batch=6)
    gradients = run_jax(case, steps=0).gradients
    assert sorted(gradients) == sorted(case.parameters)
    model, sizes = case.model, case.model.sizes("tiny")
    stream = np.random.default_rng(1)

    def loss(parameters: dict[str, np.ndarray]) -> float:  # type: ignore[type-arg]
        layers = NumpyLayers(parameters)
        inputs = case.inputs[0]
        outputs = model.forward(layers, sizes, {k: _wide(v) for k, v in inputs.items()})
        return float(layers.softmax_cross_entropy(outputs["logits"], inputs["label"]))

    start = {key: value.astype(np.float64) for key, value in case.parameters.items()}
    for key, gradient in gradients.items():
        direction = stream.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        step = 1e-6
        up = loss({**start, key: start[key] + step * direction})
        down = loss({**start, key: start[key] - step * direction})
        exact = float((gradient * direction).sum())
        assert abs((up - down) / (2 * step) - exact) < 1e-7 * max(1.0, abs(exact))


def _wide(value: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return value if value.dtype.kind == "i" else value.astype(np.float64)


def test_optimizers_do_what_their_formulas_say_on_one_number() -> None:
    gradient = {"p": np.array(0.5)}
    for name in OPTIMIZERS:
        value = {"p": np.array(1.0)}
        state = initial_state(name, value)
        for step in (1, 2):
            value, state = update(name, value, gradient, state=state, step=step)
        constants = OPTIMIZERS[name]
        rate = constants["learning_rate"]
        moved = {
            "sgd": 2 * rate * 0.5,
            "momentum": rate * 0.5 + rate * (0.9 * 0.5 + 0.5),
            # A constant gradient has corrected mean g and variance g^2 at every step.
            "adam": 2 * rate * 0.5 / (0.5 + 1e-8),
        }[name]
        np.testing.assert_allclose(1.0 - value["p"], moved, rtol=1e-9)


def test_a_case_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    one, same = (reference.draw_case("mlp", "tiny", seed=1) for _ in range(2))
    other = reference.draw_case("mlp", "tiny", seed=2)
    key = "hidden1/kernel"
    np.testing.assert_array_equal(one.parameters[key], same.parameters[key])
    assert not np.array_equal(one.parameters[key], other.parameters[key])
    assert len({inputs["features"].tobytes() for inputs in one.inputs}) == 4


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    case = reference.draw_case("lenet5", "tiny", seed=1, batch=2)
    answers = run_jax(case, steps=2)
    write_case(case, tmp_path / "case.npz")
    write_answers(answers, tmp_path / "answers.npz")
    read = read_case(tmp_path / "case.npz", "adam")
    assert read.optimizer == {**OPTIMIZERS["adam"], "name": "adam"}
    assert read.sizes == json.loads(json.dumps(case.model.sizes("tiny")))
    np.testing.assert_array_equal(read.sets[3]["image"], case.inputs[3]["image"])
    back = read_answers(tmp_path / "answers.npz")
    assert back.step_losses == answers.step_losses
    assert back.losses == answers.losses
    for key, value in answers.gradients.items():
        np.testing.assert_array_equal(back.gradients[key], value)
    key = "logits/bias"
    np.testing.assert_array_equal(back.trained["adam"][key], answers.trained["adam"][key])


def test_a_draw_beside_a_tie_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed the fault: the first draw gets units that noise switches on and off."""
    drawn = reference.case.draw_case

    def tied(*arguments: object, attempt: int = 0, **more: object) -> reference.Case:
        case = drawn(*arguments, attempt=attempt, **more)  # type: ignore[arg-type]
        if attempt == 0:
            hidden = case.parameters["hidden1/kernel"].astype(np.float64)
            before = case.inputs[0]["features"].astype(np.float64) @ hidden
            # Example 0 leaves the first half of the units at zero, but for less than the noise.
            case.parameters["hidden1/bias"][:32] = -before[0, :32]
        return case

    untouched, _ = reference.settled_case("mlp", "tiny", 5, optimizers=["sgd"])
    monkeypatch.setattr(reference.case, "draw_case", tied)
    case, answers = reference.settled_case("mlp", "tiny", 5, optimizers=["sgd"])
    assert untouched.attempt == 0
    assert case.attempt == 1
    assert list(answers.trained) == ["sgd"]


def test_a_seed_without_a_clear_draw_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference.case, "ATTEMPTS", 2)
    monkeypatch.setattr(reference.case, "NOISE", 1e-1)
    with pytest.raises(ValueError, match=r"none of 2 draws .* choose another seed"):
        reference.settled_case("mlp", "tiny", 5, optimizers=["sgd"])


def test_the_case_file_holds_no_answers(tmp_path: Path) -> None:
    case = reference.draw_case("mlp", "tiny", seed=1, batch=2)
    write_case(case, tmp_path / "case.npz")
    with np.load(tmp_path / "case.npz", allow_pickle=False) as stored:
        kinds = {name.partition("/")[0] for name in stored.files}
    assert kinds == {"meta", "parameter", "input"}


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(reference.UnknownName, match=r"unknown model 'lenet'.*did you mean lenet5"):
        reference.get("lenet")
    with pytest.raises(reference.UnknownName, match=r"unknown preset 'papre' in model mlp.*paper"):
        reference.draw_case("mlp", "papre")
    with pytest.raises(ValueError, match="at least 1 example"):
        reference.draw_case("mlp", "tiny", batch=0)


def test_drawing_and_numpy_need_no_framework() -> None:
    program = (
        "import sys, reference\n"
        "case = reference.draw_case('lenet5', 'tiny', seed=1)\n"
        "reference.run_numpy(case)\n"
        "print([m for m in ('jax', 'torch', 'tensorflow') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
