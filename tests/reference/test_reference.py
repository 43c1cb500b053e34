"""The definitions against closed forms, published counts, and each other's arithmetic."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from levelfield import reference
from levelfield.adapters.questions import read_case
from levelfield.harness.proof.answer_file import relative_error
from levelfield.reference import programs
from levelfield.reference.answers import Answers, read_answers, run_jax, run_numpy, write_answers
from levelfield.reference.case import write_case
from levelfield.reference.layers_jax import JaxLayers
from levelfield.reference.layers_numpy import NumpyLayers
from levelfield.reference.optimizers import EPSILON_HAT, OPTIMIZERS, initial_state, update
from levelfield.reference.settled import LOOSEST, NOISE, _turned
from levelfield.reference.spec import Sizes, sinusoid_table
from tests.support.long import NETS, long_unless

MODELS = tuple(reference.definitions())
DEEP = ("resnet50", "resnet101", "resnet152", "googlenet", "dcgan")  # compile for ten seconds each
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


def alexnet_count(sizes: Sizes) -> int:
    filters = [sizes["channels"], *sizes["filters"]]
    windows = (11, 5, 3, 3, 3)
    convolutions = zip(windows, pairwise(filters), strict=True)
    widths = [sizes["pooled"] ** 2 * filters[-1], *sizes["hidden"], sizes["classes"]]
    return sum((w * w * a + 1) * b for w, (a, b) in convolutions) + sum(
        (a + 1) * b for a, b in pairwise(widths)
    )


def vgg_count(sizes: Sizes) -> int:
    depths = zip(sizes["depths"], sizes["filters"], strict=True)
    filters = [sizes["channels"], *(width for count, width in depths for _ in range(count))]
    widths = [sizes["pooled"] ** 2 * filters[-1], *sizes["hidden"], sizes["classes"]]
    convolutions = sum((9 * a + 1) * b for a, b in pairwise(filters))
    return convolutions + sum((a + 1) * b for a, b in pairwise(widths))


def googlenet_count(sizes: Sizes) -> int:
    first, second, third = sizes["stem"]
    total = 49 * sizes["channels"] * first + first * second + 9 * second * third
    total += 2 * (first + second + third)
    before = third
    for one, a, two, b, three, four in (row for stage in sizes["stages"] for row in stage):
        total += before * (one + a + b + four) + 9 * (a * two + b * three)
        total += 2 * (one + a + two + b + three + four)
        before = one + two + three + four
    return total + (before + 1) * sizes["classes"]


def resnet_count(sizes: Sizes) -> int:
    width, bottleneck = sizes["width0"], sizes["block"] == "bottleneck"
    total, before = 49 * sizes["channels"] * width + 2 * width, width
    for stage, blocks in enumerate(sizes["blocks"]):
        inner = width * 2**stage
        outer = 4 * inner if bottleneck else inner
        for block in range(blocks):
            if bottleneck:
                total += before * inner + 9 * inner**2 + inner * outer + 2 * (2 * inner + outer)
            else:
                total += 9 * before * inner + 9 * inner**2 + 4 * inner
            if (stage > 0 and block == 0) or before != outer:
                total += before * outer + 2 * outer
            before = outer
    return total + (before + 1) * sizes["classes"]


def recurrent_count(sizes: Sizes) -> int:
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[sizes["cell"]]
    units, width = sizes["units"], sizes["width"]
    biases = 2 if sizes["cell"] == "gru" else 1
    layer = gates * units * (width + units + biases)
    return sizes["vocabulary"] * width + layer + (units + 1) * sizes["classes"]


def vae_count(sizes: Sizes) -> int:
    features, hidden, latent = sizes["features"], sizes["hidden"], sizes["latent"]
    encoder = (features + 1) * hidden + 2 * (hidden + 1) * latent
    return encoder + (latent + 1) * hidden + (hidden + 1) * features


def neumf_count(sizes: Sizes) -> int:
    tower = sizes["tower"]
    rows = (sizes["users"] + sizes["items"]) * (sizes["factors"] + tower[0] // 2)
    return rows + sum((a + 1) * b for a, b in pairwise(tower)) + sizes["factors"] + tower[-1] + 1


def twotower_count(sizes: Sizes) -> int:
    kinds = ("user_features", "item_features")
    towers = ([sizes[kind], *sizes["tower"]] for kind in kinds)
    return sum((a + 1) * b for widths in towers for a, b in pairwise(widths))


def dcgan_count(sizes: Sizes) -> int:
    widths = [sizes["filters"] * 2**power for power in range(sizes["doublings"])]
    between = sum(16 * a * b for a, b in pairwise(widths))
    ends = 16 * sizes["channels"] * widths[0]
    generator = 16 * sizes["latent"] * widths[-1] + between + ends + 2 * sum(widths)
    return generator + ends + between + 16 * widths[-1] + 2 * sum(widths[1:])


def layer_count(width: int) -> int:
    """Attention of four square kernels, a hidden layer of four times the width, two norms."""
    return 4 * (width + 1) * width + (8 * width + 5) * width + 4 * width


def bert_count(sizes: Sizes) -> int:
    width = sizes["width"]
    tables = (sizes["vocabulary"] + sizes["positions"] + 2) * width + 2 * width
    head = 2 * (width + 1) * width + 2 * width + sizes["vocabulary"]
    return tables + sizes["layers"] * layer_count(width) + head


def gpt2_count(sizes: Sizes) -> int:
    width = sizes["width"]
    tables = (sizes["vocabulary"] + sizes["positions"]) * width
    return tables + sizes["layers"] * layer_count(width) + 2 * width


def encoder_count(sizes: Sizes) -> int:
    width = sizes["width"]
    head = (width + 1) * sizes["classes"]
    return sizes["vocabulary"] * width + sizes["layers"] * layer_count(width) + head


def transformer_count(sizes: Sizes) -> int:
    """One table; a layer of the decoder has a second attention with a norm."""
    width = sizes["width"]
    cross = 4 * (width + 1) * width + 2 * width
    layers = sizes["layers"] * (2 * layer_count(width) + cross)
    return sizes["vocabulary"] * width + layers


CLOSED_FORMS = {
    "mlp": mlp_count,
    "lenet5": lenet_count,
    "resnet18": resnet_count,
    "resnet50": resnet_count,
    "resnet101": resnet_count,
    "resnet152": resnet_count,
    "alexnet": alexnet_count,
    "vgg11": vgg_count,
    "vgg16": vgg_count,
    "googlenet": googlenet_count,
    "rnn": recurrent_count,
    "lstm": recurrent_count,
    "gru": recurrent_count,
    "vae": vae_count,
    "neumf": neumf_count,
    "twotower": twotower_count,
    "dcgan": dcgan_count,
    "bert": bert_count,
    "gpt2": gpt2_count,
    "encoder": encoder_count,
    "transformer": transformer_count,
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts_follow_the_closed_form(name: str, preset: str) -> None:
    model = reference.get(name)
    summary = reference.summarize(model, preset, 3)
    assert summary.parameter_count == CLOSED_FORMS[name](model.sizes(preset))


# A model's derived size that its forward does not read, and the place where a shape has it.
PLACES = [
    ("lenet5", "flattened", "hidden1/kernel", 0),
    ("resnet18", "pooled", "logits/kernel", 0),
    ("resnet50", "pooled", "logits/kernel", 0),
    ("resnet101", "pooled", "logits/kernel", 0),
    ("resnet152", "pooled", "logits/kernel", 0),
    ("alexnet", "flattened", "hidden1/kernel", 0),
    ("vgg11", "flattened", "hidden1/kernel", 0),
    ("vgg16", "flattened", "hidden1/kernel", 0),
    ("googlenet", "pooled", "logits/kernel", 0),
    ("neumf", "joined", "logits/kernel", 0),
    *((name, "gates", "recurrent/kernel", 1) for name in ("rnn", "lstm", "gru")),
]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "size", "kernel", "axis"), PLACES)
def test_derived_sizes_are_those_of_the_traced_arrays(
    name: str, size: str, kernel: str, axis: int, preset: str
) -> None:
    model = reference.get(name)
    shapes = {spec.name: spec.shape for spec in reference.summarize(model, preset, 1).parameters}
    assert model.sizes(preset)[size] == shapes[kernel][axis]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "encoder", "transformer"])
def test_the_heads_of_attention_fill_the_width(name: str, preset: str) -> None:
    sizes = reference.get(name).sizes(preset)
    assert sizes["heads"] * sizes["head_width"] == sizes["width"]


@pytest.mark.parametrize(
    ("name", "preset", "published"),
    [
        ("mlp", "tiny", 2_762),
        ("mlp", "paper", 669_706),
        ("lenet5", "paper", 61_706),
        ("resnet18", "paper", 11_689_512),
        ("resnet50", "paper", 25_557_032),
        ("resnet101", "paper", 44_549_160),
        ("resnet152", "paper", 60_192_808),
        ("alexnet", "paper", 61_100_840),
        ("vgg11", "paper", 132_863_336),
        ("vgg16", "paper", 138_357_544),
        ("googlenet", "paper", 6_624_904),
        ("vae", "paper", 652_824),
        ("neumf", "paper", 392_601),
        ("dcgan", "paper", 3_576_704 + 2_765_568),
        ("gpt2", "paper", 124_439_808),
        ("transformer", "paper", 63_082_496),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, preset: str, published: int) -> None:
    assert reference.summarize(reference.get(name), preset, 1).parameter_count == published


def test_parts_have_the_published_counts() -> None:
    def count(model: str, *parts: str, without: tuple[str, ...] = ()) -> int:
        specs = reference.summarize(reference.get(model), "paper", 1).parameters
        return sum(
            s.size for s in specs if s.name.startswith(parts) and not s.name.startswith(without)
        )

    head = ("transform", "logits")
    assert count("bert", "", without=head) == 109_482_240  # encoder and pooler
    assert count("dcgan", "generator/") == 3_576_704
    assert count("dcgan", "discriminator/") == 2_765_568


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        long_unless((preset == "tiny" and name not in DEEP) or name in NETS, name, preset)
        for name in MODELS
        for preset in ("tiny", "small")
    ],
)
def test_numpy_and_jax_agree_in_float64(name: str, preset: str) -> None:
    case = reference.draw_case(name, preset, seed=3, batch=2, sets=2)
    by_numpy, by_jax = run_numpy(case), run_jax(case, steps=0)
    for one, other in zip(by_numpy.outputs, by_jax.outputs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert relative_error(other[key], value) < 1e-13


@pytest.mark.parametrize("name", [long_unless(name in NETS, name) for name in MODELS])
def test_gradients_agree_with_central_differences(name: str) -> None:
    """Directional derivatives of every parameter, of the objective that trains it."""
    case = reference.draw_case(name, "tiny", seed=5, batch=4)
    gradients = run_jax(case, steps=0).gradients[0]
    assert sorted(gradients) == sorted(case.parameters)
    stream = np.random.default_rng(1)
    with jax.enable_x64(True):
        compute = jax.jit(programs.losses_and_gradients(case.model, case.sizes))
        start = {key: value.astype(np.float64) for key, value in case.parameters.items()}
        state = {key: value.astype(np.float64) for key, value in case.state.items()}
        inputs = {key: _wide(value) for key, value in case.inputs[0].items()}

        def loss(parameters: dict[str, Any], objective: str) -> float:
            return float(compute(parameters, state, inputs)[0][objective])

        for objective in case.model.objectives:
            for key in programs.trained_by(objective, start):
                direction = stream.standard_normal(start[key].shape)
                direction /= np.linalg.norm(direction)
                up = loss({**start, key: start[key] + 1e-6 * direction}, objective.name)
                down = loss({**start, key: start[key] - 1e-6 * direction}, objective.name)
                exact = float((gradients[key] * direction).sum())
                assert abs((up - down) / 2e-6 - exact) < 1e-6 * max(1.0, abs(exact))


def _wide(value: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return value if value.dtype.kind == "i" else value.astype(np.float64)


@pytest.mark.parametrize("name", ["gpt2", "transformer"])
def test_a_cache_changes_no_token(name: str) -> None:
    """Decoding with a cache against computing every position again, NumPy's growing cache and
    JAX's of fixed shape."""
    case = reference.draw_case(name, "tiny", seed=5, batch=3)
    generation, sizes = case.model.generation, case.sizes
    assert generation is not None
    layers = NumpyLayers({n: v.astype(np.float64) for n, v in case.parameters.items()})
    cached = run_numpy(case).tokens
    begin, further = programs.generation(case.model, sizes)
    for inputs, tokens in zip(case.inputs, cached, strict=True):
        prompt = inputs[generation.prompt]
        memory = generation.encode(layers, sizes, prompt) if generation.encode else None
        whole, _ = generation.first(layers, sizes, prompt)
        length = whole.shape[1]
        assert length == generation.first_length(prompt.shape[1])
        for _ in range(generation.count(sizes)):
            best = generation.logits(layers, sizes, memory, whole)[:, -1].argmax(-1)
            whole = np.concatenate((whole, best[:, None].astype(np.int32)), 1)
        np.testing.assert_array_equal(tokens, whole[:, length:])
        with jax.enable_x64(True):
            token, cache = begin(layers.parameters, jax.numpy.asarray(prompt))
            chosen = [np.asarray(token)]
            for position in range(length, length + len(tokens[0]) - 1):
                token, cache = further(layers.parameters, token, position, cache)
                chosen.append(np.asarray(token))
        np.testing.assert_array_equal(tokens, np.stack(chosen, 1))


