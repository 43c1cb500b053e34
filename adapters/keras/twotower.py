"""Two towers as a functional Keras model; the softmax is over the items of the batch.

Follows https://keras.io/keras_rs/examples/basic_retrieval/ (the scores of a batch are the product
of both embeddings) and https://keras.io/api/layers/regularization_layers/unit_normalization/ (read
2026-11).
"""

import keras
from keras import layers, ops


class Scores(layers.Layer):
    """The score of every item of the batch for every user."""

    def __init__(self, temperature, **options):
        super().__init__(**options)
        self.temperature = temperature

    def call(self, user, item):
        """Two (batch, width) -> (batch, batch)."""
        return ops.matmul(user, ops.transpose(item)) / self.temperature


def build(sizes):
    """Sizes of the preset -> model: user, item -> logits (batch, batch)."""
    inputs = {
        name: keras.Input((sizes[f"{name}_features"],), name=name) for name in ("user", "item")
    }
    user, item = (embed(x, name, sizes["tower"]) for name, x in inputs.items())
    return keras.Model(inputs, Scores(sizes["temperature"], name="logits")(user, item))


def embed(x, name, widths):
    """(batch, features) -> (batch, width) of norm 1."""
    for number, units in enumerate(widths[:-1], start=1):
        x = layers.Dense(units, activation="relu", name=f"{name}{number}")(x)
    x = layers.Dense(widths[-1], name=f"{name}{len(widths)}")(x)
    return layers.UnitNormalization()(x)
