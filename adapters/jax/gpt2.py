"""GPT-2 over a pytree of parameters, with ``jax.nn.dot_product_attention``.

Follows https://docs.jax.dev/en/latest/_autosummary/jax.nn.dot_product_attention.html and
https://docs.jax.dev/en/latest/_autosummary/jax.lax.dynamic_update_slice_in_dim.html for the cache.
The shape of the cache is static: keys and values of all positions. The mask hides later positions.
"""

import jax
import jax.numpy as jnp
from jax import lax

from levelfield.adapters.jax.layers import attention, dense, layer_norm, split_heads

EPSILON = 1e-5


def build(sizes):
    """-> ``predict(parameters, tokens)`` -> logits (batch, time, vocabulary)."""

    def predict(parameters, tokens):
        table = parameters["token_embed"]["embedding"]
        x = table[tokens] + parameters["position_embed"]["embedding"][: tokens.shape[1]]
        for number in range(1, sizes["layers"] + 1):
            layer = parameters[f"layers{number}"]
            y = layer_norm(layer["attention_norm"], x, epsilon=EPSILON)
            x = x + attention(layer["attention"], y, heads=sizes["heads"], is_causal=True)
            x = x + feed_forward(layer, x)
        return layer_norm(parameters["norm"], x, epsilon=EPSILON) @ table.T

    return predict


def feed_forward(layer, x):
    """Apply the layer norm, then the hidden layer."""
    y = layer_norm(layer["norm"], x, epsilon=EPSILON)
    return dense(layer["out"], jax.nn.gelu(dense(layer["hidden"], y), approximate=True))


def generate(sizes):
    """-> ``decode(parameters, prompt, count)`` -> tokens (batch, count), greedily."""
    heads, names = sizes["heads"], [f"layers{n}" for n in range(1, sizes["layers"] + 1)]

    def advance(parameters, tokens, position, cache):
        """(batch, n) tokens from ``position`` on -> the token after the last, and the cache."""
        table, length = parameters["token_embed"]["embedding"], tokens.shape[1]
        positions = lax.dynamic_slice_in_dim(
            parameters["position_embed"]["embedding"], position, length
        )
        x, kept = table[tokens] + positions, {}
        for name in names:
            layer = parameters[name]
            y = layer_norm(layer["attention_norm"], x, epsilon=EPSILON)
            out, kept[name] = cached_attention(layer["attention"], y, position, cache[name])
            x = x + out
            x = x + feed_forward(layer, x)
        logits = layer_norm(parameters["norm"], x[:, -1], epsilon=EPSILON) @ table.T
        return logits.argmax(-1).astype(tokens.dtype), kept

    def cached_attention(layer, x, position, cache):
        query, key, value = (
            split_heads(dense(layer[part], x), heads) for part in ("query", "key", "value")
        )
        keys = lax.dynamic_update_slice_in_dim(cache[0], key, position, axis=1)
        values = lax.dynamic_update_slice_in_dim(cache[1], value, position, axis=1)
        seen = jnp.arange(keys.shape[1]) <= (position + jnp.arange(x.shape[1]))[:, None]
        out = jax.nn.dot_product_attention(query, keys, values, mask=seen[None, None])
        return dense(layer["out"], out.reshape(x.shape)), (keys, values)

    def decode(parameters, prompt, count):
        batch, length = prompt.shape
        empty = jnp.zeros((batch, length + count, heads, sizes["head_width"]))
        cache = {name: (empty, empty) for name in names}
        token, cache = advance(parameters, prompt, 0, cache)

        def further(carry, position):
            token, cache = advance(parameters, carry[0][:, None], position, carry[1])
            return (token, cache), token

        positions = length + jnp.arange(count - 1)
        _, tokens = lax.scan(further, (token, cache), positions)
        return jnp.concatenate([token[:, None], tokens.T], axis=1)

    return decode
