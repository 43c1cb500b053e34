"""Two towers as ``nnx.Module``s; the softmax is over the items of the batch.

Follows https://flax.readthedocs.io/en/latest/nnx_basics.html (2026-11).
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx


class TwoTower(nnx.Module):
    """Embeddings of users and items, and the scores of all their pairs."""

    def __init__(self, sizes, *, rngs):
        self.temperature = sizes["temperature"]
        self.user, self.item = (
            nnx.List(
                [nnx.Linear(a, b, rngs=rngs) for a, b in pairwise([features, *sizes["tower"]])]
            )
            for features in (sizes["user_features"], sizes["item_features"])
        )

    def __call__(self, user, item):
        """(batch, user_features), (batch, item_features) -> logits (batch, batch)."""
        return embed(self.user, user) @ embed(self.item, item).T / self.temperature


def embed(layers, x):
    """(batch, features) -> (batch, width) of norm 1."""
    for layer in layers[:-1]:
        x = nnx.relu(layer(x))
    x = layers[-1](x)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def build(sizes):
    """Sizes of the preset -> the module."""
    return TwoTower(sizes, rngs=nnx.Rngs(0))
