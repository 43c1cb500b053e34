"""GoogLeNet as ``nnx.Module``s.

Follows https://flax.readthedocs.io/en/latest/mnist_tutorial.html (``nnx.BatchNorm``, which
``model.train()`` and ``model.eval()`` switch, 2026-11).
"""

import jax.numpy as jnp
from flax import nnx


class ConvNorm(nnx.Module):
    """A convolution without bias, batch norm, ReLU."""

    def __init__(self, channels, filters, window, *, strides=1, rngs):
        self.conv = nnx.Conv(
            channels,
            filters,
            kernel_size=(window, window),
            strides=strides,
            padding=window // 2,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(filters, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x):
        """(batch, height, width, channels) -> (batch, height', width', filters)."""
        return nnx.relu(self.norm(self.conv(x)))


class Inception(nnx.Module):
    """Four branches, whose outputs are concatenated."""

    def __init__(self, channels, filters, *, rngs):
        one, first2, second2, first3, second3, four = filters
        self.branch1 = ConvNorm(channels, one, 1, rngs=rngs)
        self.reduce2 = ConvNorm(channels, first2, 1, rngs=rngs)
        self.branch2 = ConvNorm(first2, second2, 3, rngs=rngs)
        self.reduce3 = ConvNorm(channels, first3, 1, rngs=rngs)
        self.branch3 = ConvNorm(first3, second3, 3, rngs=rngs)
        self.branch4 = ConvNorm(channels, four, 1, rngs=rngs)

    def __call__(self, x):
        """(batch, height, width, channels) -> (batch, height, width, filters of all branches)."""
        branch1 = self.branch1(x)
        branch2 = self.branch2(self.reduce2(x))
        branch3 = self.branch3(self.reduce3(x))
        pooled = nnx.max_pool(x, window_shape=(3, 3), strides=(1, 1), padding="SAME")
        return jnp.concatenate([branch1, branch2, branch3, self.branch4(pooled)], axis=-1)


def max_pool_ceil(x, window):
    """Max pooling with stride 2 whose last window may extend beyond the image."""
    rows, columns = ((size - window) % 2 for size in x.shape[1:3])
    padding = ((0, rows), (0, columns))
    return nnx.max_pool(x, window_shape=(window, window), strides=(2, 2), padding=padding)


class GoogLeNet(nnx.Module):
    """Stem, stages of inception modules, global average pooling, dense head."""

    def __init__(self, sizes, *, rngs):
        first, second, third = sizes["stem"]
        rows = sizes["module_sizes"]
        self.stem1 = ConvNorm(sizes["channels"], first, 7, strides=2, rngs=rngs)
        self.stem2 = ConvNorm(first, second, 1, rngs=rngs)
        self.stem3 = ConvNorm(second, third, 3, rngs=rngs)
        self.inceptions = nnx.List([Inception(a, filters, rngs=rngs) for a, filters, _ in rows])
        self.pools = tuple(pool for *_, pool in rows)
        self.logits = nnx.Linear(sizes["pooled"], sizes["classes"], rngs=rngs)

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = max_pool_ceil(self.stem1(image), 3)
        x = self.stem3(self.stem2(x))
        for inception, pool in zip(self.inceptions, self.pools, strict=True):
            if pool:
                x = max_pool_ceil(x, pool)
            x = inception(x)
        return self.logits(x.mean(axis=(1, 2)))


def build(sizes):
    """Sizes of the preset -> the module."""
    return GoogLeNet(sizes, rngs=nnx.Rngs(0))
