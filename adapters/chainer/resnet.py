"""Residual networks, after Chainer's own links of this name.

https://github.com/chainer/chainer/blob/v7.8.1/chainer/links/model/vision/resnet.py
"""

import chainer
from chainer import functions as F
from chainer import links as L


def convolution(channels, filters, window, stride=1):
    """A convolution without bias: a batch norm follows."""
    return L.Convolution2D(channels, filters, window, stride, pad=window // 2, nobias=True)


def norm(channels):
    """A batch norm with the epsilon of the definition; its decay of 0.9 is the default."""
    return L.BatchNormalization(channels, eps=1e-5)


class Block(chainer.Chain):
    """The part that both blocks share: a shortcut, projected where the shape changes."""

    def __init__(self, channels, outer, stride):
        super().__init__()
        self.projects = stride != 1 or channels != outer
        if self.projects:
            with self.init_scope():
                self.shortcut = convolution(channels, outer, 1, stride)
                self.shortcut_norm = norm(outer)

    def identity(self, x):
        """The shortcut."""
        return self.shortcut_norm(self.shortcut(x)) if self.projects else x


class BasicBlock(Block):
    """Two 3x3 kernels."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        with self.init_scope():
            self.conv1 = convolution(channels, filters, 3, stride)
            self.norm1 = norm(filters)
            self.conv2 = convolution(filters, outer, 3)
            self.norm2 = norm(outer)

    def forward(self, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.identity(x))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        with self.init_scope():
            self.conv1 = convolution(channels, filters, 1)
            self.norm1 = norm(filters)
            self.conv2 = convolution(filters, filters, 3, stride)
            self.norm2 = norm(filters)
            self.conv3 = convolution(filters, outer, 1)
            self.norm3 = norm(outer)

    def forward(self, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return F.relu(out + self.identity(x))


class ResNet(chainer.Chain):
    """Stem, stages of blocks, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        block = Bottleneck if sizes["block"] == "bottleneck" else BasicBlock
        with self.init_scope():
            self.stem = convolution(sizes["channels"], sizes["width0"], 7, 2)
            self.stem_norm = norm(sizes["width0"])
            # Sequential would name them in another order.
            self.blocks = chainer.ChainList(*(block(*row) for row in sizes["block_sizes"]))
            self.logits = L.Linear(sizes["pooled"], sizes["classes"])

    def forward(self, image):
        """(batch, channels, height, width) -> logits (batch, classes)."""
        x = F.relu(self.stem_norm(self.stem(image)))
        x = F.max_pooling_2d(x, 3, stride=2, pad=1, cover_all=False)
        for block in self.blocks:
            x = block(x)
        return self.logits(F.average(x, axis=(2, 3)))


def build(sizes):
    """Build the model."""
    return ResNet(sizes)
