"""Multilayer perceptron, after "How to Write a New Network" of Chainer's guides.

https://docs.chainer.org/en/v7.8.1/guides/define_by_run.html
"""

import chainer
from chainer import functions as F
from chainer import links as L


class MLP(chainer.Chain):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["features"], *sizes["hidden"]]
        with self.init_scope():
            self.hidden = chainer.ChainList(
                *(L.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1))
            )
            self.logits = L.Linear(widths[-1], sizes["classes"])

    def forward(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return MLP(sizes)
