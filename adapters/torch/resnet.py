"""Residual networks, after torchvision's implementation, which PyTorch's pages load them from.

https://docs.pytorch.org/vision/stable/models/resnet.html
"""

import torch
from torch import nn
from torch.nn import functional as F


def conv3x3(channels, filters, stride=1):
    """A convolution with padding and without bias: a batch norm follows."""
    return nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)


def conv1x1(channels, filters, stride=1):
    """A convolution without bias."""
    return nn.Conv2d(channels, filters, 1, stride=stride, bias=False)


class Block(nn.Module):
    """The part that both blocks share: a shortcut, projected where the shape changes."""

    def __init__(self, channels, outer, stride):
        super().__init__()
        self.projects = stride != 1 or channels != outer
        if self.projects:
            self.shortcut = conv1x1(channels, outer, stride)
            self.shortcut_norm = nn.BatchNorm2d(outer)

    def identity(self, x):
        """The shortcut."""
        return self.shortcut_norm(self.shortcut(x)) if self.projects else x


class BasicBlock(Block):
    """Two 3x3 kernels."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        self.conv1 = conv3x3(channels, filters, stride)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = conv3x3(filters, outer)
        self.norm2 = nn.BatchNorm2d(outer)

    def forward(self, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return F.relu(out + self.identity(x))


class Bottleneck(Block):
    """1x1, 3x3 with the stride, 1x1."""

    def __init__(self, channels, filters, outer, stride):
        super().__init__(channels, outer, stride)
        self.conv1 = conv1x1(channels, filters)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = conv3x3(filters, filters, stride)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv3 = conv1x1(filters, outer)
        self.norm3 = nn.BatchNorm2d(outer)

    def forward(self, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = F.relu(self.norm1(self.conv1(x)))
        out = F.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return F.relu(out + self.identity(x))


class ResNet(nn.Module):
    """Stem, stages of blocks, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        block = Bottleneck if sizes["block"] == "bottleneck" else BasicBlock
        width = sizes["width0"]
        self.stem = nn.Conv2d(sizes["channels"], width, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(block(*row) for row in sizes["block_sizes"]))
        self.logits = nn.Linear(sizes["pooled"], sizes["classes"])

    def forward(self, image):
        """(batch, channels, height, width) -> logits (batch, classes)."""
        x = F.relu(self.stem_norm(self.stem(image)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.blocks(x)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return ResNet(sizes)
