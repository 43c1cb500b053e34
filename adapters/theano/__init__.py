"""Theano: symbolic graphs compiled to C; gradients by T.grad, updates by shared variables."""

import glob
import os
import sys
from collections import OrderedDict

import numpy as np
import scipy

from levelfield.adapters.base import CHANNELS_FIRST, Layout, Unsupported
from levelfield.adapters.on_functions import OnSharedVariables

# SciPy's wheel contains the BLAS that Theano's C code calls. Without a BLAS, Theano would call that
# of NumPy through Python, at half the speed.
LIBRARIES = os.path.join(os.path.dirname(os.path.dirname(scipy.__file__)), "scipy.libs")
BLAS = ["-l:" + os.path.basename(path) for path in glob.glob(LIBRARIES + "/libopenblas*")]
FLAGS = {
    "device": "cpu",
    "floatX": "float32",
    "base_compiledir": os.path.join(os.environ.get("XDG_CACHE_HOME", ""), "theano"),
    "blas.ldflags": " ".join(["-L" + LIBRARIES, *BLAS]),
}
os.environ["THEANO_FLAGS"] = ",".join(f"{name}={value}" for name, value in FLAGS.items())
# The Cython code of scan does not compile for Python 3.11. Its Python code does the same work.
sys.modules["theano.scan_module.scan_perform_ext"] = None

import theano  # noqa: E402
import theano.tensor as T  # noqa: E402

LAYOUT = Layout(CHANNELS_FIRST)
TYPES = {"f": "float32", "i": "int32"}


def cross_entropy(logits, labels):
    """Cross-entropy as softmax and logarithm, which the compiler joins in a stable form."""
    return T.nnet.categorical_crossentropy(T.nnet.softmax(logits), labels).mean()


def evidence_lower_bound(logits, mean, log_variance, target):
    """The negative evidence lower bound, averaged over the batch."""
    # T.nnet.sigmoid_binary_crossentropy has no gradient in this release: computing it raises.
    reconstruction = (T.nnet.softplus(logits) - logits * target).sum(axis=1)
    divergence = -0.5 * (1 + log_variance - T.sqr(mean) - T.exp(log_variance)).sum(axis=1)
    return (reconstruction + divergence).mean()


LOSSES = {
    "softmax_cross_entropy": cross_entropy,
    "evidence_lower_bound": evidence_lower_bound,
}


def make_updates(constants, parameters, gradients):
    """Theano has no optimisers; its tutorials write them as updates of shared variables."""
    # Python's numbers are doubles and would turn every result into doubles.
    single = {name: np.float32(value) for name, value in constants.items() if name != "name"}
    rate, updates = single["learning_rate"], OrderedDict()
    if constants["name"] == "adam":
        beta1, beta2, epsilon = (single[name] for name in ("beta1", "beta2", "epsilon"))
        rest1, rest2 = np.float32(1 - constants["beta1"]), np.float32(1 - constants["beta2"])
        number = theano.shared(np.float32(0))
        updates[number] = number + 1
        first, second = 1 - beta1 ** updates[number], 1 - beta2 ** updates[number]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        zeros = np.zeros_like(parameter.get_value(borrow=True))
        if constants["name"] == "adam":
            mean, square = theano.shared(zeros), theano.shared(zeros)
            updates[mean] = beta1 * mean + rest1 * gradient
            updates[square] = beta2 * square + rest2 * T.sqr(gradient)
            deviation = T.sqrt(updates[square] / second) + epsilon
            updates[parameter] = parameter - rate * updates[mean] / first / deviation
        elif constants["name"] == "momentum":
            velocity = theano.shared(zeros)
            updates[velocity] = single["momentum"] * velocity + gradient
            updates[parameter] = parameter - rate * updates[velocity]
        else:
            updates[parameter] = parameter - rate * gradient
    return updates


class Adapter(OnSharedVariables):
    """``theano:c``. Theano ended in 2017; this is its last release.

    https://theano-pymc.readthedocs.io/en/latest/tutorial/using_gpu.html and
    https://theano-pymc.readthedocs.io/en/latest/extending/graphstructures.html
    """

    layout = LAYOUT
    losses = LOSSES
    unbiased_variance = True

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("Theano's GPU library, libgpuarray, is no longer built")
        if not theano.config.cxx:
            raise Unsupported("without g++ Theano falls back to Python, 700 times slower")

    def describe(self):
        """Describe the run. The threads are those of the BLAS and cannot be read back."""
        return {
            "version": theano.__version__,
            "numpy": np.__version__,
            "threads": None,
            "mode": theano.config.mode,
            "blas": theano.config.blas.ldflags.rpartition("/")[2],
        }

    def made(self, kind):
        """Call theano.function: optimise the graph and compile the parts that are not cached."""
        symbols = {
            name: T.TensorType(TYPES[value.dtype.kind], [False] * value.ndim)(name)
            for name, value in self.sets[0].items()
        }
        self.model.training, self.model.moved = kind != "inference", OrderedDict()
        if kind == "inference":
            found = self.case.named_outputs(self.model(**{n: symbols[n] for n in self.case.used}))
            names = self.case.used
            return (
                names,
                list(found),
                theano.function([symbols[n] for n in names], [*found.values()]),
            )
        loss = self.objective(self.model, symbols)
        gradients = T.grad(loss, self.trained)
        inputs, names = list(symbols.values()), list(symbols)
        if kind == "gradients":
            keys = [self.loss_name, *("gradient/" + name for name in self.case.parameters)]
            return names, keys, theano.function(inputs, [loss, *gradients])
        updates = make_updates(self.case.optimizer, self.trained, gradients)
        updates.update(self.model.moved)
        return names, [self.loss_name], theano.function(inputs, [loss], updates=updates)
