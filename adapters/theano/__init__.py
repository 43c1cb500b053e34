"""Theano: symbolic graphs compiled to C; gradients by T.grad, updates by shared variables."""

import glob
import os
import sys

import scipy

from levelfield.adapters.base import Unsupported
from levelfield.adapters.layout import CHANNELS_FIRST, Layout
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


class Adapter(OnSharedVariables):
    """``theano:c``. Theano ended in 2017; this is its last release.

    https://theano-pymc.readthedocs.io/en/latest/tutorial/using_gpu.html and
    https://theano-pymc.readthedocs.io/en/latest/extending/graphstructures.html
    """

    layout = LAYOUT
    native = theano
    losses = LOSSES
    unbiased_variance = True
    no_gpu = "Theano's GPU library, libgpuarray, is no longer built"

    def configure(self):
        """Require the C++ compiler; the threads are those of the BLAS."""
        if not theano.config.cxx:
            raise Unsupported("without g++ Theano falls back to Python, 700 times slower")

    def describe(self):
        """Describe the run. The threads are those of the BLAS and cannot be read back."""
        return {
            "version": theano.__version__,
            "threads": None,
            "mode": theano.config.mode,
            "blas": theano.config.blas.ldflags.rpartition("/")[2],
        }

    def symbol(self, name, value):
        """Make a tensor without a shape, of the type that a model's input has."""
        return T.TensorType(TYPES[value.dtype.kind], [False] * value.ndim)(name)
