"""Neural matrix factorisation on ``nnx.Embed``.

Follows https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/linear.html
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx


class NeuMF(nnx.Module):
    """A product of factors next to a tower of dense layers."""

    def __init__(self, sizes, *, rngs):
        users, items, factors = sizes["users"], sizes["items"], sizes["factors"]
        self.factor_user = nnx.Embed(users, factors, rngs=rngs)
        self.factor_item = nnx.Embed(items, factors, rngs=rngs)
        self.tower_user = nnx.Embed(users, sizes["tower_embedding"], rngs=rngs)
        self.tower_item = nnx.Embed(items, sizes["tower_embedding"], rngs=rngs)
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes["tower"])])
        self.logits = nnx.Linear(sizes["joined"], 1, rngs=rngs)

    def __call__(self, user, item):
        """(batch,), (batch,) -> logits (batch, 1)."""
        factors = self.factor_user(user) * self.factor_item(item)
        x = jnp.concatenate([self.tower_user(user), self.tower_item(item)], axis=-1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.logits(jnp.concatenate([factors, x], axis=-1))


def build(sizes):
    """Sizes of the preset -> the module."""
    return NeuMF(sizes, rngs=nnx.Rngs(0))
