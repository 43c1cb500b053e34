"""The definition of a model: one object from which everything else about it derives.

Canonical conventions, stated once (every adapter converts to and from these by axis name):

* images are (batch, height, width, channel); convolution kernels (height, width, in, out);
  dense kernels (in, out); flattening runs over (height, width, channel) in that order;
* convolution is cross-correlation, padding is explicit per side, pooling takes only full windows;
  a transposed convolution is the gradient of a convolution, with kernel (up_height, up_width, in,
  out), ``padding`` cropped from each side;
* batch norm has epsilon 1e-5, normalises a training batch by its biased variance, and its running
  statistics take a tenth of every batch, the biased variance again;
* recurrent kernels are (in, gates) and (units, gates); an LSTM has the gates i, f, g, o and one
  bias; a GRU has the gates r, z, n and resets after the product with the recurrent kernel, which
  needs two biases; a state does not change beyond a sequence's length;
* attention scales by the square root of a head's width; heads are the outer factor of the width;
* layer-norm epsilons and the form of GELU are the model's own;
* labels are integer class numbers; losses are means over the batch;
* optimisers are the formulas of :mod:`reference.optimizers`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Protocol

PHASES = ("inference", "training", "generation")
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_NEW = 0.1  # weight of a new batch in the running statistics

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


class Layers(Protocol):
    """The small namespace in which every ``forward`` is written.

    It has three implementations: :class:`reference.layers_numpy.NumpyLayers` (float64, the truth),
    :class:`reference.layers_jax.JaxLayers` (jitted) and :class:`reference.trace.Tracer` (shapes,
    parameters, operation counts). ``...`` stands for any leading dimensions.
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
        not count.
        """
        ...

    def max_pool2d(self, x: Array, *, window: int, stride: int = 0, padding: int = 0) -> Array:
        """Maximum over square, complete windows; ``stride`` is the window by default."""
        ...

    def mean_pool2d(self, x: Array) -> Array:
        """Mean over height and width; (batch, height, width, channel) -> (batch, channel)."""
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

    def concatenate(self, x: Array, y: Array) -> Array:
        """Concatenate along the last dimension."""
        ...

    def take(self, x: Array, positions: Array) -> Array:
        """(batch, time, width), integers (batch, count) -> (batch, count, width)."""
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

    ``logits(nn, sizes, tokens)`` gives the logits of every position, (batch, time, vocabulary).
    ``begin(nn, sizes, batch)`` makes an empty key-value cache.
    ``advance(nn, sizes, tokens, position, cache)`` appends (batch, n) tokens at ``position``. It
    gives the logits after the last of them, (batch, vocabulary), with the new cache.
    """

    prompt: str
    count: Callable[[Sizes], int]
    logits: Callable[[Layers, Sizes, Array], Array]
    begin: Callable[[Any, Sizes, int], Any]
    advance: Callable[[Any, Sizes, Array, Any, Any], tuple[Array, Any]]


