"""Charts across arms: break-even, roofline, heat map, profile, scaling, learning.

Each chart is drawn from a frame of :mod:`levelfield.harness.report.series`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.colours import GREY, colour
from levelfield.harness.report.panels import style
from levelfield.harness.report.series import (
    break_even_data,
    geometric_means,
    heat_data,
    learning_data,
    profile_data,
    roofline_data,
    scaling_data,
)
from levelfield.harness.report.text import significant

_WIDTH, _HEAD, _PANEL, _FOOT = 10.0, 0.7, 3.4, 0.7  # inches; a page shows 10 across
_ABOVE = 1.05  # of a panel: its heading and what is under its axis
_LABEL = 1.75  # at the right of a panel, for the names of its lines
_NAME = 0.155  # the height of a name
_Draw = Callable[[Axes, pandas.DataFrame], None]
_STYLES = ("-", "--", ":", "-.")
_MEAN = "geometric mean"
_MANY = 10  # columns of a heat map, beyond which its tiles are narrow
CURVE_STEPS = 10**6


def break_even_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Total seconds, start-up included, against the number of steps."""
    data = break_even_data(frames, comparisons)

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        latest = part["break_even_steps"].replace([numpy.inf, 0], numpy.nan).max()
        beyond = 1000.0 if pandas.isna(latest) else max(100.0, 3 * latest)
        last = min(CURVE_STEPS, 10 ** int(numpy.ceil(numpy.log10(beyond))))
        steps = numpy.geomspace(1, last, 200)
        ends = {}
        for row in part.to_dict("records"):
            seconds = row["startup_seconds"] + steps * row["step_seconds"]
            _line(axes, steps, seconds, part, arm=row["arm"], framework=row["framework"])
            ends[row["arm"]] = seconds[-1]
        _logarithmic(axes, "steps", "total seconds")
        _names(axes, ends, part)

    return _figure("Total time against the number of steps", data, "comparison", draw)


def roofline_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Operations per second against operations per byte, below the limits of the machine."""
    data = roofline_data(frames, comparisons)

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        ridge = part["ceiling_operations"].iloc[0] / part["ceiling_bytes"].iloc[0]
        low = min(part["operations_per_byte"].min(), ridge) / 3
        high = max(part["operations_per_byte"].max(), ridge) * 3
        at = numpy.geomspace(low, high, 200)
        roof = numpy.minimum(at * part["ceiling_bytes"].iloc[0], part["ceiling_operations"].iloc[0])
        axes.plot(at, roof / 1e9, color=GREY, linewidth=1.6)
        for row in part.to_dict("records"):
            axes.scatter(
                row["operations_per_byte"],
                row["operations_per_second"] / 1e9,
                s=26,
                color=colour(row["framework"]),
                edgecolors="white",
                linewidths=0.5,
                zorder=3,
            )
        axes.set_xlim(low, high)
        slowest, roof_at = part["operations_per_second"].min() / 1e9, roof.max() / 1e9
        # Leave room below the slowest arm for the names, which are vertical.
        axes.set_yscale("log")
        axes.set_ylim(slowest / (roof_at / slowest) ** 0.8, roof_at * 1.6)
        places = part.groupby("comparison", sort=False)["operations_per_byte"].first().sort_values()
        shares = numpy.log(places / low) / numpy.log(high / low)
        for name, share in zip(
            _short([clean(str(place)) for place in places.index]),
            _apart(list(shares), _NAME / (_WIDTH - _LABEL)),
            strict=True,
        ):
            axes.annotate(
                name,
                (share, 0),
                xycoords="axes fraction",
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                rotation=90,
                fontsize=8,
                color=GREY,
            )
        _logarithmic(axes, "operations per byte", "10⁹ operations per second")
        best = part.groupby("arm", sort=False)["operations_per_second"].max() / 1e9
        _names(axes, {str(arm): float(value) for arm, value in best.items()}, part)

    return _figure(
        "Roofline: operations per second and the limits of the machine", data, "run", draw
    )


def heat_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Arms by comparisons: times the seconds of the fastest; the geometric mean at the end."""
    data = heat_data(frames, comparisons)
    if data.empty:
        return _figure("Times the fastest", data, "comparison", lambda axes, part: None)
    means = geometric_means(data)
    columns = list(dict.fromkeys(data["comparison"]))
    names = _short([clean(name).partition(",")[0] for name in columns])
    # Inches for the title and for names at 45 degrees.
    top = 0.8 + 0.053 * max(len(name) for name in (*names, _MEAN))
    with style():
        height = top + 0.5 + 0.3 * len(means)
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        _title(figure, "Times the fastest, for every comparison")
        # The names of the columns lean to the right, beyond the last column.
        axes = figure.add_axes((0.17, 0.3 / height, 0.76, (height - top - 0.3) / height))
        cells = {(row["comparison"], row["arm"]): row for row in data.to_dict("records")}
        for line, (arm, mean) in enumerate(means.iterrows()):
            for at, name in enumerate(columns):
                cell = cells.get((name, arm))
                if cell is not None:
                    ratio = cell["ratio"]
                    text = _status(cell["status"]) if pandas.isna(ratio) else _times(ratio)
                    _tile(axes, at, line, ratio, text, small=len(columns) > _MANY)
            ratio = mean["geometric_mean"]
            _tile(axes, len(columns) + 0.25, line, ratio, _times(ratio), small=False)
            if mean["measured"] < mean["planned"]:
                words = f"{int(mean['measured'])} of {int(mean['planned'])}"
                axes.text(len(columns) + 0.8, line, words, va="center", fontsize=8, color=GREY)
        axes.set_xlim(-0.5, len(columns) + 0.85)
        axes.set_ylim(len(means) - 0.5, -0.5)
        places = [*range(len(columns)), len(columns) + 0.25]
        axes.set_xticks(places, [*names, _MEAN], rotation=45, ha="left", rotation_mode="anchor")
        axes.tick_params(axis="x", labelsize=8.5)
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(means)), [clean(str(arm)) for arm in means.index])
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    return figure


