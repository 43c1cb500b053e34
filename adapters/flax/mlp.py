"""Multilayer perceptron as an ``nnx.Module``.

Follows https://flax.readthedocs.io/en/latest/nnx_basics.html ("The Flax NNX Module system";
lists of submodules are ``nnx.List``).
"""

from itertools import pairwise

from flax import nnx


class MLP(nnx.Module):
    """Dense layers with ReLU between them."""

    def __init__(self, features, hidden, classes, *, rngs):
        widths = [features, *hidden]
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(widths)])
        self.logits = nnx.Linear(widths[-1], classes, rngs=rngs)

    def __call__(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Sizes of the preset -> the module."""
    return MLP(sizes["features"], sizes["hidden"], sizes["classes"], rngs=nnx.Rngs(0))
