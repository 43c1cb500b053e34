"""Counts the parameters, shapes, operations and bytes of a forward without computing it.

Operations: two per multiply-add of dense, convolution, recurrent and attention layers ("matrix"
operations), one per element for everything else ("elementwise"). The backward pass of a matrix
operation costs one product for the gradient of each factor. The gradient of the model's own inputs
is not needed (Griewank and Walther 2008, section 3.2, specialised).

Bytes are minimal: parameters and inputs are read once and outputs are written once, in float32. A
training step also writes the gradients, and reads and writes parameters and optimiser state. If a
table of embeddings is only looked up, a step reads as many rows as it has ids, and at most the
whole table. Plain SGD moves no other row. Under momentum and Adam every row moves by the pinned
formula (reference.optimizers), with a gradient of zero in rows without an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from reference.spec import (
    GATE_COUNTS,
    Array,
    ArraySpec,
    Dimension,
    Model,
    Objective,
    dimension,
)


@dataclass(frozen=True)
class TracedArray:
    """An array without values. ``is_input`` marks the arrays whose gradient is not needed."""

    dimensions: tuple[Dimension, ...]
    is_input: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(each.size for each in self.dimensions)


@dataclass
class Tracer:
    """The third implementation of the layer namespace: it counts and does not compute.

    A layer that is called again under its name shares its parameters. ``rows``: for every table
    that is only looked up, the largest number of rows that are.
    """

    parameters: dict[str, ArraySpec] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    state: dict[str, ArraySpec] = field(default_factory=dict)
    forward_matrix_operations: int = 0
    backward_matrix_operations: int = 0
    elementwise_operations: int = 0

    def _parameter(self, name: str, *dimensions: Dimension) -> None:
        spec = ArraySpec(name, dimensions)
        if self.parameters.setdefault(name, spec) != spec:
            raise ValueError(f"two layers declare the parameter '{name}' with different shapes")

    def _look_up(self, name: str, count: int, width: int, ids: int) -> None:
        """Declare a table, (vocabulary, width), of which ``ids`` rows are read."""
        self._parameter(name, dimension("vocabulary", count), dimension("width", width))
        self.rows[name] = min(count, self.rows.get(name, 0) + ids)

    def touched(self) -> dict[str, int]:
        """The number of elements of each parameter that are read and have a gradient."""
        return {
            name: spec.size // spec.shape[0] * self.rows[name] if name in self.rows else spec.size
            for name, spec in self.parameters.items()
        }

    def _matrix(self, x: TracedArray, operations: int) -> None:
        self.forward_matrix_operations += operations
        self.backward_matrix_operations += operations * (1 if x.is_input else 2)

    def _each(self, x: TracedArray, operations: int = 1) -> TracedArray:
        """Count an elementwise layer."""
        self.elementwise_operations += operations * x.size
        return TracedArray(x.dimensions)

    def dense(self, x: TracedArray, name: str, units: int) -> TracedArray:
        """Declare kernel (in, out) and bias (out,)."""
        *leading, features = x.dimensions
        out = dimension("out", units)
        factors = features.factors if len(features.factors) > 1 else (("in", features.size),)
        self._parameter(f"{name}/kernel", Dimension("in", factors), out)
        self._parameter(f"{name}/bias", out)
        self._matrix(x, 2 * x.size * units)
        return self._each(TracedArray((*leading, out)))

    def conv2d(
        self,
        x: TracedArray,
        name: str,
        filters: int,
        *,
        window: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> TracedArray:
        """Declare kernel (height, width, in, out) and bias (out,)."""
        batch, height, width, channel = x.dimensions
        side = (dimension("height", window), dimension("width", window))
        out = dimension("out", filters)
        self._parameter(f"{name}/kernel", *side, dimension("in", channel.size), out)
        result = TracedArray(
            (
                batch,
                dimension("height", (height.size + 2 * padding - window) // stride + 1),
                dimension("width", (width.size + 2 * padding - window) // stride + 1),
                dimension("channel", filters),
            )
        )
        self._matrix(x, 2 * result.size * window * window * channel.size)
        if not bias:
            return result
        self._parameter(f"{name}/bias", out)
        return self._each(result)

    def conv2d_transpose(
        self, x: TracedArray, name: str, filters: int, *, window: int, stride: int, padding: int
    ) -> TracedArray:
        """Declare kernel (up_height, up_width, in, out)."""
        batch, height, width, channel = x.dimensions
        side = (dimension("up_height", window), dimension("up_width", window))
        kernel = (*side, dimension("in", channel.size), dimension("out", filters))
        self._parameter(f"{name}/kernel", *kernel)
        self._matrix(x, 2 * x.size * window * window * filters)
        return TracedArray(
            (
                batch,
                dimension("height", (height.size - 1) * stride + window - 2 * padding),
                dimension("width", (width.size - 1) * stride + window - 2 * padding),
                dimension("channel", filters),
            )
        )

    def batch_norm(self, x: TracedArray, name: str) -> TracedArray:
        """Declare scale and bias, and the state mean and variance."""
        channel = dimension("out", x.dimensions[-1].size)
        for key in ("scale", "bias"):
            self._parameter(f"{name}/{key}", channel)
        for key in ("mean", "variance"):
            self.state[f"{name}/{key}"] = ArraySpec(f"{name}/{key}", (channel,))
        return self._each(x, 4)

    def layer_norm(self, x: TracedArray, name: str, *, epsilon: float) -> TracedArray:
        """Declare scale and bias."""
        for key in ("scale", "bias"):
            self._parameter(f"{name}/{key}", dimension("out", x.dimensions[-1].size))
        return self._each(x, 8)

    def embed(self, ids: TracedArray, name: str, *, count: int, width: int) -> TracedArray:
        """Declare embedding (vocabulary, width)."""
        self._look_up(f"{name}/embedding", count, width, ids.size)
        return TracedArray((*ids.dimensions, dimension("channel", width)))

    def first_embeddings(self, like: TracedArray, name: str, *, count: int) -> TracedArray:
        """Declare embedding (vocabulary, width)."""
        _, time, width = like.dimensions
        self._look_up(f"{name}/embedding", count, width.size, time.size)
        return TracedArray((time, width))

    def project_to_embedding(self, x: TracedArray, name: str, *, bias: str = "") -> TracedArray:
        """Declare the bias (out,); the table has been declared already."""
        vocabulary, width = self.parameters[f"{name}/embedding"].shape
        self.rows[f"{name}/embedding"] = vocabulary
        out = dimension("out", vocabulary)
        self._matrix(x, 2 * x.size // width * width * vocabulary)
        result = TracedArray((*x.dimensions[:-1], out))
        if not bias:
            return result
        self._parameter(f"{bias}/bias", out)
        return self._each(result)

    def recurrent(
        self, x: TracedArray, lengths: TracedArray, name: str, *, units: int, cell: str
    ) -> TracedArray:
        """Declare kernel (in, gates), recurrent_kernel (units, gates) and bias (gates,)."""
        batch, time, features = x.dimensions
        gates = Dimension("out", ((f"{cell}_gate", GATE_COUNTS[cell]), ("unit", units)))
        self._parameter(f"{name}/kernel", dimension("in", features.size), gates)
        self._parameter(f"{name}/recurrent_kernel", dimension("in", units), gates)
        self._parameter(f"{name}/bias", gates)
        if cell == "gru":
            self._parameter(f"{name}/recurrent_bias", gates)
        self._matrix(x, 2 * x.size * gates.size)
        states = TracedArray((batch, time, dimension("out", units)))
        self._matrix(states, 2 * states.size * gates.size)
        self._each(TracedArray((batch, time, gates)), 4)
        return TracedArray((batch, dimension("out", units)))

    def attention(
        self,
        query: TracedArray,
        key: TracedArray,
        value: TracedArray,
        *,
        heads: int,
        mask: TracedArray | None = None,
        causal: bool = False,
    ) -> TracedArray:
        """Count two products per head, including the part that a causal mask would save."""
        batch, time, width = query.dimensions
        products = batch.size * time.size * key.dimensions[1].size
        # Both factors of both products have gradients.
        self._matrix(query, 2 * 2 * products * width.size)
        self.elementwise_operations += 4 * products * heads
        return TracedArray(query.dimensions)

    def max_pool2d(
        self, x: TracedArray, *, window: int, stride: int = 0, padding: int = 0
    ) -> TracedArray:
        """(batch, height, width, channel) -> fewer rows and columns."""
        batch, height, width, channel = x.dimensions
        step = stride or window
        self.elementwise_operations += x.size
        rows = dimension("height", (height.size + 2 * padding - window) // step + 1)
        columns = dimension("width", (width.size + 2 * padding - window) // step + 1)
        return TracedArray((batch, rows, columns, channel))

    def mean_pool2d(self, x: TracedArray) -> TracedArray:
        """(batch, height, width, channel) -> (batch, channel)."""
        self.elementwise_operations += x.size
        return TracedArray((x.dimensions[0], x.dimensions[3]))

    def relu(self, x: TracedArray) -> TracedArray:
        """Keep the shape."""
        return self._each(x)

    def leaky_relu(self, x: TracedArray, slope: float) -> TracedArray:
        """Keep the shape."""
        return self._each(x)

    def gelu(self, x: TracedArray) -> TracedArray:
        """Keep the shape."""
        return self._each(x)

    gelu_tanh = tanh = exp = gelu

    def scale(self, x: TracedArray, factor: float) -> TracedArray:
        """Keep the shape."""
        return self._each(x)

    def add(self, x: TracedArray, y: TracedArray) -> TracedArray:
        """Return the shape of the larger array."""
        return self._each(max(x, y, key=lambda each: len(each.dimensions)))

    multiply = add

    def concatenate(self, x: TracedArray, y: TracedArray) -> TracedArray:
        """Add the widths."""
        *leading, first = x.dimensions
        width = dimension("channel", first.size + y.dimensions[-1].size)
        return TracedArray((*leading, width))

    def take(self, x: TracedArray, positions: TracedArray) -> TracedArray:
        """(batch, time, width), (batch, count) -> (batch, count, width)."""
        return TracedArray((*positions.dimensions, x.dimensions[-1]))

    def first(self, x: TracedArray) -> TracedArray:
        """(batch, time, width) -> (batch, width)."""
        batch, _, width = x.dimensions
        return TracedArray((batch, width))

    def flatten(self, x: TracedArray) -> TracedArray:
        """Keep the names of the axes that were flattened, in order."""
        batch, *rest = x.dimensions
        factors = tuple(factor for each in rest for factor in each.factors)
        return TracedArray((batch, Dimension("in", factors)), x.is_input)

    def _loss(self, *arrays: TracedArray) -> TracedArray:
        self.elementwise_operations += 3 * arrays[0].size
        return TracedArray(())

    softmax_cross_entropy = binary_cross_entropy = evidence_lower_bound = _loss
    real_and_fake = fooled = _loss


class _Read(Mapping[str, Array]):
    """A mapping that remembers which of its names were asked for."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays, self.asked = arrays, set[str]()

    def __getitem__(self, name: str) -> Array:
        self.asked.add(name)
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


