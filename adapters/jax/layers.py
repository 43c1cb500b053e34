"""Layers as functions of their parameters, over ``jax.numpy``, ``jax.nn`` and ``jax.lax``.

Follows https://docs.jax.dev/en/latest/101/convolutions.html (images NHWC, kernels HWIO, as the
dimension numbers of ``conv_general_dilated`` say) and
https://docs.jax.dev/en/latest/stateful-computations.html (state is an argument and a result).
"""

import jax
import jax.numpy as jnp
from jax import lax


def dense(layer, inputs):
    """(..., in) -> (..., out)."""
    return inputs @ layer["kernel"] + layer["bias"]


def convolve(layer, images, *, stride=1, padding=0):
    """(batch, height, width, in) -> (batch, height', width', out), with a bias if there is one."""
    out = lax.conv_general_dilated(
        images,
        layer["kernel"],
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out + layer["bias"] if "bias" in layer else out


def max_pool(images, *, window=2, stride=2, padding=0):
    """Maximum over windows."""
    size, steps = (1, window, window, 1), (1, stride, stride, 1)
    padding = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(images, -jnp.inf, lax.max, size, steps, padding)


def max_pool_ceil(images, *, window, stride):
    """Maximum over windows of which the last may extend beyond the image."""
    rows, columns = (-(size - window) % stride for size in images.shape[1:3])
    size, steps = (1, window, window, 1), (1, stride, stride, 1)
    padding = ((0, 0), (0, rows), (0, columns), (0, 0))
    return lax.reduce_window(images, -jnp.inf, lax.max, size, steps, padding)


def adaptive_mean_pool(images, side):
    """Mean over side x side windows, from rounded-down to rounded-up parts of the image."""
    for axis in (1, 2):
        size = images.shape[axis]
        parts = [(i * size // side, -(-(i + 1) * size // side)) for i in range(side)]
        means = [lax.slice_in_dim(images, *part, axis=axis).mean(axis) for part in parts]
        images = jnp.stack(means, axis)
    return images


def batch_norm(layer, statistics, x, *, training, momentum=0.9, epsilon=1e-5):
    """Normalised images, and the running statistics after them."""
    if training:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        statistics = {
            "mean": momentum * statistics["mean"] + (1 - momentum) * mean,
            "variance": momentum * statistics["variance"] + (1 - momentum) * variance,
        }
    else:
        mean, variance = statistics["mean"], statistics["variance"]
    scale = layer["scale"] * lax.rsqrt(variance + epsilon)
    return (x - mean) * scale + layer["bias"], statistics


def layer_norm(layer, x, *, epsilon):
    """``jax.nn.standardize`` over the last axis, then scale and bias."""
    return jax.nn.standardize(x, epsilon=epsilon) * layer["scale"] + layer["bias"]


def attention(layer, x, *, heads, mask=None, is_causal=False):
    """Self-attention by ``jax.nn.dot_product_attention``, (batch, time, width)."""
    query, key, value = (
        split_heads(dense(layer[part], x), heads) for part in ("query", "key", "value")
    )
    out = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=is_causal)
    return dense(layer["out"], out.reshape(x.shape))


def split_heads(x, heads):
    """(batch, time, width) -> (batch, time, heads, width / heads)."""
    return x.reshape(*x.shape[:2], heads, -1)
