"""Residual networks, after Gluon's model zoo, with the stride on the 3x3.

https://mxnet.apache.org/versions/1.9.1/api/python/docs/_modules/mxnet/gluon/model_zoo/vision/resnet.html
"""

from mxnet.gluon import nn


def convolution(channels, filters, window, stride=1):
    """A convolution without bias: a batch norm follows."""
    return nn.Conv2D(
        filters, window, stride, padding=window // 2, use_bias=False, in_channels=channels
    )


def norm(channels):
    """A batch norm with epsilon 1e-5 and momentum 0.9, the defaults."""
    return nn.BatchNorm(in_channels=channels)


class Block(nn.HybridBlock):
    """The part that both blocks share: a shortcut, projected where the shape changes."""

    def __init__(self, channels, outer, stride):
        super().__init__()
        self.projects = stride != 1 or channels != outer
        if self.projects:
            self.shortcut = convolution(channels, outer, 1, stride)
            self.shortcut_norm = norm(outer)

    def identity(self, x):
        """The shortcut."""
        return self.shortcut_norm(self.shortcut(x)) if self.projects else x


class BasicBlock(Block):
    """Two 3x3 kernels."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        self.conv1 = convolution(channels, filters, 3, stride)
        self.norm1 = norm(filters)
        self.conv2 = convolution(filters, outer, 3)
        self.norm2 = norm(outer)

    def hybrid_forward(self, F, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.identity(x))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        self.conv1 = convolution(channels, filters, 1)
        self.norm1 = norm(filters)
        self.conv2 = convolution(filters, filters, 3, stride)
        self.norm2 = norm(filters)
        self.conv3 = convolution(filters, outer, 1)
        self.norm3 = norm(outer)

    def hybrid_forward(self, F, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return F.relu(out + self.identity(x))


class ResNet(nn.HybridBlock):
    """Stem, stages of blocks, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        block = Bottleneck if sizes["block"] == "bottleneck" else BasicBlock
        self.stem = convolution(sizes["channels"], sizes["width0"], 7, 2)
        self.stem_norm = norm(sizes["width0"])
        self.pool = nn.MaxPool2D(3, strides=2, padding=1)
        self.blocks = nn.HybridSequential()
        for row in sizes["block_sizes"]:
            self.blocks.add(block(*row))
        self.mean = nn.GlobalAvgPool2D()
        self.logits = nn.Dense(sizes["classes"], in_units=sizes["pooled"])

    def hybrid_forward(self, F, image):
        """(batch, channels, height, width) -> logits (batch, classes); Dense flattens."""
        x = self.pool(F.relu(self.stem_norm(self.stem(image))))
        return self.logits(self.mean(self.blocks(x)))


def build(sizes):
    """Build the model."""
    return ResNet(sizes)
