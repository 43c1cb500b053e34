"""Two towers over a pytree of parameters; the softmax is over the items of the batch.

Follows https://docs.jax.dev/en/latest/101/pytrees.html, and
https://docs.jax.dev/en/latest/_autosummary/jax.numpy.linalg.norm.html (2026-11).
"""

import jax
import jax.numpy as jnp

from levelfield.adapters.jax.layers import dense


def build(sizes):
    """-> ``predict(parameters, user, item)`` -> logits (batch, batch)."""
    depth, temperature = len(sizes["tower"]), sizes["temperature"]

    def embed(parameters, name, x):
        """(batch, features) -> (batch, width) of norm 1."""
        for number in range(1, depth):
            x = jax.nn.relu(dense(parameters[f"{name}{number}"], x))
        x = dense(parameters[f"{name}{depth}"], x)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def predict(parameters, user, item):
        scores = embed(parameters, "user", user) @ embed(parameters, "item", item).T
        return scores / temperature

    return predict
