"""Counts the parameters, shapes, operations and bytes of a forward without computing it.

A traced forward is a graph of arrays. Costs follow from the rows of its outputs that are needed:
each array says which rows of its sources these rows need. All counts are thus minimal, because the
roofline check refuses an arm that is faster than they allow. Not counted:

* arrays on which no output depends, or no loss in training (the pooler of BERT);
* positions that nothing reads: those beyond a sequence's length, and those of a last layer whose
  output is read elsewhere only (of a prompt, only the last position has logits);
* keys that a causal mask hides, and the zeros of padding in a convolution;
* the product of a recurrent layer with its first state, which is zero;
* a generator that a second objective of the same step runs again, because no update came between.

A product is counted as it is defined. Algorithms that rewrite it (Strassen's, Winograd's) or merge
two layers into one may do with less.

Operations: two per multiply-add of dense, convolution, recurrent and attention layers ("matrix"
operations), one per element for everything else ("elementwise"). The backward pass of a product
costs one product for the gradient of each factor that depends on a trained parameter. The gradient
of the model's own inputs is not needed (Griewank and Walther 2008, section 3.2, specialised). Nor
is the gradient of a parameter that the objective does not train.

Bytes: parameters and inputs are read once and outputs are written once, in float32. A training step
also writes the parameters that it trains, and reads and writes the optimiser's state. It need not
write gradients, because an update can use each one where it is computed. If a table of embeddings
is only looked up, a step reads as many rows as it has ids, and at most the whole table. (A row
counts again where an id repeats: how often that is depends on the draw.) Plain SGD moves no other
row. Under momentum and Adam every row moves by the pinned formula
(levelfield.reference.optimizers), with a gradient of zero in rows without an id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.reference.spec import GATE_COUNTS, ArraySpec, Dimension, Model, Objective, dimension
from levelfield.reference.windows import window_count

MOST_ARRAYS = 100_000  # of one forward pass; a hundred times those of the deepest built-in model
RowMask = NDArray[np.bool_]  # which rows of an array are needed; its shape is ``TracedArray.rows``


@dataclass(frozen=True)
class Product:
    """A matrix product of two factors, each an array or the name of a parameter.

    ``operations`` gives the operations from the needed rows of the product. ``whole``: those of all
    rows, and also of padding and of pairs that a mask hides.
    """

    factors: tuple[TracedArray | str, TracedArray | str]
    operations: Callable[[RowMask], int]
    whole: int


@dataclass(frozen=True, eq=False)
class TracedArray:
    """An array without values, and the sources from which it is computed.

    ``reads`` gives the needed rows of each source from those of the array. ``parameters`` are read
    as a whole. Each row of the array reads one row of ``table``. ``elementwise`` is the number of
    elementwise operations for all rows. ``index`` marks an input of integers. ``lengths``: see
    :class:`levelfield.reference.spec.ArraySpec`.
    """

    dimensions: tuple[Dimension, ...]
    sources: tuple[TracedArray, ...] = ()
    reads: Callable[[RowMask], tuple[RowMask, ...]] | None = None
    parameters: tuple[str, ...] = ()
    table: str = ""
    product: Product | None = None
    elementwise: int = 0
    index: bool = False
    lengths: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(dimension.size for dimension in self.dimensions)

    @property
    def rows(self) -> tuple[int, ...]:
        """The parts that can be needed alone: examples and positions, or single integers.

        An example of an image is needed as a whole.
        """
        sizes = tuple(dimension.size for dimension in self.dimensions)
        if self.index:
            return sizes
        return sizes[:-1] if len(sizes) < 4 else sizes[:1]

    def whole(self) -> RowMask:
        """All rows."""
        return np.ones(self.rows, np.bool_)

    def needed_of_sources(self, rows: RowMask) -> tuple[RowMask, ...]:
        """The needed rows of each source: by default the same rows, summarised where broadcast."""
        if self.reads is not None:
            return self.reads(rows)
        axes = (tuple(range(rows.ndim - len(source.rows))) for source in self.sources)
        return tuple(np.any(rows, axis=leading, keepdims=False) for leading in axes)

    def part(self, rows: RowMask, amount: int) -> int:
        """The part of an amount, such as the elements of all rows, that falls to these rows."""
        return amount * int(rows.sum()) // rows.size

    def valid(self, batch: int, time: int) -> RowMask:
        """The positions within the lengths, (batch, time).

        Without stated lengths only one position of each example is sure to count.
        """
        lengths = self.lengths or (1,) * batch
        valid: RowMask = np.arange(time) < np.array(lengths)[:, None]
        return valid


def traced_input(spec: ArraySpec) -> TracedArray:
    """An input of a model."""
    return TracedArray(spec.dimensions, index=spec.classes is not None, lengths=spec.lengths)


@dataclass
class Tracer:
    """The third implementation of the layer namespace: it notes arrays and does not compute.

    A layer that is called again under its name shares its parameters. ``arrays`` are in the order
    in which they are made.
    """

    parameters: dict[str, ArraySpec] = field(default_factory=dict)
    state: dict[str, ArraySpec] = field(default_factory=dict)
    arrays: list[TracedArray] = field(default_factory=list)

    def _parameter(self, name: str, *dimensions: Dimension) -> str:
        spec = ArraySpec(name, dimensions)
        if self.parameters.setdefault(name, spec) != spec:
            raise ValueError(f"two layers declare the parameter '{name}' with different shapes")
        return name

    def _made(
        self, dimensions: tuple[Dimension, ...], *sources: TracedArray, **about: Any
    ) -> TracedArray:
        if len(self.arrays) == MOST_ARRAYS:
            raise ValueError(f"its layers make more than {MOST_ARRAYS:,} arrays")
        array = TracedArray(dimensions, sources, **about)
        self.arrays.append(array)
        return array

    def _each(self, x: TracedArray, operations: int = 1, **about: Any) -> TracedArray:
        """Note an elementwise layer."""
        return self._made(x.dimensions, x, elementwise=operations * x.size, **about)

    def _times(
        self,
        x: TracedArray,
        kernel: str,
        dimensions: tuple[Dimension, ...],
        operations: int,
        *,
        padding: int = 0,
        bias: str = "",
    ) -> TracedArray:
        """Note the product with a kernel, and the sum with a bias if there is one.

        ``operations``: of all rows. ``padding``: further operations, on zeros.
        """
        shape = TracedArray(dimensions)
        return self._made(
            dimensions,
            x,
            parameters=(kernel, bias) if bias else (kernel,),
            product=Product(
                (x, kernel), lambda rows: shape.part(rows, operations), operations + padding
            ),
            elementwise=shape.size if bias else 0,
        )

    def dense(self, x: TracedArray, name: str, units: int) -> TracedArray:
        """Declare kernel (in, out) and bias (out,)."""
        *leading, features = x.dimensions
        out = dimension("out", units)
        factors = features.factors if len(features.factors) > 1 else (("in", features.size),)
        kernel = self._parameter(f"{name}/kernel", Dimension("in", factors), out)
        bias = self._parameter(f"{name}/bias", out)
        return self._times(x, kernel, (*leading, out), 2 * x.size * units, bias=bias)

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
        kernel = self._parameter(f"{name}/kernel", *side, dimension("in", channel.size), out)
        dimensions = (
            batch,
            dimension("height", (height.size + 2 * padding - window) // stride + 1),
            dimension("width", (width.size + 2 * padding - window) // stride + 1),
            dimension("channel", filters),
        )
        operations, zeros = _windows(
            (height.size, width.size),
            window,
            stride,
            padding,
            2 * batch.size * channel.size * filters,
        )
        added = self._parameter(f"{name}/bias", out) if bias else ""
        return self._times(x, kernel, dimensions, operations, padding=zeros, bias=added)

    def conv2d_transpose(
        self, x: TracedArray, name: str, filters: int, *, window: int, stride: int, padding: int
    ) -> TracedArray:
        """Declare kernel (up_height, up_width, in, out)."""
        batch, height, width, channel = x.dimensions
        side = (dimension("up_height", window), dimension("up_width", window))
        kernel = self._parameter(
            f"{name}/kernel", *side, dimension("in", channel.size), dimension("out", filters)
        )
        sides = [
            (dimension.size - 1) * stride + window - 2 * padding for dimension in (height, width)
        ]
        dimensions = (
            batch,
            dimension("height", sides[0]),
            dimension("width", sides[1]),
            dimension("channel", filters),
        )
        # The convolution whose gradient this is reads the result.
        operations, zeros = _windows(
            sides, window, stride, padding, 2 * batch.size * channel.size * filters
        )
        return self._times(x, kernel, dimensions, operations, padding=zeros)

    def batch_norm(self, x: TracedArray, name: str) -> TracedArray:
        """Declare scale and bias, and the state mean and variance."""
        channel = dimension("out", x.dimensions[-1].size)
        names = tuple(self._parameter(f"{name}/{key}", channel) for key in ("scale", "bias"))
        for key in ("mean", "variance"):
            self.state[f"{name}/{key}"] = ArraySpec(f"{name}/{key}", (channel,))
        return self._each(x, 4, parameters=names)

    def layer_norm(self, x: TracedArray, name: str, *, epsilon: float) -> TracedArray:
        """Declare scale and bias."""
        channel = dimension("out", x.dimensions[-1].size)
        names = tuple(self._parameter(f"{name}/{key}", channel) for key in ("scale", "bias"))
        return self._each(x, 8, parameters=names)

    def embed(self, ids: TracedArray, name: str, *, count: int, width: int) -> TracedArray:
        """Declare embedding (vocabulary, width)."""
        table = self._table(name, count, width)
        return self._made((*ids.dimensions, dimension("channel", width)), ids, table=table)

    def first_embeddings(self, like: TracedArray, name: str, *, count: int) -> TracedArray:
        """Declare embedding (vocabulary, width)."""
        _, time, width = like.dimensions
        return self._made((time, width), table=self._table(name, count, width.size))

    def _table(self, name: str, count: int, width: int) -> str:
        dimensions = dimension("vocabulary", count), dimension("width", width)
        return self._parameter(f"{name}/embedding", *dimensions)

    def real(self, tokens: TracedArray) -> TracedArray:
        """Keep the lengths."""
        return self._made(tokens.dimensions, tokens, index=True, lengths=tokens.lengths)

    def sinusoids(self, like: TracedArray, *, position: Any = 0, count: int = 0) -> TracedArray:
        """Declare nothing: the table is constant."""
        _, time, width = like.dimensions
        return self._made((time, width))

    def project_to_embedding(self, x: TracedArray, name: str, *, bias: str = "") -> TracedArray:
        """Declare the bias (out,); the table has been declared already."""
        table = f"{name}/embedding"
        vocabulary, _ = self.parameters[table].shape
        out = dimension("out", vocabulary)
        added = self._parameter(f"{bias}/bias", out) if bias else ""
        dimensions = (*x.dimensions[:-1], out)
        return self._times(x, table, dimensions, 2 * x.size * vocabulary, bias=added)

    def recurrent(
        self, x: TracedArray, lengths: TracedArray, name: str, *, units: int, cell: str
    ) -> TracedArray:
        """Declare kernel (in, gates), recurrent_kernel (units, gates) and bias (gates,)."""
        batch, time, features = x.dimensions
        gates = Dimension("out", ((f"{cell}_gate", GATE_COUNTS[cell]), ("unit", units)))
        kernel = self._parameter(f"{name}/kernel", dimension("in", features.size), gates)
        again = self._parameter(f"{name}/recurrent_kernel", dimension("in", units), gates)
        bias = self._parameter(f"{name}/bias", gates)
        biases = (self._parameter(f"{name}/recurrent_bias", gates),) if cell == "gru" else ()
        from_inputs = self._times(
            x, kernel, (batch, time, gates), 2 * x.size * gates.size, bias=bias
        )
        valid = lengths.valid(batch.size, time.size)

        def operations(rows: RowMask) -> int:
            steps = (valid[:, 1:] & rows[:, None]).sum()  # the first state is zero
            return 2 * int(steps) * units * gates.size

        return self._made(
            (batch, dimension("out", units)),
            from_inputs,
            lengths,
            reads=lambda rows: (valid & rows[:, None], rows),
            parameters=(again, *biases),
            # All states depend on the products of the inputs, whose place they take here.
            product=Product(
                (from_inputs, again), operations, 2 * batch.size * time.size * units * gates.size
            ),
            elementwise=3 * from_inputs.size,
        )

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
        """Note two products, each over the pairs of a needed query and a key that it sees."""
        batch, time, width = query.dimensions
        keys = key.dimensions[1]
        valid = np.ones((batch.size, keys.size), np.bool_)
        if mask is not None:
            valid = mask.valid(batch.size, keys.size)
        whole = 2 * valid.size * time.size * width.size

        def operations(rows: RowMask) -> int:
            seen = valid.cumsum(1) if causal else valid.sum(1, keepdims=True)
            return 2 * int((rows * seen).sum()) * width.size

        def seen_by(rows: RowMask) -> RowMask:
            if causal:  # a key is seen from its own position on
                return valid & np.logical_or.accumulate(rows[:, ::-1], 1)[:, ::-1]
            return valid & rows.any(1, keepdims=True)

        scores = self._made(
            (batch, time, keys),
            query,
            key,
            reads=lambda rows: (rows, seen_by(rows)),
            product=Product((query, key), operations, whole),
            elementwise=4 * batch.size * time.size * keys.size * heads,
        )
        masks = () if mask is None else (mask,)
        return self._made(
            query.dimensions,
            scores,
            value,
            *masks,
            reads=lambda rows: (rows, seen_by(rows), *(mask.whole() for mask in masks)),
            product=Product((scores, value), operations, whole),
        )

    def max_pool2d(
        self, x: TracedArray, *, window: int, stride: int = 0, padding: int = 0, ceil: bool = False
    ) -> TracedArray:
        """(batch, height, width, channel) -> fewer rows and columns."""
        batch, *sides, channel = x.dimensions
        step = stride or window
        rows, columns = (
            dimension(side.label, window_count(side.size, window, step, padding, ceil=ceil))
            for side in sides
        )
        return self._made((batch, rows, columns, channel), x, elementwise=x.size)

    def mean_pool2d(self, x: TracedArray) -> TracedArray:
        """(batch, height, width, channel) -> (batch, channel)."""
        return self._made((x.dimensions[0], x.dimensions[3]), x, elementwise=x.size)

    def adaptive_mean_pool2d(self, x: TracedArray, side: int) -> TracedArray:
        """(batch, height, width, channel) -> (batch, side, side, channel)."""
        batch, _, _, channel = x.dimensions
        sides = dimension("height", side), dimension("width", side)
        return self._made((batch, *sides, channel), x, elementwise=x.size)

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

    def normalize(self, x: TracedArray) -> TracedArray:
        """Keep the shape."""
        return self._each(x, 3)

    def scale(self, x: TracedArray, factor: float) -> TracedArray:
        """Keep the shape."""
        return self._each(x)

    def add(self, x: TracedArray, y: TracedArray) -> TracedArray:
        """Return the shape of the larger array."""
        larger = max(x, y, key=lambda array: len(array.dimensions))
        return self._made(larger.dimensions, x, y, elementwise=larger.size)

    multiply = add

    def match(self, x: TracedArray, y: TracedArray) -> TracedArray:
        """Note the product of every row of one with every row of the other."""
        (batch, width), (columns, _) = x.dimensions, y.dimensions
        pairs = 2 * batch.size * columns.size * width.size
        shape = TracedArray((batch, Dimension("candidate", columns.factors)))
        return self._made(
            shape.dimensions,
            x,
            y,
            reads=lambda rows: (rows, y.whole() & rows.any()),
            product=Product((x, y), lambda rows: shape.part(rows, pairs), pairs),
        )

    def concatenate(self, *arrays: TracedArray) -> TracedArray:
        """Add the widths."""
        width = dimension("channel", sum(array.dimensions[-1].size for array in arrays))
        return self._made((*arrays[0].dimensions[:-1], width), *arrays)

    def take(self, x: TracedArray, positions: TracedArray) -> TracedArray:
        """(batch, time, width), (batch, count) -> (batch, count, width).

        Which positions are read does not change a count: the first ones take their place.
        """

        def reads(rows: RowMask) -> tuple[RowMask, RowMask]:
            x_rows = np.zeros(x.rows, np.bool_)
            x_rows[:, : rows.shape[1]] = rows
            return x_rows, rows

        return self._made((*positions.dimensions, x.dimensions[-1]), x, positions, reads=reads)

    def first(self, x: TracedArray) -> TracedArray:
        """(batch, time, width) -> (batch, width)."""
        batch, time, width = x.dimensions
        begin = np.arange(time.size) == 0
        return self._made((batch, width), x, reads=lambda rows: (rows[:, None] & begin,))

    def flatten(self, x: TracedArray) -> TracedArray:
        """Keep the names of the axes that were flattened, in order."""
        batch, *rest = x.dimensions
        factors = tuple(factor for dimension in rest for factor in dimension.factors)
        return self._made((batch, Dimension("in", factors)), x)

    def _loss(self, *arrays: TracedArray) -> TracedArray:
        return self._made(
            (),
            *arrays,
            reads=lambda rows: tuple(array.whole() for array in arrays),
            elementwise=3 * arrays[0].size,
        )

    softmax_cross_entropy = in_batch_softmax = binary_cross_entropy = evidence_lower_bound = _loss
    real_and_fake = fooled = _loss


def _windows(
    sides: Sequence[int], window: int, stride: int, padding: int, element_operations: int
) -> tuple[int, int]:
    """The operations of all windows on elements of the image, and on the zeros around it.

    ``sides`` of the image. ``element_operations``: the operations of one element of one window.
    """
    inside, whole = element_operations, element_operations
    for size in sides:
        begins = np.arange((size + 2 * padding - window) // stride + 1) * stride - padding
        elements = np.minimum(begins + window, size) - np.maximum(begins, 0)
        inside *= int(elements.clip(0).sum())
        whole *= begins.size * window
    return inside, whole - inside


Needed = dict[TracedArray, RowMask]


def _needed(tracer: Tracer, outputs: Mapping[TracedArray, RowMask]) -> Needed:
    """The arrays that the needed rows of the outputs depend on, with their needed rows."""
    needed = dict(outputs)
    for array in reversed(tracer.arrays):  # every array that reads another one is made after it
        if array in needed:
            rows = array.needed_of_sources(needed[array])
            for source, more in zip(array.sources, rows, strict=True):
                needed[source] = needed[source] | more if source in needed else more
    return needed


def _forward(needed: Needed) -> int:
    """The matrix operations of the needed rows."""
    return sum(a.product.operations(rows) for a, rows in needed.items() if a.product is not None)


def _read(tracer: Tracer, needed: Needed) -> dict[str, int]:
    """The number of elements of each parameter that the needed rows read."""
    elements: dict[str, int] = {}
    for array, rows in needed.items():
        elements.update({name: tracer.parameters[name].size for name in array.parameters})
        if array.table:
            count, width = tracer.parameters[array.table].shape
            more = elements.get(array.table, 0) + int(rows.sum()) * width
            elements[array.table] = min(more, count * width)
    return elements


def _depending(tracer: Tracer, prefixes: tuple[str, ...]) -> set[TracedArray]:
    """The arrays that depend on a parameter whose name has one of the prefixes."""
    dependents: set[TracedArray] = set()
    for array in tracer.arrays:
        named = any(name.startswith(prefixes) for name in (*array.parameters, array.table) if name)
        if named or not dependents.isdisjoint(array.sources):
            dependents.add(array)
    return dependents


@dataclass(frozen=True)
class _Step:
    """The costs of one objective.

    ``fresh``: the operations of a forward that reads parameters of an earlier objective, which it
    has updated. ``unchanged``: those of the rest of the forward. ``whole``: the operations of
    forward and backward if nothing is left out. ``read`` and ``trained``: the number of elements of
    each parameter that are read, and that have a gradient. ``updated``: the arrays that depend on
    an update. ``gradients``: the number of gradients to compute of each needed product.
    """

    tracer: Tracer
    needed: Needed
    unchanged: int
    fresh: int
    backward: int
    whole: int
    read: Mapping[str, int]
    trained: Mapping[str, int]
    updated: set[TracedArray]
    gradients: Mapping[TracedArray, int]

    def operations(self, array: TracedArray, *, unchanged: bool) -> int:
        """The operations of an array: its gradients, and its forward if that is counted here.

        ``unchanged``: whether to count the part of the forward that no earlier objective updated.
        """
        if array.product is None or array not in self.needed:
            return 0
        forward = unchanged or array in self.updated
        return (forward + self.gradients[array]) * array.product.operations(self.needed[array])


def _step(
    model: Model,
    objective: Objective,
    sizes: Mapping[str, Any],
    arrays: Mapping[str, TracedArray],
    earlier: tuple[str, ...],
) -> _Step:
    """Trace an objective. ``earlier``: what the objectives before it train."""
    tracer = Tracer()
    outputs = (objective.forward or model.forward)(tracer, sizes, arrays)
    targets = (arrays[name] for name in objective.targets)
    loss = getattr(tracer, objective.loss)(*(outputs[name] for name in objective.outputs), *targets)
    needed = _needed(tracer, {loss: loss.whole()})
    updated = _depending(tracer, earlier)
    fresh = _forward({array: rows for array, rows in needed.items() if array in updated})
    moving = _depending(tracer, (objective.trains,))
    backward = whole = 0
    gradients: dict[TracedArray, int] = {}
    for array in tracer.arrays:
        if array.product is None:
            continue
        count = sum(
            factor.startswith(objective.trains) if isinstance(factor, str) else factor in moving
            for factor in array.product.factors
        )
        whole += (1 + count) * array.product.whole
        if array in needed:
            gradients[array] = count
            backward += count * array.product.operations(needed[array])
    read = _read(tracer, needed)
    return _Step(
        tracer=tracer,
        needed=needed,
        unchanged=_forward(needed) - fresh,
        fresh=fresh,
        backward=backward,
        whole=whole,
        read=read,
        trained={n: count for n, count in read.items() if n.startswith(objective.trains)},
        updated=updated,
        gradients=gradients,
    )


def _steps(
    model: Model, sizes: Mapping[str, Any], arrays: Mapping[str, TracedArray]
) -> list[_Step]:
    """Trace the objectives of a training step in their order."""
    prefixes = [objective.trains for objective in model.objectives]
    return [
        _step(model, objective, sizes, arrays, tuple(prefixes[:number]))
        for number, objective in enumerate(model.objectives)
    ]


@dataclass(frozen=True)
class Summary:
    """Arrays and costs of a model at one preset and batch; operations and bytes are per step.

    ``used`` names the inputs that inference reads, ``held`` the parameters and statistics that it
    reads. ``moved_count`` is the number of elements of the parameters that a training step moves.
    ``touched_count``: those of them whose gradient it computes, which are all elements except the
    rows of tables that no id names. ``training_bytes`` are those of plain SGD.
    ``generation_operations`` and ``generation_bytes`` are those of decoding all tokens with a
    cache, and 0 where nothing is generated. The bytes of the cache are not counted.
    ``reference_operations`` are those of a training step of the reference, which leaves nothing
    out: they say what its answers cost.
    """

    inputs: tuple[ArraySpec, ...]
    used: tuple[str, ...]
    held: tuple[str, ...]
    parameters: tuple[ArraySpec, ...]
    state: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]
    parameter_count: int
    moved_count: int
    touched_count: int
    inference_operations: int
    training_operations: int
    generation_operations: int
    reference_operations: int
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
    arrays = {spec.name: traced_input(spec) for spec in inputs}
    tracer = Tracer()
    outputs = model.forward(tracer, sizes, arrays)
    needed = _needed(tracer, {array: array.whole() for array in outputs.values()})
    steps = _steps(model, sizes, arrays)
    parameters, state = dict(tracer.parameters), dict(tracer.state)
    for step in steps:
        parameters.update(step.tracer.parameters)
        state.update(step.tracer.state)
    read = sum(_most(step.read for step in steps).values())
    trained = _most(step.trained for step in steps)
    held = sum(_read(tracer, needed).values()) + _elements(tracer.state.values())
    generation_operations, generation_bytes = _generation(model, preset, batch)
    return Summary(
        inputs=inputs,
        used=tuple(name for name, array in arrays.items() if array in needed),
        held=(*tracer.parameters, *tracer.state),
        parameters=tuple(parameters.values()),
        state=tuple(state.values()),
        outputs=tuple(ArraySpec(name, array.dimensions) for name, array in outputs.items()),
        parameter_count=_elements(parameters.values()),
        moved_count=_elements(parameters[name] for name in trained),
        touched_count=sum(trained.values()),
        inference_operations=_forward(needed),
        # Objectives share what no update changed: together they need at least the largest part.
        training_operations=max(step.unchanged for step in steps)
        + sum(step.fresh + step.backward for step in steps),
        generation_operations=generation_operations,
        reference_operations=sum(step.whole for step in steps),
        elementwise_operations=sum(a.part(rows, a.elementwise) for a, rows in needed.items()),
        # Every element is 4 bytes.
        inference_bytes=4
        * (held + _read_inputs(arrays, [needed]) + sum(output.size for output in outputs.values())),
        training_bytes=4
        * (
            read
            + sum(trained.values())
            + 2 * _elements(state.values())
            + _read_inputs(arrays, [step.needed for step in steps])
        ),
        generation_bytes=generation_bytes,
    )


def _elements(specs: Iterable[ArraySpec]) -> int:
    return sum(spec.size for spec in specs)


def _most(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The largest count of each name."""
    largest: dict[str, int] = {}
    for by_name in counts:
        largest.update({name: max(count, largest.get(name, 0)) for name, count in by_name.items()})
    return largest


