"""Keras 2 on Theano and on CNTK: a compiled model stepped by ``train_on_batch``, or by ``fit``.

https://github.com/keras-team/keras/tree/2.3.1/docs (models/model.md, backend.md). All options are
the defaults: channels last, NumPy arrays in and out. For Python 3.6 and later.
"""

import collections
import collections.abc
import importlib
import os

import numpy as np

from levelfield.adapters.layout import Layout
from levelfield.adapters.on_keras import BOTH_BIASES, OnKeras, make_optimizer

LAYOUT = Layout(entries={"gru_gate": (1, 0, 2)})  # Keras has z, r, h

# A gradient is the movement of the weights in a step of plain descent, divided by its rate. With a
# rate as large as this, the rounding of the weights is negligible.
PROBING_RATE = 1024.0


class Adapter(OnKeras):
    """``keras2:BACKEND`` and ``keras2:BACKEND-fit``; ``keras2:cntk-unrolled``."""

    layout = LAYOUT
    no_gpu = "the GPU packages of its backends are no longer built"

    def configure(self):
        """Set the backend up as its own adapter does, by importing that, and import Keras."""
        self.backend, _, variant = self.mode.partition("-")
        self.fits, self.unrolled = variant == "fit", variant == "unrolled"
        importlib.import_module("levelfield.adapters." + self.backend)
        os.environ["KERAS_BACKEND"] = self.backend
        # Python 3.10 removed these names from collections.
        for name in ("Iterable", "Mapping", "Sequence"):
            setattr(collections, name, getattr(collections.abc, name))
        self.keras = importlib.import_module("keras")

    def describe(self):
        """Describe the run. The threads are those of the backend's BLAS and cannot be read back."""
        backend = self.keras.backend
        return {
            "version": self.keras.__version__,
            "threads": None,
            "backend": backend.backend(),
            "backend_version": importlib.import_module(self.backend).__version__,
            "image_data_format": backend.image_data_format(),
            "dtype": backend.floatx(),
        }

    def compilations(self):
        """Count the functions that the model has compiled so far."""
        functions = self.model.train_function, self.model.predict_function
        return sum(function is not None for function in functions)

    def load(self, module, case):
        """Build and compile a new model, then replace its weights with those of the case."""
        self.begin(module, case)
        self.tiles = 0
        self.model = module.build(dict(case.sizes, unroll=self.unrolled))
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.model.compile(optimizer=make_optimizer(self.keras, case.optimizer), loss=loss)
        # A model of the same layers with another optimiser, for the gradients.
        self.probe = self.keras.models.Model(self.model.inputs, self.model.outputs)
        self.probe.compile(optimizer=self.keras.optimizers.SGD(PROBING_RATE), loss=loss)
        self.parts = {name: self._variable(name) for name in case.parameters}
        for name, value in case.parameters.items():
            self.assign(name, LAYOUT.to_native(value, case.dimensions[name]))
        (objective,) = case.objectives
        # A sequence's mask makes its length unnecessary.
        self.batches = [
            (inputs[case.used[0]], inputs[objective["targets"][0]][:, None]) for inputs in self.sets
        ]

    def _variable(self, name):
        path, _, kind = name.rpartition("/")
        layer = self.model.get_layer(path)
        attribute = "bias" if name == BOTH_BIASES[1] else kind
        attribute = "embeddings" if kind == "embedding" else attribute
        return getattr(getattr(layer, "cell", layer), attribute)

    def _turned(self, value):
        """Flip kernels for Theano, which convolves; all others compute cross-correlation."""
        return value[::-1, ::-1] if self.backend == "theano" and value.ndim == 4 else value

    def value_of(self, name):
        """Return the value of a variable."""
        return self._turned(self.keras.backend.get_value(self.parts[name]))

    def set_value(self, name, value):
        """Set a variable."""
        self.keras.backend.set_value(self.parts[name], np.ascontiguousarray(self._turned(value)))

    def _values(self):
        """Return copies of all parameters."""
        return {name: np.array(self.part(name, self.value_of(name))) for name in self.parts}

    def train_step(self):
        """Call ``train_on_batch``, in the fit modes ``fit`` over one batch."""
        if self.fits:
            return self.repeat(self.train_step, 1)
        return {"loss": self.model.train_on_batch(*self.next_batches())}

    def gradients(self):
        """Take a step of plain descent and undo it: CNTK gives gradients in no other way."""
        before, weights = self._values(), self.model.get_weights()
        loss = self.probe.train_on_batch(*self.next_batches())
        after = self._values()
        handle = {"gradient/" + n: (before[n] - after[n]) / PROBING_RATE for n in after}
        self.model.set_weights(weights)
        return dict(handle, loss=loss)

    def parameters(self):
        """Return copies of the parameters."""
        return self.by_kind(self._values())

    def wait(self, handle):
        """Do nothing: both backends return when they are done."""

    def to_numpy(self, value):
        """Convert to float32: losses are float64."""
        return np.asarray(value, "float32")
