"""The Transformer as ``nnx.Module``s, decoding with a cache of fixed shape.

Follows https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/attention.html (the encoder
has ``nnx.MultiHeadAttention``) and https://github.com/google/flax/tree/main/examples/gemma, whose
attention fills a cache, with ``jax.nn.dot_product_attention`` (2026-11).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

EPSILON = 1e-6
PAD, START = 0, 1


def sinusoids(count, width):
    """Sines and cosines, neighbours where they have one frequency: (count, width)."""
    angles = np.arange(count)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return jnp.asarray(table.reshape(count, width), jnp.float32)


class Attention(nnx.Module):
    """Attention by parts, for caches and memories."""

    def __init__(self, width, heads, *, rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def split(self, x):
        """(batch, time, width) -> (batch, time, heads, width / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1)

    def remember(self, x):
        """Keys and values, (batch, time, heads, width / heads) each."""
        return self.split(self.key(x)), self.split(self.value(x))

    def __call__(self, x, keys, values, **mask):
        """(batch, time, width) -> (batch, time, width)."""
        query = self.split(self.query(x))
        out = jax.nn.dot_product_attention(query, keys, values, **mask)
        return self.out(out.reshape(x.shape))

    def advance(self, x, position, cache):
        """Process new positions; also return the cache with their keys and values."""
        keys, values = (
            lax.dynamic_update_slice_in_dim(old, new, position, axis=1)
            for old, new in zip(cache, self.remember(x), strict=True)
        )
        seen = jnp.arange(keys.shape[1]) <= (position + jnp.arange(x.shape[1]))[:, None]
        return self(x, keys, values, mask=seen[None, None]), (keys, values)


class FeedForward(nnx.Module):
    """A hidden layer; a layer norm follows the residual sum."""

    def __init__(self, sizes, *, rngs):
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention_norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.hidden = nnx.Linear(width, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)

    def feed_forward(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        return self.norm(x + self.out(nnx.relu(self.hidden(x))))


class EncoderLayer(FeedForward):
    """Attention and a hidden layer."""

    def __init__(self, sizes, *, rngs):
        super().__init__(sizes, rngs=rngs)
        heads, width = sizes["heads"], sizes["width"]
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)

    def __call__(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        return self.feed_forward(self.attention_norm(x + self.attention(x, mask=mask)))


class DecoderLayer(FeedForward):
    """Causal attention, attention to the memory, and a hidden layer."""

    def __init__(self, sizes, *, rngs):
        super().__init__(sizes, rngs=rngs)
        self.attention = Attention(sizes["width"], sizes["heads"], rngs=rngs)
        self.cross = Attention(sizes["width"], sizes["heads"], rngs=rngs)
        self.cross_norm = nnx.LayerNorm(sizes["width"], epsilon=EPSILON, rngs=rngs)

    def __call__(self, x, memory, mask):
        """(batch, time, width), keys and values of the source -> (batch, time, width)."""
        y = self.attention(x, *self.attention.remember(x), is_causal=True)
        return self.after(self.attention_norm(x + y), memory, mask)

    def after(self, x, memory, mask):
        """Attend to the memory and apply the hidden layer."""
        return self.feed_forward(self.cross_norm(x + self.cross(x, *memory, mask=mask)))

    def advance(self, x, position, cache, memory, mask):
        """Process new positions over the cache."""
        y, cache = self.attention.advance(x, position, cache)
        return self.after(self.attention_norm(x + y), memory, mask), cache


class Encoder(nnx.Module):
    """Embeddings, positions and the layers of the encoder."""

    def __init__(self, sizes, *, rngs):
        self.longest, self.scale = sizes["longest"], sizes["embed_scale"]
        self.embed = nnx.Embed(sizes["vocabulary"], sizes["width"], rngs=rngs)
        self.encoder = nnx.List([EncoderLayer(sizes, rngs=rngs) for _ in range(sizes["layers"])])

    def embedded(self, tokens, position=0):
        """Scaled embeddings plus positions from ``position`` on: (batch, time, width)."""
        x = self.embed(tokens) * self.scale
        table = sinusoids(self.longest, x.shape[-1])
        return x + lax.dynamic_slice_in_dim(table, position, tokens.shape[1])

    def encoded(self, tokens):
        """(batch, time) -> (batch, time, width), and the mask (batch, 1, 1, time) of its keys."""
        x, mask = self.embedded(tokens), (tokens != PAD)[:, None, None]
        for layer in self.encoder:
            x = layer(x, mask)
        return x, mask


class Classifier(Encoder):
    """The encoder, and a head on the first position."""

    def __init__(self, sizes, *, rngs):
        super().__init__(sizes, rngs=rngs)
        self.logits = nnx.Linear(sizes["width"], sizes["classes"], rngs=rngs)

    def __call__(self, tokens):
        """(batch, time) -> logits (batch, classes)."""
        x, _ = self.encoded(tokens)
        return self.logits(x[:, 0])


class Transformer(Encoder):
    """Encoder and decoder with one table for source, target and head."""

    def __init__(self, sizes, *, rngs):
        super().__init__(sizes, rngs=rngs)
        self.heads, self.head_width = sizes["heads"], sizes["head_width"]
        self.decoder = nnx.List([DecoderLayer(sizes, rngs=rngs) for _ in range(sizes["layers"])])

    def __call__(self, source, target):
        """(batch, source_time), (batch, time) -> logits (batch, time, vocabulary)."""
        memory, mask = self.encode(source)
        x = self.embedded(target)
        for layer, pair in zip(self.decoder, memory, strict=True):
            x = layer(x, pair, mask)
        return self.embed.attend(x)

    def encode(self, source):
        """(batch, source_time) -> keys and values for each layer of the decoder, and the mask."""
        x, mask = self.encoded(source)
        return [layer.cross.remember(x) for layer in self.decoder], mask

    def empty_cache(self, batch, time):
        """Keys and values per layer, (batch, time, heads, width / heads) each."""
        zeros = jnp.zeros((batch, time, self.heads, self.head_width))
        return [(zeros, zeros) for _ in self.decoder]

    def advance(self, tokens, position, cache, memory, mask):
        """(batch, n) tokens from ``position`` on -> the token after the last, and the cache."""
        x, kept = self.embedded(tokens, position), []
        for layer, old, pair in zip(self.decoder, cache, memory, strict=True):
            x, new = layer.advance(x, position, old, pair, mask)
            kept.append(new)
        return self.embed.attend(x[:, -1]).argmax(-1).astype(tokens.dtype), kept


def build(sizes):
    """The encoder as a classifier where there are classes, else encoder and decoder."""
    return (Classifier if "classes" in sizes else Transformer)(sizes, rngs=nnx.Rngs(0))


def generate(model, prompt, count):
    """Decode greedily after the start token, with the source ``prompt``: -> (batch, count)."""
    batch = len(prompt)
    memory, mask = model.encode(prompt)

    def further(carry, position):
        token, cache = model.advance(carry[0][:, None], position, carry[1], memory, mask)
        return (token, cache), token

    start = jnp.full(batch, START, prompt.dtype)
    carry = start, model.empty_cache(batch, count)
    _, tokens = lax.scan(further, carry, jnp.arange(count))
    return tokens.T
