"""LeNet-5, after "Convolutional Network for Visual Recognition Tasks" of Chainer's examples.

https://docs.chainer.org/en/v7.8.1/examples/cnn.html
"""

import chainer
from chainer import functions as F
from chainer import links as L


class LeNet5(chainer.Chain):
    """Two convolutions, two or more dense layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second = sizes["filters"]
        widths = [sizes["flattened"], *sizes["hidden"]]
        with self.init_scope():
            self.conv1 = L.Convolution2D(sizes["channels"], first, ksize=5, pad=2)
            self.conv2 = L.Convolution2D(first, second, ksize=5)
            self.hidden = chainer.ChainList(
                *(L.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1))
            )
            self.logits = L.Linear(widths[-1], sizes["classes"])

    def forward(self, image):
        """(batch, channel, height, width) -> logits (batch, classes)."""
        x = F.max_pooling_2d(F.relu(self.conv1(image)), 2, cover_all=False)
        x = F.max_pooling_2d(F.relu(self.conv2(x)), 2, cover_all=False)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
