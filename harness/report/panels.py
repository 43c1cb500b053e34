"""The layout that all charts share: panels, rows and axes, for a page 1000 pixels wide."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.collections
import matplotlib.style
import numpy
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.errors import clean
from levelfield.harness.records.store import write_atomically
from levelfield.harness.report.colours import GREY, GRID

LOG_ABOVE = 20.0  # ratio of greatest to least above which an axis is logarithmic
ORDER = "Fastest first where there are verdicts, else in the order of the run's plan."
OF_ARM = "arm "  # the first word of the name of whatever shows one arm
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.parse_math": False,  # a name may hold a dollar
    "svg.hashsalt": "levelfield",
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
# Inches; a page shows 10 across.
_WIDTH, _ROW, _LINE, _HEAD, _FOOT = 10.0, 0.27, 0.19, 1.02, 0.62
_MARGIN, _END, _GAP = 0.12, 1.05, 0.25
_LONGEST_NAME, _LONGEST_LINE = 26, 68  # characters
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue (ITU-R BT.709)
_LARGEST_PIXELS = 60_000  # of an image's side, a limit of the backend
Draw = Callable[[Axes, Comparison], None]


def panels(
    comparisons: Sequence[Comparison],
    title: str,
    draw: Draw,
    legend: Sequence[Artist],
    end: str,
    *,
    order: str = ORDER,
    highlight: Collection[str] = (),
) -> Figure:
    """Panels two by two in the order of the plan; ``end`` describes the numbers at the right.

    ``order`` says in which order the arms of a panel are. If arms to ``highlight`` are given, what
    shows other arms is grey.
    """
    columns = 2 if len(comparisons) > 1 else 1
    lines = [comparisons[at : at + columns] for at in range(0, len(comparisons), columns)]
    with style():
        height = _HEAD + sum(_line_inches(line) for line in lines)
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        _headline(
            figure, title if comparisons else f"{title}: no cells were planned", legend, order
        )
        width = (_WIDTH - _MARGIN - _GAP * (columns - 1)) / columns
        top = _HEAD
        for line in lines:
            for column, comparison in enumerate(line):
                left = _MARGIN + column * (width + _GAP)
                _panel(figure, comparison, draw, (left, top, width), end)
            top += _line_inches(line)
        if highlight:
            _fade(figure, {OF_ARM + clean(arm) for arm in highlight})
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the suffix. Raises OSError."""
    if path.suffix == ".svg":
        write_atomically(path, svg(figure))
        return
    stream = io.BytesIO()
    dpi = min(160.0, math.floor(_LARGEST_PIXELS / max(figure.get_size_inches())))
    with style():
        figure.savefig(stream, format=path.suffix[1:], dpi=dpi, metadata={"Software": None})
    write_atomically(path, stream.getvalue())


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG; the same records give the same bytes."""
    stream = io.BytesIO()
    with style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": "levelfield"})
    # Several parts show one arm, and a file has each name once.
    return re.sub(rb' id="arm [^"]*"', b"", stream.getvalue())


def page_title(figure: Figure, title: str) -> None:
    """Write the title of a figure that is as wide as a page."""
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.12 / height, title, fontsize=14, fontweight="bold", va="top")


def style() -> Any:
    """The style of every chart, whatever the caller has configured."""
    return matplotlib.style.context(["default", _STYLE])


def _details(comparison: Comparison) -> list[str]:
    return textwrap.wrap(comparison.details, _LONGEST_LINE)


def _line_inches(line: Sequence[Comparison]) -> float:
    details = max(len(_details(comparison)) for comparison in line)
    rows = max(len(comparison.rows) for comparison in line)
    return _LINE * (details + 2) + rows * _ROW + _FOOT


def _headline(figure: Figure, title: str, legend: Sequence[Artist], order: str) -> None:
    height = figure.get_figheight()
    left = _MARGIN / _WIDTH
    figure.text(left, 1 - 0.12 / height, title, fontsize=14, fontweight="bold", va="top")
    figure.text(left, 1 - 0.42 / height, order, fontsize=9.5, color=GREY, va="top")
    figure.legend(
        handles=legend,
        loc="upper left",
        bbox_to_anchor=(left, 1 - 0.65 / height),
        ncols=len(legend),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handletextpad=0.4,
        columnspacing=1.4,
    )


def _panel(
    figure: Figure, comparison: Comparison, draw: Draw, place: tuple[float, float, float], end: str
) -> None:
    """One panel at ``place``: inches from the left, inches from the top, inches wide."""
    left, top, width = place
    height = figure.get_figheight()
    details = _details(comparison)
    names = [_shortened(arm) for arm in comparison.rows["arm"]]
    text_inches = max(map(_text_inches, names))
    under = top + _LINE * (len(details) + 2)
    rows = len(names) * _ROW
    axes = figure.add_axes(
        (
            (left + text_inches + 0.1) / _WIDTH,
            1 - (under + rows) / height,
            (width - text_inches - 0.1 - _END) / _WIDTH,
            rows / height,
        )
    )
    figure.text(
        left / _WIDTH, 1 - top / height, comparison.title, fontsize=11, fontweight="bold", va="top"
    )
    figure.text(
        left / _WIDTH,
        1 - (top + _LINE) / height,
        "\n".join(details),
        fontsize=9.5,
        color=GREY,
        va="top",
        linespacing=1.3,
    )
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    for label, arm in zip(axes.get_yticklabels(), comparison.rows["arm"], strict=True):
        name_of_arm(label, arm)
    axes.tick_params(axis="y", length=0)
    draw(axes, comparison)
    axes.set_ylim(len(names) - 0.5, -0.5)
    if axes.get_xlabel():
        axes.annotate(
            end,
            (1, 1),
            xytext=(6, 3),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=9,
            color=GREY,
        )


@cache
def _text_inches(text: str) -> float:
    return float(TextPath((0, 0), text, size=10).get_extents().width) / 72


def rows_of(axes: Axes, comparison: Comparison) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Number and cell of each row; what is drawn for a row carries the name of its arm."""
    for number, cell in enumerate(comparison.rows.to_dict("records")):
        before = set(map(id, axes.get_children()))
        yield number, cell
        for artist in axes.get_children():
            if id(artist) not in before:
                name_of_arm(artist, cell["arm"])


