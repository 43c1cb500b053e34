"""Charts of tiles: arms by comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.colours import GREY
from levelfield.harness.report.panels import name_of_arm, page_title, style
from levelfield.harness.report.series import (
    VOID,
    geometric_means,
    heat_data,
    series_name,
    short_names,
)
from levelfield.harness.report.text import significant

_INCHES = 10.0  # a page shows 10 across
_MEAN = "geometric mean"
_STATUS_TONES = {
    "ok": "#CFE8D5",
    "void": "#E3E3E3",
    "unsupported": "#E3E3E3",
    "no-environment": "#E3E3E3",
    "unfinished": "#FBF0C4",
}
_MANY = 10  # columns, beyond which tiles are narrow
_SMALL = 7.75  # points in narrow tiles: 8 where the chart is as wide as a sheet on its side


def heat_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Arms by comparisons: times the seconds of the fastest; the geometric mean at the end."""
    data = heat_data(frames, comparisons)
    means = geometric_means(data)
    columns = list(dict.fromkeys(data["comparison"]))
    cells = {(row["comparison"], row["arm"]): row for row in data.to_dict("records")}
    with style():
        title = "Times the fastest, for every comparison (lower is better)"
        figure, axes = _matrix(title, [*columns, _MEAN], [*means.index], room=0.25)
        for line, (arm, mean) in enumerate(means.iterrows()):
            for at, name in enumerate(columns):
                cell = cells.get((name, arm))
                if cell is not None:
                    ratio = cell["ratio"]
                    text = _times(ratio, cell["status"])
                    _tile(axes, at, line, ratio, text, small=len(columns) > _MANY)
            ratio = mean["geometric_mean"]
            _tile(axes, len(columns) + 0.25, line, ratio, _times(ratio, "-"), small=False)
            if mean["measured"] < mean["planned"]:
                words = f"{int(mean['measured'])} of {int(mean['planned'])}"
                axes.text(len(columns) + 0.8, line, words, va="center", fontsize=8, color=GREY)
    return figure


def status_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Arms by comparisons: the status of every planned cell, in a colour and a word."""
    names = [*map(series_name, comparisons)]
    arms = list(dict.fromkeys(arm for one in comparisons for arm in one.rows["arm"]))
    with style():
        figure, axes = _matrix("The status of every cell", names, arms, room=0.0)
        for at, comparison in enumerate(comparisons):
            judged = comparison.judged.get("throughput")
            void = judged is not None and bool(judged.verdicts.void)
            for arm, status in comparison.rows[["arm", "status"]].itertuples(index=False):
                status = VOID if void and status == "ok" else str(status)
                line, tone = arms.index(arm), _STATUS_TONES.get(status, "#F2B8A0")
                axes.barh(line, 0.96, left=at - 0.48, height=0.92, color=tone)
                size = _SMALL if len(names) > _MANY else 8.5
                text = axes.text(at, line, _short_status(status), fontsize=size, color="#111111")
                text.set(ha="center", va="center")
    return figure


def _matrix(
    title: str, columns: Sequence[str], arms: Sequence[str], *, room: float
) -> tuple[Figure, Axes]:
    """A figure for tiles, an arm per line; the last column is set apart by ``room`` tiles."""
    names = short_names([clean(name).partition(",")[0] for name in columns])
    # Inches for the title and for names at 45 degrees, which lean to the right, beyond the last.
    top = 0.8 + 0.053 * max(map(len, names), default=0)
    height = top + 0.5 + 0.3 * len(arms)
    figure = Figure(figsize=(_INCHES, height), facecolor="white")
    FigureCanvasAgg(figure)
    page_title(figure, title if arms else f"{title}: no data for it in these runs")
    axes = figure.add_axes((0.17, 0.3 / height, 0.76, (height - top - 0.3) / height))
    places = [*range(len(columns) - 1), len(columns) - 1 + room]
    axes.set_xlim(-0.5, places[-1] + 0.6)
    axes.set_ylim(max(len(arms), 1) - 0.5, -0.5)
    axes.set_xticks(places, names, rotation=45, ha="left", rotation_mode="anchor")
    axes.tick_params(axis="x", labelsize=8.5)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(arms)), [clean(arm) for arm in arms])
    for label, arm in zip(axes.get_yticklabels(), arms, strict=True):
        name_of_arm(label, arm)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _tile(axes: Axes, at: float, line: int, ratio: float, text: str, *, small: bool) -> None:
    # White to blue over two powers of two and a half: dark is slow, and the number repeats it.
    share = 0.0 if pandas.isna(ratio) else min(numpy.log(max(ratio, 1.0)) / numpy.log(32), 1.0)
    tone = (
        "#F3F3F3" if pandas.isna(ratio) else (1 - 0.92 * share, 1 - 0.62 * share, 1 - 0.35 * share)
    )
    axes.barh(line, 0.96, left=at - 0.48, height=0.92, color=tone)
    dark = share > 0.55
    axes.text(
        at,
        line,
        text,
        ha="center",
        va="center",
        fontsize=_SMALL if small else 8.5,
        color="white" if dark else "#111111",
    )


def _times(ratio: float, otherwise: str) -> str:
    return _short_status(otherwise) if pandas.isna(ratio) else significant(ratio)


def _short_status(status: str) -> str:
    short = {"no-environment": "no env.", "out-of-memory": "mem.", "unsupported": "unsup."}
    return {**short, "unfinished": "unfin.", "unwritten": "unwr."}.get(status, status)
