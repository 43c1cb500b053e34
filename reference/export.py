"""Writes definitions as ONNX files: inference, and greedy decoding with a key-value cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from levelfield.reference.case import Case
from levelfield.reference.layers_onnx import (
    OPSET,
    Constants,
    Inverse,
    OnnxLayers,
    Tensor,
    axes_order,
)
from levelfield.reference.spec import ArraySpec, Dimension, Model, Sizes
from levelfield.reference.trace import TracedArray, Tracer, traced_input

KEPT = ("key", "value")  # of a cache and of an encoder's memory, for each layer


@dataclass(frozen=True)
class Exported:
    """A graph with its parameters; ``inverses`` locate each and convert it back."""

    proto: onnx.ModelProto
    inverses: Mapping[str, tuple[str, Inverse]]

    def checked(self) -> bytes:
        """Return the file's content after ``onnx.checker`` has checked all of it."""
        onnx.checker.check_model(self.proto, full_check=True)
        return bytes(self.proto.SerializeToString())

    def described(self, case: Case, *, phase: str, version: str) -> Exported:
        """Return the graph with the facts of its case, which runtimes and viewers show.

        The facts are the ``version`` of its producer, the title and source of the model as the
        documentation string, and the model, preset, phase, seed and attempt as ``metadata_props``:
        https://onnx.ai/onnx/repo-docs/MetadataProps.html
        """
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        proto.producer_version = version
        proto.doc_string = f"{case.model.title} ({case.model.source})"
        facts = {"model": case.model.name, "preset": case.preset, "phase": phase}
        helper.set_model_props(
            proto, {**facts, "seed": str(case.seed), "attempt": str(case.attempt)}
        )
        return replace(self, proto=proto)

    def parameters(self) -> dict[str, Constants]:
        """Parameters and statistics as the graph holds them, by canonical name and axes."""
        held = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        return {
            name: np.ascontiguousarray(inverse(numpy_helper.to_array(held[tensor])))
            for name, (tensor, inverse) in self.inverses.items()
        }


def export_inference(
    model: Model,
    sizes: Sizes,
    parameters: Mapping[str, Constants],
    state: Mapping[str, Constants],
    *,
    batch: int | None = None,
) -> Exported:
    """Export the forward of inference as a graph with the model's inputs and outputs by name.

    With ``batch`` None, the size of the batch is open.
    """
    layers, inputs, graph_inputs = OnnxLayers(parameters, state), {}, []
    specs = {spec.name: spec for spec in model.inputs(sizes, batch or 1)}
    for name, spec in specs.items():
        inputs[name] = Tensor(name, TracedArray(spec.dimensions))
        kind = TensorProto.FLOAT if spec.classes is None else TensorProto.INT32
        graph_inputs.append(_info(name, kind, spec.dimensions, batch))
    # OnnxLayers has no losses, because inference needs none.
    outputs = model.forward(cast(Any, layers), sizes, inputs)
    read = {name for node in layers.nodes for name in node.input}
    graph_outputs = []
    for name, tensor in outputs.items():
        layers.nodes.append(helper.make_node("Identity", [tensor.name], [name], name))
        graph_outputs.append(_info(name, TensorProto.FLOAT, tensor.traced.dimensions, batch))
    return _exported(layers, model, [i for i in graph_inputs if i.name in read], graph_outputs)


def export_encoding(
    model: Model, sizes: Sizes, parameters: Mapping[str, Constants], *, batch: int | None = None
) -> Exported:
    """Export the encoder of a model that generates: what every step of its decoding reads.

    Input: the prompt by its name. Outputs: ``memory_mask`` (batch, prompt), true for real tokens,
    and ``memory_<n>_key`` and ``memory_<n>_value`` (batch, prompt, width) of every layer of the
    decoder from 1.
    """
    assert model.generation is not None and model.generation.encode is not None
    layers, prompt = OnnxLayers(parameters, {}), _prompt(model, sizes, batch)
    tokens = Tensor(prompt.name, traced_input(prompt))
    outputs = []
    for name, tensor in _by_name(model.generation.encode(layers, sizes, tokens)).items():
        layers.nodes.append(helper.make_node("Identity", [tensor.name], [name], name))
        outputs.append(_info(name, _kind(tensor.traced), tensor.traced.dimensions, batch))
    inputs = [_info(prompt.name, TensorProto.INT32, prompt.dimensions, batch)]
    return _exported(layers, model, inputs, outputs)


def _prompt(model: Model, sizes: Sizes, batch: int | None) -> ArraySpec:
    assert model.generation is not None
    name = model.generation.prompt
    (spec,) = (spec for spec in model.inputs(sizes, batch or 1) if spec.name == name)
    return spec