def _read_inputs(arrays: Mapping[str, TracedArray], needs: Sequence[Needed]) -> int:
    """The number of elements of the inputs that are read for at least one of several needs."""
    elements = 0
    for array in arrays.values():
        rows = np.zeros(array.rows, np.bool_)
        for needed in needs:
            rows |= needed.get(array, rows)
        elements += array.part(rows, array.size)
    return elements


def _generation(model: Model, preset: str, batch: int) -> tuple[int, int]:
    """Count (operations, bytes) of the prompt once and every further token, with a cache.

    Only positions from the last of the prompt on have logits. Every token reads the parameters and
    the rows of one position again. An encoder reads the prompt once, and no logits belong to it.
    """
    if model.generation is None:
        return 0, 0
    count = model.generation.count(model.sizes(preset))
    encoder, decoder = _decoding(model, preset, batch)
    _, one = _positions(model, preset, batch, length=1, tokens=1)
    read = sum(_read(*encoder).values()) + count * sum(_read(*one).values())
    return _forward(encoder[1]) + _forward(decoder[1]), 4 * read


_Traced = tuple[Tracer, Needed]


def _decoding(model: Model, preset: str, batch: int) -> tuple[_Traced, _Traced]:
    """Trace the decoding of all tokens of a model that generates -> encoder, decoder."""
    assert model.generation is not None
    sizes = model.sizes(preset)
    count, time = model.generation.count(sizes), _prompt(model, preset, batch).dimensions[1]
    length = model.generation.first_length(time.size) + count - 1
    return _positions(model, preset, batch, length=length, tokens=count)


