"""Loads Matplotlib without the backend that MPLBACKEND names.

Charts are drawn by Agg, which needs no backend. Matplotlib does not load where it does not know the
named backend, such as that of a notebook's kernel in a program that the notebook starts.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from levelfield.harness.errors import BadInput


def _refuse_pipes() -> None:
    """Raise BadInput where Matplotlib would read a pipe or a device, which may never end."""
    named = Path(os.environ.get("MATPLOTLIBRC", ""))
    for file in (Path("matplotlibrc"), named, named / "matplotlibrc"):
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise BadInput(
                f"Matplotlib would read its settings from {file}, which is no regular file; remove"
                " or rename it, or unset MATPLOTLIBRC"
            )


def _load() -> None:
    if "matplotlib" in sys.modules:
        return
    # Its warnings of settings have several lines, and none names the next step.
    logging.getLogger("matplotlib").addHandler(logging.NullHandler())
    _refuse_pipes()
    chosen = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except UnicodeDecodeError as error:  # it reads the file of the working folder first
        raise BadInput(
            f"Matplotlib cannot read its settings: {error}; mend or rename the file matplotlibrc of"
            " this folder, or that of MATPLOTLIBRC"
        ) from error

    if chosen is not None:  # a program that draws with it next to a report finds it again
        os.environ["MPLBACKEND"] = chosen
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen


_load()
