"""GoogLeNet over a pytree of parameters and one of running statistics.

Follows https://docs.jax.dev/en/latest/101/convolutions.html and
https://docs.jax.dev/en/latest/stateful-computations.html (2026-11): state is an argument and a
result.
"""

import jax
import jax.numpy as jnp

from levelfield.adapters.jax.layers import batch_norm, convolve, dense, max_pool, max_pool_ceil


def build(sizes):
    """-> ``predict(parameters, state, image, training)`` -> (logits (batch, classes), state)."""
    pools = [row[2] for row in sizes["module_sizes"]]

    def predict(parameters, state, image, training):
        moved = {}

        def stem(name, x, **options):
            x, moved[name] = normalised(parameters[name], state[name], x, training, **options)
            return x

        x = stem("stem1", image, stride=2, padding=3)
        x = max_pool_ceil(x, window=3, stride=2)
        x = stem("stem3", stem("stem2", x), padding=1)
        for number, pool in enumerate(pools, start=1):
            name = f"inceptions{number}"
            if pool:
                x = max_pool_ceil(x, window=pool, stride=2)
            x, moved[name] = inception(parameters[name], state[name], x, training)
        return dense(parameters["logits"], x.mean((1, 2))), moved

    return predict


def normalised(layer, state, x, training, **options):
    """Convolution, batch norm, ReLU -> (images, state)."""
    x, norm = batch_norm(
        layer["norm"], state["norm"], convolve(layer["conv"], x, **options), training=training
    )
    return jax.nn.relu(x), {"norm": norm}


def inception(layers, state, x, training):
    """Four branches, whose outputs are concatenated -> (images, state)."""
    moved = {}

    def layer(name, x, **options):
        x, moved[name] = normalised(layers[name], state[name], x, training, **options)
        return x

    branch1 = layer("branch1", x)
    branch2 = layer("branch2", layer("reduce2", x), padding=1)
    branch3 = layer("branch3", layer("reduce3", x), padding=1)
    branch4 = layer("branch4", max_pool(x, window=3, stride=1, padding=1))
    return jnp.concatenate((branch1, branch2, branch3, branch4), -1), moved
