"""LeNet-5, after the tutorial on convolutional networks.

http://deeplearning.net/tutorial/lenet.html
"""

import theano.tensor as T

from levelfield.adapters.theano.layers import Convolution, Dense, Model, max_pool


class LeNet5(Model):
    """Two convolutions, two or more dense layers."""

    def __init__(self, sizes):
        super().__init__()
        first, second = sizes["filters"]
        widths = [sizes["flattened"], *sizes["hidden"]]
        self.conv1 = Convolution(self, "conv1", sizes["channels"], first, 5, padding=2)
        self.conv2 = Convolution(self, "conv2", first, second, 5)
        self.hidden = [
            Dense(self, f"hidden{i + 1}", widths[i], widths[i + 1]) for i in range(len(widths) - 1)
        ]
        self.logits = Dense(self, "logits", widths[-1], sizes["classes"])

    def __call__(self, image):
        """(batch, channel, height, width) -> logits (batch, classes)."""
        x = max_pool(T.nnet.relu(self.conv1(image)), 2)
        x = max_pool(T.nnet.relu(self.conv2(x)), 2).flatten(2)
        for layer in self.hidden:
            x = T.nnet.relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return LeNet5(sizes)
