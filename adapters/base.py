"""The contract between Levelfield and a framework, and the arrays that cross it.

This file and the worker run inside every framework's own interpreter, the oldest of which is
Python 3.6 with NumPy 1.19: standard library and NumPy only, and no syntax younger than that.

The file of a model
===================

An adapter's folder has one file per model (or family of models). It may define:

``build(sizes)``
    The native model. ``sizes`` is the preset's dict. Every file has this function.
``<objective>(model, inputs)``
    A function with an objective's name -> loss, where the objective is more than a loss of the
    model's outputs.
``train_step(model, optimizers, inputs)``
    The whole training step -> loss by objective, where the framework's documentation writes one.
``make_train_step(model, optimizers)``
    The same where the step must be compiled together with its state -> function of the inputs.
``generate(model, prompt, count)``
    Decodes ``count`` tokens greedily after the prompt, with a cache of keys and values -> tokens.
``build_tuned(sizes)``
    A faster way to write the model, for a mode whose profile is "tuned".

``Adapter.begin`` checks a file when it is loaded, so that a mistake costs one line that names it.
An adapter whose framework passes parameters and state around states its own arguments in
``model_functions`` and ``objective_arguments``.
"""

import inspect
import json

import numpy

# Functions that a model's file may define, with their first arguments.
MODEL_FUNCTIONS = {
    "build": ("sizes",),
    "build_tuned": ("sizes",),
    "train_step": ("model", "optimizers", "inputs"),
    "make_train_step": ("model", "optimizers"),
    "generate": ("model", "prompt", "count"),
}


# In the names of dtypes other than float32, as frameworks write them ("dtypes.double", "float16").
OTHER_DTYPES = ("float64", "double", "float16", "half", "int")


class Unsupported(Exception):
    """The framework cannot do what was asked. The message is the reason that people read."""


class Mismatch(Exception):
    """A model's file does not fit its definition. The message is one line that names where."""