def _prompt(model: Model, preset: str, batch: int) -> ArraySpec:
    assert model.generation is not None
    name = model.generation.prompt
    (spec,) = (spec for spec in model.inputs(model.sizes(preset), batch) if spec.name == name)
    return spec


def _positions(
    model: Model, preset: str, batch: int, *, length: int, tokens: int
) -> tuple[_Traced, _Traced]:
    """Trace ``length`` positions of which the last ``tokens`` have logits -> encoder, decoder.

    The encoder is empty where the model has none.
    """
    assert model.generation is not None
    prompt = _prompt(model, preset, batch)
    rows, time = prompt.dimensions
    dimensions = rows, replace(time, factors=(("time", length),))
    encoder, tracer, memory = Tracer(), Tracer(), None
    sizes = model.sizes(preset)
    if model.generation.encode is not None:
        memory = model.generation.encode(encoder, sizes, traced_input(prompt))
    logits = model.generation.logits(tracer, sizes, memory, TracedArray(dimensions, index=True))
    last = np.arange(length) >= length - tokens
    needed = _needed(tracer, {logits: logits.whole() & last})
    made = set(tracer.arrays)
    remembered = {array: rows for array, rows in needed.items() if array not in made}
    encoded = _needed(encoder, remembered) if memory is not None else {}
    return (encoder, encoded), (tracer, {a: rows for a, rows in needed.items() if a in made})


