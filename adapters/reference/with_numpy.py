"""``reference:numpy``: the layer namespace in NumPy, in the precision of the case's arrays."""

import numpy as np

from levelfield import reference
from levelfield.adapters.base import Adapter
from levelfield.reference.layers_numpy import NumpyLayers


class NumpyAdapter(Adapter):
    """Inference and generation: NumPy has no gradients."""

    no_gpu = "NumPy runs on the CPU only"

    def describe(self):
        """Describe the run. NumPy's threads are those of its BLAS and cannot be read back."""
        return {"version": np.__version__, "threads": None}

    def load(self, module, case):
        """Prepare the definition's forward over the case's arrays."""
        self.begin(module, case)
        self.model = reference.get(case.model)
        self.layers = NumpyLayers(case.parameters, case.state)

    def infer(self):
        """Run the forward pass."""
        return self.model.forward(self.layers, self.case.sizes, self.next(self.sets))

    def generate(self, count):
        """Decode one token after the other; keys and values are kept."""
        generation, sizes = self.model.generation, self.case.sizes
        position, chosen = 0, []
        tokens, cache = generation.first(self.layers, sizes, self.next(self.prompts))
        for _ in range(count):
            logits, cache = generation.advance(self.layers, sizes, tokens, position, cache)
            position += tokens.shape[1]
            tokens = self.layers.most_likely(logits)[:, None]
            chosen.append(tokens)
        return {"tokens": np.concatenate(chosen, 1)}

    def parameters(self):
        """Return the parameters, which have their canonical names already."""
        return self.by_kind({**self.case.parameters, **self.case.state})

    def wait(self, handle):
        """Do nothing: NumPy is synchronous."""