def _by_name(memory: Any) -> dict[str, Any]:
    """Name the arrays of an encoder's memory: a mask, and a key and a value per layer."""
    mask, pairs = memory
    named = {"memory_mask": mask}
    for number, pair in enumerate(pairs, start=1):
        named.update(zip((f"memory_{number}_{part}" for part in KEPT), pair, strict=True))
    return named


def _kind(traced: TracedArray) -> int:
    return int(TensorProto.BOOL if traced.index else TensorProto.FLOAT)


def _read_memory(
    model: Model, sizes: Sizes, batch: int | None
) -> tuple[Any, list[onnx.ValueInfoProto]]:
    """Return an encoder's memory as tensors that a graph reads, and these inputs of the graph."""
    assert model.generation is not None and model.generation.encode is not None
    prompt = traced_input(_prompt(model, sizes, batch))
    mask, pairs = model.generation.encode(Tracer(), sizes, prompt)
    arrays = _by_name((mask, pairs))
    tensors = {name: Tensor(name, array) for name, array in arrays.items()}
    memory = (
        tensors["memory_mask"],
        [
            tuple(tensors[f"memory_{number}_{part}"] for part in KEPT)
            for number in range(1, len(pairs) + 1)
        ],
    )
    infos = [_info(name, _kind(a), a.dimensions, batch) for name, a in arrays.items()]
    return memory, infos


def export_generation(
    model: Model, sizes: Sizes, parameters: Mapping[str, Constants], *, batch: int | None = None
) -> Exported:
    """Export one advance of greedy decoding, for the prompt and for further tokens.

    Inputs: ``tokens`` (batch, new), and ``past_<n>_key`` and ``past_<n>_value`` (batch, past,
    width) of every layer from 1. Their length is 0 before the prompt. Outputs: ``token`` (batch,),
    the most likely next token, and ``present_<n>_key`` and ``present_<n>_value`` (batch,
    past + new, width). A model with an encoder has one new token, and reads the outputs of
    :func:`export_encoding`, too.
    """
    assert model.generation is not None
    layers = OnnxLayers(parameters, {})
    rows, width = Dimension("batch", (("batch", batch or 1),)), sizes["width"]
    one = Dimension("time", (("time", 1),))
    channel = Dimension("channel", (("channel", width),))
    name_of = _named(batch)
    graph_inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT32, [name_of, "new"])]
    cache = []
    for number in range(1, sizes["layers"] + 1):
        pair = [f"past_{number}_{part}" for part in KEPT]
        graph_inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [name_of, "past", width])
            for name in pair
        ]
        cache.append(tuple(Tensor(name, TracedArray((rows, one, channel))) for name in pair))

    def length(name: str) -> Tensor:
        size = layers.node("Gather", layers.node("Shape", name), layers.constant(1))
        return Tensor(size, TracedArray(()))

    position, time = length("past_1_key"), length("tokens")
    tokens = Tensor("tokens", TracedArray((rows, one)), time)
    if model.generation.encode is None:
        logits, kept = model.generation.advance(layers, sizes, tokens, position, cache)
    else:
        memory, infos = _read_memory(model, sizes, batch)
        graph_inputs += infos
        logits, (_, kept) = model.generation.advance(
            layers, sizes, tokens, position, (memory, cache)
        )
    results = {"token": layers.most_likely(logits)}
    graph_outputs = [helper.make_tensor_value_info("token", TensorProto.INT32, [name_of])]
    for number, pair in enumerate(kept, start=1):
        for part, tensor in zip(KEPT, pair, strict=True):
            name = f"present_{number}_{part}"
            results[name] = tensor
            graph_outputs.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [name_of, "total", width])
            )
    for name, tensor in results.items():
        layers.nodes.append(helper.make_node("Identity", [tensor], [name], name))
    return _exported(layers, model, graph_inputs, graph_outputs)


def _named(batch: int | None) -> int | str:
    return "batch" if batch is None else batch


def _info(
    name: str, kind: int, dimensions: Sequence[Dimension], batch: int | None
) -> onnx.ValueInfoProto:
    # The candidates of a batch are as many as its examples.
    sizes = [
        _named(batch) if dimension.factors[0][0] == "batch" else dimension.size
        for dimension in dimensions
    ]
    shape = [
        sizes[axis]
        for axis in axes_order([(dimension.label, dimension.size) for dimension in dimensions])
    ]
    return helper.make_tensor_value_info(name, kind, shape)


def _exported(
    layers: OnnxLayers,
    model: Model,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> Exported:
    initializers = [numpy_helper.from_array(v, name) for name, v in layers.initializers.items()]
    graph = helper.make_graph(layers.nodes, model.name, inputs, outputs, initializers)
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="levelfield"
    )
    proto.ir_version = 9  # the version of opset 20, so that older readers accept the file
    return Exported(proto, layers.inverses)
