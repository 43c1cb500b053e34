"""VGG networks as tf.Modules, after "Introduction to modules, layers, and models".

https://www.tensorflow.org/guide/intro_to_modules (2026-11)
Pooling: https://www.tensorflow.org/api_docs/python/tf/nn/max_pool2d
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Conv2D, Dense, adaptive_mean_pool


class VGG(tf.Module):
    """Stages of 3x3 convolutions and pooling, adaptive pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        units1, units2 = sizes["hidden"]
        rows = sizes["convolutions"]
        self.conv = [Conv2D(a, b, 3, padding="SAME") for a, b, _ in rows]
        self.pools = [pools for *_, pools in rows]
        self.hidden1 = Dense(sizes["flattened"], units1, activation=tf.nn.relu)
        self.hidden2 = Dense(units1, units2, activation=tf.nn.relu)
        self.logits = Dense(units2, sizes["classes"])
        self.pooled = sizes["pooled"]

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = image
        for conv, pools in zip(self.conv, self.pools, strict=True):
            x = tf.nn.relu(conv(x))
            if pools:
                x = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="VALID")
        x = adaptive_mean_pool(x, self.pooled)
        x = tf.reshape(x, [x.shape[0], -1])
        return self.logits(self.hidden2(self.hidden1(x)))


def build(sizes):
    """Build the model."""
    return VGG(sizes)
