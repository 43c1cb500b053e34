"""Charts with a panel per comparison and a row per arm.

Figures are made without pyplot, so that they share nothing with the caller's own figures. The same
records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.summary import peak_ends, stage_peaks, startups
from levelfield.harness.analysis.verdicts import pair_of
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.report.colours import BAND, GREY, STAGE_TINTS, colour, tint
from levelfield.harness.report.panels import (
    absent,
    at_end,
    interval,
    jitter,
    panels,
    rows_of,
    value_axis,
    why,
)
from levelfield.harness.report.series import series_name, time_to_data
from levelfield.harness.report.text import milliseconds, significant

STAGES = {
    "interpreter": "interpreter",
    "import": "import",
    "build": "build",
    "compile": "compile",
    "first_step": "first step",
    "steady": "steady",
}
STARTUP_STAGES = {
    "interpreter_seconds": "interpreter",
    "import_seconds": "import",
    "device_seconds": "device",
    "build_seconds": "build",
    "compile_seconds": "compile",
    "first_step_seconds": "first step",
}
_FAR = 30.0  # times an estimate
SHARED, EXAMPLE = "#8C8C8C", "#0072B2"  # of bars: no model yet; a framework in the legend
_MOST_DOTS = 400  # of an arm: more dots show nothing more and take long to draw


def step_time_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Milliseconds per step: a dot per slice, hollow where disturbed; the 95 % interval."""
    slices = frames.slices
    slices = slices[(slices["statistic"] == "throughput") & (slices["residency"] != AUDIT)]
    columns = ["step_seconds", "disturbed"]
    times = {key: part[columns] for key, part in slices.groupby(["run", "cell"])}

    def draw(axes: Axes, comparison: Comparison) -> None:
        shown: list[float] = []
        for row, cell in rows_of(axes, comparison):
            mine = times.get((cell["run"], cell["cell"]))
            if cell["status"] != "ok" or mine is None:
                absent(axes, row, why(cell, "not timed"))
                continue
            mine = mine.iloc[:: -(-len(mine) // _MOST_DOTS)]
            slice_ms = (1000 * mine["step_seconds"]).to_numpy()
            heights = [row + jitter(index) for index in range(len(slice_ms))]
            tone = colour(cell["framework"])
            hollow = mine["disturbed"].to_numpy(bool)
            axes.scatter(
                slice_ms,
                heights,
                s=14,
                facecolors=["none" if empty else to_rgba(tone, 0.55) for empty in hollow],
                edgecolors=to_rgba(tone, 0.55),
                linewidths=0.7,
                zorder=3,
            )
            interval(axes, row, *(1000 * cell[name] for name in _INTERVAL))
            at_end(axes, row, milliseconds(cell["step_seconds"]))
            shown += slice_ms.tolist()
        value_axis(axes, shown, "milliseconds per step", logarithmic=True)

    dot = Line2D([], [], marker="o", color="#444444", linestyle="", markersize=4, label="a slice")
    ring = Line2D([], [], marker="o", color="#444444", linestyle="", markersize=4)
    ring.set(markerfacecolor="none", label="disturbed")
    legend, title = [dot, ring, _estimate()], "Time per step (lower is better)"
    return panels(comparisons, title, draw, legend, "median", highlight=highlight)


_INTERVAL = ("step_seconds", "step_seconds_low", "step_seconds_high")


def throughput_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Examples per second as bars, with the 95 % interval."""

    def draw(axes: Axes, comparison: Comparison) -> None:
        shown: list[float] = []
        for row, cell in rows_of(axes, comparison):
            if cell["status"] != "ok" or pandas.isna(cell["step_seconds"]):
                absent(axes, row, why(cell, "not timed"))
                continue
            middle, high, low = (cell["batch"] / cell[name] for name in _INTERVAL)
            axes.barh(
                row, middle, height=0.66, color=tint(colour(cell["framework"]), 0.3), zorder=3
            )
            interval(axes, row, middle, low, high)
            at_end(axes, row, significant(middle))
            shown += [value for value in (middle, high) if numpy.isfinite(value)]
        value_axis(axes, shown, "examples per second", logarithmic=False)

    title = "Examples per second (higher is better)"
    return panels(comparisons, title, draw, [_estimate()], "median", highlight=highlight)


def _estimate(label: str = "estimate and 95 % interval") -> Line2D:
    bar = Line2D([], [], marker="|", color="black", linestyle="-", markersize=10)
    bar.set(markeredgewidth=1.8, label=label)
    return bar


def ratio_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Seconds of each arm over those of the first, with the pair's interval and the margin."""

    def draw(axes: Axes, comparison: Comparison) -> None:
        judged = comparison.judged.get("throughput")
        leader = clean(comparison.leader or "the first")
        shown: list[float] = []
        for row, cell in rows_of(axes, comparison):
            if judged is None or cell["status"] != "ok" or comparison.leader is None:
                absent(axes, row, why(cell, "no verdict: smoke run"))
                continue
            if cell["arm"] == comparison.leader:
                interval(axes, row, 1.0, 1.0, 1.0, tone=colour(cell["framework"]))
                at_end(axes, row, "1")
                shown.append(1.0)
                continue
            pair = pair_of(judged, cell["arm"], comparison.leader)
            if pair is None:
                absent(axes, row, "not timed together")
                continue
            ratio = pair.ratio
            # An interval from two blocks may have an end too far away for a useful axis.
            low, high = (
                min(max(end, ratio / _FAR**2), ratio * _FAR**2) for end in (pair.low, pair.high)
            )
            interval(axes, row, ratio, low, high, tone=colour(cell["framework"]))
            at_end(axes, row, significant(ratio))
            shown += [end for end in (ratio, low, high) if ratio / _FAR < end < ratio * _FAR]
        value_axis(axes, shown, f"times the seconds of {leader}", logarithmic=True, ratios=True)
        if judged is not None and shown:
            margin = judged.verdicts.margin
            axes.axvspan(1 / (1 + margin), 1 + margin, color=BAND, zorder=0)
            if judged.verdicts.void:
                axes.set_title("void: no ranking", loc="right", fontsize=9, color=GREY, pad=2)

    band = Patch(facecolor=BAND, label="within the margin")
    bar = _estimate(f"ratio and interval{_levels(comparisons)}")
    title = "Time against the first arm (lower is better)"
    return panels(comparisons, title, draw, [bar, band], "ratio", highlight=highlight)


def _levels(comparisons: Sequence[Comparison]) -> str:
    """The levels of the intervals, which are corrected for the number of pairs and looks."""
    judged = [one.judged["throughput"] for one in comparisons if "throughput" in one.judged]
    levels = [pair.confidence for one in judged for pair in one.verdicts.pairs]
    if not levels:
        return ""
    ends = dict.fromkeys(f"{100 * end:.2f}" for end in (min(levels), max(levels)))
    return f" at {' to '.join(ends)} %, corrected for the number of pairs"


def time_to_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Seconds until a test accuracy that every arm reaches; the line joins the seeds."""
    data = time_to_data(frames, comparisons)
    learned = [one for one in comparisons if (data["comparison"] == series_name(one)).any()]

    def draw(axes: Axes, comparison: Comparison) -> None:
        mine = data[data["comparison"] == series_name(comparison)]
        shown: list[float] = []
        for row, cell in rows_of(axes, comparison):
            seconds = mine.loc[mine["arm"] == cell["arm"], "seconds"]
            if seconds.empty:
                absent(axes, row, why(cell, "not trained"))
                continue
            tone, first = tint(colour(cell["framework"]), 0.3), float(seconds.iloc[0])
            axes.barh(row, first, height=0.66, color=tone, zorder=3)
            axes.hlines(row, seconds.min(), seconds.max(), color="black", linewidth=1.2, zorder=5)
            at_end(axes, row, significant(first))
            shown += [first, float(seconds.max())]
        goal = f"{mine['test_accuracy'].iloc[0]:.1%}"
        value_axis(axes, shown, f"seconds until {goal} are right", logarithmic=False)

    title = "Time to an accuracy that every arm reaches (lower is better)"
    return panels(learned, title, draw, [], "seconds", highlight=highlight)


def memory_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """MiB of peak resident memory: the amount that each stage added to the highest peak before.

    Grey is what a process takes before the model exists. Several processes per arm may have been
    measured, see the suite's ``memory_processes``: a bar is their median, by stage, and the line
    goes from the lowest of their peaks to the highest. The chart says how many there were.
    """
    stages = stage_peaks(frames).set_index(["run", "cell", "stage"])["peak_bytes"]
    peaks = stages.to_dict()
    ends = peak_ends(frames)
    several = ends[ends["processes"] > 1]
    mebibytes = several[["lowest", "highest"]].astype(float) / 2**20
    spread = {key: (low, high) for key, low, high in mebibytes.itertuples(name=None)}

    def parts(cell: Mapping[Any, Any]) -> list[float]:
        keys = [(cell["run"], cell["cell"], stage) for stage in STAGES]
        return _increments([peaks.get(key) for key in keys])

    return _stacked(
        comparisons,
        "Peak memory, by the stage that raised it (lower is better)",
        parts,
        list(STAGES.values()),
        unit="MiB",
        spread=spread,
        note=_processes_words(ends, comparisons),
        highlight=highlight,
    )


def _processes_words(ends: pandas.DataFrame, comparisons: Sequence[Comparison]) -> str:
    """How many processes per arm had their memory measured, in these comparisons."""
    cells = [key for one in comparisons for key in one.rows.set_index(["run", "cell"]).index]
    counts = ends["processes"].reindex(cells).dropna().astype(int)
    if counts.empty:
        return ""
    least, most = counts.min(), counts.max()
    if most == 1:
        return " One process per arm."
    return f" Median and range of {most if least == most else f'{least} to {most}'} processes."


def startup_chart(
    frames: Frames, comparisons: Sequence[Comparison], *, highlight: Collection[str] = ()
) -> Figure:
    """Seconds from the start of the process to the end of the first step, by stage.

    Grey is what passes before the model exists. A bar ends at the median of the starts. Its stages
    have the proportions of their own medians, whose sum is another figure. The line goes from the
    shortest start to the longest.
    """
    begun = startups(frames)
    starts = begun[begun["block"].notna()].groupby(["run", "cell"])["startup_seconds"]
    ends = {key: (low, high) for key, low, high in starts.agg(["min", "max"]).itertuples(name=None)}

    def parts(cell: Mapping[Any, Any]) -> list[float]:
        seconds = [cell[name] for name in STARTUP_STAGES]
        medians = [0.0 if pandas.isna(value) else float(value) for value in seconds]
        if not sum(medians):
            return medians
        return [cell["startup_seconds"] / sum(medians) * median for median in medians]

    return _stacked(
        comparisons,
        "Start-up, by stage (lower is better)",
        parts,
        list(STARTUP_STAGES.values()),
        unit="seconds",
        spread=ends,
        highlight=highlight,
    )


def _increments(peak_bytes: Sequence[Any]) -> list[float]:
    """MiB that each stage added to the highest peak before it; 0 for a stage that was not read."""
    highest, added = 0.0, []
    for size in peak_bytes:
        peak = 0.0 if size is None or pandas.isna(size) else size / 2**20
        added.append(max(peak - highest, 0.0))
        highest = max(peak, highest)
    return added


def _stacked(
    comparisons: Sequence[Comparison],
    title: str,
    parts: Callable[[Mapping[Any, Any]], list[float]],
    names: Sequence[str],
    *,
    unit: str,
    spread: Mapping[tuple[str, str], tuple[float, float]] = MappingProxyType({}),
    note: str = "",
    highlight: Collection[str] = (),
) -> Figure:
    """Bars of stages, the shortest bar first; there is no model before the stage "build".

    ``spread``: run and cell -> the ends of what was measured, drawn as a line. ``note``: further
    words below the title.
    """
    tints, shared = STAGE_TINTS[len(STAGE_TINTS) - len(names) :], names.index("build")

    def draw(axes: Axes, comparison: Comparison) -> None:
        shown: list[float] = []
        for row, cell in rows_of(axes, comparison):
            sizes = parts(cell) if cell["status"] == "ok" else []
            if not sum(sizes):
                absent(axes, row, why(cell, "not measured"))
                continue
            left = 0.0
            tones = _tones(colour(cell["framework"]), shared, tints)
            for size, tone in zip(sizes, tones, strict=True):
                axes.barh(row, size, left=left, height=0.66, color=tone, zorder=3)
                left += size
            axes.barh(
                row, left, height=0.66, fill=False, edgecolor="#333333", linewidth=0.6, zorder=4
            )
            ends = spread.get((cell["run"], cell["cell"]), ())
            if ends:
                axes.hlines(row, *ends, color="black", linewidth=1.2, zorder=5)
            own = sum(sizes[shared:])
            at_end(axes, row, f"{significant(left)} ({_short(own)})")
            shown += [left, *ends]
        value_axis(axes, shown, unit, logarithmic=False)

    legend = [
        Patch(facecolor=tone, edgecolor="#333333", linewidth=0.6, label=name)
        for name, tone in zip(names, _tones(EXAMPLE, shared, tints), strict=True)
    ]
    order = f"The least {unit} first. In parentheses: what the model added after the import.{note}"
    arranged = [_by_total(comparison, parts) for comparison in comparisons]
    return panels(arranged, title, draw, legend, "total (own)", order=order, highlight=highlight)


def _short(amount: float) -> str:
    """An amount in two digits, or in hundredths if it is small."""
    if amount < 0.01:
        return "<0.01"
    return f"{amount:.2f}" if amount < 0.1 else significant(amount, 2)


def _tones(own: str, shared: int, tints: Sequence[float]) -> list[str]:
    """The colours of stages: grey before there is a model, then those of the framework."""
    return [
        tint(SHARED if number < shared else own, whiteness)
        for number, whiteness in enumerate(tints)
    ]


def _by_total(
    comparison: Comparison, parts: Callable[[Mapping[Any, Any]], list[float]]
) -> Comparison:
    """The comparison with the shortest bar first, and last the arms without one."""
    rows = comparison.rows
    totals = [
        sum(parts(cell)) if cell["status"] == "ok" else numpy.inf
        for cell in rows.to_dict("records")
    ]
    return replace(comparison, rows=rows.iloc[numpy.argsort(totals, kind="stable")])
