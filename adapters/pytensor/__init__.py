"""PyTensor, Theano's successor: symbolic graphs compiled by Numba or to C."""

import os

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


class Adapter(OnSharedVariables):
    """``pytensor:numba`` and ``pytensor:c``.

    https://pytensor.readthedocs.io/en/latest/tutorial/modes.html
    """

    native = pytensor
    losses = LOSSES
    no_gpu = "PyTensor reaches GPUs through JAX alone"

    def configure(self):
        """Choose the compiler. Numba compiles a function in its first call."""
        if self.mode == "c" and not pytensor.config.cxx:
            raise Unsupported("no C++ compiler was found")
        self.compiler = MODES[self.mode]

    def describe(self):
        """Describe the run. The threads are those of the BLAS and cannot be read back."""
        return {"version": pytensor.__version__, "threads": None, "mode": self.compiler}

    def symbol(self, name, value):
        """Make a tensor of a known shape, from which the compiler knows what is broadcast."""
        return pt.tensor(name, dtype=value.dtype.name, shape=value.shape)
