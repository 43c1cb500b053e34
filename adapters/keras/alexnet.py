"""AlexNet as a ``keras.Sequential`` model.

Follows https://keras.io/guides/sequential_model/ (2026-11). "same" is the padding of the definition
on every side for stride 1; with stride 4 it would put less before the image than after it.
https://keras.io/api/layers/pooling_layers/adaptive_average_pooling2d/
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: (batch, height, width, channels) -> logits (batch, classes)."""
    first, second, third, fourth, fifth = sizes["filters"]
    units1, units2 = sizes["hidden"]
    return keras.Sequential(
        [
            keras.Input((sizes["height"], sizes["width"], sizes["channels"]), name="image"),
            layers.ZeroPadding2D(2),
            layers.Conv2D(first, 11, strides=4, activation="relu", name="conv1"),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(second, 5, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(3, strides=2),
            layers.Conv2D(third, 3, padding="same", activation="relu", name="conv3"),
            layers.Conv2D(fourth, 3, padding="same", activation="relu", name="conv4"),
            layers.Conv2D(fifth, 3, padding="same", activation="relu", name="conv5"),
            layers.MaxPooling2D(3, strides=2),
            layers.AdaptiveAveragePooling2D(sizes["pooled"]),
            layers.Flatten(),
            layers.Dense(units1, activation="relu", name="hidden1"),
            layers.Dense(units2, activation="relu", name="hidden2"),
            layers.Dense(sizes["classes"], name="logits"),
        ]
    )
