"""GPT-2 as a tf.Module, after "Neural machine translation with a Transformer".

https://www.tensorflow.org/text/tutorials/transformer (its causal self-attention, and its
Translator, whose loop appends tokens to a tf.TensorArray). The cache has a fixed shape, time first,
so that one graph, compiled by XLA or not, serves every position.
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense, Embedding, LayerNorm
from levelfield.adapters.tensorflow.transformer_layers import SelfAttention

EPSILON = 1e-5


class Block(tf.Module):
    """Attention and a hidden layer, each after a layer norm."""

    def __init__(self, sizes):
        super().__init__()
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention_norm = LayerNorm(width, epsilon=EPSILON)
        self.attention = SelfAttention(width, sizes["heads"])
        self.norm = LayerNorm(width, epsilon=EPSILON)
        self.hidden = Dense(width, hidden, activation=approximate_gelu)
        self.out = Dense(hidden, width)

    def __call__(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.out(self.hidden(self.norm(x)))

    def advance(self, x, positions, mask, cache):
        """Process new positions; also return the cache with their keys and values."""
        query, key, value = self.attention.project(self.attention_norm(x))
        keys, values = (
            tf.tensor_scatter_nd_update(
                old, positions[:, tf.newaxis], tf.transpose(new, [1, 0, 2, 3])
            )
            for old, new in zip(cache, (key, value), strict=True)
        )
        key, value = (tf.transpose(cached, [1, 0, 2, 3]) for cached in (keys, values))
        x = x + self.attention.attend(query, key, value, mask)
        return x + self.out(self.hidden(self.norm(x))), (keys, values)


def approximate_gelu(x):
    """GELU by the tanh approximation."""
    return tf.nn.gelu(x, approximate=True)


class GPT2(tf.Module):
    """Decoder-only Transformer with tied head."""

    def __init__(self, sizes):
        super().__init__()
        width, self.heads, self.head_width = sizes["width"], sizes["heads"], sizes["head_width"]
        self.token_embed = Embedding(sizes["vocabulary"], width)
        self.position_embed = Embedding(sizes["positions"], width)
        self.layers = [Block(sizes) for _ in range(sizes["layers"])]
        self.norm = LayerNorm(width, epsilon=EPSILON)

    def __call__(self, tokens):
        """(batch, time) -> logits (batch, time, vocabulary)."""
        time = tokens.shape[1]
        x = self.token_embed(tokens) + self.position_embed.embedding[:time]
        seen = tf.linalg.band_part(tf.ones([time, time], tf.bool), -1, 0)
        for layer in self.layers:
            x = layer(x, seen)
        return tf.einsum("btw,vw->btv", self.norm(x), self.token_embed.embedding)

    def empty_cache(self, batch, time):
        """Keys and values per layer, (time, batch, heads, width / heads) each."""
        zeros = tf.zeros([time, batch, self.heads, self.head_width])
        return [(zeros, zeros) for _ in self.layers]

    def advance(self, tokens, positions, cache):
        """(batch, n) tokens at (n,) positions -> the token after the last, and the cache."""
        x, kept = self.token_embed(tokens) + self.position_embed(positions), []
        seen = tf.range(cache[0][0].shape[0]) <= positions[:, tf.newaxis]
        for layer, old in zip(self.layers, cache, strict=True):
            x, new = layer.advance(x, positions, seen, old)
            kept.append(new)
        logits = tf.matmul(self.norm(x[:, -1]), self.token_embed.embedding, transpose_b=True)
        return tf.argmax(logits, axis=-1, output_type=tf.int32), kept


def build(sizes):
    """Build the model."""
    return GPT2(sizes)


def generate(model, prompt, count):
    """Decode greedily: (batch, time) -> (batch, count)."""
    batch, length = prompt.shape
    tokens = tf.TensorArray(tf.int32, size=count, element_shape=[batch])
    token, cache = model.advance(prompt, tf.range(length), model.empty_cache(batch, length + count))
    tokens = tokens.write(0, token)
    for i in tf.range(1, count):
        position = tf.reshape(length + i - 1, [1])
        token, cache = model.advance(token[:, tf.newaxis], position, cache)
        tokens = tokens.write(i, token)
    return tf.transpose(tokens.stack())
