"""GoogLeNet, after torchvision's implementation, which PyTorch's pages load it from.

https://docs.pytorch.org/vision/stable/models/googlenet.html (2026-11)
"""

import torch
from torch import nn
from torch.nn import functional as F


class BasicConv2d(nn.Module):
    """A convolution without bias, batch norm, ReLU."""

    def __init__(self, channels, filters, window, *, stride=1):
        super().__init__()
        padding = window // 2
        self.conv = nn.Conv2d(channels, filters, window, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(filters)

    def forward(self, x):
        """(batch, channels, height, width) -> (batch, filters, height', width')."""
        return F.relu(self.norm(self.conv(x)))


class Inception(nn.Module):
    """Four branches, whose outputs are concatenated."""

    def __init__(self, channels, filters):
        super().__init__()
        one, first2, second2, first3, second3, four = filters
        self.branch1 = BasicConv2d(channels, one, 1)
        self.reduce2 = BasicConv2d(channels, first2, 1)
        self.branch2 = BasicConv2d(first2, second2, 3)
        self.reduce3 = BasicConv2d(channels, first3, 1)
        self.branch3 = BasicConv2d(first3, second3, 3)
        self.branch4 = BasicConv2d(channels, four, 1)

    def forward(self, x):
        """(batch, channels, height, width) -> (batch, filters of all branches, height, width)."""
        branch1 = self.branch1(x)
        branch2 = self.branch2(self.reduce2(x))
        branch3 = self.branch3(self.reduce3(x))
        branch4 = self.branch4(F.max_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([branch1, branch2, branch3, branch4], 1)


class GoogLeNet(nn.Module):
    """Stem, stages of inception modules, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        first, second, third = sizes["stem"]
        rows = sizes["module_sizes"]
        self.stem1 = BasicConv2d(sizes["channels"], first, 7, stride=2)
        self.stem2 = BasicConv2d(first, second, 1)
        self.stem3 = BasicConv2d(second, third, 3)
        self.inceptions = nn.ModuleList(Inception(before, filters) for before, filters, _ in rows)
        self.pools = [pool for *_, pool in rows]
        self.logits = nn.Linear(sizes["pooled"], sizes["classes"])

    def forward(self, image):
        """(batch, channels, height, width) -> logits (batch, classes)."""
        x = F.max_pool2d(self.stem1(image), 3, stride=2, ceil_mode=True)
        x = self.stem3(self.stem2(x))
        for inception, pool in zip(self.inceptions, self.pools, strict=True):
            if pool:
                x = F.max_pool2d(x, pool, stride=2, ceil_mode=True)
            x = inception(x)
        x = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return GoogLeNet(sizes)