class Adapter:
    """Runs a model in one framework: ``adapters/<x>/__init__.py`` defines it as ``Adapter``.

    One instance lives in one worker process and serves one arm; ``load`` is called for each cell
    and again whenever a fresh start is needed. Each method says what of it is timed. A step is one
    call of ``infer``, ``train_step`` or ``generate``; it works on the next of the case's input
    sets, which ``load`` has placed on the device already, cyclically: all share a cursor. Every
    step is computed, whether its handle is kept or dropped, and when a handle is fenced all earlier
    steps are done, too: the adapter of a lazy framework starts each step's work in the step.

    The common work is done here: ``begin``, ``place``, ``next``, ``given``, ``read``. A subclass
    states its axis orders in ``layout`` and overrides what its framework does differently.

    layout: the framework's order of axes. unbiased_variance: whether its running variances are
    those of batches with Bessel's correction.
    """

    layout = None  # set below: Layout is defined later in this file
    unbiased_variance = False
    model_functions = MODEL_FUNCTIONS
    objective_arguments = ("model", "inputs")

    # ---- the methods of every adapter --------------------------------------------------------

    def __init__(self, device, mode, threads, precision):
        """Configure the imported framework for this arm; timed, with its import, as start-up.

        device: "cpu" or "cuda". mode: the part of the arm's name after the colon. threads: how many
        cores the arm may use (the affinity and the usual environment variables are set already).
        precision: "float32": no TF32, no bfloat16. Raises Unsupported(reason).
        """
        raise NotImplementedError

    def describe(self):
        """What really runs, read back from the framework: a flat dict of JSON values.

        At least "version" and "threads" (None where the framework cannot tell). Never timed.
        """
        raise NotImplementedError

    def load(self, module, case):
        """Build the model by ``module.build(case.sizes)``; put all arrays on the device.

        Timed as start-up ("build"). Calling it again forgets everything and starts again, with
        the optimiser of ``case.optimizer`` in its initial state and the cursor at set 0. ``module``
        is ``adapters/<x>/<model>.py``, None where one adapter serves all models. Raises
        Unsupported(reason), or Mismatch where the model's file does not fit its definition.
        """
        raise NotImplementedError

    def infer(self):
        """Forward pass on the next input set -> handle. Timed; may return early."""
        raise NotImplementedError

    def train_step(self):
        """Forward, backward, update on the next input set -> handle. Timed; may return early.

        Objectives are trained in their order, each after the update of the one before. The losses
        of the handle are those of the forward passes, before their own update.
        """
        raise NotImplementedError

    def gradients(self):
        """Losses and gradients on the next input set -> handle. Never timed.

        Nothing moves, running statistics neither: every objective sees the present parameters.
        """
        raise NotImplementedError

    def parameters(self):
        """The present parameters and running statistics -> handle. Never timed."""
        raise NotImplementedError

    def wait(self, handle):
        """The fence: returns when all work behind the handle is done, updated state included."""
        raise NotImplementedError

    # ---- methods of frameworks that can do more ----------------------------------------------

    def compile(self, phase):
        """Compile ahead of time for "inference", "training" or "generation", where that exists.

        Timed as start-up ("compile"). Returns True if it did; False (as here) where compilation, if
        there is any, happens in the first step and is counted there.
        """
        return False

    def compilations(self):
        """How many compilations and traces there have been in this process so far.

        Never timed. Read at both ends of a slice: a slice that compiles makes the cell an error.
        None (as here) where the framework compiles nothing.
        """
        return None

    def device_memory(self):
        """The peak of the framework's own allocator on an accelerator since the last call.

        None (as here) on the CPU, else {"used_peak_bytes": ..., "reserved_peak_bytes": ...}. Never
        timed.
        """
        return None

    def generate(self, count):
        """Decode ``count`` tokens greedily after the next prompt -> handle. Timed; as ``infer``.

        With a key-value cache: no position is computed twice. Raises Unsupported(reason).
        """
        raise Unsupported("this arm does not decode")

    def repeat(self, step, count):
        """``count`` steps back to back -> the last handle; ``step``: a step of this object.

        Timed: this is what a throughput slice runs. Override it where the framework has a loop of
        its own (Keras' ``fit``), and nowhere else.
        """
        handle = None
        for _ in range(count):
            handle = step()
        return handle

    def place(self, name, value):
        """Canonical NumPy array -> an array of the framework, on the device. Never timed.

        As here, a NumPy array with the framework's order of axes.
        """
        return self.layout.to_native(value, self.case.dimensions[name])

    def to_numpy(self, value):
        """An array of the framework -> a NumPy array that later steps leave alone. Never timed."""
        return numpy.array(value)

    # ---- the common work ---------------------------------------------------------------------

    def begin(self, module, case, losses=None):
        """Start a load: keep the case, check the model's file, place the sets, reset the cursor.

        ``losses``: the framework's functions by name, for ``self.objectives`` (name -> function).
        Sets ``self.sets`` and ``self.used`` (the inputs that inference reads). Timed as a part of
        ``load``. Raises Mismatch.
        """
        self.module, self.case, self.cursor = module, case, 0
        if module is not None:
            self._check_file(losses)
        self.objectives = {} if losses is None else case.objective_functions(module, losses)
        self.sets = [
            {name: self.place(name, value) for name, value in inputs.items()}
            for inputs in case.sets
        ]
        self.used = [{name: inputs[name] for name in case.used} for inputs in self.sets]

    def next(self, sets):
        """The element of ``sets`` at the cursor, which moves on by one. Timed in a step."""
        number = self.cursor
        self.cursor = (number + 1) % len(sets)
        return sets[number]

    def given(self, held):
        """The values of the case for the arrays ``held`` of a built model: (name, value) pairs.

        ``held``: canonical name -> array or variable of the framework. A value has the framework's
        order of axes and the shape of its array: attention's heads may be an axis of their own.
        Timed as a part of ``load``. Raises Mismatch where names, shapes or dtypes are not those of
        the definition.
        """
        values = dict(self.case.parameters, **self.case.state)
        check_names(held, values, self.case.model)
        for name, value in values.items():
            native = self.layout.to_native(value, self.case.dimensions[name])
            yield name, fitted(name, native, held[name])

    def trained_by(self, objective, held):
        """Those of ``held`` (name -> anything) that an objective trains. Never timed."""
        trains = objective["trains"]
        return {
            name: array
            for name, array in held.items()
            if name in self.case.parameters and name.startswith(trains)
        }

    def by_kind(self, held):
        """``held`` (canonical name -> array) as the handle of ``parameters``. Never timed."""
        return {
            ("state/" if name in self.case.state else "parameter/") + name: array
            for name, array in held.items()
        }

    def read(self, handle):
        """Canonical names -> NumPy arrays in canonical axes. Never timed.

        Of infer: the outputs by name. Of train_step: every objective's loss by its name, which is
        "loss" where there is one. Of gradients: the same and one "gradient/<parameter>" each, of
        the objective that trains it. Of parameters: one "parameter/<parameter>" and one
        "state/<statistic>" each; a running variance of batches with Bessel's correction is named
        "unbiased_variance" instead of "variance". Of generate: "tokens", (batch, count).
        """
        arrays = {}
        for name, value in handle.items():
            array = self.to_numpy(value)
            kind, _, rest = name.partition("/")
            array_name = rest if kind in ("parameter", "gradient", "state") else name
            if array_name in self.case.dimensions:
                array = self._canonical(array_name, array)
            elif array.size == 1:
                array = array.reshape(())  # a loss: the smallest shape of some frameworks is (1,)
            if kind == "state" and self.unbiased_variance:
                name = name.replace("/variance", "/unbiased_variance")
            arrays[name] = array
        return arrays

    def _canonical(self, name, array):
        """Never timed. Axes that the framework split or merged are as in the definition again."""
        dimensions = self.case.dimensions[name]
        if array.ndim != len(dimensions):
            values = self.case.parameters.get(name, self.case.state.get(name))
            array = array.reshape(self.layout.to_native(values, dimensions).shape)
        return self.layout.to_canonical(array, dimensions)

    def _check_file(self, losses):
        """Raise Mismatch where the model's file lacks a function or has another form.

        Timed as a part of ``load``.

        ``losses``: names of the losses that need no function in the file; None for all.
        """
        expected = dict(self.model_functions)
        needed = ["build"] + (["generate"] if self.case.generation else [])
        for objective in self.case.objectives:
            expected[objective["name"]] = self.objective_arguments
            if losses is not None and objective["loss"] not in losses:
                needed.append(objective["name"])
        place = self.module.__name__.replace(".", "/") + ".py"
        for name in needed:
            if not callable(getattr(self.module, name, None)):
                raise Mismatch(
                    "%s has no function %s(%s), which %s needs"
                    % (place, name, ", ".join(expected[name]), self.case.model)
                )
        for name, arguments in expected.items():
            function = getattr(self.module, name, None)
            unasked = name == "generate" and not self.case.generation
            if unasked or not inspect.isfunction(function):
                continue
            found = tuple(inspect.getfullargspec(function).args)
            if found[: len(arguments)] != arguments:
                raise Mismatch(
                    "%s: %s takes (%s), and the contract has %s(%s)"
                    % (place, name, ", ".join(found), name, ", ".join(arguments))
                )


