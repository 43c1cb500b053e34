"""LeNet-5, after paddle.vision.models.LeNet.

https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/vision/models/LeNet_en.html
"""

import paddle
from paddle import nn
from paddle.nn import functional as F


class LeNet5(nn.Layer):
    """Two convolutions, two or more dense layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second = sizes["filters"]
        widths = [sizes["flattened"], *sizes["hidden"]]
        self.conv1 = nn.Conv2D(sizes["channels"], first, 5, padding=2)
        self.conv2 = nn.Conv2D(first, second, 5)
        self.hidden = nn.LayerList(
            nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1)
        )
        self.logits = nn.Linear(widths[-1], sizes["classes"])

    def forward(self, image):
        """(batch, channel, height, width) -> logits (batch, classes)."""
        x = F.max_pool2d(F.relu(self.conv1(image)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = paddle.flatten(x, 1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
