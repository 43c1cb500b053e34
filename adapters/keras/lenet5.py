"""LeNet-5 as a ``keras.Sequential`` model.

Follows https://keras.io/examples/vision/mnist_convnet/ ("Simple MNIST convnet").
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: (batch, height, width, channels) -> logits (batch, classes)."""
    first, second = sizes["filters"]
    shape = (sizes["height"], sizes["width"], sizes["channels"])
    model = keras.Sequential(
        [
            keras.Input(shape, name="image"),
            # "same" is a padding of 2 on every side for a window of 5 and stride 1.
            layers.Conv2D(first, kernel_size=5, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(pool_size=2),
            layers.Conv2D(second, kernel_size=5, activation="relu", name="conv2"),
            layers.MaxPooling2D(pool_size=2),
            layers.Flatten(),
        ]
    )
    for number, units in enumerate(sizes["hidden"], start=1):
        model.add(layers.Dense(units, activation="relu", name=f"hidden{number}"))
    model.add(layers.Dense(sizes["classes"], name="logits"))
    return model
