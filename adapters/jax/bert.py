"""BERT over a pytree of parameters, with ``jax.nn.dot_product_attention``.

Follows https://docs.jax.dev/en/latest/_autosummary/jax.nn.dot_product_attention.html.
"""

import jax
import jax.numpy as jnp

from levelfield.adapters.jax.layers import attention, dense, layer_norm

EPSILON = 1e-12


def build(sizes):
    """-> ``predict(parameters, tokens, segments, mask, positions)`` -> pooled and logits."""

    def predict(parameters, tokens, segments, mask, positions):
        table = parameters["token_embed"]["embedding"]
        x = table[tokens] + parameters["segment_embed"]["embedding"][segments]
        x = x + parameters["position_embed"]["embedding"][: tokens.shape[1]]
        x = layer_norm(parameters["embeddings_norm"], x, epsilon=EPSILON)
        keys = (mask == 1)[:, None, None]  # (batch, heads, queries, keys)
        for number in range(1, sizes["layers"] + 1):
            x = encode(parameters[f"layers{number}"], x, keys, sizes["heads"])
        pooled = jnp.tanh(dense(parameters["pooler"], x[:, 0]))
        x = jnp.take_along_axis(x, positions[:, :, None], axis=1)
        x = jax.nn.gelu(dense(parameters["transform"], x), approximate=False)
        x = layer_norm(parameters["transform_norm"], x, epsilon=EPSILON)
        return {"pooled": pooled, "logits": x @ table.T + parameters["logits"]["bias"]}

    return predict


def encode(layer, x, mask, heads):
    """Apply one layer; a layer norm follows each residual sum."""
    x = x + attention(layer["attention"], x, heads=heads, mask=mask)
    x = layer_norm(layer["attention_norm"], x, epsilon=EPSILON)
    y = jax.nn.gelu(dense(layer["hidden"], x), approximate=False)
    return layer_norm(layer["norm"], x + dense(layer["out"], y), epsilon=EPSILON)
