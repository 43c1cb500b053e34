"""Multilayer perceptron, after "Multilayer perceptrons for digit recognition with Core APIs".

https://www.tensorflow.org/guide/core/mlp_core
"""

import tensorflow as tf

from adapters.tensorflow.layers import Dense


class MLP(tf.Module):
    """Dense layers in sequence."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def __call__(self, x):
        """(batch, features) -> logits (batch, classes)."""
        for layer in self.layers:
            x = layer(x)
        return x


def build(sizes):
    """The model."""
    widths = [sizes["features"], *sizes["hidden"]]
    layers = [
        Dense(widths[i], widths[i + 1], activation=tf.nn.relu, name=f"hidden{i + 1}")
        for i in range(len(widths) - 1)
    ]
    return MLP([*layers, Dense(widths[-1], sizes["classes"], name="logits")])
