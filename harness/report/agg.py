"""Loads Matplotlib without the backend that MPLBACKEND names.

Charts are drawn by Agg, which needs no backend. Matplotlib does not load where it does not know the
named backend, such as that of a notebook's kernel in a program that the notebook starts.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def _load() -> None:
    if "matplotlib" in sys.modules:
        return
    chosen = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if chosen is not None:  # a program that draws with it next to a report finds it again
        os.environ["MPLBACKEND"] = chosen
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen


_load()
