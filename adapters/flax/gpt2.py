"""GPT-2 as an ``nnx.Module`` that decodes with a cache of fixed shape.

Follows https://github.com/google/flax/tree/main/examples/gemma (modules.py, whose attention reads a
whole prompt into its cache, and sampler.py), with ``jax.nn.dot_product_attention``.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


class Attention(nnx.Module):
    """Attention over the present and earlier positions."""

    def __init__(self, width, heads, *, rngs):
        self.heads = heads
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def project(self, x):
        """Query, key and value, (batch, time, heads, width / heads) each."""
        shape = (*x.shape[:2], self.heads, -1)
        return [layer(x).reshape(shape) for layer in (self.query, self.key, self.value)]

    def __call__(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        out = jax.nn.dot_product_attention(*self.project(x), is_causal=True)
        return self.out(out.reshape(x.shape))

    def advance(self, x, position, cache):
        """Process new positions; also return the cache with their keys and values."""
        query, key, value = self.project(x)
        keys = lax.dynamic_update_slice_in_dim(cache[0], key, position, axis=1)
        values = lax.dynamic_update_slice_in_dim(cache[1], value, position, axis=1)
        seen = jnp.arange(keys.shape[1]) <= (position + jnp.arange(x.shape[1]))[:, None]
        out = jax.nn.dot_product_attention(query, keys, values, mask=seen[None, None])
        return self.out(out.reshape(x.shape)), (keys, values)


class Block(nnx.Module):
    """Attention and a hidden layer, each after a layer norm."""

    def __init__(self, sizes, *, rngs):
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention_norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.attention = Attention(width, sizes["heads"], rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.hidden = nnx.Linear(width, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, width, rngs=rngs)

    def feed_forward(self, x):
        """Apply the layer norm, then the hidden layer."""
        return self.out(nnx.gelu(self.hidden(self.norm(x)), approximate=True))

    def __call__(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(x)

    def advance(self, x, position, cache):
        """Process new positions over the cache."""
        out, cache = self.attention.advance(self.attention_norm(x), position, cache)
        x = x + out
        return x + self.feed_forward(x), cache


class GPT2(nnx.Module):
    """Decoder-only Transformer with tied head."""

    def __init__(self, sizes, *, rngs):
        width, self.heads, self.head_width = sizes["width"], sizes["heads"], sizes["head_width"]
        self.token_embed = nnx.Embed(sizes["vocabulary"], width, rngs=rngs)
        self.position_embed = nnx.Embed(sizes["positions"], width, rngs=rngs)
        self.layers = nnx.List([Block(sizes, rngs=rngs) for _ in range(sizes["layers"])])
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def __call__(self, tokens):
        """(batch, time) -> logits (batch, time, vocabulary)."""
        x = self.token_embed(tokens) + self.position_embed(jnp.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.token_embed.attend(self.norm(x))

    def empty_cache(self, batch, time):
        """Keys and values per layer, (batch, time, heads, width / heads) each."""
        zeros = jnp.zeros((batch, time, self.heads, self.head_width))
        return [(zeros, zeros) for _ in self.layers]

    def advance(self, tokens, position, cache):
        """(batch, n) tokens from ``position`` on -> the token after the last, and the cache."""
        x, kept = (
            self.token_embed(tokens) + self.position_embed(position + jnp.arange(tokens.shape[1])),
            [],
        )
        for layer, old in zip(self.layers, cache, strict=True):
            x, new = layer.advance(x, position, old)
            kept.append(new)
        logits = self.token_embed.attend(self.norm(x[:, -1]))
        return logits.argmax(-1).astype(tokens.dtype), kept


def build(sizes):
    """Sizes of the preset -> the module."""
    return GPT2(sizes, rngs=nnx.Rngs(0))


def generate(model, prompt, count):
    """Decode greedily: (batch, time) -> (batch, count)."""
    batch, length = prompt.shape
    token, cache = model.advance(prompt, 0, model.empty_cache(batch, length + count))

    def further(carry, position):
        token, cache = model.advance(carry[0][:, None], position, carry[1])
        return (token, cache), token

    _, tokens = lax.scan(further, (token, cache), length + jnp.arange(count - 1))
    return jnp.concatenate([token[:, None], tokens.T], axis=1)
