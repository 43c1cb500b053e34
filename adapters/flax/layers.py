"""Pooling that ``flax.nnx`` lacks, over ``jax.numpy``."""

import jax.numpy as jnp
from jax import lax


def adaptive_mean_pool(x, side):
    """Mean over side x side windows, from rounded-down to rounded-up parts of the image.

    (batch, height, width, channels) -> (batch, side, side, channels)
    """
    for axis in (1, 2):
        size = x.shape[axis]
        parts = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
        means = [lax.slice_in_dim(x, *part, axis=axis).mean(axis) for part in parts]
        x = jnp.stack(means, axis)
    return x
