"""AlexNet as an ``nnx.Module``.

Follows https://flax.readthedocs.io/en/latest/mnist_tutorial.html (the convolutional network of
the MNIST tutorial, 2026-11).
"""

from flax import nnx

from levelfield.adapters.flax.layers import adaptive_mean_pool


def conv(channels, filters, window, *, strides=1, padding, rngs):
    """A convolution with square windows."""
    return nnx.Conv(
        channels, filters, kernel_size=(window, window), strides=strides, padding=padding, rngs=rngs
    )


class AlexNet(nnx.Module):
    """Five convolutions with overlapping pooling, adaptive pooling, two hidden layers."""

    def __init__(self, sizes, *, rngs):
        first, second, third, fourth, fifth = sizes["filters"]
        units1, units2 = sizes["hidden"]
        self.conv1 = conv(sizes["channels"], first, 11, strides=4, padding=2, rngs=rngs)
        self.conv2 = conv(first, second, 5, padding=2, rngs=rngs)
        self.conv3 = conv(second, third, 3, padding=1, rngs=rngs)
        self.conv4 = conv(third, fourth, 3, padding=1, rngs=rngs)
        self.conv5 = conv(fourth, fifth, 3, padding=1, rngs=rngs)
        self.hidden1 = nnx.Linear(sizes["flattened"], units1, rngs=rngs)
        self.hidden2 = nnx.Linear(units1, units2, rngs=rngs)
        self.logits = nnx.Linear(units2, sizes["classes"], rngs=rngs)
        self.pooled = sizes["pooled"]

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = nnx.relu(self.conv1(image))
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        x = nnx.relu(self.conv2(x))
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        x = nnx.relu(self.conv3(x))
        x = nnx.relu(self.conv4(x))
        x = nnx.relu(self.conv5(x))
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        x = adaptive_mean_pool(x, self.pooled)
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.hidden1(x))
        x = nnx.relu(self.hidden2(x))
        return self.logits(x)


def build(sizes):
    """Sizes of the preset -> the module."""
    return AlexNet(sizes, rngs=nnx.Rngs(0))