def test_windows_of_pooling_are_those_that_torch_documents() -> None:
    """Seven pixels, windows of 3 with stride 2; three pixels in two windows that overlap."""
    row = np.arange(1.0, 8.0)[None, :, None, None] * np.ones((1, 1, 7, 1))
    with jax.enable_x64(True):
        for layers in (NumpyLayers({}), JaxLayers({})):
            six = layers.max_pool2d(row[:, :6, :6], window=3, stride=2)
            assert six[0, :, 0, 0].tolist() == [3.0, 5.0]
            six = layers.max_pool2d(row[:, :6, :6], window=3, stride=2, ceil=True)
            assert six[0, :, 0, 0].tolist() == [3.0, 5.0, 6.0]
            assert six.shape == (1, 3, 3, 1)
            seven = layers.max_pool2d(row, window=3, stride=2, ceil=True)
            assert seven[0, :, 0, 0].tolist() == [3.0, 5.0, 7.0]
            three = layers.adaptive_mean_pool2d(row[:, :3, :4], 2)
            assert three[0, :, 0, 0].tolist() == [1.5, 2.5]
            one = layers.adaptive_mean_pool2d(row[:, :1, :1], 3)
            assert one[0, :, 0, 0].tolist() == [1.0, 1.0, 1.0]


def test_padding_and_masks_change_nothing() -> None:
    """What stands beyond a sequence's end is not seen: the pooled output of BERT, an LSTM."""
    for name, output in (("bert", "pooled"), ("lstm", "logits"), ("gru", "logits")):
        case = reference.draw_case(name, "tiny", seed=1, batch=6, sets=1)
        inputs = dict(case.inputs[0])
        before = run_numpy(case).outputs[0][output]
        beyond = inputs["mask" if "mask" in inputs else "tokens"] == 0  # 0 is a token of BERT's
        assert beyond.any()
        inputs["tokens"] = np.where(beyond, 7, inputs["tokens"])
        after = run_numpy(replace(case, inputs=(inputs,))).outputs[0][output]
        np.testing.assert_allclose(after, before, rtol=1e-12)
        # Within it everything is seen.
        inputs["tokens"] = np.where(beyond, 7, (inputs["tokens"] + 1) % 20)
        other = run_numpy(replace(case, inputs=(inputs,))).outputs[0][output]
        assert relative_error(other, before) > 1e-3


