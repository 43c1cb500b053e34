"""The definition of a model: one object from which everything else about it derives.

Canonical conventions, stated once (every adapter converts to and from these by axis name):

* images are (batch, height, width, channel); convolution kernels (height, width, in, out);
  dense kernels (in, out); flattening runs over (height, width, channel) in that order;
* convolution is cross-correlation, padding is explicit per side, pooling takes only full windows
  where a model does not state ``ceil``; a transposed convolution is the gradient of a convolution,
  with kernel (up_height, up_width, in, out), ``padding`` cropped from each side;
* batch norm has epsilon 1e-5, normalises a training batch by its biased variance, and its running
  statistics take a tenth of every batch, the biased variance again;
* recurrent kernels are (in, gates) and (units, gates); an LSTM has the gates i, f, g, o and one
  bias; a GRU has the gates r, z, n and resets after the product with the recurrent kernel, which
  needs two biases; a state does not change beyond a sequence's length;
* attention scales by the square root of a head's width; heads are the outer factor of the width;
* layer-norm epsilons and the form of GELU are the model's own;
* labels are integer class numbers; losses are means over the batch;
* optimisers are the formulas of :mod:`levelfield.reference.optimizers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from levelfield.reference.presets import preset_sizes

PHASES = ("inference", "training", "generation")
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_NEW = 0.1  # weight of a new batch in the running statistics
PAD = 0  # the token after the end of a sequence
GATE_COUNTS = {"rnn": 1, "lstm": 4, "gru": 3}

Array = Any  # a NumPy array, a JAX array or a traced shape: the type of the layer namespace


@dataclass(frozen=True)
class Dimension:
    """One dimension of an array: its meaning, and the axes that were flattened into it.

    ``label`` names the role ("batch", "in", "out"). ``factors`` are (name, size) pairs in canonical
    order; there is more than one after a flatten. A dense kernel after a flattened image has
    ``Dimension("in", (("height", 2), ("width", 3), ("channel", 16)))``. From this, an adapter with
    another image layout can permute the kernel's rows without knowing the model.
    """

    label: str
    factors: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Number of elements along this dimension."""
        product = 1
        for _, size in self.factors:
            product *= size
        return product

    def to_json(self) -> list[Any]:
        """Return the dimension as a case file holds it: ``[label, [[name, size], ...]]``."""
        return [self.label, [list(factor) for factor in self.factors]]


def dimension(label: str, size: int) -> Dimension:
    """A dimension that is a single axis: ``dimension("batch", 32)``."""
    return Dimension(label, ((label, size),))


@dataclass(frozen=True)
class ArraySpec:
    """Name, dimensions and kind of one array of a model.

    ``classes`` is the number of integer values of an index array (labels, token numbers) and
    ``None`` for real numbers. ``lengths`` belongs to an array of lengths, to a mask, and to tokens
    of which ``PAD`` is padding: the number of positions of each example that count, in any order,
    where every draw has the same numbers. Operations are then counted for these positions, and
    otherwise for one of each example.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    classes: int | None = None
    lengths: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in canonical order."""
        return tuple(dimension.size for dimension in self.dimensions)

    @property
    def size(self) -> int:
        """Number of elements."""
        product = 1
        for dimension in self.dimensions:
            product *= dimension.size
        return product

    @property
    def axes(self) -> tuple[str, ...]:
        """The labels of the dimensions, for people and for JSON."""
        return tuple(dimension.label for dimension in self.dimensions)


