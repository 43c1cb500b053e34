"""VGG networks, after torchvision's implementation, which PyTorch's pages load them from.

https://docs.pytorch.org/vision/stable/models/vgg.html (2026-11)
"""

import torch
from torch import nn
from torch.nn import functional as F


class VGG(nn.Module):
    """Stages of 3x3 convolutions and pooling, adaptive pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        units1, units2 = sizes["hidden"]
        rows = sizes["convolutions"]
        self.conv = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b, _ in rows)
        self.pools = [pools for *_, pools in rows]
        self.avgpool = nn.AdaptiveAvgPool2d(sizes["pooled"])
        self.hidden1 = nn.Linear(sizes["flattened"], units1)
        self.hidden2 = nn.Linear(units1, units2)
        self.logits = nn.Linear(units2, sizes["classes"])

    def forward(self, image):
        """(batch, channels, height, width) -> logits (batch, classes)."""
        x = image
        for conv, pools in zip(self.conv, self.pools, strict=True):
            x = F.relu(conv(x))
            if pools:
                x = F.max_pool2d(x, 2)
        x = torch.flatten(self.avgpool(x), 1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return VGG(sizes)