def _short(names: Sequence[str]) -> list[str]:
    """Names without the preset and the optimiser, if all have the same."""
    presets = {name.partition("/")[2].partition(" ")[0] for name in names}
    optimizers = {name.partition(" with ")[2] for name in names} - {""}
    shown = []
    for name in names:
        name = name.partition(" with ")[0] if len(optimizers) == 1 else name
        shown.append(name.replace(f"/{presets.copy().pop()}", "") if len(presets) == 1 else name)
    return shown


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
        fontsize=7 if small else 8.5,
        color="white" if dark else (GREY if pandas.isna(ratio) else "black"),
    )


def _times(ratio: float) -> str:
    return "-" if pandas.isna(ratio) else significant(ratio)


def _status(status: str) -> str:
    short = {"no-environment": "no env.", "out-of-memory": "memory", "unsupported": "unsup."}
    return {**short, "unfinished": "unfin.", "unwritten": "unwr."}.get(status, status)


def profile_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Performance profile: at the left the share of wins, at the right the share of successes."""
    data = profile_data(frames, comparisons).assign(all="")

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        last = max(2.0, 1.3 * part["factor"].max())
        ends = {}
        for arm, mine in part.groupby("arm", sort=False):
            at = [1.0, *mine["factor"], last]
            shares = [0.0, *mine["share"], mine["share"].max()]
            framework = mine["framework"].iloc[0]
            _line(axes, at, shares, part, arm=str(arm), framework=framework, drawstyle="steps-post")
            ends[str(arm)] = shares[-1]
        axes.set_xscale("log")
        axes.set_xlim(1, last)
        axes.set_ylim(0, 1.02)
        _ticks(axes, "times the fastest", "share of the comparisons")
        _names(axes, ends, part)

    return _figure("Performance profile", data, "all", draw)


def scaling_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Examples per second against the size that was swept."""
    data = scaling_data(frames, comparisons)

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        ends = {}
        for arm, mine in part.sort_values("size").groupby("arm", sort=False):
            framework = mine["framework"].iloc[0]
            speeds = mine["examples_per_second"]
            _line(axes, mine["size"], speeds, part, arm=str(arm), framework=framework, marker="o")
            ends[str(arm)] = speeds.iloc[-1]
        swept = str(part["sweep"].iloc[0]).rpartition("by ")[2]
        _logarithmic(axes, swept, "examples per second")
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(part["size"]))))
        _names(axes, ends, part)

    return _figure("Scaling", data, "sweep", draw)


