"""The contract between Levelfield and a framework.

This file, ``questions.py``, ``layout.py`` and the worker run inside the interpreter of every
framework. The oldest interpreter is Python 3.6 with NumPy 1.19. These files therefore use only the
standard library, NumPy and the syntax of Python 3.6.

The file of a model
===================

An adapter's folder has one file per model (or family of models). It may define:

``build(sizes)``
    The native model. ``sizes`` is the preset's dict. Every file has this function.
``<objective>(model, inputs)``
    A function that has the name of an objective -> loss. It is needed where the objective is more
    than a loss of the model's outputs.
``train_step(model, optimizers, inputs)``
    The whole training step -> loss by objective, where the framework's documentation writes one.
``make_train_step(model, optimizers)``
    Makes the training step -> function of the inputs, where the step must be compiled together with
    its state.
``generate(model, prompt, count)``
    Decodes ``count`` tokens greedily after the prompt, with a cache of keys and values -> tokens.
``build_tuned(sizes)``
    A faster way to write the model, for a mode whose profile is "tuned".

``Adapter.begin`` checks a file when it is loaded, and reports a mistake in one line that names it.
Some frameworks pass parameters and state as arguments. Their adapters state their own arguments
in ``model_functions`` and ``objective_arguments``.
"""

import inspect
import os

import numpy

from levelfield.adapters.layout import Layout

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
    """The framework does not support the request. The message is the reason that users read."""


class Mismatch(Exception):
    """A model's file does not fit its definition. The message names the place in one line."""


