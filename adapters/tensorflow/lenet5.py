"""LeNet-5 as a tf.Module, after "Introduction to modules, layers, and models".

https://www.tensorflow.org/guide/intro_to_modules
Pooling: https://www.tensorflow.org/api_docs/python/tf/nn/max_pool2d
"""

import tensorflow as tf

from adapters.tensorflow.layers import Conv2D, Dense


class LeNet5(tf.Module):
    """Two convolutions with pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        relu = tf.nn.relu
        first, second = sizes["filters"]
        units1, units2 = sizes["hidden"]
        # conv1 keeps the image's size, conv2 takes off 4, each pooling halves.
        rows, columns = ((sizes[side] // 2 - 4) // 2 for side in ("height", "width"))
        channels, flat = sizes["channels"], rows * columns * second
        self.conv1 = Conv2D(channels, first, 5, padding="SAME", activation=relu, name="conv1")
        self.conv2 = Conv2D(first, second, 5, padding="VALID", activation=relu, name="conv2")
        self.hidden1 = Dense(flat, units1, activation=relu, name="hidden1")
        self.hidden2 = Dense(units1, units2, activation=relu, name="hidden2")
        self.logits = Dense(units2, sizes["classes"], name="logits")

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = tf.nn.max_pool2d(self.conv1(image), ksize=2, strides=2, padding="VALID")
        x = tf.nn.max_pool2d(self.conv2(x), ksize=2, strides=2, padding="VALID")
        x = tf.reshape(x, [x.shape[0], -1])
        return self.logits(self.hidden2(self.hidden1(x)))


def build(sizes):
    """The model."""
    return LeNet5(sizes)
