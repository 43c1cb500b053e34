"""PyTensor, Theano's successor: symbolic graphs compiled by Numba or to C."""

import os

import numpy as np

from levelfield.adapters.base import Unsupported
from levelfield.adapters.on_functions import OnSharedVariables

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", ""), "pytensor")
os.environ["PYTENSOR_FLAGS"] = f"floatX=float32,base_compiledir={CACHE}"

import pytensor  # noqa: E402
import pytensor.tensor as pt  # noqa: E402
from pytensor.tensor.special import log_softmax  # noqa: E402

MODES = {"numba": "NUMBA", "c": "CVM"}


def cross_entropy(logits, labels):
    """The mean of -log softmax at the labels."""
    return -log_softmax(logits, axis=-1)[pt.arange(labels.shape[0]), labels].mean()


LOSSES = {"softmax_cross_entropy": cross_entropy}


def make_updates(constants, parameters, gradients):
    """PyTensor has no optimisers; its examples write them as updates of shared variables."""
    single = {name: np.float32(value) for name, value in constants.items() if name != "name"}
    rate, updates = single["learning_rate"], {}
    if constants["name"] == "adam":
        beta1, beta2, one = single["beta1"], single["beta2"], np.float32(1)
        number = pytensor.shared(np.float32(0))
        updates[number] = number + one
        first, second = one - beta1 ** updates[number], one - beta2 ** updates[number]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        zeros = np.zeros_like(parameter.get_value(borrow=True))
        if constants["name"] == "adam":
            mean, square = pytensor.shared(zeros), pytensor.shared(zeros.copy())
            updates[mean] = beta1 * mean + (one - beta1) * gradient
            updates[square] = beta2 * square + (one - beta2) * gradient**2
            deviation = pt.sqrt(updates[square] / second) + single["epsilon"]
            updates[parameter] = parameter - rate * updates[mean] / first / deviation
        elif constants["name"] == "momentum":
            velocity = pytensor.shared(zeros)
            updates[velocity] = single["momentum"] * velocity + gradient
            updates[parameter] = parameter - rate * updates[velocity]
        else:
            updates[parameter] = parameter - rate * gradient
    return updates


class Adapter(OnSharedVariables):
    """``pytensor:numba`` and ``pytensor:c``.

    https://pytensor.readthedocs.io/en/latest/tutorial/modes.html
    """

    losses = LOSSES

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("PyTensor reaches GPUs through JAX alone")
        if mode == "c" and not pytensor.config.cxx:
            raise Unsupported("no C++ compiler was found")
        self.mode = MODES[mode]

    def describe(self):
        """Describe the run. The threads are those of the BLAS and cannot be read back."""
        return {
            "version": pytensor.__version__,
            "numpy": np.__version__,
            "threads": None,
            "mode": self.mode,
        }

    def made(self, kind):
        """Call pytensor.function, which rewrites the graph; Numba compiles in its first call."""
        # Shapes are known here. From them the compiler knows where nothing is broadcast.
        symbols = {
            name: pt.tensor(name, dtype=value.dtype.name, shape=value.shape)
            for name, value in self.case.sets[0].items()
        }
        used = {name: symbols[name] for name in self.case.used}
        if kind == "inference":
            outputs, symbols, updates = self.case.named_outputs(self.model(**used)), used, {}
        else:
            loss = self.objective(self.model, symbols)
            gradients, outputs = pt.grad(loss, self.trained), {self.loss_name: loss}
            updates = {}
            if kind == "training":
                updates = make_updates(self.case.optimizer, self.trained, gradients)
            else:
                names = ("gradient/" + name for name in self.case.parameters)
                outputs.update(zip(names, gradients, strict=True))
        function = pytensor.function(
            [*symbols.values()], [*outputs.values()], updates=updates, mode=self.mode
        )
        return list(symbols), list(outputs), function
