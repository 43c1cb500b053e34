"""Layers as TensorFlow's Core guides write them: a tf.Module that holds tf.Variables.

Dense: https://www.tensorflow.org/guide/core/mlp_core, with the input's size given at once, as in
https://www.tensorflow.org/api_docs/python/tf/Module.
Conv2D: the same around https://www.tensorflow.org/api_docs/python/tf/nn/conv2d.
"""

import tensorflow as tf


class Dense(tf.Module):
    """activation(x @ kernel + bias)."""

    def __init__(self, in_features, out_features, *, activation=tf.identity, name=None):
        super().__init__(name=name)
        self.kernel = tf.Variable(tf.random.normal([in_features, out_features]))
        self.bias = tf.Variable(tf.zeros([out_features]))
        self.activation = activation

    def __call__(self, x):
        """(batch, in_features) -> (batch, out_features)."""
        return self.activation(tf.matmul(x, self.kernel) + self.bias)


class Conv2D(tf.Module):
    """A convolution with stride 1 and a bias."""

    def __init__(self, in_channels, filters, window, *, padding, activation, name=None):
        super().__init__(name=name)
        self.kernel = tf.Variable(tf.random.normal([window, window, in_channels, filters]))
        self.bias = tf.Variable(tf.zeros([filters]))
        self.padding = padding
        self.activation = activation

    def __call__(self, x):
        """(batch, height, width, in_channels) -> (batch, height, width, filters)."""
        x = tf.nn.conv2d(x, self.kernel, strides=1, padding=self.padding)
        return self.activation(tf.nn.bias_add(x, self.bias))
