"""Multilayer perceptron, after the tutorial of this name.

http://deeplearning.net/tutorial/mlp.html
"""

import theano.tensor as T

from levelfield.adapters.theano.layers import Dense, Model


class MLP(Model):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["features"], *sizes["hidden"]]
        self.hidden = [
            Dense(self, f"hidden{i + 1}", widths[i], widths[i + 1]) for i in range(len(widths) - 1)
        ]
        self.logits = Dense(self, "logits", widths[-1], sizes["classes"])

    def __call__(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = T.nnet.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return MLP(sizes)