ATTENTION = "(attention)"  # stands for the products of two arrays, which have no parameters


@dataclass(frozen=True)
class LayerOperations:
    """The matrix operations of a step that are due to one layer of a definition.

    ``kind`` is "product" or "convolution". ``name`` is that of the layer's parameters.
    """

    name: str
    kind: str
    operations: int


def layer_operations(
    model: Model, preset: str, batch: int, phase: str
) -> tuple[LayerOperations, ...]:
    """Return the layers with products in the order of the definition.

    Their operations add up to those of :func:`summarize` for this phase.
    """
    if phase == "training":
        parts = _training_parts(model, preset, batch)
    elif phase == "generation":
        encoder, decoder = _decoding(model, preset, batch)
        parts = _parts(*encoder) + _parts(*decoder)
    else:
        arrays = {
            spec.name: traced_input(spec) for spec in model.inputs(model.sizes(preset), batch)
        }
        tracer = Tracer()
        outputs = model.forward(tracer, model.sizes(preset), arrays)
        needed = _needed(tracer, {array: array.whole() for array in outputs.values()})
        parts = _parts(tracer, needed)
    counts: dict[tuple[str, str], int] = {}
    for layer, operations in parts:
        if operations:
            counts[layer] = counts.get(layer, 0) + operations
    return tuple(LayerOperations(*layer, operations) for layer, operations in counts.items())


