"""Residual networks as tf.Modules, after "Introduction to modules, layers, and models".

https://www.tensorflow.org/guide/intro_to_modules
Padding is explicit: "SAME" with stride 2 would put all padding on one side.
https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import BatchNorm, Conv2D, Dense


class Block(tf.Module):
    """The part that both blocks share: a shortcut, projected where the shape changes."""

    def __init__(self, channels, outer, stride):
        super().__init__()
        self.projects = stride != 1 or channels != outer
        if self.projects:
            self.shortcut = Conv2D(channels, outer, 1, strides=stride, bias=False)
            self.shortcut_norm = BatchNorm(outer)

    def identity(self, x, training):
        """The shortcut."""
        return self.shortcut_norm(self.shortcut(x), training=training) if self.projects else x


class BasicBlock(Block):
    """Two 3x3 kernels."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        self.conv1 = Conv2D(channels, filters, 3, strides=stride, padding=1, bias=False)
        self.norm1 = BatchNorm(filters)
        self.conv2 = Conv2D(filters, outer, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(outer)

    def __call__(self, x, *, training):
        """(batch, height, width, channels) -> (batch, height', width', outer)."""
        out = tf.nn.relu(self.norm1(self.conv1(x), training=training))
        out = self.norm2(self.conv2(out), training=training)
        return tf.nn.relu(out + self.identity(x, training))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        self.conv1 = Conv2D(channels, filters, 1, bias=False)
        self.norm1 = BatchNorm(filters)
        self.conv2 = Conv2D(filters, filters, 3, strides=stride, padding=1, bias=False)
        self.norm2 = BatchNorm(filters)
        self.conv3 = Conv2D(filters, outer, 1, bias=False)
        self.norm3 = BatchNorm(outer)

    def __call__(self, x, *, training):
        """(batch, height, width, channels) -> (batch, height', width', outer)."""
        out = tf.nn.relu(self.norm1(self.conv1(x), training=training))
        out = tf.nn.relu(self.norm2(self.conv2(out), training=training))
        out = self.norm3(self.conv3(out), training=training)
        return tf.nn.relu(out + self.identity(x, training))


class ResNet(tf.Module):
    """Stem, stages of blocks, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        block = Bottleneck if sizes["block"] == "bottleneck" else BasicBlock
        width = sizes["width0"]
        self.stem = Conv2D(sizes["channels"], width, 7, strides=2, padding=3, bias=False)
        self.stem_norm = BatchNorm(width)
        self.blocks = [block(*row) for row in sizes["block_sizes"]]
        self.logits = Dense(sizes["pooled"], sizes["classes"])

    def __call__(self, image, *, training):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = tf.nn.relu(self.stem_norm(self.stem(image), training=training))
        # After a ReLU, zeros are never larger than the values of a window.
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.max_pool2d(x, ksize=3, strides=2, padding="VALID")
        for block in self.blocks:
            x = block(x, training=training)
        return self.logits(tf.reduce_mean(x, axis=[1, 2]))


def build(sizes):
    """Build the model."""
    return ResNet(sizes)
