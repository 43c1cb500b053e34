"""LeNet-5, after the convolutional network of MXNet's crash course.

https://mxnet.apache.org/versions/1.9.1/api/python/docs/tutorials/getting-started/crash-course/2-nn.html
"""

from mxnet.gluon import nn


class LeNet5(nn.HybridBlock):
    """Two convolutions, two or more dense layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second = sizes["filters"]
        self.conv1 = nn.Conv2D(
            first, 5, padding=2, activation="relu", in_channels=sizes["channels"]
        )
        self.conv2 = nn.Conv2D(second, 5, activation="relu", in_channels=first)
        self.pool = nn.MaxPool2D(2)
        self.hidden = nn.HybridSequential()
        inputs = sizes["flattened"]
        for units in sizes["hidden"]:
            self.hidden.add(nn.Dense(units, activation="relu", in_units=inputs))
            inputs = units
        self.logits = nn.Dense(sizes["classes"], in_units=inputs)

    def hybrid_forward(self, F, image):
        """(batch, channel, height, width) -> logits (batch, classes); Dense flattens."""
        x = self.pool(self.conv1(image))
        x = self.pool(self.conv2(x))
        return self.logits(self.hidden(x))


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
