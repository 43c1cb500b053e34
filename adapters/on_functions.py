"""The work that adapters of symbolic graphs share: one compiled function for each kind of step.

For Theano, PyTensor and the sessions of TensorFlow 1.
"""

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

    losses: the framework's functions by name.
    """

    losses = None

    def load(self, module, case):
        """Set the values of the model's shared variables; functions are made when needed."""
        self.begin(module, case, self.losses)
        self.functions, self.model = {}, module.build(case.sizes)
        held = self.model.variables
        for name, value in self.given({n: v.get_value(borrow=True) for n, v in held.items()}):
            held[name].set_value(value)
        self.trained = [held[name] for name in case.parameters]
        ((self.loss_name, self.objective),) = self.objectives.items()

    def parameters(self):
        """Return copies of the shared variables' values."""
        return self.by_kind({n: v.get_value() for n, v in self.model.variables.items()})
