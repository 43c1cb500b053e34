"""BERT on ``nnx.MultiHeadAttention``.

Follows https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/attention.html
"""

import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-12


class Layer(nnx.Module):
    """Attention and a hidden layer; a layer norm follows each residual sum."""

    def __init__(self, sizes, *, rngs):
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention = nnx.MultiHeadAttention(sizes["heads"], width, decode=False, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.hidden = nnx.Linear(width, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)

    def __call__(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        x = self.attention_norm(x + self.attention(x, mask=mask))
        y = nnx.gelu(self.hidden(x), approximate=False)
        return self.norm(x + self.out(y))


class Bias(nnx.Module):
    """The bias of the tied head."""

    def __init__(self, units):
        self.bias = nnx.Param(jnp.zeros(units))

    def __call__(self, x):
        """(..., units) -> (..., units)."""
        return x + self.bias


class BERT(nnx.Module):
    """Encoder, pooler and masked-language-model head."""

    def __init__(self, sizes, *, rngs):
        width, vocabulary = sizes["width"], sizes["vocabulary"]
        self.token_embed = nnx.Embed(vocabulary, width, rngs=rngs)
        self.segment_embed = nnx.Embed(2, width, rngs=rngs)
        self.position_embed = nnx.Embed(sizes["positions"], width, rngs=rngs)
        self.embeddings_norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.layers = nnx.List([Layer(sizes, rngs=rngs) for _ in range(sizes["layers"])])
        self.pooler = nnx.Linear(width, width, rngs=rngs)
        self.transform = nnx.Linear(width, width, rngs=rngs)
        self.transform_norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.logits = Bias(vocabulary)

    def __call__(self, tokens, segments, mask, positions):
        """-> pooled (batch, width), logits (batch, count, vocabulary) at the positions."""
        x = self.token_embed(tokens) + self.segment_embed(segments)
        x = self.embeddings_norm(x + self.position_embed(jnp.arange(tokens.shape[1])))
        keys = (mask == 1)[:, None, None]  # (batch, heads, queries, keys)
        for layer in self.layers:
            x = layer(x, keys)
        pooled = nnx.tanh(self.pooler(x[:, 0]))
        x = jnp.take_along_axis(x, positions[:, :, None], axis=1)
        x = self.transform_norm(nnx.gelu(self.transform(x), approximate=False))
        return {"pooled": pooled, "logits": self.logits(self.token_embed.attend(x))}


def build(sizes):
    """Sizes of the preset -> the module."""
    return BERT(sizes, rngs=nnx.Rngs(0))
