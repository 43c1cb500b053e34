"""LeNet-5 as an ``nnx.Module``.

Follows https://flax.readthedocs.io/en/latest/mnist_tutorial.html (the convolutional network of
the MNIST tutorial).
"""

from itertools import pairwise

from flax import nnx


class LeNet5(nnx.Module):
    """Two convolutions with max pooling, then dense layers."""

    def __init__(self, sizes, *, rngs):
        first, second = sizes["filters"]
        self.conv1 = nnx.Conv(sizes["channels"], first, kernel_size=(5, 5), padding=2, rngs=rngs)
        self.conv2 = nnx.Conv(first, second, kernel_size=(5, 5), padding="VALID", rngs=rngs)
        widths = [sizes["flattened"], *sizes["hidden"]]
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(widths)])
        self.logits = nnx.Linear(widths[-1], sizes["classes"], rngs=rngs)

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = nnx.relu(self.conv1(image))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Sizes of the preset -> the module."""
    return LeNet5(sizes, rngs=nnx.Rngs(0))