@dataclass(frozen=True)
class Model:
    """A model, defined once.

    ``forward(nn, sizes, inputs)`` computes the outputs of inference by name, with the functions of
    :class:`Layers`. Parameters, state, shapes, operation counts, expected answers and gradients
    all derive from it. ``inputs(sizes, batch)`` lists the arrays of an input set, targets included.
    ``draw(sizes, batch, stream)`` draws those that are neither standard normal nor uniform over
    classes. ``presets`` holds the sizes of "tiny", "small" and "paper". A training step applies the
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
        """The sizes of a preset, also at another sequence length, such as small+time=128.

        Raises :class:`UnknownName` with the nearest valid names, and :class:`BadDefinition` where
        a preset of :func:`add_preset` does not fit the model.
        """
        base, swept, time = preset.partition(TIME)
        where = f"model {self.name}"
        if base in self.presets:
            sizes = self.presets[base]
        elif base in _OWN_PRESETS:
            sizes = self._own_sizes(base)
        else:
            raise UnknownName("preset", preset, [*self.presets, *_OWN_PRESETS], where=where)
        if not swept:
            return sizes
        if "time" not in sizes:
            raise UnknownName("preset", preset, [base], where=where)
        # At least as many positions as must be predicted, at most as many as have embeddings.
        least, most = sizes.get("masked", 1), sizes.get("positions", MOST_TIME)
        if not time.isdecimal() or not least <= int(time) <= most:
            near = [f"{base}{TIME}{end}" for end in (least, most)]
            raise UnknownName("preset", preset, near, where=where)
        return {**sizes, "time": int(time)}

    def _own_sizes(self, preset: str) -> Sizes:
        own, where = _OWN_PRESETS[preset], f"preset {preset} for model {self.name}"
        if own.base not in self.presets:
            raise UnknownName("base", own.base, self.presets, where=where)
        sizes = self.presets[own.base]
        for key, value in own.changes.items():
            if key not in sizes:
                raise UnknownName("size", key, sizes, where=where)
            if not _alike(value, sizes[key]):
                usual = json.dumps(sizes[key])
                raise BadDefinition(
                    f"{key} = {json.dumps(value)} in {where}; write it as in {own.base}: {usual}"
                )
        return {**sizes, **own.changes}


def _alike(value: Any, usual: Any) -> bool:
    """Whether two sizes are of one kind: positive numbers, texts or lists of such."""
    if isinstance(usual, tuple):
        return isinstance(value, tuple) and all(_alike(each, usual[0]) for each in value)
    if type(value) is not type(usual):
        return False
    return isinstance(value, str | bool) or value > 0


@dataclass(frozen=True)
class OwnPreset:
    """A preset that is not built in: the sizes of ``base`` with ``changes``."""

    base: str
    changes: Sizes


_OWN_PRESETS: dict[str, OwnPreset] = {}

TIME = "+time="
MOST_TIME = 1 << 16


class UnknownName(ValueError):
    """An unknown name; the message lists the nearest valid names."""

    def __init__(
        self, what: str, name: str, known: Sequence[str] | Mapping[str, Any], where: str = ""
    ) -> None:
        near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5) or sorted(known)
        self.what, self.name, self.near = what, name, tuple(near)
        place = f" in {where}" if where else ""
        super().__init__(f"unknown {what} '{name}'{place}; did you mean {', '.join(near)}?")


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


# A folder of outside models is imported as a package of this name and its number.
OUTSIDE_PACKAGE = "outside_models_"
# Gives the outside models of a host to the processes that it starts, as JSON.
OUTSIDE_VARIABLE = "LEVELFIELD_OUTSIDE"
MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


class BadDefinition(ValueError):
    """A folder of models that cannot be used; the message says why in one line."""


@dataclass(frozen=True)
class Outside:
    """A folder of models that are not built in.

    ``package`` is the name under which the files of the folder are imported.
    """

    folder: Path
    package: str
    models: Mapping[str, Model]


_OUTSIDE: dict[Path, Outside] = {}


@cache
def _built_in() -> Mapping[str, Model]:
    """Return the models that the modules of ``reference.models`` list in ``MODELS``."""
    found: dict[str, Model] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "models")]):
        for model in importlib.import_module(f"reference.models.{module.name}").MODELS:
            found[model.name] = model
    return found


@cache
def _add_those_of_the_host() -> None:
    """Add the outside models and own presets of the host that started this process."""
    given = json.loads(os.environ.get(OUTSIDE_VARIABLE, "{}"))
    for folder in given.get("folders", ()):
        add_models(Path(folder))
    for name, (base, changes) in given.get("presets", {}).items():
        add_preset(name, base, changes)


def outside() -> tuple[Outside, ...]:
    """Return the folders of outside models, in the order in which they were added."""
    return tuple(_OUTSIDE.values())


def outside_of(model: str) -> Outside | None:
    """Return the folder that defines a model; None for a built-in model."""
    return next((each for each in outside() if model in each.models), None)


def outside_variables() -> dict[str, str]:
    """Return the variables from which another process learns outside models and own presets."""
    folders = [str(each.folder) for each in outside()]
    presets = {name: [own.base, dict(own.changes)] for name, own in _OWN_PRESETS.items()}
    if not folders and not presets:
        return {}
    return {OUTSIDE_VARIABLE: json.dumps({"folders": folders, "presets": presets})}


def add_preset(name: str, base: str, changes: Sizes) -> None:
    """Add a preset: the sizes of the preset ``base`` of a model, with ``changes``.

    It replaces an earlier one of its name. Lists become tuples. Raises BadDefinition for the name
    of a built-in preset.
    """
    models = [*_built_in().values(), *(m for each in outside() for m in each.models.values())]
    taken = {preset for model in models for preset in model.presets}
    if name in taken or not MODEL_NAME.fullmatch(name):
        raise BadDefinition(
            f"{name!r} cannot name a preset of one's own: use letters, digits and _, and none of"
            f" {', '.join(sorted(taken))}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    _OWN_PRESETS[name] = OwnPreset(base, values)


def add_models(folder: Path, check: Callable[[Model], None] = lambda model: None) -> Outside:
    """Add the models of a folder to :func:`definitions`. A folder that was added stays as it was.

    Each ``.py`` file at its top whose name does not begin with "_" defines models in ``MODELS``, as
    the files of ``reference.models`` do. It may import NumPy, ``reference`` and the standard
    library. ``check`` is called for each model and may raise BadDefinition, too. Raises
    BadDefinition; then no model is added.
    """
    folder = folder.resolve()
    if folder in _OUTSIDE:
        return _OUTSIDE[folder]
    package = f"{OUTSIDE_PACKAGE}{len(_OUTSIDE)}"
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        found = _models_of(folder, package)
        for model in found.values():
            check(model)
    except BadDefinition:
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
            del sys.modules[name]  # the next folder has the same number
        raise
    _OUTSIDE[folder] = Outside(folder, package, found)
    return _OUTSIDE[folder]


def _models_of(folder: Path, package: str) -> dict[str, Model]:
    """Import the definitions of a folder. Raises BadDefinition."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".py")
    except OSError as error:
        raise BadDefinition(f"{folder}: not a folder of models ({error.strerror})") from error
    known = {**_built_in(), **{name: each for o in outside() for name, each in o.models.items()}}
    found: dict[str, Model] = {}
    for path in (path for path in paths if not path.name.startswith("_")):
        for model in _models_in(path, f"{package}.{path.stem}"):
            if model.name in found or model.name in known:
                raise BadDefinition(f"{path}: another model has the name '{model.name}'; rename it")
            found[model.name] = model
    if not found:
        raise BadDefinition(f"{folder}: no file at its top defines a model in MODELS")
    return found