@dataclass(frozen=True)
class Summary:
    """Arrays and costs of a model at one preset and batch; operations and bytes are per step.

    ``used`` names the inputs that inference reads, ``held`` the parameters and statistics that it
    reads. ``touched_count``: the number of parameter elements whose gradient a training step
    computes. These are all elements except the rows of tables that no id names. ``training_bytes``
    are those of plain SGD. ``generation_operations`` and ``generation_bytes`` are those of decoding
    all tokens with a cache, and 0 where nothing is generated. The bytes of the cache are not
    counted.
    """

    inputs: tuple[ArraySpec, ...]
    used: tuple[str, ...]
    held: tuple[str, ...]
    parameters: tuple[ArraySpec, ...]
    state: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    parameter_count: int
    touched_count: int
    inference_operations: int
    training_operations: int
    generation_operations: int
    elementwise_operations: int
    inference_bytes: int
    training_bytes: int
    generation_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return axes, shapes and counts as plain values."""

        def arrays(specs: tuple[ArraySpec, ...]) -> dict[str, Any]:
            return {s.name: {"axes": list(s.axes), "shape": list(s.shape)} for s in specs}

        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        kinds = ("inputs", "parameters", "state", "outputs")
        return {**{kind: arrays(getattr(self, kind)) for kind in kinds}, **counts}


def summarize(model: Model, preset: str, batch: int) -> Summary:
    """Trace the model once. Training counts forward, backward and plain SGD's update."""
    sizes = model.sizes(preset)
    inputs = model.inputs(sizes, batch)
    arrays = {spec.name: TracedArray(spec.dimensions, is_input=True) for spec in inputs}
    tracer, read = Tracer(), _Read(arrays)
    outputs = model.forward(tracer, sizes, read)
    named = tuple(ArraySpec(name, each.dimensions) for name, each in outputs.items())
    steps = [_objective(model, objective, sizes, arrays) for objective in model.objectives]
    declared = dict(tracer.parameters)
    state = dict(tracer.state)
    for step in steps:
        declared.update(step.parameters)
        state.update(step.state)
    count = sum(spec.size for spec in declared.values())
    held = sum(tracer.touched().values()) + sum(spec.size for spec in tracer.state.values())
    touched = sum(max(step.touched().get(name, 0) for step in steps) for name in declared)
    # Targets are read only where there is a loss; every element is 4 bytes.
    used = tuple(spec.name for spec in inputs if spec.name in read.asked)
    read_elements = sum(spec.size for spec in inputs if spec.name in used)
    all_elements = sum(spec.size for spec in inputs)
    written = sum(spec.size for spec in named)
    generation_operations, generation_bytes = _generation(model, preset, batch)
    return Summary(
        inputs=inputs,
        used=used,
        held=(*tracer.parameters, *tracer.state),
        parameters=tuple(declared.values()),
        state=tuple(state.values()),
        outputs=named,
        parameter_count=count,
        touched_count=touched,
        inference_operations=tracer.forward_matrix_operations,
        training_operations=sum(
            each.forward_matrix_operations + each.backward_matrix_operations for each in steps
        ),
        generation_operations=generation_operations,
        elementwise_operations=tracer.elementwise_operations,
        inference_bytes=4 * (held + read_elements + written),
        training_bytes=4 * (3 * touched + 2 * sum(s.size for s in state.values()) + all_elements),
        generation_bytes=generation_bytes,
    )


