"""LeNet-5 as a tf.Module, after "Introduction to modules, layers, and models".

https://www.tensorflow.org/guide/intro_to_modules
Pooling: https://www.tensorflow.org/api_docs/python/tf/nn/max_pool2d
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Conv2D, Dense


class LeNet5(tf.Module):
    """Two convolutions with pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        relu = tf.nn.relu
        first, second = sizes["filters"]
        units1, units2 = sizes["hidden"]
        self.conv1 = Conv2D(sizes["channels"], first, 5, padding="SAME")
        self.conv2 = Conv2D(first, second, 5)
        self.hidden1 = Dense(sizes["flattened"], units1, activation=relu)
        self.hidden2 = Dense(units1, units2, activation=relu)
        self.logits = Dense(units2, sizes["classes"])

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = tf.nn.relu(self.conv1(image))
        x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")
        x = tf.nn.relu(self.conv2(x))
        x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")
        x = tf.reshape(x, [x.shape[0], -1])
        return self.logits(self.hidden2(self.hidden1(x)))


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
