"""VGG networks as an ``nnx.Module``.

Follows https://flax.readthedocs.io/en/latest/mnist_tutorial.html (the convolutional network of
the MNIST tutorial, 2026-11).
"""

from flax import nnx

from levelfield.adapters.flax.layers import adaptive_mean_pool


class VGG(nnx.Module):
    """Stages of 3x3 convolutions and pooling, adaptive pooling, two hidden layers."""

    def __init__(self, sizes, *, rngs):
        units1, units2 = sizes["hidden"]
        rows = sizes["convolutions"]
        self.conv = nnx.List(
            [nnx.Conv(a, b, kernel_size=(3, 3), padding=1, rngs=rngs) for a, b, _ in rows]
        )
        self.pools = tuple(pools for *_, pools in rows)
        self.hidden1 = nnx.Linear(sizes["flattened"], units1, rngs=rngs)
        self.hidden2 = nnx.Linear(units1, units2, rngs=rngs)
        self.logits = nnx.Linear(units2, sizes["classes"], rngs=rngs)
        self.pooled = sizes["pooled"]

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = image
        for conv, pools in zip(self.conv, self.pools, strict=True):
            x = nnx.relu(conv(x))
            if pools:
                x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = adaptive_mean_pool(x, self.pooled)
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.hidden1(x))
        x = nnx.relu(self.hidden2(x))
        return self.logits(x)


def build(sizes):
    """Sizes of the preset -> the module."""
    return VGG(sizes, rngs=nnx.Rngs(0))
