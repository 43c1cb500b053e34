"""Multilayer perceptron, as in the quick start: https://docs.tinygrad.org/quickstart/."""

from itertools import pairwise

from tinygrad import nn


class MLP:
    """Linear layers with ReLU between them."""

    def __init__(self, sizes):
        widths = [sizes["features"], *sizes["hidden"]]
        self.hidden = [nn.Linear(inputs, units) for inputs, units in pairwise(widths)]
        self.logits = nn.Linear(widths[-1], sizes["classes"])

    def __call__(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = layer(x).relu()
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return MLP(sizes)
