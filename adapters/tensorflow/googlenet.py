"""GoogLeNet as tf.Modules, after "Introduction to modules, layers, and models".

https://www.tensorflow.org/guide/intro_to_modules (2026-11)
Padding is explicit: "SAME" with stride 2 would put less of it before the image than after it.
https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import BatchNorm, Conv2D, Dense, max_pool_ceil


class ConvNorm(tf.Module):
    """A convolution without bias, batch norm, ReLU."""

    def __init__(self, channels, filters, window, *, strides=1):
        super().__init__()
        padding = window // 2
        self.conv = Conv2D(channels, filters, window, strides=strides, padding=padding, bias=False)
        self.norm = BatchNorm(filters)

    def __call__(self, x, training):
        """(batch, height, width, channels) -> (batch, height', width', filters)."""
        return tf.nn.relu(self.norm(self.conv(x), training=training))


class Inception(tf.Module):
    """Four branches, whose outputs are concatenated."""

    def __init__(self, channels, filters):
        super().__init__()
        one, first2, second2, first3, second3, four = filters
        self.branch1 = ConvNorm(channels, one, 1)
        self.reduce2 = ConvNorm(channels, first2, 1)
        self.branch2 = ConvNorm(first2, second2, 3)
        self.reduce3 = ConvNorm(channels, first3, 1)
        self.branch3 = ConvNorm(first3, second3, 3)
        self.branch4 = ConvNorm(channels, four, 1)

    def __call__(self, x, training):
        """(batch, height, width, channels) -> (batch, height, width, filters of all branches)."""
        branch1 = self.branch1(x, training)
        branch2 = self.branch2(self.reduce2(x, training), training)
        branch3 = self.branch3(self.reduce3(x, training), training)
        x = tf.nn.max_pool2d(x, ksize=3, strides=1, padding="SAME")
        return tf.concat([branch1, branch2, branch3, self.branch4(x, training)], axis=-1)


class GoogLeNet(tf.Module):
    """Stem, stages of inception modules, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        first, second, third = sizes["stem"]
        rows = sizes["module_sizes"]
        self.stem1 = ConvNorm(sizes["channels"], first, 7, strides=2)
        self.stem2 = ConvNorm(first, second, 1)
        self.stem3 = ConvNorm(second, third, 3)
        self.inceptions = [Inception(before, filters) for before, filters, _ in rows]
        self.pools = [pool for *_, pool in rows]
        self.logits = Dense(sizes["pooled"], sizes["classes"])

    def __call__(self, image, *, training):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = max_pool_ceil(self.stem1(image, training), 3, 2)
        x = self.stem3(self.stem2(x, training), training)
        for inception, pool in zip(self.inceptions, self.pools, strict=True):
            if pool:
                x = max_pool_ceil(x, pool, 2)
            x = inception(x, training)
        return self.logits(tf.reduce_mean(x, axis=[1, 2]))


def build(sizes):
    """Build the model."""
    return GoogLeNet(sizes)
