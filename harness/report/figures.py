"""Figures for programs and notebooks: the charts of reports as Matplotlib's own objects."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable

from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.gallery import CHARTS, drawn
from levelfield.harness.report.panels import style
from levelfield.reference.errors import UnknownName


def figure(
    runs: Frames,
    kind: str,
    *,
    model: str | None = None,
    phase: str | None = None,
    highlight: str | Iterable[str] = (),
) -> Figure:
    """Draw a chart of runs: all comparisons, or those of a model and a phase.

    ``kind``: a name of ``levelfield plot``, such as ratio, heat or pareto. The arms to
    ``highlight``, names or patterns such as ``torch:*``, are in colour, all others grey. The
    figure belongs to no backend and leaves the one that you chose as it is. A notebook shows it
    where it is the last value of a cell; ``figure.savefig`` writes it. Raises UnknownName for
    another chart or arm, and BadInput if no comparison or no data are left, or if the chart cannot
    highlight.
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
            f"no comparison of these runs has the model {_words(model)} and the phase"
            f" {_words(phase)}; runs.cells has their models and phases"
        )
    if CHARTS[kind].data(runs, comparisons).empty:
        raise BadInput(f"these runs have no data for the chart {kind}; choose another chart")
    chart = drawn(kind, runs, comparisons, highlight=highlight)
    # Without pyplot, which would show the figure a second time, IPython does not know how to show
    # it. It asks the object for this method (IPython.display, "Custom methods").
    vars(chart)["_repr_png_"] = functools.partial(_png, chart)
    return chart


def _words(value: str | None) -> str:
    return "any" if value is None else repr(value)


def _png(chart: Figure) -> bytes:
    stream = io.BytesIO()
    with style():
        chart.savefig(stream, format="png")
    return stream.getvalue()
