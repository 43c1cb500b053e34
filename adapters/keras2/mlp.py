"""Multilayer perceptron as a ``Sequential`` model, after the guide to it.

https://github.com/keras-team/keras/blob/2.3.1/docs/templates/getting-started/sequential-model-guide.md
"""

from keras.layers import Dense, InputLayer
from keras.models import Sequential


def build(sizes):
    """(batch, features) -> logits (batch, classes)."""
    model = Sequential([InputLayer((sizes["features"],))])
    for number, units in enumerate(sizes["hidden"], 1):
        model.add(Dense(units, activation="relu", name=f"hidden{number}"))
    model.add(Dense(sizes["classes"], name="logits"))
    return model
