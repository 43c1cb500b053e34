"""LeNet-5, after "Neural Networks" of PyTorch's "Deep Learning with PyTorch: A 60 Minute Blitz".

https://docs.pytorch.org/tutorials/beginner/blitz/neural_networks_tutorial.html
"""

import torch
import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    """Two convolutions with pooling, two hidden layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second = sizes["filters"]
        units1, units2 = sizes["hidden"]
        self.conv1 = nn.Conv2d(sizes["channels"], first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.hidden1 = nn.Linear(sizes["flattened"], units1)
        self.hidden2 = nn.Linear(units1, units2)
        self.logits = nn.Linear(units2, sizes["classes"])

    def forward(self, image):
        """(batch, channels, height, width) -> logits (batch, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(image)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.hidden1(x))
        x = F.relu(self.hidden2(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
