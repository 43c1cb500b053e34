"""Multilayer perceptron as a ``keras.Sequential`` model.

Follows https://keras.io/guides/sequential_model/ ("The Sequential model").
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: (batch, features) -> logits (batch, classes)."""
    model = keras.Sequential([keras.Input((sizes["features"],), name="features")])
    for number, units in enumerate(sizes["hidden"], start=1):
        model.add(layers.Dense(units, activation="relu", name=f"hidden{number}"))
    model.add(layers.Dense(sizes["classes"], name="logits"))
    return model
