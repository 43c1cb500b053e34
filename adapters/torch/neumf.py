"""Neural matrix factorisation on nn.Embedding.

https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
"""

import torch
from torch import nn
from torch.nn import functional as F


class NeuMF(nn.Module):
    """A product of factors next to a tower of dense layers."""

    def __init__(self, sizes):
        super().__init__()
        tower, factors = sizes["tower"], sizes["factors"]
        self.factor_user = nn.Embedding(sizes["users"], factors)
        self.factor_item = nn.Embedding(sizes["items"], factors)
        self.tower_user = nn.Embedding(sizes["users"], sizes["tower_embedding"])
        self.tower_item = nn.Embedding(sizes["items"], sizes["tower_embedding"])
        self.hidden = nn.ModuleList(
            nn.Linear(tower[i], tower[i + 1]) for i in range(len(tower) - 1)
        )
        self.logits = nn.Linear(sizes["joined"], 1)

    def forward(self, user, item):
        """(batch,), (batch,) -> logits (batch, 1)."""
        factors = self.factor_user(user) * self.factor_item(item)
        x = torch.cat([self.tower_user(user), self.tower_item(item)], dim=-1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.logits(torch.cat([factors, x], dim=-1))


def build(sizes):
    """Build the model."""
    return NeuMF(sizes)
