"""The layer namespace in NumPy: written to be checked by eye, run in float64 as the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


class NumpyLayers:
    """Layers over a mapping of parameters, ``{"hidden1/kernel": (in, out), ...}``.

    The dtype of the parameters and inputs is the dtype of the computation.
    """

    def __init__(self, parameters: Mapping[str, Values]) -> None:
        self.parameters = parameters

    def dense(self, x: Values, name: str, units: int) -> Values:
        """``x @ kernel + bias``."""
        return x @ self.parameters[f"{name}/kernel"] + self.parameters[f"{name}/bias"]

    def conv2d(self, x: Values, name: str, filters: int, window: int, padding: int = 0) -> Values:
        """Cross-correlation as a product of all windows with the kernel."""
        sides = (padding, padding)
        x = np.pad(x, ((0, 0), sides, sides, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (window, window), axis=(1, 2))
        # windows: (batch, height, width, in, window, window); kernel: (window, window, in, out)
        out = np.tensordot(windows, self.parameters[f"{name}/kernel"], axes=((4, 5, 3), (0, 1, 2)))
        return out + self.parameters[f"{name}/bias"]

    def max_pool2d(self, x: Values, window: int) -> Values:
        """Maximum over non-overlapping windows."""
        batch, height, width, channel = x.shape
        rows, columns = height // window, width // window
        x = x[:, : rows * window, : columns * window]
        tiles = x.reshape(batch, rows, window, columns, window, channel)
        return np.asarray(tiles.max(axis=(2, 4)))

    def relu(self, x: Values) -> Values:
        """max(x, 0)."""
        return np.maximum(x, 0)

    def flatten(self, x: Values) -> Values:
        """Everything but the batch in one dimension."""
        return x.reshape(x.shape[0], -1)

    def softmax_cross_entropy(self, logits: Values, labels: Values) -> Values:
        """Mean of the log of the sum of exponentials, minus the logit of the label."""
        top = logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return np.asarray((log_total - logits[np.arange(len(labels)), labels]).mean())