_Parts = list[tuple[tuple[str, str], int]]  # (name and kind of a layer, operations)


def _parts(tracer: Tracer, needed: Needed) -> _Parts:
    """The operations of the needed rows of each product."""
    return [
        (_layer_of(tracer, array.product), array.product.operations(needed[array]))
        for array in tracer.arrays
        if array in needed and array.product is not None
    ]


def _training_parts(model: Model, preset: str, batch: int) -> _Parts:
    """The operations of each product in a training step. Objectives share what is unchanged."""
    sizes = model.sizes(preset)
    arrays = {spec.name: traced_input(spec) for spec in model.inputs(sizes, batch)}
    steps = _steps(model, sizes, arrays)
    largest = max(steps, key=lambda step: step.unchanged)
    return [
        (_layer_of(step.tracer, array.product), step.operations(array, unchanged=step is largest))
        for step in steps
        for array in step.tracer.arrays
        if array.product is not None
    ]


def _layer_of(tracer: Tracer, product: Product) -> tuple[str, str]:
    """The name and the kind of the layer to which a product belongs."""
    for factor in product.factors:
        if isinstance(factor, str):
            image = len(tracer.parameters[factor].dimensions) == 4
            return factor.rpartition("/")[0], "convolution" if image else "product"
    return ATTENTION, "product"