@pytest.mark.parametrize(("name", "tokens"), [("encoder", "tokens"), ("transformer", "source")])
def test_rows_of_the_embedding_for_padding_are_not_seen(name: str, tokens: str) -> None:
    """Token 0 is padding and hidden; every other token is seen."""
    case = reference.draw_case(name, "tiny", seed=1, batch=6, sets=1)
    assert (case.inputs[0][tokens] == 0).any()
    before = run_numpy(case).outputs[0]["logits"]

    def changed(row: int) -> Any:
        table = case.parameters["embed/embedding"].copy()
        table[row] = 3.0
        parameters = {**case.parameters, "embed/embedding": table}
        logits = run_numpy(replace(case, parameters=parameters)).outputs[0]["logits"]
        return np.delete(logits, row, axis=-1) if name == "transformer" else logits

    kept = np.delete(before, 0, axis=-1) if name == "transformer" else before  # a tied head
    np.testing.assert_allclose(changed(0), kept, rtol=1e-12)
    other = int(case.inputs[0][tokens][0, 1])
    kept = np.delete(before, other, axis=-1) if name == "transformer" else before
    assert relative_error(changed(other), kept) > 1e-3


def test_a_target_sees_no_later_target_and_all_of_the_source() -> None:
    case = reference.draw_case("transformer", "tiny", seed=1, batch=2, sets=1)
    inputs = dict(case.inputs[0])
    before = run_numpy(case).outputs[0]["logits"]
    later = {**inputs, "target": inputs["target"].copy()}
    later["target"][:, 4] = (later["target"][:, 4] + 1) % 20 + 1
    after = run_numpy(replace(case, inputs=(later,))).outputs[0]["logits"]
    np.testing.assert_allclose(after[:, :4], before[:, :4], rtol=1e-12)
    for place in range(4, before.shape[1]):
        assert relative_error(after[:, place], before[:, place]) > 1e-4
    source = {**inputs, "source": inputs["source"].copy()}
    source["source"][0, -1] = 1 + source["source"][0, -1] % 20
    after = run_numpy(replace(case, inputs=(source,))).outputs[0]["logits"]
    for place in range(before.shape[1]):
        assert relative_error(after[0, place], before[0, place]) > 1e-4


