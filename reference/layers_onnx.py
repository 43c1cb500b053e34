"""The layers as ONNX operators.

Images are (batch, channel, height, width), as in ONNX. Kernels, and the rows of a dense kernel
after a flattened image, have the order of ONNX. ``inverses`` convert everything back.
Operators: https://onnx.ai/onnx/operators/, those of opset 20 (the first with Gelu).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from levelfield.reference.spec import BATCH_NORM_EPSILON, Dimension, sinusoid_table
from levelfield.reference.trace import TracedArray, Tracer
from levelfield.reference.windows import adaptive_weights

OPSET = 20
IMAGES = {
    ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
    ("height", "width", "channel"): ("channel", "height", "width"),
}
# Canonical gates are i, f, g, o and r, z, n; ONNX has i, o, f, c and z, r, h.
GATE_ORDERS = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}

Constants = NDArray[Any]
Inverse = Callable[[Constants], Constants]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph; ``traced`` has its canonical dimensions."""

    name: str
    traced: TracedArray
    time: Tensor | None = None  # the number of positions, where it is known only in the graph

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes; an unknown number of positions is a tensor itself."""
        sizes: list[Any] = [dimension.size for dimension in self.traced.dimensions]
        if self.time is not None:
            sizes[1] = self.time
        return tuple(sizes)


@dataclass
class OnnxLayers:
    """Layers that append nodes to a graph; parameters and state are those of a case."""

    parameters: Mapping[str, Constants]
    state: Mapping[str, Constants]
    tracer: Tracer = field(default_factory=Tracer)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, Constants] = field(default_factory=dict)
    inverses: dict[str, tuple[str, Inverse]] = field(default_factory=dict)

    def node(
        self, operator: str, *inputs: Tensor | str, outputs: int = 1, **attributes: Any
    ) -> str:
        """Append a node and return the name of its last output; earlier outputs are unused."""
        names = [operand.name if isinstance(operand, Tensor) else operand for operand in inputs]
        out = f"{operator}_{len(self.nodes)}"
        results = [""] * (outputs - 1) + [out]
        self.nodes.append(helper.make_node(operator, names, results, out, **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a small array that is not a parameter; equal arrays are stored once."""
        array = np.asarray(value, dtype)
        digest = sha256(array.tobytes()).hexdigest()
        name = f"constant/{array.dtype}/{array.shape}/{digest}"
        self.initializers[name] = array
        return name

    def held(self, name: str, value: Constants, **inverses: Inverse) -> str:
        """Add an initializer; ``inverses``: its canonical names and the way to convert back."""
        self.initializers[name] = np.ascontiguousarray(value)
        self.inverses.update({key: (name, inverse) for key, inverse in inverses.items()})
        return name

    def as_is(self, name: str) -> str:
        """Add a parameter or statistic whose axes in ONNX are canonical."""
        values = self.parameters if name in self.parameters else self.state
        return self.held(name, values[name], **{name: lambda value: value})

    # -- the vocabulary ---------------------------------------------------------------------

    def dense(self, x: Tensor, name: str, units: int) -> Tensor:
        """Gemm, or MatMul and Add where there are more than two dimensions."""
        traced = self.tracer.dense(x.traced, name, units)
        kernel = self._rows(name, x.traced.dimensions[-1])
        bias = self.as_is(f"{name}/bias")
        if len(x.traced.dimensions) == 2:
            return Tensor(self.node("Gemm", x, kernel, bias), traced)
        return Tensor(self.node("Add", self.node("MatMul", x, kernel), bias), traced)

    def _rows(self, name: str, features: Dimension) -> str:
        """Add a dense kernel; its rows have the order of a flattened image."""
        order, sizes = axes_order(features.factors), [size for _, size in features.factors]
        if order == sorted(order):
            return self.as_is(f"{name}/kernel")
        key, last = f"{name}/kernel", len(order)
        value = self.parameters[key]
        turned = value.reshape(*sizes, -1).transpose(*order, last)

        def back(held: Constants) -> Constants:
            spread = held.reshape(turned.shape).transpose(*np.argsort(order), last)
            return spread.reshape(value.shape)

        return self.held(key, turned.reshape(value.shape), **{key: back})

    def conv2d(
        self,
        x: Tensor,
        name: str,
        filters: int,
        *,
        window: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> Tensor:
        """Conv, kernel (out, in, height, width)."""
        traced = self.tracer.conv2d(
            x.traced, name, filters, window=window, stride=stride, padding=padding, bias=bias
        )
        kernel = self._kernel(name, (3, 2, 0, 1))
        biases = (self.as_is(f"{name}/bias"),) if bias else ()
        out = self.node("Conv", x, kernel, *biases, **_window(window, stride, padding))
        return Tensor(out, traced)

    def conv2d_transpose(
        self, x: Tensor, name: str, filters: int, *, window: int, stride: int, padding: int
    ) -> Tensor:
        """ConvTranspose, kernel (in, out, height, width)."""
        traced = self.tracer.conv2d_transpose(
            x.traced, name, filters, window=window, stride=stride, padding=padding
        )
        kernel = self._kernel(name, (2, 3, 0, 1))
        out = self.node("ConvTranspose", x, kernel, **_window(window, stride, padding))
        return Tensor(out, traced)

    def _kernel(self, name: str, order: tuple[int, ...]) -> str:
        key = f"{name}/kernel"
        back = tuple(int(axis) for axis in np.argsort(order))
        value = self.parameters[key].transpose(order)
        return self.held(key, value, **{key: lambda kernel: kernel.transpose(back)})

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        """BatchNormalization of inference."""
        traced = self.tracer.batch_norm(x.traced, name)
        held = [self.as_is(f"{name}/{key}") for key in ("scale", "bias", "mean", "variance")]
        out = self.node("BatchNormalization", x, *held, epsilon=BATCH_NORM_EPSILON)
        return Tensor(out, traced)

    def layer_norm(self, x: Tensor, name: str, *, epsilon: float) -> Tensor:
        """LayerNormalization over the last dimension."""
        traced = self.tracer.layer_norm(x.traced, name, epsilon=epsilon)
        held = [self.as_is(f"{name}/{key}") for key in ("scale", "bias")]
        return Tensor(self.node("LayerNormalization", x, *held, epsilon=epsilon), traced)

    def embed(self, ids: Tensor, name: str, *, count: int, width: int) -> Tensor:
        """Gather."""
        traced = self.tracer.embed(ids.traced, name, count=count, width=width)
        return Tensor(self.node("Gather", self.as_is(f"{name}/embedding"), ids), traced)

    def first_embeddings(self, like: Tensor, name: str, *, count: int) -> Tensor:
        """Slice of a known length."""
        traced = self.tracer.first_embeddings(like.traced, name, count=count)
        table, ends = self.as_is(f"{name}/embedding"), self.constant([traced.dimensions[0].size])
        return Tensor(self.node("Slice", table, self.constant([0]), ends), traced)

    def real(self, tokens: Tensor) -> Tensor:
        """Greater than 0."""
        zero = self.constant(0, np.int32)
        return Tensor(self.node("Greater", tokens, zero), self.tracer.real(tokens.traced))

    def sinusoids(self, like: Tensor, *, position: Tensor | int = 0, count: int = 0) -> Tensor:
        """Slice of the table."""
        traced = self.tracer.sinusoids(like.traced)
        time, width = (dimension.size for dimension in traced.dimensions)
        table, count = "sinusoids", count or time
        self.initializers[table] = np.asarray(sinusoid_table(count, width), np.float32)
        if not isinstance(position, Tensor):
            ends = self.constant([time])
            return Tensor(self.node("Slice", table, self.constant([0]), ends), traced)
        axes = self.constant([0])
        begins = self.node("Unsqueeze", position, axes)
        ends = self.node("Add", begins, self.constant([time]))
        return Tensor(self.node("Slice", table, begins, ends, axes), traced)

    def project_to_embedding(self, x: Tensor, name: str, *, bias: str = "") -> Tensor:
        """MatMul with the transposed table."""
        traced = self.tracer.project_to_embedding(x.traced, name, bias=bias)
        table = self.node("Transpose", self.as_is(f"{name}/embedding"), perm=[1, 0])
        out = self.node("MatMul", x, table)
        return Tensor(self.node("Add", out, self.as_is(f"{bias}/bias")) if bias else out, traced)

    def recurrent(self, x: Tensor, lengths: Tensor, name: str, *, units: int, cell: str) -> Tensor:
        """RNN, LSTM or GRU with the lengths of the sequences; its last state."""
        traced = self.tracer.recurrent(x.traced, lengths.traced, name, units=units, cell=cell)
        order = GATE_ORDERS[cell]

        def gates(value: Constants) -> Constants:
            """Sort the gates, (..., gates), in the order of ONNX."""
            split = value.reshape(*value.shape[:-1], len(order), units)
            return split[..., list(order), :].reshape(value.shape)

        def back(value: Constants) -> Constants:
            split = value.reshape(*value.shape[:-1], len(order), units)
            return split[..., [int(g) for g in np.argsort(order)], :].reshape(value.shape)

        def kernel(key: str) -> str:
            value = gates(self.parameters[key]).T[None]
            return self.held(key, value, **{key: lambda held: back(held[0].T)})

        bias = gates(self.parameters[f"{name}/bias"])
        if cell == "gru":
            more = {f"{name}/recurrent_bias": lambda held: back(held[0, bias.size :])}
            from_state = gates(self.parameters[f"{name}/recurrent_bias"])
            reset_after = {"linear_before_reset": 1}
        else:
            more, from_state, reset_after = {}, np.zeros_like(bias), {}
        biases = self.held(
            f"{name}/bias",
            np.concatenate((bias, from_state))[None],
            **{f"{name}/bias": lambda held: back(held[0, : bias.size])},
            **more,
        )
        steps = self.node("Transpose", x, perm=[1, 0, 2])
        kernels = kernel(f"{name}/kernel"), kernel(f"{name}/recurrent_kernel")
        out = self.node(
            cell.upper(),
            steps,
            *kernels,
            biases,
            lengths,
            outputs=2,
            hidden_size=units,
            **reset_after,
        )
        return Tensor(self.node("Squeeze", out, self.constant([0])), traced)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        heads: int,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attention: softmax of the scaled products over the keys that count."""
        traced = self.tracer.attention(
            query.traced, key.traced, value.traced, heads=heads, causal=causal
        )
        seen = None
        if mask is not None:
            real = self.node("Cast", mask, to=TensorProto.BOOL)
            seen = self.node("Unsqueeze", real, self.constant([1, 2]))
        if causal:
            time = query.traced.dimensions[1].size
            earlier = self.constant(np.tri(time, dtype=bool), bool)
            seen = earlier if seen is None else self.node("And", seen, earlier)
        return Tensor(self._attend(query, key, value, heads, seen), traced)

    def _attend(
        self, query: Tensor, key: Tensor | str, value: Tensor | str, heads: int, seen: str | None
    ) -> str:
        width = query.traced.dimensions[-1].size
        split = self.constant([0, 0, heads, width // heads])

        def by_heads(x: Tensor | str, perm: Sequence[int]) -> str:
            return self.node("Transpose", self.node("Reshape", x, split), perm=perm)

        # The query is scaled, because the products are larger.
        factor = self.constant((width // heads) ** -0.5, np.float32)
        queries = by_heads(self.node("Mul", query, factor), [0, 2, 1, 3])
        scores = self.node("MatMul", queries, by_heads(key, [0, 2, 3, 1]))
        if seen is not None:
            hidden = self.constant(np.finfo(np.float32).min, np.float32)
            scores = self.node("Where", seen, scores, hidden)
        weights = self.node("Softmax", scores, axis=-1)
        out = self.node("MatMul", weights, by_heads(value, [0, 2, 1, 3]))
        together = self.node("Transpose", out, perm=[0, 2, 1, 3])
        return self.node("Reshape", together, self.constant([0, 0, width]))

    def max_pool2d(
        self, x: Tensor, *, window: int, stride: int = 0, padding: int = 0, ceil: bool = False
    ) -> Tensor:
        """MaxPool."""
        traced = self.tracer.max_pool2d(
            x.traced, window=window, stride=stride, padding=padding, ceil=ceil
        )
        about = _window(window, stride or window, padding)
        return Tensor(self.node("MaxPool", x, ceil_mode=int(ceil), **about), traced)

    def mean_pool2d(self, x: Tensor) -> Tensor:
        """GlobalAveragePool."""
        pooled = self.node("GlobalAveragePool", x)
        return Tensor(self.node("Flatten", pooled), self.tracer.mean_pool2d(x.traced))

    def adaptive_mean_pool2d(self, x: Tensor, side: int) -> Tensor:
        """AveragePool where all windows are equal, else a product with weights for each side.

        ONNX has no adaptive pooling.
        """
        traced = self.tracer.adaptive_mean_pool2d(x.traced, side)
        height, width = x.shape[1:3]
        if height % side == 0 and width % side == 0:
            sides = [height // side, width // side]
            return Tensor(self.node("AveragePool", x, kernel_shape=sides, strides=sides), traced)
        rows, columns = (adaptive_weights(size, side) for size in (height, width))
        pooled = self.node("MatMul", self.constant(rows, np.float32), x)
        return Tensor(self.node("MatMul", pooled, self.constant(columns.T, np.float32)), traced)

    def relu(self, x: Tensor) -> Tensor:
        """Relu."""
        return self._each("Relu", x)

    def leaky_relu(self, x: Tensor, slope: float) -> Tensor:
        """LeakyRelu."""
        return self._each("LeakyRelu", x, alpha=slope)

    def gelu(self, x: Tensor) -> Tensor:
        """Gelu, exact."""
        return self._each("Gelu", x, approximate="none")

    def gelu_tanh(self, x: Tensor) -> Tensor:
        """Gelu by tanh."""
        return self._each("Gelu", x, approximate="tanh")

    def tanh(self, x: Tensor) -> Tensor:
        """Tanh."""
        return self._each("Tanh", x)

    def exp(self, x: Tensor) -> Tensor:
        """Exp."""
        return self._each("Exp", x)

    def _each(self, operator: str, x: Tensor, **attributes: Any) -> Tensor:
        return Tensor(self.node(operator, x, **attributes), TracedArray(x.traced.dimensions))

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """Mul by a constant."""
        return Tensor(self.node("Mul", x, self.constant(factor, np.float32)), x.traced)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Add."""
        return Tensor(self.node("Add", x, y), self.tracer.add(x.traced, y.traced))

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Mul."""
        return Tensor(self.node("Mul", x, y), self.tracer.multiply(x.traced, y.traced))

    def normalize(self, x: Tensor) -> Tensor:
        """Div by ReduceL2."""
        norm = self.node("ReduceL2", x, self.constant([-1]), keepdims=1)
        return Tensor(self.node("Div", x, norm), self.tracer.normalize(x.traced))

    def match(self, x: Tensor, y: Tensor) -> Tensor:
        """MatMul with the transposed rows."""
        traced = self.tracer.match(x.traced, y.traced)
        return Tensor(self.node("MatMul", x, self.node("Transpose", y, perm=[1, 0])), traced)

    def concatenate(self, *arrays: Tensor) -> Tensor:
        """Concat along the last dimension, which is the second one of images in ONNX."""
        traced = self.tracer.concatenate(*(array.traced for array in arrays))
        axis = 1 if len(traced.dimensions) == 4 else -1
        return Tensor(self.node("Concat", *arrays, axis=axis), traced)

    def take(self, x: Tensor, positions: Tensor) -> Tensor:
        """GatherND within each example."""
        traced = self.tracer.take(x.traced, positions.traced)
        indices = self.node("Cast", positions, to=TensorProto.INT64)
        indices = self.node("Unsqueeze", indices, self.constant([2]))
        return Tensor(self.node("GatherND", x, indices, batch_dims=1), traced)

    def first(self, x: Tensor) -> Tensor:
        """Gather of the first position."""
        return Tensor(self.node("Gather", x, self.constant(0), axis=1), self.tracer.first(x.traced))

    def flatten(self, x: Tensor) -> Tensor:
        """Flatten; the rows of a dense kernel after it have the order of the image in ONNX."""
        return Tensor(self.node("Flatten", x), self.tracer.flatten(x.traced))

    # -- decoding with a key-value cache ----------------------------------------------------

    def cached_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        heads: int,
        position: Tensor,
        cache: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, tuple[str, str]]:
        """Causal attention of new positions over the cache and themselves, and the new cache."""
        keys, values = (
            self.node("Concat", old, new, axis=1)
            for old, new in zip(cache, (key, value), strict=True)
        )
        zero, one = self.constant(0), self.constant(1)
        total = self.node("Gather", self.node("Shape", keys), one)
        columns = self.node("Range", zero, total, one)
        rows = self.node("Unsqueeze", self.node("Range", position, total, one), one)
        seen = self.node("LessOrEqual", columns, rows)
        out = self._attend(query, keys, values, heads, seen)
        return Tensor(out, query.traced), (keys, values)

    def embeddings_from(self, name: str, position: Tensor, time: Tensor) -> Tensor:
        """Slice of the rows from ``position`` on."""
        table = self.as_is(f"{name}/embedding")
        end = self.node("Add", position, time)
        axes = self.constant([0])
        begins, ends = (self.node("Unsqueeze", bound, axes) for bound in (position, end))
        width = self.parameters[f"{name}/embedding"].shape[1]
        dimensions = (
            Dimension("time", (("time", 1),)),
            Dimension("channel", (("channel", width),)),
        )
        return Tensor(self.node("Slice", table, begins, ends, axes), TracedArray(dimensions))

    def last(self, x: Tensor) -> Tensor:
        """Gather of the last position."""
        out = self.node("Gather", x, self.constant(-1), axis=1)
        return Tensor(out, self.tracer.first(x.traced))

    def most_likely(self, logits: Tensor) -> str:
        """ArgMax."""
        tokens = self.node("ArgMax", logits, axis=-1, keepdims=0)
        return self.node("Cast", tokens, to=TensorProto.INT32)


def _window(window: int, stride: int, padding: int) -> dict[str, Any]:
    return {
        "kernel_shape": [window] * 2,
        "strides": [stride] * 2,
        "pads": [padding] * 4,
    }


def axes_order(factors: Sequence[tuple[str, int]]) -> list[int]:
    """Return the order of the axes in ONNX."""
    names = [name for name, _ in factors]
    return [names.index(name) for name in IMAGES.get(tuple(names), names)]
