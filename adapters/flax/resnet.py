"""Residual networks as ``nnx.Module``s.

Follows https://flax.readthedocs.io/en/latest/mnist_tutorial.html (``nnx.BatchNorm``, which
``model.train()`` and ``model.eval()`` switch).
"""

from functools import partial

from flax import nnx

norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5)


def conv(channels, filters, window, *, stride=1, padding=0, rngs):
    """A convolution without bias: a batch norm follows."""
    return nnx.Conv(
        channels,
        filters,
        kernel_size=(window, window),
        strides=stride,
        padding=padding,
        use_bias=False,
        rngs=rngs,
    )


class Block(nnx.Module):
    """The part that both blocks share: a shortcut, projected where the shape changes."""

    def __init__(self, channels, outer, stride, *, rngs):
        self.projects = stride != 1 or channels != outer
        if self.projects:
            self.shortcut = conv(channels, outer, 1, stride=stride, rngs=rngs)
            self.shortcut_norm = norm(outer, rngs=rngs)

    def identity(self, x):
        """The shortcut."""
        return self.shortcut_norm(self.shortcut(x)) if self.projects else x


class BasicBlock(Block):
    """Two 3x3 kernels."""

    def __init__(self, channels, filters, outer, stride, *, rngs):
        super().__init__(channels, outer, stride, rngs=rngs)
        self.conv1 = conv(channels, filters, 3, stride=stride, padding=1, rngs=rngs)
        self.norm1 = norm(filters, rngs=rngs)
        self.conv2 = conv(filters, outer, 3, padding=1, rngs=rngs)
        self.norm2 = norm(outer, rngs=rngs)

    def __call__(self, x):
        """(batch, height, width, channels) -> (batch, height', width', outer)."""
        out = nnx.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return nnx.relu(out + self.identity(x))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1."""

    def __init__(self, channels, filters, outer, stride, *, rngs):
        super().__init__(channels, outer, stride, rngs=rngs)
        self.conv1 = conv(channels, filters, 1, rngs=rngs)
        self.norm1 = norm(filters, rngs=rngs)
        self.conv2 = conv(filters, filters, 3, stride=stride, padding=1, rngs=rngs)
        self.norm2 = norm(filters, rngs=rngs)
        self.conv3 = conv(filters, outer, 1, rngs=rngs)
        self.norm3 = norm(outer, rngs=rngs)

    def __call__(self, x):
        """(batch, height, width, channels) -> (batch, height', width', outer)."""
        out = nnx.relu(self.norm1(self.conv1(x)))
        out = nnx.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return nnx.relu(out + self.identity(x))


class ResNet(nnx.Module):
    """Stem, stages of blocks, global average pooling, dense head."""

    def __init__(self, sizes, *, rngs):
        block = Bottleneck if sizes["block"] == "bottleneck" else BasicBlock
        width = sizes["width0"]
        self.stem = conv(sizes["channels"], width, 7, stride=2, padding=3, rngs=rngs)
        self.stem_norm = norm(width, rngs=rngs)
        self.blocks = nnx.List([block(*row, rngs=rngs) for row in sizes["block_sizes"]])
        self.logits = nnx.Linear(sizes["pooled"], sizes["classes"], rngs=rngs)

    def __call__(self, image):
        """(batch, height, width, channels) -> logits (batch, classes)."""
        x = nnx.relu(self.stem_norm(self.stem(image)))
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.logits(x.mean(axis=(1, 2)))


def build(sizes):
    """Sizes of the preset -> the module."""
    return ResNet(sizes, rngs=nnx.Rngs(0))
