"""Runs of one model for reports, and the texts of their charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from levelfield.harness.records.frames import Frames, load
from tests.support.synthetic import write_mlp_run

# Neither alphabetical nor by speed.
ARMS = ("torch:eager", "jax:jit", "tensorflow:xla", "keras:jax", "reference:numpy", "flax:jit")


def frames_of(folder: Path, **options: Any) -> Frames:
    """The frames of a run of the MLP by ``ARMS``, in which every cell is ok unless stated."""
    return load(write_mlp_run(folder, **{"arms": ARMS, **options}))


def texts(figure: Figure) -> list[Text]:
    """The texts that a reader sees."""
    figure.canvas.draw()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = {tick.label1 for tick in axis._update_ticks()} if axis.get_visible() else set()
            hidden |= set(axis.findobj(Text)) - shown - {axis.label}
            hidden |= set() if axis.get_visible() else {axis.label}
    labels = [text for text in figure.findobj(Text) if text not in hidden]
    return [text for text in labels if text.get_visible() and text.get_text().strip()]