def test_sinusoids_are_those_of_the_paper() -> None:
    """Vaswani et al. 2017, section 3.5: PE(pos, 2i) and PE(pos, 2i + 1)."""
    table = sinusoid_table(50, 6)
    for place, position in ((0, 0), (7, 7), (49, 49)):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            assert table[place, 2 * pair] == pytest.approx(np.sin(angle), abs=1e-14)
            assert table[place, 2 * pair + 1] == pytest.approx(np.cos(angle), abs=1e-14)


def test_a_query_without_keys_gets_the_mean_of_all_values() -> None:
    """The same in NumPy and JAX, and in the gradients, which were not numbers."""
    stream = np.random.default_rng(1)
    query, key, value = (stream.standard_normal((2, 3, 4)) for _ in range(3))
    mask = np.array([[0, 0, 0], [1, 0, 1]], np.int32)
    with jax.enable_x64(True):
        attend = functools.partial(JaxLayers({}).attention, heads=2, mask=jax.numpy.asarray(mask))
        by_jax = np.asarray(attend(query, key, value))
        gradients = jax.grad(lambda *arrays: attend(*arrays).sum(), (0, 1, 2))(query, key, value)
    by_numpy = NumpyLayers({}).attention(query, key, value, heads=2, mask=mask)
    mean = np.broadcast_to(value[0].mean(0), (3, 4))
    np.testing.assert_allclose(by_numpy[0], mean, rtol=1e-13)
    np.testing.assert_allclose(by_jax, by_numpy, rtol=1e-13)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_mask_counts_in_causal_attention_too() -> None:
    """A key has to be real and not later than the query; JAX forgot the mask."""
    stream = np.random.default_rng(2)
    query, key, value = (stream.standard_normal((1, 3, 4)) for _ in range(3))
    mask = np.array([[1, 0, 1]], np.int32)
    by_numpy = NumpyLayers({}).attention(query, key, value, heads=2, mask=mask, causal=True)
    with jax.enable_x64(True):
        by_jax = JaxLayers({}).attention(
            query, key, value, heads=2, mask=jax.numpy.asarray(mask), causal=True
        )
    np.testing.assert_allclose(by_jax, by_numpy, rtol=1e-13)
    np.testing.assert_allclose(by_numpy[0, 1], value[0, 0], rtol=1e-13)


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
    assert back.scatter == answers.scatter
    for number, gradients in enumerate(answers.gradients):
        for key, value in gradients.items():
            np.testing.assert_array_equal(back.gradients[number][key], value)
    key = "logits/bias"
    # Movements are kept in float32.
    np.testing.assert_allclose(back.trained["adam"][key], answers.trained["adam"][key], rtol=1e-6)


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
    monkeypatch.setattr(reference.settled, "draw_case", tied)
    case, answers = reference.settled_case("mlp", "tiny", 5, optimizers=["sgd"])
    assert untouched.attempt == 0
    assert case.attempt == 1
    assert list(answers.trained) == ["sgd"]


