"""The contract between Levelfield and a framework, and the arrays that cross it.

This file and the worker run inside every framework's own interpreter, the oldest of which is
Python 3.6 with NumPy 1.19: standard library and NumPy only, and no syntax younger than that.
"""

import json

import numpy


class Unsupported(Exception):
    """The framework cannot do what was asked. The message is the reason that people read."""


class Adapter:
    """How one framework computes a model: ``adapters/<x>/__init__.py`` has it as ``Adapter``.

    One instance lives in one worker process and serves one arm; ``load`` is called for each cell
    and again whenever a fresh start is needed. What is timed is said at each method. A step is one
    call of ``infer``, ``train_step`` or ``generate``; it works on the next of the case's input
    sets, which ``load`` has placed on the device already, cyclically: all share a cursor. Every
    step is computed, whether its handle is kept or dropped, and when a handle is fenced all earlier
    steps are done, too: the adapter of a lazy framework starts each step's work in the step.

    A model's file holds ``build(sizes)``, which gives the native model. Its losses are the
    framework's own versions of those that ``case.objectives`` name; where an objective is more
    than a loss of the model's outputs, the file has a function of the objective's name.
    """

    def __init__(self, device, mode, threads, precision):
        """Configure the imported framework for this arm; timed, with its import, as start-up.

        device: "cpu". mode: what stands behind the colon of the arm's name. threads: how many
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

        Timed as start-up ("build"). Calling it again forgets everything and starts afresh, with
        the optimiser of ``case.optimizer`` in its initial state and the cursor at set 0. ``module``
        is ``adapters/<x>/<model>.py``, None where one adapter serves all models. Raises
        Unsupported(reason).
        """
        raise NotImplementedError

    def compile(self, phase):
        """Compile ahead of time for "inference", "training" or "generation", where that exists.

        Timed as start-up ("compile"). Returns True if it did; False (as here) where compilation, if
        there is any, happens in the first step and is booked there.
        """
        return False

    def compilations(self):
        """How many compilations and traces there have been in this process so far.

        Never timed. Read at the edges of slices: more of them behind a slice than before it make
        the cell an error. None (as here) where the framework compiles nothing.
        """
        return None

    def device_memory(self):
        """What the framework's own allocator took of an accelerator at most since the last call.

        None (as here) on the CPU, else {"used_peak_bytes": ..., "reserved_peak_bytes": ...}. Never
        timed.
        """
        return None

    def infer(self):
        """Forward pass on the next input set -> handle. Timed; may return early."""
        raise NotImplementedError

    def train_step(self):
        """Forward, backward, update on the next input set -> handle. Timed; may return early.

        Objectives are met in their order, each after the update of the one before. The losses
        behind the handle are those of the forward passes, before their own update.
        """
        raise NotImplementedError

    def generate(self, count):
        """Decode ``count`` tokens greedily behind the next prompt -> handle. Timed; as ``infer``.

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

    def read(self, handle):
        """Canonical names -> NumPy arrays in canonical axes. Never timed.

        Of infer: the outputs by name. Of train_step: every objective's loss by its name, which is
        "loss" where there is one. Of gradients: the same and one "gradient/<parameter>" each, of
        the objective that trains it. Of parameters: one "parameter/<parameter>" and one
        "state/<statistic>" each; a running variance that takes every batch's unbiased one is named
        "unbiased_variance" instead of "variance". Of generate: "tokens", (batch, count).
        """
        raise NotImplementedError


class Case:
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
    return Case(meta, arrays, sets, optimizer)


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