def check_names(held, expected, model):
    """Raise Mismatch where the names of a built model's arrays are not those of its definition."""
    missing = sorted(set(expected) - set(held))
    surplus = sorted(set(held) - set(expected))
    if missing or surplus:
        lists = [("lacks", missing), ("has no use for", surplus)]
        words = ["%s %s" % (verb, ", ".join(names)) for verb, names in lists if names]
        raise Mismatch("the built %s %s" % (model, " and ".join(words)))


def fitted(name, value, array):
    """``value`` with the shape of a framework's array. Raises Mismatch where it does not fit.

    An axis may be split or axes may be merged, as attention's heads are; an array without a known
    shape or dtype, such as a symbolic one, is not checked.
    """
    dtype = str(getattr(array, "dtype", "float32"))
    if value.dtype.kind == "f" and any(other in dtype for other in OTHER_DTYPES):
        raise Mismatch("%s is %s in the built model, and float32 in its definition" % (name, dtype))
    shape = getattr(array, "shape", None)
    shape = shape.as_list() if hasattr(shape, "as_list") else shape
    if not isinstance(shape, (tuple, list)):
        return value
    if not all(isinstance(size, int) and size > 0 for size in shape):
        return value  # known after the first forward pass
    if not refines(shape, value.shape) and not refines(value.shape, shape):
        raise Mismatch(
            "%s has shape %s in the built model, and %s by its definition and the adapter's layout"
            % (name, tuple(shape), value.shape)
        )
    return value.reshape(shape)


