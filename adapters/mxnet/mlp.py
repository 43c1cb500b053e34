"""Multilayer perceptron, after "Create a neural network" of MXNet's crash course.

https://mxnet.apache.org/versions/1.9.1/api/python/docs/tutorials/getting-started/crash-course/2-nn.html
"""

from mxnet.gluon import nn


class MLP(nn.HybridBlock):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        self.hidden = nn.HybridSequential()
        width = sizes["features"]
        for units in sizes["hidden"]:
            self.hidden.add(nn.Dense(units, activation="relu", in_units=width))
            width = units
        self.logits = nn.Dense(sizes["classes"], in_units=width)

    def hybrid_forward(self, F, features):
        """(batch, features) -> logits (batch, classes)."""
        return self.logits(self.hidden(features))


def build(sizes):
    """Build the model."""
    return MLP(sizes)
