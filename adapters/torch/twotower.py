"""Two towers on nn.Linear and F.normalize; the softmax is over the items of the batch.

Pages of 2026-11:
https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html
https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
"""

from torch import nn
from torch.nn import functional as F


def tower(features, widths):
    """Make the dense layers of a tower."""
    widths = [features, *widths]
    return nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1))


def embed(layers, x):
    """(batch, features) -> (batch, width) of norm 1."""
    for layer in layers[:-1]:
        x = F.relu(layer(x))
    return F.normalize(layers[-1](x), dim=-1)


class TwoTower(nn.Module):
    """Embeddings of users and items, and the scores of all their pairs."""

    def __init__(self, sizes):
        super().__init__()
        self.user = tower(sizes["user_features"], sizes["tower"])
        self.item = tower(sizes["item_features"], sizes["tower"])
        self.temperature = sizes["temperature"]

    def forward(self, user, item):
        """(batch, user_features), (batch, item_features) -> logits (batch, batch)."""
        scores = embed(self.user, user) @ embed(self.item, item).T
        return scores / self.temperature


def build(sizes):
    """Build the model."""
    return TwoTower(sizes)