@pytest.mark.parametrize(("size", "attempt"), [(0.1, 0), (2e-6, 1)])
def test_a_draw_whose_first_adam_step_noise_may_turn_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, size: float, attempt: int
) -> None:
    """An element of the first draw's gradients, twice as far from zero as noise moves it at most.

    No noise turned it: in float32 a right program did, and its movement was wrong by a third.
    """
    generator = np.random.default_rng(1)

    def near_zero(case: reference.Case, **options: Any) -> Answers:
        answers = run_jax(case, **options)
        if case.attempt or 0 not in options["graded"]:
            return answers
        first, *others = answers.gradients
        bias = first["logits/bias"].copy()
        bias[0] = np.linalg.norm(bias) * (size + 1e-6 * generator.uniform(-1, 1))
        return replace(answers, gradients=({**first, "logits/bias": bias}, *others))

    monkeypatch.setattr(reference.settled, "run_jax", near_zero)
    case, _ = reference.settled_case("mlp", "tiny", 5, optimizers=["adam"])
    assert case.attempt == attempt


def test_a_training_that_diverges_is_compared_for_as_long_as_it_does_not() -> None:
    """The lower bound of 784 pixels and plain gradient descent: not a number after three steps."""
    case = reference.draw_case("vae", "paper", 1, batch=4)
    losses = run_jax(case, optimizers=["sgd"]).step_losses["sgd"]["loss"]
    assert not np.isfinite(losses[-1])
    _, answers = reference.settled_case("vae", "paper", 1, batch=4, optimizers=["sgd"])
    assert 1 < answers.steps < len(losses)
    assert np.isfinite(answers.step_losses["sgd"]["loss"]).all()
    assert all(np.isfinite(scatter) for scatter in answers.scatter.values())


