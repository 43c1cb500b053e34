"""The work that adapters of symbolic graphs share: one compiled function for each kind of step.

For Theano, PyTensor and the sessions of TensorFlow 1.
"""

from collections import OrderedDict

import numpy as np

from levelfield.adapters.base import Adapter


class OnFunctions(Adapter):
    """An adapter that makes a function when a kind of step first needs it.

    A subclass has ``made(kind)`` -> (names of the function's inputs, names of its results, the
    function), for "inference", "training" and "gradients". ``load`` empties ``functions``.
    """

    compiled = 0

    def compilations(self):
        """Count the functions made in this process."""
        return self.compiled

    def compile(self, phase):
        """Make the function of a phase."""
        self.function(phase)
        return True

    def function(self, kind):
        """Return the names and the function of a kind, made where it is missing."""
        if kind not in self.functions:
            self.compiled += 1
            self.functions[kind] = self.made(kind)
        return self.functions[kind]

    def run(self, kind):
        """Call the function of a kind on the next input set -> results by name."""
        names, keys, function = self.function(kind)
        inputs = self.next(self.sets)
        # Results without a name, such as that of an update, come last.
        return dict(zip(keys, function(*(inputs[name] for name in names)), strict=False))

    def infer(self):
        """Call the function of the forward pass."""
        return self.run("inference")

    def train_step(self):
        """Compute loss, gradients and updates in one function."""
        return self.run("training")

    def gradients(self):
        """Call a separate function without updates."""
        return self.run("gradients")

    def wait(self, handle):
        """Do nothing: a call returns its values when it is done."""


class OnSharedVariables(OnFunctions):
    """An adapter of models that hold their parameters in shared variables, ``model.variables``.

    native: the framework's module. losses: its functions by name. compiler: the mode of its
    functions; None for the default. A subclass has ``symbol(name, value)`` -> the symbolic input
    for a placed array.

    A model with running statistics puts their updates into ``moved`` when it is called while
    ``training`` is true: an OrderedDict, shared variable -> new value.
    """

    native = None
    losses = None
    compiler = None

    def load(self, module, case):
        """Set the values of the model's shared variables; functions are made when needed."""
        self.begin(module, case, self.losses)
        self.functions, self.model = {}, module.build(case.sizes)
        held = self.model.variables
        for name, value in self.given({n: v.get_value(borrow=True) for n, v in held.items()}):
            held[name].set_value(value)
        self.trained = [held[name] for name in case.parameters]

    def made(self, kind):
        """Call the framework's ``function``, which optimises and compiles the graph."""
        symbols = {name: self.symbol(name, value) for name, value in self.sets[0].items()}
        self.model.training, self.model.moved = kind != "inference", OrderedDict()
        updates = OrderedDict()
        if kind == "inference":
            symbols = {name: symbols[name] for name in self.case.used}
            outputs = self.case.named_outputs(self.model(**symbols))
        else:
            loss = self.objective(self.model, symbols)
            gradients = self.native.tensor.grad(loss, self.trained)
            outputs = {self.loss_name: loss}
            if kind == "training":
                updates = make_updates(self.native, self.case.optimizer, self.trained, gradients)
                updates.update(self.model.moved)
            else:
                names = ("gradient/" + name for name in self.case.parameters)
                outputs.update(zip(names, gradients, strict=True))
        function = self.native.function(
            [*symbols.values()], [*outputs.values()], updates=updates, mode=self.compiler
        )
        return list(symbols), list(outputs), function

    def parameters(self):
        """Return copies of the shared variables' values."""
        return self.by_kind({n: v.get_value() for n, v in self.model.variables.items()})


def make_updates(native, constants, parameters, gradients):
    """Make an optimiser's updates: shared variable -> new value.

    Theano and PyTensor have no optimisers; their tutorials write them in this way. ``native`` is
    the module of one of them.
    """
    # Python's numbers are doubles and would turn every result into doubles.
    single = {name: np.float32(value) for name, value in constants.items() if name != "name"}
    rate, one, updates = single["learning_rate"], np.float32(1), OrderedDict()
    if constants["name"] == "adam":
        beta1, beta2, epsilon = (single[name] for name in ("beta1", "beta2", "epsilon"))
        rest1, rest2 = np.float32(1 - constants["beta1"]), np.float32(1 - constants["beta2"])
        number = native.shared(np.float32(0))
        updates[number] = number + one
        first, second = one - beta1 ** updates[number], one - beta2 ** updates[number]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        zeros = np.zeros_like(parameter.get_value(borrow=True))
        if constants["name"] == "adam":
            mean, square = native.shared(zeros), native.shared(zeros.copy())
            updates[mean] = beta1 * mean + rest1 * gradient
            updates[square] = beta2 * square + rest2 * gradient**2
            deviation = native.tensor.sqrt(updates[square] / second) + epsilon
            updates[parameter] = parameter - rate * updates[mean] / first / deviation
        elif constants["name"] == "momentum":
            velocity = native.shared(zeros)
            updates[velocity] = single["momentum"] * velocity + gradient
            updates[parameter] = parameter - rate * updates[velocity]
        else:
            updates[parameter] = parameter - rate * gradient
    return updates