def _models_in(path: Path, name: str) -> tuple[Model, ...]:
    """Import a file of definitions by its dotted name. Raises BadDefinition."""
    try:
        if foreign := sorted(_imported(path) - {"numpy", "reference", *sys.stdlib_module_names}):
            raise BadDefinition(
                f"{path}: imports {', '.join(foreign)}; a definition may import numpy and"
                " reference only"
            )
        models = getattr(importlib.import_module(name), "MODELS", None)
    except BadDefinition:
        raise
    except Exception as error:  # the code of somebody else may raise anything
        words = " ".join(str(error).split())
        raise BadDefinition(f"{path}: {type(error).__name__}: {words}") from error
    if not isinstance(models, tuple | list) or not all(isinstance(m, Model) for m in models):
        raise BadDefinition(f"{path}: MODELS is not a tuple of reference.spec.Model")
    for model in models:
        for word in (model.name, model.file, *model.presets):
            if not isinstance(word, str) or not MODEL_NAME.fullmatch(word):
                raise BadDefinition(
                    f"{path}: {word!r} cannot name a model, its file or a preset; use letters,"
                    " digits and _"
                )
        if not model.presets:
            raise BadDefinition(f"{path}: the model '{model.name}' has no presets")
    return tuple(models)


def _imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports. Relative imports are its own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def definitions() -> Mapping[str, Model]:
    """All models by name: the built-in ones, and those of folders that were added."""
    _add_those_of_the_host()
    added = {name: model for each in outside() for name, model in each.models.items()}
    return dict(sorted({**_built_in(), **added}.items()))


def get(name: str) -> Model:
    """The definition of a model. Raises :class:`UnknownName` with the nearest valid names."""
    known = definitions()
    if name not in known:
        raise UnknownName("model", name, known)
    return known[name]
