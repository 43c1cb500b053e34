"""The windows of pooling: those that extend beyond an image, and those of adaptive pooling.

Adaptive pooling divides a side of ``size`` rows into ``count`` windows, which overlap where
``size`` is no multiple of ``count``. Window i begins at floor(i size / count) and ends before
ceil((i + 1) size / count), as in torch's implementation (``start_index`` and ``end_index`` in
aten/src/ATen/native/AdaptivePooling.h).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rows_beyond(size: int, window: int, stride: int, padding: int, *, ceil: bool) -> int:
    """Rows by which the last window extends beyond a padded side; 0 unless ``ceil``."""
    return -(size + 2 * padding - window) % stride if ceil else 0


def window_count(size: int, window: int, stride: int, padding: int, *, ceil: bool) -> int:
    """Number of windows along a side."""
    beyond = rows_beyond(size, window, stride, padding, ceil=ceil)
    return (size + 2 * padding + beyond - window) // stride + 1


def adaptive_windows(size: int, count: int) -> list[tuple[int, int]]:
    """Begin and end of each window of adaptive pooling."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_weights(size: int, count: int) -> NDArray[np.float32]:
    """Weights (count, size) whose product with a side is its adaptive mean pooling."""
    weights = np.zeros((count, size), np.float32)
    for row, (begin, end) in zip(weights, adaptive_windows(size, count), strict=True):
        row[begin:end] = 1 / (end - begin)
    return weights