def refines(fine, coarse):
    """Whether merging neighbouring axes turns the shape ``fine`` into the shape ``coarse``."""
    sizes = list(fine)
    for size in coarse:
        product = 1
        while product < size and sizes:
            product *= sizes.pop(0)
        if product != size:
            return False
    return all(size == 1 for size in sizes)


def canonical_name(parts):
    """["blocks", "0", "conv1", "kernel"] -> "blocks1/conv1/kernel": members count from one."""
    name = ""
    for part in parts:
        name += str(int(part) + 1) if str(part).isdigit() else "/" + part
    return name[1:]


def epsilon_hat(constants):
    """Adam's epsilon for frameworks that add it before the bias correction.

    They fold the correction into the step size, so that their epsilon is the "epsilon hat" before
    section 2.1 of Kingma and Ba (2015): epsilon * sqrt(1 - beta2^t), which changes with the step t,
    while they take a constant. That of step 1 makes the first step, which the gate judges most
    narrowly, the pinned one, also where gradients are as small as epsilon; the difference in later
    steps stays far inside their tolerance.
    """
    return constants["epsilon"] * (1 - constants["beta2"]) ** 0.5


class Questions:
    """The questions of a case file, as :func:`read_case` reads them.

    ``model``, ``preset``, ``batch``, ``sizes`` (what ``build`` gets), ``objectives`` (in the order
    of a training step: dicts of "name", "loss", its "outputs" and "targets", and "trains", what
    the names of its parameters begin with), ``optimizer`` (dict with "name" and its constants),
    ``parameters`` and ``state`` (canonical name -> float32 array), ``sets`` (list of dicts: input
    name -> array, targets included), ``used`` (the inputs that inference reads), ``outputs``
    (names), ``generation`` (None, or dict of the input "prompt" and the "count" of tokens),
    ``dimensions`` (name of any array -> its dimensions, see ``Layout``).
    """

    def __init__(self, meta, arrays, sets, optimizer):
        self.model = meta["model"]
        self.preset = meta["preset"]
        self.batch = meta["batch"]
        self.sizes = meta["sizes"]
        self.objectives = meta["objectives"]
        self.optimizer = dict(meta["optimizers"][optimizer], name=optimizer)
        self.parameters = arrays["parameter"]
        self.state = arrays["state"]
        self.sets = sets
        self.used = meta["used"]
        self.outputs = list(meta["outputs"])
        self.generation = meta["generation"]
        self.dimensions = {}
        for kind in ("parameters", "state", "inputs", "outputs"):
            for name, dimensions in meta[kind].items():
                self.dimensions[name] = dimensions

    def named_outputs(self, found):
        """What a model returned as a dict by name: one array is the only output."""
        return found if isinstance(found, dict) else {self.outputs[0]: found}

    def objective_functions(self, module, losses):
        """Name of each objective -> ``function(model, inputs) -> loss``.

        ``module`` is the model's file, ``losses`` the framework's functions by name. ``model`` is
        whatever answers to a call with the inputs by name.
        """
        return {
            each["name"]: getattr(module, each["name"], None) or self._standard(each, losses)
            for each in self.objectives
        }

    def _standard(self, objective, losses):
        loss = losses[objective["loss"]]

        def compute(model, inputs):
            found = self.named_outputs(model(**{name: inputs[name] for name in self.used}))
            arguments = [found[name] for name in objective["outputs"]]
            return loss(*(arguments + [inputs[name] for name in objective["targets"]]))

        return compute


