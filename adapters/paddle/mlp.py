"""Multilayer perceptron, after "Model Development" of Paddle's guides.

https://www.paddlepaddle.org.cn/documentation/docs/en/guides/beginner/model_en.html
"""

from paddle import nn
from paddle.nn import functional as F


class MLP(nn.Layer):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["features"], *sizes["hidden"]]
        self.hidden = nn.LayerList(
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
