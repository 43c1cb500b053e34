"""Multilayer perceptron, after "Build the Neural Network" of PyTorch's "Learn the Basics".

https://docs.pytorch.org/tutorials/beginner/basics/buildmodel_tutorial.html
"""

from torch import nn
from torch.nn import functional as F


class MLP(nn.Module):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["features"], *sizes["hidden"]]
        self.hidden = nn.ModuleList(
            nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1)
        )
        self.logits = nn.Linear(widths[-1], sizes["classes"])

    def forward(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return MLP(sizes)
