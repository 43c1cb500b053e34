"""The Transformer as a tf.Module, after "Neural machine translation with a Transformer".

https://www.tensorflow.org/text/tutorials/transformer (its encoder, decoder and Translator, whose
loop appends tokens to a tf.TensorArray; 2026-11). Other than there, sines and cosines of one
frequency are neighbours, as in the paper. The cache has a fixed shape, time first, so that one
graph, compiled by XLA or not, serves every position.
"""

import numpy as np
import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense, Embedding, LayerNorm
from levelfield.adapters.tensorflow.transformer_layers import SelfAttention

EPSILON = 1e-6
PAD, START = 0, 1


def sinusoids(count, width):
    """Sines and cosines of the positions: (count, width)."""
    angles = np.arange(count)[:, np.newaxis] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return table.reshape(count, width).astype("float32")


class Attention(SelfAttention):
    """Attention to keys and values that were projected before."""

    def remember(self, x):
        """Keys and values, (batch, time, heads, width / heads) each."""
        shape = [x.shape[0], x.shape[1], self.heads, -1]
        return [tf.reshape(layer(x), shape) for layer in (self.key, self.value)]

    def over(self, x, memory, mask):
        """(batch, time, width) -> (batch, time, width)."""
        query = tf.reshape(self.query(x), [x.shape[0], x.shape[1], self.heads, -1])
        return self.attend(query, *memory, mask)


class EncoderLayer(tf.Module):
    """Attention and a hidden layer; a layer norm follows each residual sum."""

    def __init__(self, sizes):
        super().__init__()
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention = SelfAttention(width, sizes["heads"])
        self.attention_norm = LayerNorm(width, epsilon=EPSILON)
        self.hidden = Dense(width, hidden, activation=tf.nn.relu)
        self.out = Dense(hidden, width)
        self.norm = LayerNorm(width, epsilon=EPSILON)

    def feed_forward(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        return self.norm(x + self.out(self.hidden(x)))

    def __call__(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        return self.feed_forward(self.attention_norm(x + self.attention(x, mask)))


class DecoderLayer(EncoderLayer):
    """Causal attention, attention to the memory, and a hidden layer."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.cross = Attention(sizes["width"], sizes["heads"])
        self.cross_norm = LayerNorm(sizes["width"], epsilon=EPSILON)

    def __call__(self, x, seen, memory, mask):
        """(batch, time, width), keys and values of the source -> (batch, time, width)."""
        x = self.attention_norm(x + self.attention(x, seen))
        return self.feed_forward(self.cross_norm(x + self.cross.over(x, memory, mask)))

    def advance(self, x, positions, seen, cache, memory, mask):
        """Process new positions; also return the cache with their keys and values."""
        query, key, value = self.attention.project(x)
        keys, values = (
            tf.tensor_scatter_nd_update(
                old, positions[:, tf.newaxis], tf.transpose(new, [1, 0, 2, 3])
            )
            for old, new in zip(cache, (key, value), strict=True)
        )
        key, value = (tf.transpose(cached, [1, 0, 2, 3]) for cached in (keys, values))
        x = self.attention_norm(x + self.attention.attend(query, key, value, seen))
        x = self.cross_norm(x + self.cross.over(x, memory, mask))
        return self.feed_forward(x), (keys, values)


class Encoder(tf.Module):
    """Embeddings, positions and the layers of the encoder."""

    def __init__(self, sizes):
        super().__init__()
        self.embed = Embedding(sizes["vocabulary"], sizes["width"])
        self.encoder = [EncoderLayer(sizes) for _ in range(sizes["layers"])]
        self.scale = sizes["embed_scale"]
        self.positions = sinusoids(sizes["longest"], sizes["width"])

    def embedded(self, tokens):
        """(batch, time) -> (batch, time, width)."""
        return self.embed(tokens) * self.scale + self.positions[: tokens.shape[1]]

    def encoded(self, tokens):
        """(batch, time) -> (batch, time, width), and the mask (batch, 1, 1, time) of its keys."""
        x = self.embedded(tokens)
        mask = tf.not_equal(tokens, PAD)[:, tf.newaxis, tf.newaxis]
        for layer in self.encoder:
            x = layer(x, mask)
        return x, mask


class Classifier(Encoder):
    """The encoder, and a head on the first position."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.logits = Dense(sizes["width"], sizes["classes"])

    def __call__(self, tokens):
        """(batch, time) -> logits (batch, classes)."""
        x, _ = self.encoded(tokens)
        return self.logits(x[:, 0])


class Transformer(Encoder):
    """Encoder and decoder with one table for source, target and head."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.heads, self.head_width = sizes["heads"], sizes["head_width"]
        self.decoder = [DecoderLayer(sizes) for _ in range(sizes["layers"])]

    def __call__(self, source, target):
        """(batch, source_time), (batch, time) -> logits (batch, time, vocabulary)."""
        memory, mask = self.encode(source)
        x, time = self.embedded(target), target.shape[1]
        seen = tf.linalg.band_part(tf.ones([time, time], tf.bool), -1, 0)
        for layer, pair in zip(self.decoder, memory, strict=True):
            x = layer(x, seen, pair, mask)
        return tf.einsum("btw,vw->btv", x, self.embed.embedding)

    def encode(self, source):
        """(batch, source_time) -> keys and values for each layer of the decoder, and the mask."""
        x, mask = self.encoded(source)
        return [layer.cross.remember(x) for layer in self.decoder], mask

    def empty_cache(self, batch, time):
        """Keys and values per layer, (time, batch, heads, width / heads) each."""
        zeros = tf.zeros([time, batch, self.heads, self.head_width])
        return [(zeros, zeros) for _ in self.decoder]

    def advance(self, tokens, positions, cache, memory, mask):
        """(batch, n) tokens at (n,) positions -> the token after the last, and the cache."""
        x = self.embed(tokens) * self.scale + tf.gather(self.positions, positions)
        seen = tf.range(cache[0][0].shape[0]) <= positions[:, tf.newaxis]
        kept = []
        for layer, old, pair in zip(self.decoder, cache, memory, strict=True):
            x, new = layer.advance(x, positions, seen, old, pair, mask)
            kept.append(new)
        logits = tf.matmul(x[:, -1], self.embed.embedding, transpose_b=True)
        return tf.argmax(logits, axis=-1, output_type=tf.int32), kept


def build(sizes):
    """The encoder as a classifier where there are classes, else encoder and decoder."""
    return Classifier(sizes) if "classes" in sizes else Transformer(sizes)


def generate(model, prompt, count):
    """Decode greedily after the start token, with the source ``prompt``: -> (batch, count)."""
    batch = prompt.shape[0]
    memory, mask = model.encode(prompt)
    tokens = tf.TensorArray(tf.int32, size=count, element_shape=[batch])
    token, cache = tf.fill([batch], START), model.empty_cache(batch, count)
    for i in tf.range(count):
        position = tf.reshape(i, [1])
        token, cache = model.advance(token[:, tf.newaxis], position, cache, memory, mask)
        tokens = tokens.write(i, token)
    return tf.transpose(tokens.stack())
