"""AlexNet, after torchvision's implementation, which PyTorch's pages load it from.

https://docs.pytorch.org/vision/stable/models/alexnet.html (2026-11)
"""

import torch
from torch import nn
from torch.nn import functional as F


class AlexNet(nn.Module):
    """Five convolutions with overlapping pooling, adaptive pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second, third, fourth, fifth = sizes["filters"]
        units1, units2 = sizes["hidden"]
        self.conv1 = nn.Conv2d(sizes["channels"], first, 11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5, padding=2)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, 3, padding=1)
        self.conv5 = nn.Conv2d(fourth, fifth, 3, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(sizes["pooled"])
        self.hidden1 = nn.Linear(sizes["flattened"], units1)
        self.hidden2 = nn.Linear(units1, units2)
        self.logits = nn.Linear(units2, sizes["classes"])

    def forward(self, image):
        """(batch, channels, height, width) -> logits (batch, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(image)), 3, stride=2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 3, stride=2)
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, stride=2)
        x = torch.flatten(self.avgpool(x), 1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return AlexNet(sizes)
