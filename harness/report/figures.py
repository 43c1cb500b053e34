"""Figures for programs and notebooks: the charts of reports as Matplotlib's own objects."""

from __future__ import annotations

import functools
import io

from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.gallery import CHARTS
from levelfield.harness.report.panels import style
from levelfield.reference.errors import UnknownName


def figure(
    runs: Frames, kind: str, *, model: str | None = None, phase: str | None = None
) -> Figure:
    """Draw a chart of runs: all comparisons, or those of a model and a phase.

    ``kind``: a name of ``levelfield plot``, such as ratio, heat or pareto. The figure belongs to no
    backend and leaves the one that you chose as it is. A notebook shows it where it is the last
    value of a cell; ``figure.savefig`` writes it. Raises UnknownName for another chart, and
    BadInput if no comparison or no data are left.
    """
    if kind not in CHARTS:
        raise UnknownName("chart", kind, CHARTS)
    comparisons = [
        comparison
        for comparison in comparisons_of(runs)
        if model in (None, comparison.rows["model"].iloc[0])
        and phase in (None, comparison.rows["phase"].iloc[0])
    ]
    if not comparisons:
        raise BadInput(
            f"no comparison of these runs has the model {model or 'any'} and the phase"
            f" {phase or 'any'}; runs.cells has their models and phases"
        )
    if CHARTS[kind].data(runs, comparisons).empty:
        raise BadInput(f"these runs have no data for the chart {kind}; choose another chart")
    drawn = CHARTS[kind].draw(runs, comparisons)
    # Without pyplot, which would show the figure a second time, IPython does not know how to show
    # it. It asks the object for this method (IPython.display, "Custom methods").
    vars(drawn)["_repr_png_"] = functools.partial(_png, drawn)
    return drawn


def _png(drawn: Figure) -> bytes:
    stream = io.BytesIO()
    with style():
        drawn.savefig(stream, format="png")
    return stream.getvalue()