def read_case(path, optimizer):
    """Read a case file; ``optimizer`` is "sgd", "momentum" or "adam"."""
    with numpy.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes().decode())
        arrays = {
            "parameter": {name: stored["parameter/" + name] for name in meta["parameters"]},
            "state": {name: stored["state/" + name] for name in meta["state"]},
        }
        sets = [
            {name: stored["input/%d/%s" % (number, name)] for name in meta["inputs"]}
            for number in range(meta["sets"])
        ]
    return Questions(meta, arrays, sets, optimizer)


class Layout:
    """Converts between canonical axes and a framework's own, by name, for every array of a case.

    ``orders`` maps a tuple of canonical labels to the framework's order of them; what is not named
    keeps its order. It serves whole arrays and flattened dimensions alike, so the rows of the
    first dense kernel behind a flattened image follow the framework's image layout::

        Layout({
            ("in", "out"): ("out", "in"),
            ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
            ("height", "width", "channel"): ("channel", "height", "width"),
        })

    ``entries`` maps an axis to the framework's order of its entries, in which a GRU's gates may
    stand: ``{"gru_gate": (1, 0, 2)}``.

    Dimensions come as ``[[label, [[axis, size], ...]], ...]``, more than one axis where some were
    flattened together.
    """

    def __init__(self, orders=None, entries=None):
        self.orders = {tuple(key): tuple(order) for key, order in (orders or {}).items()}
        self.entries = entries or {}

    def to_native(self, values, dimensions):
        """Canonical NumPy array -> contiguous NumPy array in the framework's order."""
        for axis, (_, factors) in enumerate(dimensions):
            values = self._regroup(values, axis, factors, inverse=False)
        order = self._order([label for label, _ in dimensions])
        return numpy.ascontiguousarray(numpy.transpose(values, order))

    def to_canonical(self, values, dimensions):
        """The inverse of ``to_native``."""
        order = self._order([label for label, _ in dimensions])
        values = numpy.transpose(values, numpy.argsort(order))
        for axis, (_, factors) in enumerate(dimensions):
            values = self._regroup(values, axis, factors, inverse=True)
        return numpy.ascontiguousarray(values)

    def _order(self, labels):
        order = self.orders.get(tuple(labels), labels)
        return [list(labels).index(label) for label in order]

    def _regroup(self, values, axis, factors, inverse):
        order = self._order([name for name, _ in factors])
        sizes = [size for _, size in factors]
        for place, (name, _) in enumerate(factors):
            if name in self.entries:
                shape = values.shape
                entries = list(self.entries[name])
                entries = numpy.argsort(entries) if inverse else entries
                values = values.reshape(shape[:axis] + tuple(sizes) + shape[axis + 1 :])
                values = values.take(entries, axis + place).reshape(shape)
        if order == sorted(order):
            return values
        if inverse:
            sizes, order = [sizes[i] for i in order], list(numpy.argsort(order))
        shape = values.shape
        values = values.reshape(shape[:axis] + tuple(sizes) + shape[axis + 1 :])
        moved = list(range(axis)) + [axis + i for i in order]
        moved += list(range(axis + len(sizes), values.ndim))
        return numpy.transpose(values, moved).reshape(shape)


Adapter.layout = Layout()  # canonical axes, where an adapter states no others
