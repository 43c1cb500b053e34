"""What a forward declares without computing it: parameters, shapes, operations and bytes.

Operations: two per multiply-add of dense and convolution layers ("matrix" operations), one per
element for everything else ("elementwise"). The backward pass of a matrix operation costs one
product for the kernel's gradient and one for the input's gradient, except that nothing needs the
gradient of the model's own inputs (Griewank and Walther 2008, section 3.2, specialised).
Bytes are minimal: parameters and inputs read once, outputs written once, in float32; a training
step also writes the gradients, and reads and writes parameters and optimiser state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from reference.spec import ArraySpec, Dimension, Model, dimension


@dataclass(frozen=True)
class TracedArray:
    """An array without values. ``is_input`` marks the arrays whose gradient nobody needs."""

    dimensions: tuple[Dimension, ...]
    is_input: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(each.size for each in self.dimensions)


@dataclass
class Tracer:
    """The third implementation of the layer namespace: it collects instead of computing."""

    parameters: dict[str, ArraySpec] = field(default_factory=dict)
    forward_matrix_operations: int = 0
    backward_matrix_operations: int = 0
    elementwise_operations: int = 0

    def _parameter(self, name: str, *dimensions: Dimension) -> None:
        if name in self.parameters:
            raise ValueError(f"two layers declare the parameter '{name}'")
        self.parameters[name] = ArraySpec(name, dimensions)

    def _matrix(self, x: TracedArray, operations: int) -> None:
        self.forward_matrix_operations += operations
        self.backward_matrix_operations += operations * (1 if x.is_input else 2)

    def dense(self, x: TracedArray, name: str, units: int) -> TracedArray:
        """Declares kernel (in, out) and bias (out,)."""
        batch, features = x.dimensions
        out = dimension("out", units)
        factors = features.factors if len(features.factors) > 1 else (("in", features.size),)
        self._parameter(f"{name}/kernel", Dimension("in", factors), out)
        self._parameter(f"{name}/bias", out)
        self._matrix(x, 2 * batch.size * features.size * units)
        self.elementwise_operations += batch.size * units
        return TracedArray((batch, out))

    def conv2d(
        self, x: TracedArray, name: str, filters: int, window: int, padding: int = 0
    ) -> TracedArray:
        """Declares kernel (height, width, in, out) and bias (out,)."""
        batch, height, width, channel = x.dimensions
        side = (dimension("height", window), dimension("width", window))
        out = dimension("out", filters)
        self._parameter(f"{name}/kernel", *side, dimension("in", channel.size), out)
        self._parameter(f"{name}/bias", out)
        result = TracedArray(
            (
                batch,
                dimension("height", height.size + 2 * padding - window + 1),
                dimension("width", width.size + 2 * padding - window + 1),
                dimension("channel", filters),
            )
        )
        self._matrix(x, 2 * result.size * window * window * channel.size)
        self.elementwise_operations += result.size
        return result

    def max_pool2d(self, x: TracedArray, window: int) -> TracedArray:
        """(batch, height, width, channel) -> height and width divided by the window."""
        batch, height, width, channel = x.dimensions
        self.elementwise_operations += x.size
        rows = dimension("height", height.size // window)
        columns = dimension("width", width.size // window)
        return TracedArray((batch, rows, columns, channel))

    def relu(self, x: TracedArray) -> TracedArray:
        """Keeps the shape."""
        self.elementwise_operations += x.size
        return TracedArray(x.dimensions)

    def flatten(self, x: TracedArray) -> TracedArray:
        """Keeps the names of the axes that were flattened, in order."""
        batch, *rest = x.dimensions
        factors = tuple(factor for each in rest for factor in each.factors)
        return TracedArray((batch, Dimension("in", factors)), x.is_input)

    def softmax_cross_entropy(self, logits: TracedArray, labels: TracedArray) -> TracedArray:
        """(batch, classes), (batch,) -> ()."""
        self.elementwise_operations += 3 * logits.size
        return TracedArray(())


@dataclass(frozen=True)
class Summary:
    """What a model is and costs at one preset and batch; operations and bytes are per step."""

    inputs: tuple[ArraySpec, ...]
    parameters: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    parameter_count: int
    inference_operations: int
    training_operations: int
    elementwise_operations: int
    inference_bytes: int
    training_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Axes, shapes and counts as plain values."""

        def arrays(specs: tuple[ArraySpec, ...]) -> dict[str, Any]:
            return {s.name: {"axes": list(s.axes), "shape": list(s.shape)} for s in specs}

        return {
            "inputs": arrays(self.inputs),
            "parameters": arrays(self.parameters),
            "outputs": arrays(self.outputs),
            "parameter_count": self.parameter_count,
            "inference_operations": self.inference_operations,
            "training_operations": self.training_operations,
            "elementwise_operations": self.elementwise_operations,
            "inference_bytes": self.inference_bytes,
            "training_bytes": self.training_bytes,
        }


def summarize(model: Model, preset: str, batch: int) -> Summary:
    """Trace the model once. Training counts forward, backward and plain SGD's update."""
    sizes = model.sizes(preset)
    inputs = model.inputs(sizes, batch)
    tracer = Tracer()
    arrays: Mapping[str, TracedArray] = {
        spec.name: TracedArray(spec.dimensions, is_input=True) for spec in inputs
    }
    outputs = model.forward(tracer, sizes, arrays)
    named = tuple(ArraySpec(name, each.dimensions) for name, each in outputs.items())
    forward_elementwise = tracer.elementwise_operations
    for objective in model.objectives:
        getattr(tracer, objective.loss)(outputs[objective.output], arrays[objective.target])
    parameters = tuple(tracer.parameters.values())
    count = sum(spec.size for spec in parameters)
    # Targets are read only where there is a loss; every element is 4 bytes.
    targets = {objective.target for objective in model.objectives}
    read = sum(spec.size for spec in inputs if spec.name not in targets)
    labels = sum(spec.size for spec in inputs if spec.name in targets)
    written = sum(spec.size for spec in named)
    return Summary(
        inputs=inputs,
        parameters=parameters,
        outputs=named,
        parameter_count=count,
        inference_operations=tracer.forward_matrix_operations,
        training_operations=tracer.forward_matrix_operations + tracer.backward_matrix_operations,
        elementwise_operations=forward_elementwise,
        inference_bytes=4 * (count + read + written),
        training_bytes=4 * (3 * count + read + labels),
    )
