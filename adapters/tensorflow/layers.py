"""Layers as TensorFlow's Core guides write them: a tf.Module that holds tf.Variables.

Dense: https://www.tensorflow.org/guide/core/mlp_core, with the input's size given at once, as in
https://www.tensorflow.org/api_docs/python/tf/Module. The others are the same around tf.nn.conv2d,
tf.nn.conv2d_transpose, tf.nn.moments with tf.nn.batch_normalization, and tf.nn.embedding_lookup:
https://www.tensorflow.org/api_docs/python/tf/nn
"""

import tensorflow as tf


class Dense(tf.Module):
    """activation(x @ kernel + bias)."""

    def __init__(self, in_features, out_features, *, activation=tf.identity):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([in_features, out_features]))
        self.bias = tf.Variable(tf.zeros([out_features]))
        self.activation = activation

    def __call__(self, x):
        """(..., in_features) -> (..., out_features)."""
        if x.shape.rank == 2:
            return self.activation(tf.matmul(x, self.kernel) + self.bias)
        return self.activation(tf.tensordot(x, self.kernel, axes=1) + self.bias)


class Conv2D(tf.Module):
    """A convolution; ``padding`` is "SAME", "VALID" or a number of zeros on each side."""

    def __init__(self, in_channels, filters, window, *, strides=1, padding="VALID", bias=True):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([window, window, in_channels, filters]))
        self.bias = tf.Variable(tf.zeros([filters])) if bias else None
        self.strides = strides
        sides = [padding, padding]
        self.padding = padding if isinstance(padding, str) else [[0, 0], sides, sides, [0, 0]]

    def __call__(self, x):
        """(batch, height, width, in_channels) -> (batch, height', width', filters)."""
        x = tf.nn.conv2d(x, self.kernel, strides=self.strides, padding=self.padding)
        return x if self.bias is None else tf.nn.bias_add(x, self.bias)


class Conv2DTranspose(tf.Module):
    """A transposed convolution without bias; the variable has the order (..., out, in)."""

    def __init__(self, in_channels, filters, window, *, strides, padding):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([window, window, filters, in_channels]))
        self.strides, self.padding = strides, padding

    def __call__(self, x):
        """(batch, height, width, in_channels) -> (batch, height', width', filters)."""
        batch, height, width, _ = x.shape
        window, _, filters, _ = self.kernel.shape
        grown = 0 if self.padding == "SAME" else window - self.strides
        shape = [batch, height * self.strides + grown, width * self.strides + grown, filters]
        return tf.nn.conv2d_transpose(x, self.kernel, shape, self.strides, self.padding)


class BatchNorm(tf.Module):
    """Batch normalisation of images with running statistics."""

    def __init__(self, channels, *, momentum=0.9, epsilon=1e-5):
        super().__init__()
        self.scale = tf.Variable(tf.ones([channels]))
        self.bias = tf.Variable(tf.zeros([channels]))
        self.mean = tf.Variable(tf.zeros([channels]), trainable=False)
        self.variance = tf.Variable(tf.ones([channels]), trainable=False)
        self.momentum, self.epsilon = momentum, epsilon

    def __call__(self, x, *, training):
        """Normalise (batch, height, width, channels); the shape does not change."""
        if training:
            mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
            for running, new in ((self.mean, mean), (self.variance, variance)):
                running.assign_sub((1 - self.momentum) * (running - new))
        else:
            mean, variance = self.mean, self.variance
        return tf.nn.batch_normalization(x, mean, variance, self.bias, self.scale, self.epsilon)


class LayerNorm(tf.Module):
    """Normalisation over the last axis."""

    def __init__(self, width, *, epsilon):
        super().__init__()
        self.scale = tf.Variable(tf.ones([width]))
        self.bias = tf.Variable(tf.zeros([width]))
        self.epsilon = epsilon

    def __call__(self, x):
        """(..., width) -> (..., width)."""
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, self.bias, self.scale, self.epsilon)


class Embedding(tf.Module):
    """Rows of a table."""

    def __init__(self, count, width):
        super().__init__()
        self.embedding = tf.Variable(tf.random.normal([count, width]))

    def __call__(self, ids):
        """(...) -> (..., width)."""
        return tf.nn.embedding_lookup(self.embedding, ids)


def max_pool_ceil(x, window, strides):
    """Max pooling of values from 0 up whose last window may extend beyond the image.

    TensorFlow has no such padding: "SAME" puts a row before an image of odd size, too.
    https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2 (2026-11)
    """
    rows, columns = (-(size - window) % strides for size in x.shape[1:3])
    x = tf.pad(x, [[0, 0], [0, rows], [0, columns], [0, 0]])
    return tf.nn.max_pool2d(x, ksize=window, strides=strides, padding="VALID")


def adaptive_mean_pool(x, side):
    """Mean over side x side windows, from rounded-down to rounded-up parts of the image.

    tf.nn has no adaptive pooling. (batch, height, width, channels) -> (batch, side, side, channels)
    """
    for axis in (1, 2):
        size = x.shape[axis]
        parts = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
        means = [tf.reduce_mean(tf.gather(x, range(*part), axis=axis), axis) for part in parts]
        x = tf.stack(means, axis)
    return x
