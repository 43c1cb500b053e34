"""Charts of lines and dots across arms: break-even, roofline, profile, scaling, learning.

Each chart is drawn from a frame of :mod:`levelfield.harness.report.series`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
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
from levelfield.harness.report.colours import GREY, GRID, MANY_SERIES, colour
from levelfield.harness.report.panels import name_of_arm, page_title, style
from levelfield.harness.report.series import (
    break_even_data,
    learning_data,
    pareto_data,
    profile_data,
    roofline_data,
    scaling_data,
    short_names,
)
from levelfield.harness.report.text import significant

_WIDTH, _HEAD, _PANEL, _FOOT = 10.0, 0.7, 3.4, 0.7  # inches; a page shows 10 across
_ABOVE = 1.05  # of a panel: its heading and what is under its axis
_LABEL = 1.75  # at the right of a panel, for the names of its lines
_NAME = 0.155  # the height of a name
_Draw = Callable[[Axes, pandas.DataFrame], None]
_STYLES = ("-", "--", ":", "-.")
_SHAPES = "osD^vP"
_PROMINENT = 3  # arms in colour where there are too many for all
_PALE = "#B4B4B4"
CURVE_STEPS = 10**6


def break_even_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
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
            crossing = row["break_even_steps"]
            if 1 <= crossing <= last:
                at = row["startup_seconds"] + crossing * row["step_seconds"]
                ring = axes.scatter(crossing, at, s=46, facecolors="none", edgecolors="black")
                ring.set(zorder=5, linewidths=1.1)
                name_of_arm(ring, row["arm"])
        _logarithmic(axes, "steps (a ring: both have taken equally long)", "total seconds")
        _names(axes, ends, part)

    return _figure(
        "Total time against the number of steps", data, "comparison", draw, highlight=highlight
    )


def roofline_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Operations per second against operations per byte, below the limits of the machine."""
    data = roofline_data(frames, comparisons)

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        ridge = part["ceiling_operations"].iloc[0] / part["ceiling_bytes"].iloc[0]
        low = min(part["operations_per_byte"].min(), ridge) / 3
        high = max(part["operations_per_byte"].max(), ridge) * 3
        at = numpy.geomspace(low, high, 200)
        roof = numpy.minimum(at * part["ceiling_bytes"].iloc[0], part["ceiling_operations"].iloc[0])
        axes.plot(at, roof / 1e9, color=GREY, linewidth=1.6)
        mates = part.groupby("framework", sort=False)["arm"].unique()
        for row in part.to_dict("records"):
            shape = _SHAPES[list(mates[row["framework"]]).index(row["arm"]) % len(_SHAPES)]
            dot = axes.scatter(
                row["operations_per_byte"],
                row["operations_per_second"] / 1e9,
                s=30,
                marker=shape,
                color=_tone(row["arm"], part),
                edgecolors="white",
                linewidths=0.5,
                zorder=3,
            )
            name_of_arm(dot, row["arm"])
        axes.set_xlim(low, high)
        slowest, roof_at = part["operations_per_second"].min() / 1e9, roof.max() / 1e9
        # Room above the roof for the names, which are vertical.
        axes.set_yscale("log")
        axes.set_ylim(slowest / 1.6, roof_at * (roof_at / slowest) ** 0.75)
        axes.annotate(
            f"roof: {significant(part['ceiling_operations'].iloc[0] / 1e9)} GFLOP/s and"
            f" {significant(part['ceiling_bytes'].iloc[0] / 1e9)} GB/s",
            (ridge, roof_at),
            xytext=(4, -4),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
        _logarithmic(axes, "operations per byte", "GFLOP/s")
        _label_columns(axes, part, (low, high), roof_at)
        best = part.groupby("arm", sort=False)["operations_per_second"].max() / 1e9
        _names(axes, {str(arm): float(value) for arm, value in best.items()}, part)

    title = "Roofline: operations per second and the limits of the machine (higher is better)"
    return _figure(title, data, "run", draw, highlight=highlight)


def _label_columns(
    axes: Axes, part: pandas.DataFrame, ends: tuple[float, float], roof_at: float
) -> None:
    """Name each comparison above the roof, with a line down to the dots of its arms."""
    low, high = ends
    columns = part.groupby("comparison", sort=False)
    places = columns["operations_per_byte"].first().sort_values()
    tops = columns["operations_per_second"].max() / 1e9
    shares = numpy.log(places / low) / numpy.log(high / low)
    names = short_names([clean(str(place)) for place in places.index])
    apart = _apart(list(shares), _NAME / (_WIDTH - _LABEL))
    for place, name, share in zip(places.index, names, apart, strict=True):
        at = low * (high / low) ** share
        axes.annotate(
            name,
            (places[place], tops[place]),
            xytext=(at, roof_at * 1.25),
            textcoords="data",
            ha="center",
            va="bottom",
            rotation=90,
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": _PALE, "linewidth": 0.6, "shrinkB": 3},
        )


def pareto_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Peak memory against time per step; the line joins the arms that no other arm beats in both.

    The best place is at the lower left.
    """
    data = pareto_data(frames, comparisons)

    def draw(axes: Axes, part: pandas.DataFrame) -> None:
        front = part[part["on_front"]].sort_values("step_seconds")
        steps_ms, peaks = 1000 * front["step_seconds"], front["peak_bytes"] / 2**20
        axes.plot(steps_ms, peaks, color=GREY, linewidth=1.2, drawstyle="steps-post", zorder=1)
        ends: dict[str, float] = {}
        for row in part.to_dict("records"):
            mebibytes = row["peak_bytes"] / 2**20
            dot = axes.scatter(1000 * row["step_seconds"], mebibytes, s=46, zorder=3)
            dot.set(color=_tone(row["arm"], part), edgecolors="white", linewidths=0.6)
            name_of_arm(dot, row["arm"])
            ends[row["arm"]] = mebibytes
            if row["on_front"]:
                name = axes.annotate(clean(row["arm"]), (1000 * row["step_seconds"], mebibytes))
                name.set(fontsize=8, position=(6, 5), anncoords="offset points")
                name_of_arm(name, row["arm"])
        axes.set_xscale("log")
        axes.margins(0.12)
        axes.set_ylim(0, 1.15 * max(ends.values(), default=0.0) or 1.0)
        _ticks(axes, "milliseconds per step (logarithmic)", "peak memory (MiB)")
        _names(axes, ends, part)

    title = "Memory against time; the line joins the arms that none beats in both"
    return _figure(title, data, "comparison", draw, highlight=highlight)


def profile_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
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

    return _figure("Performance profile", data, "all", draw, highlight=highlight)


def scaling_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
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

    return _figure("Scaling", data, "sweep", draw, highlight=highlight)


def learning_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Test accuracy against epochs, where arms should agree, and against seconds.

    The band of an arm that was trained from several seeds goes from the worst seed to the best: it
    is chance.
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
            framework, first = mine["framework"].iloc[0], mine[mine["seed"] == mine["seed"].iloc[0]]
            share = 100 * first["test_accuracy"]
            options = {"marker": "o"}
            _line(axes, first[by], share, part, arm=str(arm), framework=framework, **options)
            ends[str(arm)] = share.iloc[-1]
            if mine["seed"].nunique() > 1:
                spread = 100 * mine.groupby(by)["test_accuracy"].agg(["min", "max"])
                tone = _tone(str(arm), part)
                band = axes.fill_between(spread.index, spread["min"], spread["max"], color=tone)
                band.set(alpha=0.15, linewidth=0)
                name_of_arm(band, str(arm))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=by == "epoch"))
        axes.set_xlim(left=0)
        axes.set_xlabel("epochs" if by == "epoch" else "seconds, start-up included, tests not")
        axes.set_ylabel("test accuracy (%)")
        _names(axes, ends, part)

    return _figure("Learning", data, "panel", draw, highlight=highlight)


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
    """Draw a line in the framework's colour; arms of one framework differ in the stroke.

    The lines of arms that are not prominent are thin and grey.
    """
    mates = list(dict.fromkeys(part.loc[part["framework"] == framework, "arm"]))
    stroke = _STYLES[mates.index(arm) % len(_STYLES)]
    options = {"linewidth": 1.6, "linestyle": stroke, "zorder": 3, **options}
    if not _is_prominent(arm, part):
        options |= {"linewidth": 0.7, "zorder": 2}
    (line,) = axes.plot(list(x), list(y), color=_tone(arm, part), markersize=4, **options)
    name_of_arm(line, arm)


def _prominent(arms: pandas.Series[str], highlight: Collection[str]) -> pandas.Series[bool]:
    """Whether each row is of an arm that a chart shows in colour.

    Those to ``highlight``, else all, or the first of many: thirty colours cannot be read.
    """
    names = list(dict.fromkeys(arms))
    return arms.isin(highlight or (names if len(names) <= MANY_SERIES else names[:_PROMINENT]))


def _is_prominent(arm: str, part: pandas.DataFrame) -> bool:
    return bool(part.loc[part["arm"] == arm, "prominent"].iloc[0])


def _tone(arm: str, part: pandas.DataFrame) -> str:
    framework = part.loc[part["arm"] == arm, "framework"].iloc[0]
    return colour(str(framework)) if _is_prominent(arm, part) else _PALE


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
    order = sorted(ends, key=lambda arm: ends[arm])
    heights = [(float(scale.transform(ends[arm])) - low) / (high - low) for arm in order]
    step = _NAME / (max(_PANEL, _ABOVE + len(order) * _NAME) - _ABOVE)
    for arm, place in zip(order, _apart(heights, step), strict=True):
        # The name is black for the contrast; the square before it has the colour of the line.
        (square,) = axes.plot(
            1.012,
            place,
            marker="s",
            markersize=5,
            color=_tone(arm, part),
            transform=axes.transAxes,
            clip_on=False,
        )
        name = axes.annotate(
            clean(arm),
            (1.012, place),
            xytext=(6, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
        name_of_arm(square, arm)
        name_of_arm(name, arm)


def _apart(places: Sequence[float], step: float) -> list[float]:
    """Move ascending shares of an axis so that neighbours are a step apart, none beyond 1."""
    moved = list(places)
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + step)
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], 1.0 if at == len(moved) - 1 else moved[at + 1] - step)
    return moved


def _figure(
    title: str, data: pandas.DataFrame, by: str, draw: _Draw, *, highlight: Collection[str] = ()
) -> Figure:
    """A panel for each value of ``by``, one below the other; draws the column ``prominent`` too."""
    parts = [
        part.assign(prominent=_prominent(part["arm"], highlight))
        for _, part in data.groupby(by, sort=False)
    ]
    # A panel is high enough for the names at its right.
    sizes = [max(_PANEL, _ABOVE + part["arm"].nunique() * _NAME) for part in parts]
    with style():
        height = _HEAD + (sum(sizes) if parts else _FOOT)
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        FigureCanvasAgg(figure)
        page_title(figure, title if parts else f"{title}: no data for it in these runs")
        top = _HEAD
        for part, size in zip(parts, sizes, strict=True):
            bottom = height - top - size + _FOOT
            place = (0.09, bottom / height, 0.91 - _LABEL / _WIDTH, (size - _ABOVE) / height)
            axes = figure.add_axes(place)
            axes.spines["left"].set_visible(True)
            axes.grid(color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            name = clean(str(part[by].iloc[0]))
            figure.text(
                0.012, 1 - (top - 0.12) / height, name, fontsize=11, fontweight="bold", va="top"
            )
            draw(axes, part)
            top += size
    return figure