def _objective(
    model: Model, objective: Objective, sizes: Mapping[str, Any], arrays: Mapping[str, TracedArray]
) -> Tracer:
    tracer = Tracer()
    outputs = (objective.forward or model.forward)(tracer, sizes, arrays)
    targets = (arrays[name] for name in objective.targets)
    getattr(tracer, objective.loss)(*(outputs[name] for name in objective.outputs), *targets)
    return tracer


def _generation(model: Model, preset: str, batch: int) -> tuple[int, int]:
    """Count (operations, bytes) of the prompt once and every further token, with a cache.

    Every token reads the parameters and the rows of one position again.
    """
    if model.generation is None:
        return 0, 0
    sizes = model.sizes(preset)
    (prompt,) = (s for s in model.inputs(sizes, batch) if s.name == model.generation.prompt)
    rows, time = prompt.dimensions

    def traced(length: int) -> Tracer:
        tracer = Tracer()
        tokens = TracedArray((rows, replace(time, factors=(("time", length),))), is_input=True)
        model.generation.logits(tracer, sizes, tokens)  # type: ignore[union-attr]
        return tracer

    count = model.generation.count(sizes)
    operations = traced(time.size + count - 1).forward_matrix_operations
    return operations, count * 4 * sum(traced(1).touched().values())
