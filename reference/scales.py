"""The scale of arrays: the factor between two, their mean size, gradients too small to count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.reference.case import Arrays

NEGLIGIBLE = 1e-3  # of the typical gradient: rounding may move a parameter as much as such a one


def scale_error(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """|<got, expected> / <expected, expected> - 1| over all pairs (got, expected) together.

    A unit on the other side of a tie changes an array by e of its norm, and this error by about e
    squared: the unit's share is nearly orthogonal to the rest. A wrong factor changes both equally.
    """
    products, squares = 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for got, expected in pairs:
            wide = np.asarray(expected, np.float64).ravel()
            products += float(np.asarray(got, np.float64).ravel() @ wide)
            squares += float(wide @ wide)
        return abs(products / squares - 1) if squares else 0.0


def root_mean_square(arrays: Iterable[NDArray[Any]]) -> float:
    """Root mean square over all elements of all arrays."""
    arrays = list(arrays)
    squares = sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)
    return float(np.sqrt(squares / (sum(array.size for array in arrays) or 1)))


def null_names(by_set: Sequence[Arrays]) -> set[str]:
    """Parameters whose gradient is below ``NEGLIGIBLE`` of the typical one in every set."""
    null = set(by_set[0])
    for gradients in by_set:
        typical = root_mean_square(gradients.values())
        null &= {
            name
            for name, gradient in gradients.items()
            if root_mean_square([gradient]) < NEGLIGIBLE * typical
        }
    return null
