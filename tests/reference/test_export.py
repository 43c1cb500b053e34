"""Exported graphs: what ONNX' own evaluator finds in them is what the truth says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from levelfield import reference
from levelfield.reference import layers_onnx
from levelfield.reference.answers import run_numpy
from levelfield.reference.case import Case
from levelfield.reference.export import (
    Exported,
    export_encoding,
    export_generation,
    export_inference,
)
from levelfield.reference.layers_numpy import NumpyLayers
from levelfield.reference.layers_onnx import OnnxLayers
from levelfield.reference.spec import ArraySpec, dimension

NAMES = list(reference.definitions())
# The evaluator's recurrent layers do not know lengths; the runtimes' gate proves these.
RECURRENT = ("rnn", "lstm", "gru")


def exported(case: Case, *, batch: int | None) -> Exported:
    return export_inference(case.model, case.sizes, case.parameters, case.state, batch=batch)


def channels(array: NDArray[Any], *, first: bool) -> NDArray[Any]:
    return array.transpose((0, 3, 1, 2) if first else (0, 2, 3, 1)) if array.ndim == 4 else array


def evaluated(proto: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    names = [value.name for value in proto.graph.output]
    fed = {value.name: channels(inputs[value.name], first=True) for value in proto.graph.input}
    values = ReferenceEvaluator(proto).run(names, fed)
    return {n: channels(v, first=False) for n, v in zip(names, values, strict=True)}


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_passes_the_checker_and_keeps_every_parameter(name: str, batch: int | None) -> None:
    case = reference.draw_case(name, "tiny", seed=2, batch=3)
    export = exported(case, batch=batch)
    again = replace(export, proto=onnx.load_from_string(export.checked()))
    held = again.parameters()
    assert set(held) == set(case.summary.held)
    for key, value in held.items():
        expected = case.parameters[key] if key in case.parameters else case.state[key]
        np.testing.assert_array_equal(value, expected, err_msg=key)
    first = again.proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_param, first.dim_value) == (("batch", 0) if batch is None else ("", 3))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RECURRENT])
def test_a_file_computes_what_the_truth_does(name: str) -> None:
    case = reference.draw_case(name, "tiny", seed=3, batch=2)
    got = evaluated(exported(case, batch=None).proto, case.inputs[1])
    expected = run_numpy(case).outputs[1]
    assert set(got) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_another_order_of_rows_is_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed the fault: rows of the dense kernel behind an image as in the other layout."""
    case = reference.draw_case("lenet5", "tiny", seed=3, batch=2)
    monkeypatch.setattr(layers_onnx, "axes_order", lambda factors: list(range(len(factors))))
    got = evaluated(exported(case, batch=2).proto, case.inputs[0])["logits"]
    expected = run_numpy(case).outputs[0]["logits"]
    assert np.abs(got - expected).max() > 0.1 * np.abs(expected).max()


def test_long_constants_that_begin_with_the_same_bytes_are_kept_apart() -> None:
    layers = OnnxLayers({}, {})
    one, other = np.zeros(100, np.int64), np.zeros(100, np.int64)
    other[-1] = 1
    names = [layers.constant(value) for value in (one, other, one)]
    assert names[0] == names[2]
    for name, value in zip(names, (one, other), strict=False):
        np.testing.assert_array_equal(layers.initializers[name], value)


@pytest.mark.parametrize(("name", "gates"), [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_gates_stand_as_onnx_has_them(name: str, gates: int) -> None:
    """By the operators' specification: W is (1, gates units, in), B has both biases in a row."""
    case = reference.draw_case(name, "tiny", seed=4, batch=2)
    graph = exported(case, batch=2).proto.graph
    held = {
        initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer
    }
    units, width = case.sizes["units"], case.sizes["width"]
    kernel = case.parameters["recurrent/kernel"].reshape(width, gates, units)
    order = {"rnn": "h", "lstm": "iofc", "gru": "zrh"}[name]
    ours = {"rnn": "h", "lstm": "ifco", "gru": "rzh"}[name]
    for place, gate in enumerate(order):
        rows = held["recurrent/kernel"][0, place * units : (place + 1) * units]
        np.testing.assert_array_equal(rows, kernel[:, ours.index(gate)].T)
    assert held["recurrent/recurrent_kernel"].shape == (1, gates * units, units)
    assert held["recurrent/bias"].shape == (1, 2 * gates * units)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_without_keys_is_exported_as_the_truth_has_it(causal: bool) -> None:
    stream = np.random.default_rng(3)
    arrays = {
        name: stream.standard_normal((2, 3, 4)).astype(np.float32)
        for name in ("query", "key", "value")
    }
    inputs = {**arrays, "mask": np.array([[0, 0, 0], [1, 0, 1]], np.int32)}
    rows, time = dimension("batch", 2), dimension("time", 3)
    place = (rows, time, dimension("channel", 4))
    specs = (
        *(ArraySpec(name, place) for name in arrays),
        ArraySpec("mask", (rows, time), classes=2),
    )

    def forward(nn: Any, sizes: Any, inputs: Any) -> dict[str, Any]:
        operands = (inputs[name] for name in arrays)
        return {"out": nn.attention(*operands, heads=2, mask=inputs["mask"], causal=causal)}

    model = replace(
        reference.get("bert"), inputs=lambda sizes, batch: specs, forward=forward, objectives=()
    )
    got = evaluated(export_inference(model, {}, {}, {}, batch=2).proto, inputs)["out"]
    expected = forward(NumpyLayers({}), {}, inputs)["out"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "transformer"])
def test_decoding_by_the_file_gives_the_tokens_of_the_case(name: str) -> None:
    case, answers = reference.settled_case(name, "tiny", 1, batch=2, phases=["generation"])
    generation = case.model.generation
    assert generation is not None
    proto = onnx.load_from_string(
        export_generation(case.model, case.sizes, case.parameters).checked()
    )
    evaluator, width = ReferenceEvaluator(proto), case.sizes["width"]
    names = [value.name for value in proto.graph.output]
    empty = np.zeros((2, 0, width), np.float32)
    pasts = [value.name for value in proto.graph.input if value.name.startswith("past")]
    cache = {past: empty for past in pasts}
    prompt, memory, chosen = case.inputs[0][generation.prompt], {}, []
    tokens = prompt
    if generation.encode is not None:
        encoder = onnx.load_from_string(
            export_encoding(case.model, case.sizes, case.parameters).checked()
        )
        memory = evaluated(encoder, {generation.prompt: prompt})
        tokens = np.full((2, 1), generation.start, np.int32)
    for _ in range(case.sizes["new_tokens"]):
        fed = {**memory, **cache, "tokens": tokens}
        run = dict(zip(names, evaluator.run(names, fed), strict=True))
        tokens = run.pop("token")[:, None]
        chosen.append(tokens)
        cache = {name.replace("present", "past"): value for name, value in run.items()}
    np.testing.assert_array_equal(np.concatenate(chosen, 1), answers.tokens[0])
    last = generation.first_length(prompt.shape[1]) + case.sizes["new_tokens"] - 1
    assert cache["past_1_key"].shape == (2, last, width)
