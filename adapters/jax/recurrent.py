"""Recurrent classifiers with ``lax.scan`` over time.

Follows https://docs.jax.dev/en/latest/_autosummary/jax.lax.scan.html
"""

import jax
import jax.numpy as jnp
from jax import lax

from levelfield.adapters.jax.layers import dense


def build(sizes):
    """-> ``predict(parameters, tokens, length)`` -> logits (batch, classes)."""
    cell = {"rnn": rnn, "lstm": lstm, "gru": gru}[sizes["cell"]]

    def predict(parameters, tokens, length):
        layer = parameters["recurrent"]
        x = parameters["embed"]["embedding"][tokens]
        zeros = jnp.zeros((len(tokens), sizes["units"]))
        carry = (zeros, zeros) if sizes["cell"] == "lstm" else zeros

        def step(carry, inputs):
            return cell(layer, carry, dense(layer, inputs))

        _, outputs = lax.scan(step, carry, x.swapaxes(0, 1))  # over time
        last = outputs[length - 1, jnp.arange(len(tokens))]  # after the last real token
        return dense(parameters["logits"], last)

    return predict


def rnn(layer, hidden, gates):
    """Elman's step."""
    hidden = jnp.tanh(gates + hidden @ layer["recurrent_kernel"])
    return hidden, hidden


def lstm(layer, carry, gates):
    """Gates i, f, g, o."""
    hidden, memory = carry
    i, f, g, o = jnp.split(gates + hidden @ layer["recurrent_kernel"], 4, axis=-1)
    memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(memory)
    return (hidden, memory), hidden


def gru(layer, hidden, gates):
    """Gates r, z, n; the reset follows the product."""
    recurrent = hidden @ layer["recurrent_kernel"] + layer["recurrent_bias"]
    r, z, n = jnp.split(gates, 3, axis=-1)
    r_hidden, z_hidden, n_hidden = jnp.split(recurrent, 3, axis=-1)
    update = jax.nn.sigmoid(z + z_hidden)
    candidate = jnp.tanh(n + jax.nn.sigmoid(r + r_hidden) * n_hidden)
    hidden = (1 - update) * candidate + update * hidden
    return hidden, hidden
