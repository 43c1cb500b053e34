"""The Transformer over a pytree of parameters, with ``jax.nn.dot_product_attention``.

Follows https://docs.jax.dev/en/latest/_autosummary/jax.nn.dot_product_attention.html and
https://docs.jax.dev/en/latest/_autosummary/jax.lax.dynamic_update_slice_in_dim.html for the cache
(2026-11). The shape of the cache is static: keys and values of all positions. The mask hides
later positions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from levelfield.adapters.jax.layers import attention, dense, layer_norm, split_heads

EPSILON = 1e-6
PAD, START = 0, 1


def build(sizes):
    """-> ``predict(parameters, tokens)`` of the classifier, or ``predict(parameters, source,
    target)`` of encoder and decoder.
    """

    def classify(parameters, tokens):
        """(batch, time) -> logits (batch, classes)."""
        x, _ = encoded(parameters, tokens, sizes)
        return dense(parameters["logits"], x[:, 0])

    def predict(parameters, source, target):
        """(batch, source_time), (batch, time) -> logits (batch, time, vocabulary)."""
        memory, mask = encode(parameters, source, sizes)
        x = embed(parameters, target, 0, sizes)
        for number, pair in enumerate(memory, start=1):
            layer = parameters[f"decoder{number}"]
            y = attention(layer["attention"], x, heads=sizes["heads"], is_causal=True)
            x = norm(layer["attention_norm"], x + y)
            x = norm(layer["cross_norm"], x + cross_attention(layer["cross"], x, pair, mask))
            x = feed_forward(layer, x)
        return x @ parameters["embed"]["embedding"].T

    return classify if "classes" in sizes else predict


def norm(layer, x):
    """Layer norm with the model's epsilon."""
    return layer_norm(layer, x, epsilon=EPSILON)


def sinusoids(count, width):
    """Sines and cosines, neighbours where they have one frequency: (count, width)."""
    angles = np.arange(count)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return jnp.asarray(table.reshape(count, width), jnp.float32)


def embed(parameters, tokens, position, sizes):
    """Scaled rows of the table plus positions from ``position`` on: (batch, time, width)."""
    table, scale = sinusoids(sizes["longest"], sizes["width"]), sizes["embed_scale"]
    places = lax.dynamic_slice_in_dim(table, position, tokens.shape[1])
    return parameters["embed"]["embedding"][tokens] * scale + places


def feed_forward(layer, x):
    """Apply the hidden layer; a layer norm follows the residual sum."""
    return norm(layer["norm"], x + dense(layer["out"], jax.nn.relu(dense(layer["hidden"], x))))


def encoded(parameters, tokens, sizes):
    """(batch, time) -> (batch, time, width), and the mask (batch, 1, 1, time) of its keys."""
    mask = (tokens != PAD)[:, None, None]
    x = embed(parameters, tokens, 0, sizes)
    for number in range(1, sizes["layers"] + 1):
        layer = parameters[f"encoder{number}"]
        y = attention(layer["attention"], x, heads=sizes["heads"], mask=mask)
        x = feed_forward(layer, norm(layer["attention_norm"], x + y))
    return x, mask


def encode(parameters, source, sizes):
    """-> keys and values of the source for each layer of the decoder, and the mask."""
    x, mask = encoded(parameters, source, sizes)
    names = [f"decoder{number}" for number in range(1, sizes["layers"] + 1)]

    def remember(layer):
        return [split_heads(dense(layer[part], x), sizes["heads"]) for part in ("key", "value")]

    return [remember(parameters[name]["cross"]) for name in names], mask


def cross_attention(layer, x, memory, mask):
    """Attention to the source, (batch, time, width)."""
    key, value = memory
    query = split_heads(dense(layer["query"], x), key.shape[2])
    out = jax.nn.dot_product_attention(query, key, value, mask=mask)
    return dense(layer["out"], out.reshape(x.shape))


def generate(sizes):
    """-> ``decode(parameters, prompt, count)`` -> tokens (batch, count), greedily."""
    heads, names = sizes["heads"], [f"decoder{n}" for n in range(1, sizes["layers"] + 1)]

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
        memory, mask = encode(parameters, prompt, sizes)

        def further(carry, position):
            """The token after (batch,) tokens at ``position``, and the cache."""
            tokens, cache = carry
            x, kept = embed(parameters, tokens[:, None], position, sizes), {}
            for name, pair in zip(names, memory, strict=True):
                layer = parameters[name]
                y, kept[name] = cached_attention(layer["attention"], x, position, cache[name])
                x = norm(layer["attention_norm"], x + y)
                x = norm(layer["cross_norm"], x + cross_attention(layer["cross"], x, pair, mask))
                x = feed_forward(layer, x)
            logits = x[:, -1] @ parameters["embed"]["embedding"].T
            token = logits.argmax(-1).astype(tokens.dtype)
            return (token, kept), token

        empty = jnp.zeros((len(prompt), count, heads, sizes["head_width"]))
        start = jnp.full(len(prompt), START, prompt.dtype)
        cache = {name: (empty, empty) for name in names}
        _, tokens = lax.scan(further, (start, cache), jnp.arange(count))
        return tokens.T

    return decode
