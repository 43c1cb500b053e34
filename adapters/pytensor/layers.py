"""Layers over shared variables; images are (batch, height, width, channel)."""

import numpy as np
import pytensor
import pytensor.tensor as pt


class Model:
    """A model; ``variables`` holds its shared variables by name."""

    def __init__(self):
        self.variables = {}

    def shared(self, name, *shape):
        """Make a shared variable of zeros."""
        self.variables[name] = pytensor.shared(np.zeros(shape, "float32"), name, shape=shape)
        return self.variables[name]


class Dense:
    """x W + b."""

    def __init__(self, model, name, inputs, units):
        self.kernel = model.shared(name + "/kernel", inputs, units)
        self.bias = model.shared(name + "/bias", units)

    def __call__(self, x):
        """(batch, inputs) -> (batch, units)."""
        return x @ self.kernel + self.bias


class Convolution:
    """A product of all windows with the kernel, since PyTensor cannot convolve images."""

    def __init__(self, model, name, channels, filters, window, *, padding=0):
        self.kernel = model.shared(name + "/kernel", window, window, channels, filters)
        self.bias = model.shared(name + "/bias", filters)
        self.window, self.padding = window, padding

    def __call__(self, x):
        """(batch, height, width, channels) -> (batch, height', width', filters)."""
        side = (self.padding, self.padding)
        x = pt.pad(x, ((0, 0), side, side, (0, 0))) if self.padding else x
        _, height, width, _ = x.type.shape
        rows, columns = height - self.window + 1, width - self.window + 1
        windows = [
            x[:, row : row + rows, column : column + columns]
            for row in range(self.window)
            for column in range(self.window)
        ]
        kernel = self.kernel.reshape((-1, self.kernel.type.shape[3]))
        return pt.concatenate(windows, axis=3) @ kernel + self.bias


def max_pool(x, window):
    """Maximum over full windows, pair by pair, so that only one of equal maxima has a gradient.

    pytensor.tensor.max gives the whole gradient to each of several equal maxima.
    """
    _, height, width, _ = x.type.shape
    x = x[:, : height // window * window, : width // window * window]
    places = [(row, column) for row in range(window) for column in range(window)]
    largest, *others = (x[:, row::window, column::window] for row, column in places)
    for other in others:
        largest = pt.switch(pt.ge(largest, other), largest, other)
    return largest


def relu(x):
    """max(x, 0)."""
    return pt.maximum(x, np.float32(0))
