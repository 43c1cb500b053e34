"""LeNet-5, as in the tutorial "MNIST": https://docs.tinygrad.org/mnist/."""

from itertools import pairwise

from tinygrad import nn


class LeNet5:
    """Two convolutions, two or more dense layers."""

    def __init__(self, sizes):
        first, second = sizes["filters"]
        widths = [sizes["flattened"], *sizes["hidden"]]
        self.conv1 = nn.Conv2d(sizes["channels"], first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.hidden = [nn.Linear(inputs, units) for inputs, units in pairwise(widths)]
        self.logits = nn.Linear(widths[-1], sizes["classes"])

    def __call__(self, image):
        """(batch, channel, height, width) -> logits (batch, classes)."""
        x = self.conv1(image).relu().max_pool2d(2)
        x = self.conv2(x).relu().max_pool2d(2).flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
