"""Multilayer perceptron over a pytree of parameters.

Follows https://docs.jax.dev/en/latest/101/pytrees.html ("Working with pytrees": the parameters of
an MLP as nested containers, the forward pass a pure function of them).
"""

import jax

from levelfield.adapters.jax.layers import dense


def build(sizes):
    """Sizes of the preset -> ``predict(parameters, features)`` -> logits (batch, classes)."""
    hidden = [f"hidden{number}" for number in range(1, len(sizes["hidden"]) + 1)]

    def predict(parameters, features):
        activations = features  # (batch, in)
        for name in hidden:
            activations = jax.nn.relu(dense(parameters[name], activations))
        return dense(parameters["logits"], activations)

    return predict