def test_adams_other_form_widens_no_tolerance_where_it_diverges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverging(*arguments: Any, optimizers: Sequence[str], **options: Any) -> Answers:
        answers = run_jax(*arguments, optimizers=optimizers, **options)
        if EPSILON_HAT not in optimizers:
            return answers
        moved = {
            name: np.full_like(way, np.inf) for name, way in answers.trained[EPSILON_HAT].items()
        }
        return replace(answers, trained={EPSILON_HAT: moved})

    monkeypatch.setattr(reference.settled, "run_jax", diverging)
    _, answers = reference.settled_case("mlp", "tiny", 1, optimizers=["adam"])
    assert all(scatter < 1e-2 for scatter in answers.scatter.values())


def test_a_seed_without_a_clear_draw_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference.settled, "TRIES", 2)
    for noise in ("NOISE", "ROUNDING"):  # more than any case may scatter by
        monkeypatch.setattr(reference.settled, noise, 1e-1)
    with pytest.raises(ValueError, match=r"no draw of seed 5 .* choose another seed"):
        reference.settled_case("mlp", "tiny", 5, optimizers=["sgd"])


def test_parameters_and_state_do_not_depend_on_the_batch() -> None:
    one, other = (reference.draw_case("resnet18", "tiny", 1, batch=batch) for batch in (4, 5))
    for ours, theirs in ((one.parameters, other.parameters), (one.state, other.state)):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name])