def learning_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Test accuracy against epochs, where arms should agree, and against seconds.

    An arm that was trained from several seeds has thin lines for the further seeds; the spread
    between its seeds is chance.
    """
    data = learning_data(frames, comparisons)
    parts = [
        part.assign(by=by, panel=f"{comparison}; by {by}")
        for comparison, part in data.groupby("comparison", sort=False)
        for by in ("epoch", "seconds")
    ]
    data = pandas.concat(parts) if parts else data.assign(by="", panel="")

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        by = part["by"].iloc[0]
        ends: dict[str, float] = {}
        for arm, mine in part.groupby("arm", sort=False):
            framework = mine["framework"].iloc[0]
            for number, (_, one) in enumerate(mine.groupby("seed", sort=False)):
                share = 100 * one["test_accuracy"]
                options = {"linewidth": 0.7} if number else {"marker": "o", "linewidth": 1.6}
                _line(axes, one[by], share, part, arm=str(arm), framework=framework, **options)
                ends.setdefault(str(arm), share.iloc[-1])
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=by == "epoch"))
        axes.set_xlim(left=0)
        axes.set_xlabel("epochs" if by == "epoch" else "seconds, start-up included, tests not")
        axes.set_ylabel("test accuracy (%)")
        _names(axes, ends, part)

    return _figure("Learning", data, "panel", draw)


def trend_chart(data: pandas.DataFrame) -> Figure:
    """Changes of every arm from run to run, relative to the anchor, with new versions marked.

    ``data`` is the frame of ``series.trend_data``.
    """

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        runs = list(dict.fromkeys(part["run"]))
        ends: dict[str, float] = {}
        for arm, mine in part.groupby("arm", sort=False):
            at = [runs.index(run) for run in mine["run"]]
            framework = mine["framework"].iloc[0]
            _line(axes, at, mine["level"], part, arm=str(arm), framework=framework, marker="o")
            axes.vlines(at, mine["low"], mine["high"], color=colour(framework), linewidth=1.2)
            for place, high, version in zip(at, mine["high"], mine["version"], strict=True):
                if version:
                    axes.annotate(
                        clean(version),
                        (place, high),
                        xytext=(0, 5),
                        textcoords="offset points",
                        ha="center",
                        fontsize=8,
                        color=colour(framework),
                    )
            ends[str(arm)] = mine["level"].iloc[-1]
        axes.set_xlim(-0.3, len(runs) - 0.7)
        axes.set_xticks(range(len(runs)), [clean(run) for run in runs], fontsize=8)
        axes.set_ylabel("times the seconds of the first run")
        axes.axhline(1, color=GREY, linewidth=0.8)
        axes.margins(y=0.15)
        _names(axes, ends, part)

    return _figure("From run to run, against the anchor", data, "comparison", draw)


def _line(
    axes: Axes,
    x: Iterable[float],
    y: Iterable[float],
    part: pandas.DataFrame,
    *,
    arm: str,
    framework: str,
    **options: Any,
) -> None:
    """Draw a line in the framework's colour; arms of one framework differ in the stroke."""
    mates = list(dict.fromkeys(part.loc[part["framework"] == framework, "arm"]))
    stroke = _STYLES[mates.index(arm) % len(_STYLES)]
    axes.plot(
        list(x),
        list(y),
        color=colour(framework),
        linestyle=stroke,
        markersize=4,
        **{"linewidth": 1.6, **options},
    )


def _logarithmic(axes: Axes, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    _ticks(axes, f"{x} (logarithmic)", f"{y} (logarithmic)")
    _few(axes.yaxis)


def _ticks(axes: Axes, x: str, y: str) -> None:
    _few(axes.xaxis)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _few(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as people write numbers."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 200 * low else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _names(axes: Axes, ends: dict[str, float], part: pandas.DataFrame) -> None:
    """Write the arms' names at the right, in the order of their ends, without overlaps."""
    low, high = axes.get_ylim()
    scale = axes.yaxis.get_transform()
    low, high = (float(scale.transform(end)) for end in (low, high))
    tones = dict(zip(part["arm"], part["framework"], strict=True))
    order = sorted(ends, key=lambda arm: ends[arm])
    heights = [(float(scale.transform(ends[arm])) - low) / (high - low) for arm in order]
    step = _NAME / (max(_PANEL, _ABOVE + len(order) * _NAME) - _ABOVE)
    for arm, place in zip(order, _apart(heights, step), strict=True):
        axes.annotate(
            clean(arm),
            (1, place),
            xytext=(6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=colour(tones[arm]),
        )


def _apart(places: Sequence[float], step: float) -> list[float]:
    """Move ascending shares of an axis so that neighbours are a step apart, none beyond 1."""
    moved = list(places)
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + step)
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], 1.0 if at == len(moved) - 1 else moved[at + 1] - step)
    return moved


def _title(figure: Figure, title: str) -> None:
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.12 / height, title, fontsize=14, fontweight="bold", va="top")


def _figure(title: str, data: pandas.DataFrame, by: str, draw: _Draw) -> Figure:
    """A panel for each value of ``by``, one below the other."""
    parts = [part for _, part in data.groupby(by, sort=False)]
    # A panel is high enough for the names at its right.
    sizes = [max(_PANEL, _ABOVE + part["arm"].nunique() * _NAME) for part in parts]
    with style():
        height = _HEAD + (sum(sizes) if parts else _FOOT)
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        _title(figure, title if parts else f"{title}: no data for it in these runs")
        top = _HEAD
        for part, size in zip(parts, sizes, strict=True):
            bottom = height - top - size + _FOOT
            place = (0.09, bottom / height, 0.91 - _LABEL / _WIDTH, (size - _ABOVE) / height)
            axes = figure.add_axes(place)
            axes.spines["left"].set_visible(True)
            axes.grid(color="#E9E9E9", linewidth=0.8)
            axes.set_axisbelow(True)
            name = clean(str(part[by].iloc[0]))
            figure.text(
                0.012, 1 - (top - 0.12) / height, name, fontsize=11, fontweight="bold", va="top"
            )
            draw(axes, part)
            top += size
    return figure
