"""Residual networks over shared variables.

He et al. 2015. Lasagne's recipes for Theano have this form:
https://github.com/Lasagne/Recipes/blob/master/modelzoo/resnet50.py
"""

import theano.tensor as T

from levelfield.adapters.theano.layers import BatchNorm, Convolution, Dense, Model, max_pool


class Normed:
    """A convolution without bias and its batch norm."""

    def __init__(self, model, name, norm, channels, filters, window, stride=1):
        padding = window // 2
        self.convolution = Convolution(
            model, name, channels, filters, window, stride=stride, padding=padding, bias=False
        )
        self.norm = BatchNorm(model, norm, filters)

    def __call__(self, x):
        """(batch, channels, height, width) -> (batch, filters, height', width')."""
        return self.norm(self.convolution(x))


class Block:
    """Two 3x3 kernels, or 1x1, 3x3 with the stride, 1x1; a projection where the shape changes."""

    def __init__(self, model, name, kind, channels, filters, outer, stride):
        if kind == "basic":
            layers = [(channels, filters, 3, stride), (filters, outer, 3)]
        else:
            layers = [(channels, filters, 1), (filters, filters, 3, stride), (filters, outer, 1)]
        self.layers = [
            Normed(model, f"{name}/conv{number}", f"{name}/norm{number}", *layer)
            for number, layer in enumerate(layers, start=1)
        ]
        self.shortcut = None
        if stride != 1 or channels != outer:
            names = f"{name}/shortcut", f"{name}/shortcut_norm"
            self.shortcut = Normed(model, *names, channels, outer, 1, stride)

    def __call__(self, x):
        """(batch, channels, height, width) -> (batch, outer, height', width')."""
        out = x
        for layer in self.layers[:-1]:
            out = T.nnet.relu(layer(out))
        identity = x if self.shortcut is None else self.shortcut(x)
        return T.nnet.relu(self.layers[-1](out) + identity)


class ResNet(Model):
    """Stem, stages of blocks, global average pooling, dense head."""

    def __init__(self, sizes):
        super().__init__()
        names = "stem", "stem_norm"
        self.stem = Normed(self, *names, sizes["channels"], sizes["width0"], 7, 2)
        self.blocks = []
        for number, row in enumerate(sizes["block_sizes"], start=1):
            self.blocks.append(Block(self, f"blocks{number}", sizes["block"], *row))
        self.logits = Dense(self, "logits", sizes["pooled"], sizes["classes"])

    def __call__(self, image):
        """(batch, channel, height, width) -> logits (batch, classes)."""
        x = max_pool(T.nnet.relu(self.stem(image)), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return self.logits(x.mean(axis=(2, 3)))


def build(sizes):
    """Build the model."""
    return ResNet(sizes)
