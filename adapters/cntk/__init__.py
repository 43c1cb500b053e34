"""CNTK: the layers library, criteria, learners and trainer; for Python 3.6."""

import warnings

import numpy as np

from levelfield.adapters.base import Adapter as Base
from levelfield.adapters.base import epsilon_hat
from levelfield.adapters.cntk.mpi import load_mpi
from levelfield.adapters.layout import CHANNELS_FIRST, Layout

load_mpi()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # CNTK warns that there is no GPU
    import cntk as C

LAYOUT = Layout(CHANNELS_FIRST)


def cross_entropy(logits, label):
    """The loss of every example; CNTK sums its criteria over a minibatch."""
    return C.cross_entropy_with_softmax(logits, C.one_hot(label, logits.shape[0]))


LOSSES = {"softmax_cross_entropy": cross_entropy}


def make_learner(constants, parameters, batch):
    """Make a learner; rates and momenta apply to the mean of ``batch`` examples."""
    rate = C.learning_parameter_schedule(constants["learning_rate"], minibatch_size=batch)
    if constants["name"] == "adam":
        # Gradients are sums over the minibatch. Adam's step does not grow with them, so its rate is
        # used unchanged ("per sample"). Epsilon is added to a sum.
        rate = C.learning_parameter_schedule_per_sample(constants["learning_rate"])
        beta1, beta2 = (
            C.momentum_schedule(constants[name], minibatch_size=batch)
            for name in ("beta1", "beta2")
        )
        epsilon = batch * epsilon_hat(constants)
        return C.adam(parameters, rate, beta1, variance_momentum=beta2, epsilon=epsilon)
    if constants["name"] == "momentum":
        momentum = C.momentum_schedule(constants["momentum"], minibatch_size=batch)
        return C.momentum_sgd(parameters, rate, momentum, unit_gain=False)
    return C.sgd(parameters, rate)


class Adapter(Base):
    """``cntk:layers``. CNTK ended in 2019; this is its last release.

    https://learn.microsoft.com/en-us/cognitive-toolkit/layers-library-reference and
    https://learn.microsoft.com/en-us/cognitive-toolkit/how-to-train-using-declarative-and-imperative-api
    """

    layout = LAYOUT
    no_gpu = "CNTK's GPU packages want CUDA 10 and are not looked at here"

    def configure(self):
        """Set the device; the threads are those of OpenMP."""
        C.try_set_default_device(C.cpu())

    def describe(self):
        """Describe the run. The threads are those of OpenMP, which CNTK cannot read back."""
        return {"version": C.__version__, "threads": None}

    def load(self, module, case):
        """Set the values in the parameters of the model's named layers."""
        self.begin(module, case, LOSSES)
        inputs = {n: C.input_variable(v.shape[1:], name=n) for n, v in self.sets[0].items()}
        layers = module.build(case.sizes)
        self.model = layers(*(inputs[name] for name in case.used))
        self.named = {name: self._held(name) for name in case.parameters}
        for name, value in self.given(self.named):
            self.named[name].value = value
        self.loss = self.objective(lambda **_: self.model, inputs)
        learner = make_learner(case.optimizer, self.model.parameters, case.batch)
        self.trainer = C.Trainer(self.model, self.loss, [learner])
        self.fed = [{inputs[n]: value for n, value in arrays.items()} for arrays in self.sets]
        self.read_by_model = [inputs[name] for name in case.used]

    def _held(self, name):
        path, _, kind = name.rpartition("/")
        return getattr(getattr(self.model, path), "W" if kind == "kernel" else "b")

    def place(self, name, value):
        """Return a float32 array: all inputs of CNTK are float32."""
        return super().place(name, value).astype("float32")

    def infer(self):
        """Call eval, which returns NumPy arrays."""
        arguments = self.next(self.fed)
        used = {variable: arguments[variable] for variable in self.read_by_model}
        return self.case.named_outputs(self.model.eval(used))

    def train_step(self):
        """Call train_minibatch."""
        self.trainer.train_minibatch(self.next(self.fed))
        return {self.loss_name: self.trainer.previous_minibatch_loss_average}

    def gradients(self):
        """Compute gradients: CNTK gives sums over the minibatch, turned into means here."""
        wanted = list(self.named.values())
        gradients, losses = self.loss.grad(self.next(self.fed), wrt=wanted, outputs=[self.loss])
        handle = {"gradient/" + n: gradients[v] / self.case.batch for n, v in self.named.items()}
        return dict(handle, **{self.loss_name: np.mean(losses)})

    def parameters(self):
        """Return copies of the parameters."""
        return self.by_kind({name: held.value for name, held in self.named.items()})

    def wait(self, handle):
        """Do nothing: on the CPU, CNTK returns when its work is done."""

    def to_numpy(self, value):
        """Convert to NumPy; CNTK returns a loss as float64."""
        return np.asarray(value, "float32")
