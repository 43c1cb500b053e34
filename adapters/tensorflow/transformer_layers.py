"""Layers of BERT and GPT-2: attention as in "Neural machine translation with a Transformer".

https://www.tensorflow.org/text/tutorials/transformer. It is written with tf.einsum, because
TensorFlow's core has no attention.
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense


class SelfAttention(tf.Module):
    """Projections, scaled dot products by heads, projection."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (Dense(width, width) for _ in range(3))
        self.out = Dense(width, width)

    def project(self, x):
        """Query, key and value, (batch, time, heads, width / heads) each."""
        shape = [x.shape[0], x.shape[1], self.heads, -1]
        return [tf.reshape(layer(x), shape) for layer in (self.query, self.key, self.value)]

    def attend(self, query, key, value, mask):
        """Attend; ``mask`` broadcasts to (batch, heads, queries, keys), true for used keys."""
        scale = query.shape[-1] ** -0.5
        scores = tf.einsum("bqhd,bkhd->bhqk", query * scale, key)
        scores = tf.where(mask, scores, scores.dtype.min)
        x = tf.einsum("bhqk,bkhd->bqhd", tf.nn.softmax(scores), value)
        return self.out(tf.reshape(x, [x.shape[0], x.shape[1], -1]))

    def __call__(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        return self.attend(*self.project(x), mask)