def name_of_arm(artist: Artist, arm: str) -> None:
    """Mark what shows one arm, so that a page can hide it."""
    artist.set_gid(OF_ARM + clean(arm))


def _fade(figure: Figure, kept: Collection[str]) -> None:
    """Make grey what shows an arm, except the names in ``kept`` and all texts."""
    for artist in figure.findobj():
        name = artist.get_gid() or ""
        if not name.startswith(OF_ARM) or name in kept:
            continue
        if isinstance(artist, Patch | matplotlib.collections.Collection):
            face, edge = _greys(artist.get_facecolor()), _greys(artist.get_edgecolor())
            artist.set(facecolor=face, edgecolor=edge)


def _greys(colours: Any) -> Any:
    """Light greys as dark as some colours in relation to each other; transparency stays."""
    rgba = to_rgba_array(colours)
    lightness = 1 - 0.6 * (1 - rgba[:, :3] @ _LUMINANCE)
    return numpy.column_stack([lightness] * 3 + [rgba[:, 3]])


def _shortened(name: str) -> str:
    """Shorten a long name to its two ends, because modes differ at the end."""
    name, half = clean(name), (_LONGEST_NAME - 3) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}...{name[-half:]}"


def why(cell: Mapping[Any, Any], otherwise: str) -> str:
    """Text in the row of an arm without data."""
    return otherwise if cell["status"] == "ok" else str(cell["status"])


def jitter(index: int) -> float:
    """Height from -0.22 to 0.22 of a row, neighbours apart: multiples of the golden ratio."""
    return (index * 0.6180339887 % 1 - 0.5) * 0.44


def absent(axes: Axes, row: int, words: str) -> None:
    """Say in an arm's row why there are no data."""
    place = axes.get_yaxis_transform()
    axes.text(0.012, row, words, transform=place, color=GREY, style="italic", va="center_baseline")


def at_end(axes: Axes, row: int, number: str) -> None:
    """Write an arm's number after its row."""
    axes.annotate(
        number,
        (1, row),
        xytext=(6, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        va="center_baseline",
    )


def interval(
    axes: Axes, row: int, middle: float, low: float, high: float, *, tone: str = "black"
) -> None:
    """Draw an estimate with its interval; without the interval if its ends are not finite."""
    if math.isfinite(low) and math.isfinite(high):
        axes.hlines(row, low, high, color=tone, linewidth=1.5, zorder=4)
    axes.vlines(middle, row - 0.3, row + 0.3, color=tone, linewidth=1.8, zorder=5)


def value_axis(
    axes: Axes, values: Sequence[float], unit: str, *, logarithmic: bool, ratios: bool = False
) -> None:
    """Readable ticks; from zero unless ``logarithmic``; no axis if there are no values.

    An axis of ``ratios`` is always logarithmic: twice and half are equally far from 1.
    """
    if not values or max(values) <= 0:
        axes.set_xlim(0, 1)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        return
    low, high = min(values), max(values)
    if low > 0 and (ratios or (logarithmic and high > LOG_ABOVE * low)):
        room = 1.25 if high > 2 * low else 1 + 0.3 * (high / low - 1) + 0.005
        axes.set_xscale("log")
        axes.set_xlim(low / room, high * room)
        axes.xaxis.set_major_locator(_log_locator(low / room, high * room))
        axes.xaxis.set_minor_locator(NullLocator())
        unit += " (logarithmic)"
    else:
        axes.set_xlim(0, high * 1.06)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel(unit)


def _log_locator(low: float, high: float) -> Locator:
    """Ticks that a reader can count with, however short the logarithmic axis is."""
    if high > 60 * low:
        return LogLocator(subs=(1.0,))
    if high > 5 * low:
        return LogLocator(subs=(1.0, 2.0, 5.0))
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