class Layers(Protocol):
    """The small namespace in which every ``forward`` is written.

    It has three implementations: :class:`levelfield.reference.layers_numpy.NumpyLayers` (float64,
    the truth), :class:`levelfield.reference.layers_jax.JaxLayers` (jitted) and
    :class:`levelfield.reference.trace.Tracer` (shapes, parameters, operation counts). ``...``
    stands for any leading dimensions.
    """

    def dense(self, x: Array, name: str, units: int) -> Array:
        """``x @ kernel + bias``; (..., in) -> (..., units)."""
        ...

    def conv2d(
        self,
        x: Array,
        name: str,
        filters: int,
        *,
        window: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> Array:
        """Square cross-correlation, ``padding`` zeros on each side."""
        ...

    def conv2d_transpose(
        self, x: Array, name: str, filters: int, *, window: int, stride: int, padding: int
    ) -> Array:
        """The gradient of a convolution with that stride and padding, without bias.

        out[stride * i + k - padding] sums x[i] kernel[k] along height and width.
        """
        ...

    def batch_norm(self, x: Array, name: str) -> Array:
        """Normalise over all dimensions but the last; in training by the batch's statistics."""
        ...

    def layer_norm(self, x: Array, name: str, *, epsilon: float) -> Array:
        """Normalise over the last dimension, with scale and bias."""
        ...

    def embed(self, ids: Array, name: str, *, count: int, width: int) -> Array:
        """Rows of a table; integers (...) -> (..., width)."""
        ...

    def first_embeddings(self, like: Array, name: str, *, count: int) -> Array:
        """The first rows of a table, one for each position of ``like``: (time, width)."""
        ...

    def real(self, tokens: Array) -> Array:
        """The mask of tokens that are not ``PAD``; (batch, time) -> (batch, time)."""
        ...

    def sinusoids(self, like: Array, *, position: Array = 0, count: int = 0) -> Array:
        """Rows of :func:`sinusoid_table` for the positions of ``like``: (time, width).

        ``like`` (batch, time, width) begins at ``position``. ``count``: the positions of the table,
        by default those of ``like``.
        """
        ...

    def project_to_embedding(self, x: Array, name: str, *, bias: str = "") -> Array:
        """``x @ table.T`` (+ the bias of that name) with a table declared already: a tied head."""
        ...

    def recurrent(self, x: Array, lengths: Array, name: str, *, units: int, cell: str) -> Array:
        """The last state of a recurrent layer ("rnn", "lstm" or "gru") from states of zero.

        (batch, time, in), (batch,) -> (batch, units).
        """
        ...

    def attention(
        self,
        query: Array,
        key: Array,
        value: Array,
        *,
        heads: int,
        mask: Array | None = None,
        causal: bool = False,
    ) -> Array:
        """Scaled dot-product attention by heads; three (batch, time, width) -> one of that shape.

        ``mask`` (batch, time) is 1 for the keys that count. ``causal``: keys of later positions do
        not count. A query for which no key counts gets the mean of all values.
        """
        ...

    def max_pool2d(
        self, x: Array, *, window: int, stride: int = 0, padding: int = 0, ceil: bool = False
    ) -> Array:
        """Maximum over square windows; ``stride`` is the window by default.

        ``ceil``: the last window may extend beyond the padded image. It then has fewer elements.
        Without ``ceil`` only complete windows count. ``stride`` is at most window - padding.
        """
        ...

    def mean_pool2d(self, x: Array) -> Array:
        """Mean over height and width; (batch, height, width, channel) -> (batch, channel)."""
        ...

    def adaptive_mean_pool2d(self, x: Array, side: int) -> Array:
        """Mean over the windows of :func:`levelfield.reference.windows.adaptive_windows`.

        (batch, height, width, channel) -> (batch, side, side, channel).
        """
        ...

    def relu(self, x: Array) -> Array:
        """max(x, 0)."""
        ...

    def leaky_relu(self, x: Array, slope: float) -> Array:
        """x where positive, else slope x."""
        ...

    def gelu(self, x: Array) -> Array:
        """x times the normal distribution function of x (Hendrycks and Gimpel 2016), exactly."""
        ...

    def gelu_tanh(self, x: Array) -> Array:
        """GELU by the tanh approximation of the same paper, section 2."""
        ...

    def tanh(self, x: Array) -> Array:
        """Hyperbolic tangent."""
        ...

    def exp(self, x: Array) -> Array:
        """Exponential."""
        ...

    def scale(self, x: Array, factor: float) -> Array:
        """factor x."""
        ...

    def add(self, x: Array, y: Array) -> Array:
        """x + y, broadcast."""
        ...

    def multiply(self, x: Array, y: Array) -> Array:
        """x y, element by element."""
        ...

    def normalize(self, x: Array) -> Array:
        """x divided by the Euclidean norm of its last dimension."""
        ...

    def match(self, x: Array, y: Array) -> Array:
        """``x @ y.T``, every row with every row; two (batch, width) -> (batch, batch)."""
        ...

    def concatenate(self, *arrays: Array) -> Array:
        """Concatenate along the last dimension."""
        ...

    def take(self, x: Array, positions: Array) -> Array:
        """(batch, time, width), different integers (batch, count) -> (batch, count, width)."""
        ...

    def first(self, x: Array) -> Array:
        """(batch, time, width) -> (batch, width), the first position."""
        ...

    def flatten(self, x: Array) -> Array:
        """(batch, height, width, channel) -> (batch, height*width*channel), in that order."""
        ...

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        """Mean over all labels of -log softmax(logits)[label]; (..., classes), (...) -> ()."""
        ...

    def in_batch_softmax(self, logits: Array) -> Array:
        """Mean of -log softmax(logits)[row, row]: the batch's other columns are negatives.

        (batch, batch) -> ().
        """
        ...

    def binary_cross_entropy(self, logits: Array, labels: Array) -> Array:
        """Mean of -log sigmoid(logit) where the label is 1, of -log sigmoid(-logit) where 0."""
        ...

    def evidence_lower_bound(
        self, logits: Array, mean: Array, log_variance: Array, target: Array
    ) -> Array:
        """The negative bound (Kingma and Welling 2013, equation 10, appendix B), batch mean.

        It is the Bernoulli likelihood of ``target`` under ``logits``, plus the divergence of the
        normal distribution of ``mean`` and ``log_variance`` from the standard one.
        """
        ...

    def real_and_fake(self, real: Array, fake: Array) -> Array:
        """A discriminator's loss: binary cross-entropy of real against 1 plus fake against 0."""
        ...

    def fooled(self, fake: Array) -> Array:
        """A generator's loss, the non-saturating one (Goodfellow et al. 2014, section 3)."""
        ...


Sizes = Mapping[str, Any]
Forward = Callable[[Layers, Sizes, Mapping[str, Array]], dict[str, Array]]
Attend = Callable[..., Array]  # an attention some of whose arguments are bound


@dataclass(frozen=True)
class Objective:
    """A loss that a training step minimises: ``loss(*outputs, *targets)``.

    ``name`` is the name of the loss in every answer: "loss" where there is only one. ``loss`` is
    a function of the layer namespace. Under its name every adapter has its framework's own version
    of it. ``forward`` computes the outputs in training mode, unless the model's own forward does.
    ``trains`` is the prefix of the names of the parameters that it updates. ``moves`` is the prefix
    of the names of the running statistics that its forward changes.
    """

    loss: str
    outputs: tuple[str, ...]
    targets: tuple[str, ...] = ()
    name: str = "loss"
    forward: Forward | None = None
    trains: str = ""
    moves: str = ""


@dataclass(frozen=True)
class Generation:
    """Greedy decoding of ``count(sizes)`` tokens after the input ``prompt``.

    ``logits(nn, sizes, memory, tokens)`` gives the logits of every position, (batch, time,
    vocabulary). ``begin(nn, sizes, batch)`` makes an empty key-value cache.
    ``advance(nn, sizes, tokens, position, cache)`` appends (batch, n) tokens at ``position``. It
    gives the logits after the last of them, (batch, vocabulary), with the new cache.

    A model with an encoder has ``encode(nn, sizes, prompt)``, which gives the memory that every
    later token attends to. Decoding then begins with the token ``start`` instead of the prompt, and
    a cache is the pair of memory and key-value cache. Without an encoder, the memory is None.
    """

    prompt: str
    count: Callable[[Sizes], int]
    logits: Callable[[Layers, Sizes, Any, Array], Array]
    begin: Callable[[Any, Sizes, int], Any]
    advance: Callable[[Any, Sizes, Array, Any, Any], tuple[Array, Any]]
    encode: Callable[[Any, Sizes, Array], Any] | None = None
    start: int = 0

    def first(self, nn: Any, sizes: Sizes, prompt: Array) -> tuple[Array, Any]:
        """Return the tokens to append at position 0, (batch, n), and the cache for them."""
        cache = self.begin(nn, sizes, prompt.shape[0])
        if self.encode is None:
            return prompt, cache
        return 0 * prompt[:, :1] + self.start, (self.encode(nn, sizes, prompt), cache)

    def first_length(self, prompt: int) -> int:
        """Return the number of tokens that :meth:`first` gives for a prompt of this length."""
        return prompt if self.encode is None else 1


@dataclass(frozen=True)
class Model:
    """A model, defined once.

    ``forward(nn, sizes, inputs)`` computes the outputs of inference by name, with the functions of
    :class:`Layers`. Parameters, state, shapes, operation counts, expected answers and gradients
    all derive from it. ``inputs(sizes, batch)`` lists the arrays of an input set, targets included.
    ``draw(sizes, batch, stream)`` draws those that are neither standard normal nor uniform over
    classes. ``presets`` holds the sizes of "tiny", "small" and "paper". ``derive(sizes)`` gives the
    sizes that follow from these, such as the width of a flattened image. The definition and every
    adapter read them like the others, and no preset sets them. A training step applies the
    objectives in their order. Members of one family may share a ``module``: the name of their file
    in every adapter, if it is not the model's own name.

    ``idle`` names a bias. A case draws its middle unit so low that the ReLU after it passes
    nothing. ``still`` names parameters with elements whose gradient is exactly zero, because of the
    idle unit or because no input reads some of their rows. Only a mistake (weight decay) moves
    these elements.
    """

    name: str
    title: str
    family: str
    source: str
    presets: Mapping[str, Sizes]
    inputs: Callable[[Sizes, int], tuple[ArraySpec, ...]]
    forward: Forward
    objectives: tuple[Objective, ...]
    derive: Callable[[Sizes], Sizes] = lambda sizes: {}
    data: str | None = None  # the data on which accuracy is measured
    draw: Callable[[Sizes, int, Any], dict[str, Any]] | None = None
    generation: Generation | None = None
    module: str = ""
    idle: str = ""
    still: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the model's file in every adapter, without its suffix."""
        return self.module or self.name

    def sizes(self, preset: str) -> Sizes:
        """The sizes of a preset with those derived from them.

        A preset may have another sequence length, such as small+time=128. Raises
        :class:`levelfield.reference.errors.UnknownName` with the nearest valid names, and
        :class:`levelfield.reference.errors.BadDefinition` where a preset of
        :func:`levelfield.reference.registry.add_preset` does not fit the model.
        """
        return preset_sizes(self.name, self.presets, preset, derive=self.derive)


def sinusoid_table(count: int, width: int) -> Array:
    """Return the positions of Vaswani et al. 2017, section 3.5: (count, width), float64.

    Sines and cosines of one frequency are neighbours.
    """
    import numpy as np

    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(count)[:, None] * rates
    return np.stack((np.sin(angles), np.cos(angles)), -1).reshape(count, -1)[:, :width]


def labelled_images(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """The inputs of image nets: image (batch, height, width, channel) and label (batch,)."""
    rows = dimension("batch", batch)
    image = (
        rows,
        dimension("height", sizes["height"]),
        dimension("width", sizes["width"]),
        dimension("channel", sizes["channels"]),
    )
    return ArraySpec("image", image), ArraySpec("label", (rows,), classes=sizes["classes"])


def draw_rows(count: int, shape: tuple[int, ...], stream: Any, *, first: int = 0) -> Array:
    """Draw row numbers of a table, int32 of ``shape``, from ``first`` to ``count`` - 1.

    The first example has the first row at its beginning and the last row at its end, so that an
    error in either row shows. The middle row is never drawn: it has no gradient. A table of fewer
    than four rows has no middle row. ``stream``: a NumPy generator.
    """
    middle = count // 2 if count - first > 3 else count
    values = stream.integers(first, count - (middle < count), shape, dtype="int32")
    values += values >= middle
    ends = values[0] if values.ndim > 1 else values
    ends[0], ends[-1] = first, count - 1
    return values


def spread_lengths(least: int, most: int, batch: int) -> tuple[int, ...]:
    """Lengths of the sequences of a batch: from ``most`` down to ``least`` in even steps."""
    return tuple(most - (most - least) * number // max(batch - 1, 1) for number in range(batch))


def draw_lengths(lengths: Sequence[int], stream: Any) -> Array:
    """Draw the order of the lengths, int32; the first stays the first.

    Every draw has the same lengths, so every step needs the same operations. ``stream``: a NumPy
    generator.
    """
    import numpy as np

    values = np.array(lengths, np.int32)
    stream.shuffle(values[1:])
    return values
