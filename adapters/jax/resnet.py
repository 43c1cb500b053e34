"""Residual networks over a pytree of parameters and one of running statistics.

Follows https://docs.jax.dev/en/latest/101/convolutions.html and
https://docs.jax.dev/en/latest/stateful-computations.html: state is an argument and a result.
"""

import jax

from levelfield.adapters.jax.layers import batch_norm, convolve, dense, max_pool


def build(sizes):
    """-> ``predict(parameters, state, image, training)`` -> (logits (batch, classes), state)."""
    block = bottleneck if sizes["block"] == "bottleneck" else basic

    def predict(parameters, state, image, training):
        x, moved = convolve(parameters["stem"], image, stride=2, padding=3), {}
        x, moved["stem_norm"] = batch_norm(
            parameters["stem_norm"], state["stem_norm"], x, training=training
        )
        x = max_pool(jax.nn.relu(x), window=3, stride=2, padding=1)
        for number, (*_, stride) in enumerate(sizes["block_sizes"], start=1):
            name = f"blocks{number}"
            x, moved[name] = block(
                parameters[name], state[name], x, stride=stride, training=training
            )
        return dense(parameters["logits"], x.mean((1, 2))), moved

    return predict


def normalised(layers, state, name, x, *, training, **options):
    """Convolution ``name`` and the batch norm after it: conv1 and norm1."""
    norm = f"{name}_norm" if name == "shortcut" else name.replace("conv", "norm")
    x = convolve(layers[name], x, **options)
    x, moved = batch_norm(layers[norm], state[norm], x, training=training)
    return x, {norm: moved}


def basic(layers, state, x, *, stride, training):
    """Two 3x3 kernels next to the shortcut."""
    y, first = normalised(layers, state, "conv1", x, training=training, stride=stride, padding=1)
    y, second = normalised(layers, state, "conv2", jax.nn.relu(y), training=training, padding=1)
    x, beside = shortcut(layers, state, x, stride=stride, training=training)
    return jax.nn.relu(x + y), {**first, **second, **beside}


def bottleneck(layers, state, x, *, stride, training):
    """1x1, 3x3 with the stride and 1x1, next to the shortcut."""
    y, first = normalised(layers, state, "conv1", x, training=training)
    y = jax.nn.relu(y)
    y, second = normalised(layers, state, "conv2", y, training=training, stride=stride, padding=1)
    y, third = normalised(layers, state, "conv3", jax.nn.relu(y), training=training)
    x, beside = shortcut(layers, state, x, stride=stride, training=training)
    return jax.nn.relu(x + y), {**first, **second, **third, **beside}


def shortcut(layers, state, x, *, stride, training):
    """The shortcut, with a projection where the block has one."""
    if "shortcut" not in layers:
        return x, {}
    return normalised(layers, state, "shortcut", x, training=training, stride=stride)