class Adapter:
    """Run a model in one framework: ``adapters/<x>/__init__.py`` defines it as ``Adapter``.

    One instance lives in one worker process and serves one arm. ``load`` is called for each cell,
    and again whenever a fresh start is needed. The docstring of each method says whether the method
    is timed.

    A step is one call of ``infer``, ``train_step`` or ``generate``. It works on the next of the
    case's input sets, in a cycle. ``load`` has already placed the sets on the device, and all three
    methods share one cursor. Every step is computed, whether its handle is kept or dropped. When
    ``wait`` returns for a handle, all earlier steps are done, too. The adapter of a lazy framework
    must therefore start the work of each step in the step.

    This class does the common work: ``begin``, ``place``, ``next``, ``given``, ``read``. A subclass
    states its axis orders in ``layout`` and overrides what its framework does differently.

    layout: the framework's order of axes. unbiased_variance: whether its running variances are
    those of batches with Bessel's correction. no_gpu: the reason that users read where the adapter
    runs on the CPU only.
    """

    layout = Layout()  # canonical axes, where an adapter states no others
    unbiased_variance = False
    no_gpu = None
    model_functions = MODEL_FUNCTIONS
    objective_arguments = ("model", "inputs")

    # ---- the methods of every adapter --------------------------------------------------------

    def __init__(self, device, mode, threads, precision):
        """Keep what is asked of the arm and call ``configure``. Timed as start-up, with the import.

        device: "cpu" or "cuda". mode: the part of the arm's name after the colon. threads: the
        number of cores that the arm may use (the affinity and the usual environment variables are
        set already). precision: one of the mode's ``numerics`` in ``env.toml``; "float32" means no
        TF32 and no bfloat16. Raises Unsupported(reason).
        """
        if device != "cpu" and self.no_gpu:
            raise Unsupported(self.no_gpu)
        self.device, self.mode, self.threads, self.precision = device, mode, threads, precision
        self.configure()

    def configure(self):
        """Configure the imported framework as ``device``, ``mode`` and the others ask. Timed.

        Raises Unsupported(reason).
        """

    def describe(self):
        """Describe what really runs, read back from the framework: a flat dict of JSON values.

        It has at least "version" and "threads" (None where the framework does not report them). The
        worker adds the version of NumPy. Never timed.
        """
        raise NotImplementedError

    def load(self, module, case):
        """Build the model by ``module.build(case.sizes)`` and put all arrays on the device.

        Timed as start-up ("build"). Another call discards everything and starts again: the
        optimiser of ``case.optimizer`` is in its initial state and the cursor is at set 0.
        ``module`` is ``adapters/<x>/<model>.py``, or None where one adapter serves all models.
        Raises Unsupported(reason), or Mismatch where the model's file does not fit its definition.
        """
        raise NotImplementedError

    def infer(self):
        """Run the forward pass on the next input set -> handle. Timed; may return early."""
        raise NotImplementedError

    def train_step(self):
        """Run forward, backward and update on the next set -> handle. Timed; may return early.

        The objectives are trained in their order, each after the update of the previous one. The
        handle holds the losses of the forward passes: each is taken before its own update.
        """
        raise NotImplementedError

    def gradients(self):
        """Compute losses and gradients on the next input set -> handle. Never timed.

        Parameters and running statistics do not change: every objective sees the present ones.
        """
        raise NotImplementedError

    def parameters(self):
        """Return the present parameters and running statistics -> handle. Never timed."""
        raise NotImplementedError

    def wait(self, handle):
        """Wait until all work for the handle is done, updated state included (the fence)."""
        raise NotImplementedError

    # ---- methods of frameworks that can do more ----------------------------------------------

    def compile(self, phase):
        """Compile ahead of time for "inference", "training" or "generation", where that exists.

        Timed as start-up ("compile"). Returns True if it compiled. Returns False (as here) where
        any compilation happens in the first step and is counted there.
        """
        return False

    def compilations(self):
        """Count the compilations and traces in this process so far.

        Never timed. The count is read at both ends of a slice: a slice that compiles makes the cell
        an error. None (as here) where the framework compiles nothing.
        """
        return None

    def counts(self):
        """Count what compilation did in this process so far: a dict, name -> whole number.

        Such as traces, cache misses, graph breaks and recompilations, as the framework reports
        them. The names are for people. Empty (as here) where it reports nothing. Never timed.
        """
        return {}

    def profile(self, run, folder):
        """Run ``run()`` under the framework's own profiler. Never timed.

        ``run()`` makes the steps and waits for them. It may be called several times; the steps of
        the last call count. Steps may be slower than usual, and the model may be loaded again.
        ``folder``: an empty folder for the trace, a file that Perfetto opens.

        Returns None (as here) where the adapter offers no profiler, else {"profiler": its name for
        people, "trace": the name of the file in ``folder``, "operators": the rows of
        ``levelfield.adapters.profiles.operators``}.
        """
        return None

    def device_memory(self):
        """Return the peak of the framework's own allocator on an accelerator since the last call.

        None (as here) on the CPU, else {"used_peak_bytes": ..., "reserved_peak_bytes": ...}. Never
        timed.
        """
        return None

    def generate(self, count):
        """Decode ``count`` tokens greedily after the next prompt -> handle. Timed like ``infer``.

        A key-value cache is used: no position is computed twice. Raises Unsupported(reason).
        """
        raise Unsupported("this arm does not decode")

    def repeat(self, step, count):
        """Run ``count`` steps back to back -> the last handle; ``step``: a step of this object.

        Timed: a throughput slice calls this method. Override it only where the framework has a loop
        of its own (Keras' ``fit``).
        """
        handle = None
        for _ in range(count):
            handle = step()
        return handle

    def place(self, name, value):
        """Turn a canonical NumPy array into the framework's, on the device. Never timed.

        This implementation returns a NumPy array with the framework's order of axes.
        """
        return self.layout.to_native(value, self.case.dimensions[name])

    def to_numpy(self, value):
        """Copy the framework's array to NumPy; later steps do not change it. Never timed."""
        return numpy.array(value)

    # ---- the common work ---------------------------------------------------------------------

    def begin(self, module, case, losses=None):
        """Start a load: keep the case, check the model's file, place the sets, reset the cursor.

        ``losses``: the framework's functions by name, for ``self.objectives`` (name -> function)
        and, where there is one objective, ``self.objective``, whose name is ``self.loss_name``. The
        method sets ``self.sets``, ``self.used`` (the inputs that inference reads) and
        ``self.prompts`` (those of generation). Timed as a part of ``load``. Raises Mismatch.
        """
        self.module, self.case, self.cursor = module, case, 0
        if module is not None:
            self._check_file(losses)
        self.objectives = {} if losses is None else case.objective_functions(module, losses)
        self.loss_name = case.objectives[0]["name"]
        several = len(case.objectives) > 1
        self.objective = self._refuse if several else self.objectives.get(self.loss_name)
        self.sets = [
            {name: self.place(name, value) for name, value in inputs.items()}
            for inputs in case.sets
        ]
        self.used = [{name: inputs[name] for name in case.used} for inputs in self.sets]
        self.prompts = []
        if case.generation:
            self.prompts = [inputs[case.generation["prompt"]] for inputs in self.sets]

    def _refuse(self, model, inputs):
        """Refuse to train several objectives: an adapter of one calls this. Never timed."""
        count = len(self.case.objectives)
        raise Unsupported(
            "this adapter trains one objective, and %s has %d" % (self.case.model, count)
        )

    def next(self, sets):
        """Return the element of ``sets`` at the cursor and advance the cursor. Timed in a step."""
        number = self.cursor
        self.cursor = (number + 1) % len(sets)
        return sets[number]

    def given(self, held):
        """Yield the case's value for each array of a built model, as (name, value) pairs.

        ``held``: canonical name -> array or variable of the framework. A value has the framework's
        order of axes and the shape of its array: the heads of attention may be a separate axis.
        Timed as a part of ``load``. Raises Mismatch where names, shapes or dtypes are not those of
        the definition.
        """
        values = dict(self.case.parameters, **self.case.state)
        check_names(held, values, self.case.model)
        for name, value in values.items():
            native = self.layout.to_native(value, self.case.dimensions[name])
            yield name, fitted(name, native, held[name])

    def trained_by(self, objective, held):
        """Select the items of ``held`` (name -> anything) that an objective trains. Never timed."""
        trains = objective["trains"]
        return {
            name: array
            for name, array in held.items()
            if name in self.case.parameters and name.startswith(trains)
        }

    def trained_by_each(self, held):
        """Map the name of each objective to the items of ``held`` that it trains. Never timed."""
        return {
            objective["name"]: self.trained_by(objective, held)
            for objective in self.case.objectives
        }

    def by_kind(self, held):
        """Turn ``held`` (canonical name -> array) into a handle of ``parameters``. Never timed."""
        return {
            ("state/" if name in self.case.state else "parameter/") + name: array
            for name, array in held.items()
        }

    def read(self, handle):
        """Read a handle: canonical names -> NumPy arrays in canonical axes. Never timed.

        infer: the outputs by name. train_step: the loss of every objective by its name, which is
        "loss" where there is only one. gradients: the losses, and one "gradient/<parameter>" for
        each parameter, from the objective that trains it. parameters: one "parameter/<parameter>"
        for each parameter and one "state/<statistic>" for each statistic. A running variance of
        batches with Bessel's correction is named "unbiased_variance" instead of "variance".
        generate: "tokens", (batch, count).
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
        """Restore the definition's axes where the framework split or merged them. Never timed."""
        dimensions = self.case.dimensions[name]
        if array.ndim != len(dimensions):
            values = self.case.parameters.get(name, self.case.state.get(name))
            array = array.reshape(self.layout.to_native(values, dimensions).shape)
        return self.layout.to_canonical(array, dimensions)

    def _check_file(self, losses):
        """Raise Mismatch where the file lacks a function or a function has wrong arguments.

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
        if place.startswith("outside_models_"):  # a name that the author of the file never saw
            place = "/".join(self.module.__file__.split(os.sep)[-3:])
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
            given = tuple(inspect.getfullargspec(function).args)
            if given[: len(arguments)] != arguments:
                raise Mismatch(
                    "%s: %s takes (%s), and the contract has %s(%s)"
                    % (place, name, ", ".join(given), name, ", ".join(arguments))
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
    """Give ``value`` the shape of a framework's array. Raises Mismatch where it does not fit.

    An axis may be split or axes may be merged, as the heads of attention are. An array without a
    known shape or dtype, such as a symbolic one, is not checked.
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
    """Return Adam's epsilon for frameworks that add it before the bias correction.

    These frameworks fold the correction into the step size. Their epsilon is the "epsilon hat"
    before section 2.1 of Kingma and Ba (2015): epsilon * sqrt(1 - beta2^t). That value changes with
    the step t, but the frameworks take a constant. The value of step 1 is used. With it the first
    step, which the gate judges most narrowly, follows the pinned formula, even where gradients are
    as small as epsilon. The difference in later steps stays far inside their tolerance.
    """
    return constants["epsilon"] * (1 - constants["beta2"]) ** 0.5
