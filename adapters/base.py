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
    call of ``infer`` or ``train_step``; it works on the next of the case's input sets, which
    ``load`` has placed on the device already, cyclically: training and inference share a cursor.
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

    def load(self, build, case):
        """Build the native model by ``build(case.sizes)``, put parameters and inputs on the device.

        Timed as start-up ("build"). Calling it again forgets everything and starts afresh, with
        the optimiser of ``case.optimizer`` in its initial state and the cursor at set 0. ``build``
        is the function of that name in ``adapters/<x>/<model>.py``. Raises Unsupported(reason).
        """
        raise NotImplementedError

    def compile(self, phase):
        """Compile ahead of time for "inference" or "training", where the framework offers that.

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

        The loss behind the handle is that of the forward pass, before the update.
        """
        raise NotImplementedError

    def repeat(self, step, count):
        """``count`` steps back to back -> the last handle; ``step``: self.infer or self.train_step.

        Timed: this is what a throughput slice runs. Override it where the framework has a loop of
        its own (Keras' ``fit``), and nowhere else.
        """
        handle = None
        for _ in range(count):
            handle = step()
        return handle

    def gradients(self):
        """Loss and gradients on the next input set, without an update -> handle. Never timed."""
        raise NotImplementedError

    def parameters(self):
        """The present parameters -> handle. Never timed."""
        raise NotImplementedError

    def wait(self, handle):
        """The fence: returns when all work behind the handle is done, updated state included."""
        raise NotImplementedError

    def read(self, handle):
        """Canonical names -> NumPy arrays in canonical axes. Never timed.

        Of infer: the outputs by name. Of train_step: "loss". Of gradients: "loss" and one
        "gradient/<parameter>" each. Of parameters: one "parameter/<parameter>" each.
        """
        raise NotImplementedError


class Case:
    """The questions of a case file, as :func:`read_case` reads them.

    ``model``, ``preset``, ``batch``, ``sizes`` (what ``build`` gets), ``objective`` (dict with
    "loss", "output" and "target"), ``optimizer`` (dict with "name" and its constants),
    ``parameters`` (canonical name -> float32 array), ``sets`` (list of dicts: input name -> array,
    the target included), ``dimensions`` (name of any array -> its dimensions, see ``Layout``).
    """

    def __init__(self, meta, parameters, sets, optimizer):
        self.model = meta["model"]
        self.preset = meta["preset"]
        self.batch = meta["batch"]
        self.sizes = meta["sizes"]
        (self.objective,) = meta["objectives"]
        self.optimizer = dict(meta["optimizers"][optimizer], name=optimizer)
        self.parameters = parameters
        self.sets = sets
        self.dimensions = {}
        for kind in ("parameters", "inputs", "outputs"):
            self.dimensions.update(meta[kind])


def read_case(path, optimizer):
    """Read a case file; ``optimizer`` is "sgd", "momentum" or "adam"."""
    with numpy.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes().decode())
        parameters = {name: stored["parameter/" + name] for name in meta["parameters"]}
        sets = [
            {name: stored["input/%d/%s" % (number, name)] for name in meta["inputs"]}
            for number in range(meta["sets"])
        ]
    return Case(meta, parameters, sets, optimizer)


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

    Dimensions come as ``[[label, [[axis, size], ...]], ...]``, more than one axis where some were
    flattened together.
    """

    def __init__(self, orders=None):
        self.orders = {tuple(key): tuple(order) for key, order in (orders or {}).items()}

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
        if order == sorted(order):
            return values
        sizes = [size for _, size in factors]
        if inverse:
            sizes, order = [sizes[i] for i in order], list(numpy.argsort(order))
        shape = values.shape
        values = values.reshape(shape[:axis] + tuple(sizes) + shape[axis + 1 :])
        moved = list(range(axis)) + [axis + i for i in order]
        moved += list(range(axis + len(sizes), values.ndim))
        return numpy.transpose(values, moved).reshape(shape)
