"""Multilayer perceptron, after "Multilayer perceptrons for digit recognition with Core APIs".

https://www.tensorflow.org/guide/core/mlp_core
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense


class MLP(tf.Module):
    """Dense layers in sequence."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["features"], *sizes["hidden"]]
        self.hidden = [
            Dense(widths[i], widths[i + 1], activation=tf.nn.relu) for i in range(len(widths) - 1)
        ]
        self.logits = Dense(widths[-1], sizes["classes"])

    def __call__(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = layer(x)
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return MLP(sizes)
