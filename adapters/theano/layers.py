"""Layers over shared variables, as Theano's tutorials write them again for every model.

http://deeplearning.net/tutorial/, kept at https://github.com/lisa-lab/DeepLearningTutorials
"""

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.nnet.bn import batch_normalization_test, batch_normalization_train

# Theano refuses an epsilon below the double 1e-5, and the single 1e-5 is below it.
EPSILON = np.nextafter(np.float32(1e-5), np.float32(1))


class Model:
    """A model with ``variables`` by name; ``moved`` collects updates of running statistics."""

    def __init__(self):
        self.variables, self.training, self.moved = {}, False, {}

    def shared(self, name, *shape):
        """Make a shared variable of zeros."""
        self.variables[name] = theano.shared(np.zeros(shape, "float32"), name)
        return self.variables[name]


class Dense:
    """x W + b."""

    def __init__(self, model, name, inputs, units):
        self.kernel = model.shared(name + "/kernel", inputs, units)
        self.bias = model.shared(name + "/bias", units)

    def __call__(self, x):
        """(batch, inputs) -> (batch, units)."""
        return T.dot(x, self.kernel) + self.bias


class Convolution:
    """Cross-correlation; ``padding`` on each side."""

    def __init__(self, model, name, channels, filters, window, *, stride=1, padding=0, bias=True):
        self.kernel = model.shared(name + "/kernel", filters, channels, window, window)
        self.bias = model.shared(name + "/bias", filters) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x):
        """(batch, channels, height, width) -> (batch, filters, height', width')."""
        out = T.nnet.conv2d(
            x,
            self.kernel,
            border_mode=(self.padding, self.padding),
            subsample=(self.stride, self.stride),
            filter_shape=self.kernel.get_value(borrow=True).shape,
            filter_flip=False,
        )
        return out if self.bias is None else out + self.bias.dimshuffle("x", 0, "x", "x")


class BatchNorm:
    """Batch norm; in training by the batch's statistics, which move the running statistics."""

    def __init__(self, model, name, channels):
        self.model = model
        names = ("scale", "bias", "mean", "variance")
        self.arrays = [model.shared(name + "/" + part, channels) for part in names]

    def __call__(self, x):
        """Normalise; the shape does not change."""
        scale, bias, mean, variance = (a.dimshuffle("x", 0, "x", "x") for a in self.arrays)
        if not self.model.training:
            return batch_normalization_test(x, scale, bias, mean, variance, "spatial", EPSILON)
        out, _, _, *moved = batch_normalization_train(
            x, scale, bias, "spatial", EPSILON, 0.1, mean, variance
        )
        for held, new in zip(self.arrays[2:], moved, strict=True):
            self.model.moved[held] = new.flatten()
        return out


def max_pool(x, window, *, stride=None, padding=0):
    """Maximum over full windows, pair by pair, so that only one of equal maxima has a gradient.

    theano.tensor.signal.pool.pool_2d gives the whole gradient to each of several equal maxima.
    """
    if padding:
        *examples, height, width = x.shape
        padded = (*examples, height + 2 * padding, width + 2 * padding)
        inner = slice(padding, -padding)
        x = T.set_subtensor(T.alloc(np.float32(-np.inf), *padded)[:, :, inner, inner], x)
    step = stride or window
    for turned in ((0, 1, 3, 2), (0, 1, 3, 2)):  # along the width, then along the height
        count = (x.shape[3] - window) // step + 1
        starts = [x[:, :, :, start : start + step * count : step] for start in range(window)]
        largest, *others = starts
        for other in others:
            largest = T.switch(T.ge(largest, other), largest, other)
        x = largest.dimshuffle(*turned)
    return x
