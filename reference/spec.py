"""What a model definition is: one object from which everything else about the model derives.

Canonical conventions, stated once (every adapter converts to and from these by axis name):

* images are (batch, height, width, channel); convolution kernels (height, width, in, out);
  dense kernels (in, out); flattening runs over (height, width, channel) in that order;
* convolution is cross-correlation, padding is explicit per side, pooling takes only full windows;
* labels are integer class numbers; losses are means over the batch;
* optimisers are the formulas of :mod:`reference.optimizers`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

Array = Any  # a NumPy array, a JAX array or a traced shape: whatever the layer namespace works on


@dataclass(frozen=True)
class Dimension:
    """One dimension of an array: what it means, and the axes that were flattened into it.

    ``label`` names the role ("batch", "in", "out"); ``factors`` are (name, size) pairs in
    canonical order, more than one after a flatten: a dense kernel behind a flattened image has
    ``Dimension("in", (("height", 2), ("width", 3), ("channel", 16)))``, and this is what lets an
    adapter with another image layout permute the kernel's rows without knowing the model.
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
        """The form in which a case file carries it: ``[label, [[name, size], ...]]``."""
        return [self.label, [list(factor) for factor in self.factors]]


def dimension(label: str, size: int) -> Dimension:
    """A dimension that is a single axis: ``dimension("batch", 32)``."""
    return Dimension(label, ((label, size),))


@dataclass(frozen=True)
class ArraySpec:
    """Name, dimensions and kind of one array of a model.

    ``classes`` is the number of integer values of an index array (labels, token numbers) and
    ``None`` for real numbers.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    classes: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in canonical order."""
        return tuple(each.size for each in self.dimensions)

    @property
    def size(self) -> int:
        """Number of elements."""
        product = 1
        for each in self.dimensions:
            product *= each.size
        return product

    @property
    def axes(self) -> tuple[str, ...]:
        """The labels of the dimensions, for people and for JSON."""
        return tuple(each.label for each in self.dimensions)


@dataclass(frozen=True)
class Objective:
    """A loss that a training step minimises: ``loss(outputs[output], inputs[target])``.

    ``loss`` is the name of a function of the layer namespace, and the name under which every
    adapter knows its framework's own version of it.
    """

    name: str
    loss: str
    output: str
    target: str


class Layers(Protocol):
    """The small namespace in which every ``forward`` is written.

    Three implementations: :class:`reference.layers_numpy.NumpyLayers` (float64, the truth),
    :class:`reference.layers_jax.JaxLayers` (jitted) and :class:`reference.trace.Tracer` (shapes,
    parameters, operation counts).
    """

    def dense(self, x: Array, name: str, units: int) -> Array:
        """``x @ kernel + bias``; (batch, in) -> (batch, units)."""
        ...

    def conv2d(self, x: Array, name: str, filters: int, window: int, padding: int = 0) -> Array:
        """Square cross-correlation, stride 1, ``padding`` zeros on each side, plus bias."""
        ...

    def max_pool2d(self, x: Array, window: int) -> Array:
        """Maximum over non-overlapping square windows; an incomplete last window is dropped."""
        ...

    def relu(self, x: Array) -> Array:
        """max(x, 0)."""
        ...

    def flatten(self, x: Array) -> Array:
        """(batch, height, width, channel) -> (batch, height*width*channel), in that order."""
        ...

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> Array:
        """Mean over the batch of -log softmax(logits)[label]; (batch, classes), (batch,) -> ()."""
        ...


Sizes = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A model, defined once.

    ``forward(nn, sizes, inputs)`` computes the outputs by name in the vocabulary of
    :class:`Layers`; parameters, shapes, operation counts, expected answers and gradients all
    derive from it. ``inputs(sizes, batch)`` lists the arrays that one step consumes, targets
    included. ``presets`` holds the sizes of "tiny", "small" and "paper".
    """

    name: str
    title: str
    family: str
    source: str
    presets: Mapping[str, Sizes]
    inputs: Callable[[Sizes, int], tuple[ArraySpec, ...]]
    forward: Callable[[Layers, Sizes, Mapping[str, Array]], dict[str, Array]]
    objectives: tuple[Objective, ...]
    data: str | None = None  # the real data set on which accuracy is measured

    def sizes(self, preset: str) -> Sizes:
        """The sizes of a preset. Raises :class:`UnknownName` with the nearest valid names."""
        if preset not in self.presets:
            raise UnknownName("preset", preset, self.presets, where=f"model {self.name}")
        return self.presets[preset]


class UnknownName(ValueError):
    """A name that nothing answers to; the message lists the nearest valid ones."""

    def __init__(
        self, what: str, name: str, known: Sequence[str] | Mapping[str, Any], where: str = ""
    ) -> None:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5) or sorted(known)
        self.what, self.name, self.near = what, name, tuple(near)
        place = f" in {where}" if where else ""
        super().__init__(f"unknown {what} '{name}'{place}; did you mean {', '.join(near)}?")


@cache
def models() -> Mapping[str, Model]:
    """Every model, by name. A module of this package that defines ``MODELS`` adds its own."""
    found: dict[str, Model] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith(("layers_", "_")) or module.name == "spec":
            continue
        loaded = importlib.import_module(f"reference.{module.name}")
        for model in getattr(loaded, "MODELS", ()):
            found[model.name] = model
    return dict(sorted(found.items()))


def get(name: str) -> Model:
    """The definition of a model. Raises :class:`UnknownName` with the nearest valid names."""
    if name not in models():
        raise UnknownName("model", name, models())
    return models()[name]
