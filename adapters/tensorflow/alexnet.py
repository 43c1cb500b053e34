"""AlexNet as a tf.Module, after "Introduction to modules, layers, and models".

https://www.tensorflow.org/guide/intro_to_modules (2026-11)
Pooling: https://www.tensorflow.org/api_docs/python/tf/nn/max_pool2d
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Conv2D, Dense, adaptive_mean_pool


class AlexNet(tf.Module):
    """Five convolutions with overlapping pooling, adaptive pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second, third, fourth, fifth = sizes["filters"]
        units1, units2 = sizes["hidden"]
        self.conv1 = Conv2D(sizes["channels"], first, 11, strides=4, padding=2)
        self.conv2 = Conv2D(first, second, 5, padding="SAME")
        self.conv3 = Conv2D(second, third, 3, padding="SAME")
        self.conv4 = Conv2D(third, fourth, 3, padding="SAME")
        self.conv5 = Conv2D(fourth, fifth, 3, padding="SAME")
        self.hidden1 = Dense(sizes["flattened"], units1, activation=tf.nn.relu)
        self.hidden2 = Dense(units1, units2, activation=tf.nn.relu)
        self.logits = Dense(units2, sizes["classes"])
        self.pooled = sizes["pooled"]

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = tf.nn.relu(self.conv1(image))
        x = tf.nn.max_pool2d(x, ksize=3, strides=2, padding="VALID")
        x = tf.nn.relu(self.conv2(x))
        x = tf.nn.max_pool2d(x, ksize=3, strides=2, padding="VALID")
        x = tf.nn.relu(self.conv3(x))
        x = tf.nn.relu(self.conv4(x))
        x = tf.nn.relu(self.conv5(x))
        x = tf.nn.max_pool2d(x, ksize=3, strides=2, padding="VALID")
        x = adaptive_mean_pool(x, self.pooled)
        x = tf.reshape(x, [x.shape[0], -1])
        return self.logits(self.hidden2(self.hidden1(x)))


def build(sizes):
    """Build the model."""
    return AlexNet(sizes)
