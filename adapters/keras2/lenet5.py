"""LeNet-5 as a ``Sequential`` model, after examples/mnist_cnn.py.

https://github.com/keras-team/keras/blob/2.3.1/examples/mnist_cnn.py
"""

from keras.layers import Conv2D, Dense, Flatten, InputLayer, MaxPooling2D
from keras.models import Sequential


def build(sizes):
    """(batch, height, width, channels) -> logits (batch, classes)."""
    first, second = sizes["filters"]
    model = Sequential(
        [
            InputLayer((sizes["height"], sizes["width"], sizes["channels"])),
            # "same" is a padding of 2 on every side for a window of 5 and stride 1.
            Conv2D(first, 5, padding="same", activation="relu", name="conv1"),
            MaxPooling2D(2),
            Conv2D(second, 5, activation="relu", name="conv2"),
            MaxPooling2D(2),
            Flatten(),
        ]
    )
    for number, units in enumerate(sizes["hidden"], 1):
        model.add(Dense(units, activation="relu", name=f"hidden{number}"))
    model.add(Dense(sizes["classes"], name="logits"))
    return model
