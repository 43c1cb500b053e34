"""VGG networks as a ``keras.Sequential`` model.

Follows https://keras.io/guides/sequential_model/ and, for the layers of a stage, the code of
https://keras.io/api/applications/vgg/ (2026-11).
https://keras.io/api/layers/pooling_layers/adaptive_average_pooling2d/
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: (batch, height, width, channels) -> logits (batch, classes)."""
    shape = (sizes["height"], sizes["width"], sizes["channels"])
    model = keras.Sequential([keras.Input(shape, name="image")])
    for number, (_, filters, pools) in enumerate(sizes["convolutions"], start=1):
        model.add(
            layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")
        )
        if pools:
            model.add(layers.MaxPooling2D(2))
    model.add(layers.AdaptiveAveragePooling2D(sizes["pooled"]))
    model.add(layers.Flatten())
    for number, units in enumerate(sizes["hidden"], start=1):
        model.add(layers.Dense(units, activation="relu", name=f"hidden{number}"))
    model.add(layers.Dense(sizes["classes"], name="logits"))
    return model
