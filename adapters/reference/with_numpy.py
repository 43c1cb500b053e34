"""``reference:numpy``: the layer namespace in NumPy, in the precision of the case's arrays."""

import numpy as np

import reference
from adapters.base import Adapter, Unsupported
from reference.layers_numpy import NumpyLayers


class NumpyAdapter(Adapter):
    """Inference only: NumPy has no gradients."""

    def __init__(self, device, mode, threads, precision):
        if device != "cpu":
            raise Unsupported("NumPy runs on the CPU only")

    def describe(self):
        """NumPy takes its threads from its BLAS library and cannot read them back."""
        return {"version": np.__version__, "threads": None}

    def load(self, build, case):
        """The definition's own forward over the case's arrays."""
        self.case, self.cursor = case, 0
        self.forward = reference.get(case.model).forward
        self.layers = NumpyLayers(case.parameters)

    def infer(self):
        """Forward pass."""
        inputs = self.case.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.case.sets)
        return self.forward(self.layers, self.case.sizes, inputs)

    def parameters(self):
        """Already under their canonical names."""
        return {"parameter/" + name: v for name, v in self.case.parameters.items()}

    def wait(self, handle):
        """NumPy is synchronous."""

    def read(self, handle):
        """Already canonical."""
        return handle