def test_only_what_is_asked_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def jitted(*program: object) -> Any:
        asked.append(program)
        return compiled(*program)

    compiled = reference.answers._jitted
    monkeypatch.setattr(reference.answers, "_jitted", jitted)
    _, answers = reference.settled_case("mlp", "tiny", 5, phases=["inference"])
    assert len(answers.outputs) == 4
    assert (answers.steps, answers.gradients, answers.losses) == (0, (), ())
    assert asked == [("mlp", "tiny", None)]  # inference; no optimiser's step
    _, answers = reference.settled_case(
        "mlp", "tiny", 5, optimizers=["sgd"], phases=["inference", "training"]
    )
    assert len(answers.gradients) == 4
    assert answers.steps == 40


def test_the_case_file_holds_no_answers(tmp_path: Path) -> None:
    case = reference.draw_case("mlp", "tiny", seed=1, batch=2)
    write_case(case, tmp_path / "case.npz")
    with np.load(tmp_path / "case.npz", allow_pickle=False) as stored:
        kinds = {name.partition("/")[0] for name in stored.files}
    assert kinds == {"meta", "parameter", "input"}


def test_the_case_file_has_one_array_for_all_sets_of_an_input(tmp_path: Path) -> None:
    # A lesson has thousands of sets; with an array for each, reading took minutes.
    case = reference.draw_case("neumf", "tiny", seed=1, batch=2, sets=50)
    write_case(case, tmp_path / "case.npz")
    with np.load(tmp_path / "case.npz", allow_pickle=False) as stored:
        shapes = {name: stored[name].shape for name in stored.files if name.startswith("input/")}
    assert shapes == {"input/user": (50, 2), "input/item": (50, 2), "input/label": (50, 2, 1)}


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(reference.UnknownName, match=r"unknown model 'lenet'.*did you mean lenet5"):
        reference.get("lenet")
    with pytest.raises(reference.UnknownName, match=r"unknown preset 'papre' in model mlp.*paper"):
        reference.draw_case("mlp", "papre")
    with pytest.raises(ValueError, match="at least 1 example"):
        reference.draw_case("mlp", "tiny", batch=0)


def test_drawing_and_numpy_need_no_framework() -> None:
    program = (
        "import sys\n"
        "from levelfield import reference\n"
        "case = reference.draw_case('lenet5', 'tiny', seed=1)\n"
        "reference.run_numpy(case)\n"
        "print([m for m in ('jax', 'torch', 'tensorflow') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("last", "deviation", "most", "least"),
    [(1e-16, 1e-16, 1.0, LOOSEST["stepped"]), (4e-3, 1e-7, 1e-6, 0.0), (0.0, 0.0, 1e-6, 0.0)],
    ids=["zero by mathematics", "clear of zero", "not read"],
)
def test_adams_first_movement_is_turned_where_a_gradient_is_zero_by_mathematics(
    last: float, deviation: float, most: float, least: float
) -> None:
    """One of four elements; the other three have the noise of float32.

    In resnet50/tiny, the shift of a channel that no ReLU cuts ends before batch norms. Float64
    leaves 1e-16 of its gradient and float32 leaves 4e-8, which Adam takes for a gradient.
    """
    gradient = np.array([7e-3, 4e-3, 8e-3, last])
    noise = np.array([1e-7, 1e-7, 1e-7, deviation])
    stream = np.random.default_rng(2)
    noisy = [{"bias": gradient + noise * stream.standard_normal(4)} for _ in range(6)]
    answers = Answers(outputs=(), gradients=({"bias": gradient},))
    (turned,) = _turned(answers, noisy, NOISE)
    assert least <= turned <= most
