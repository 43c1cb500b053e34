"""Charts with a panel per comparison and a row per arm.

Figures are made without pyplot, so that they share nothing with the caller's own figures. The same
records give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.verdicts import pair_of
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.report.colours import STAGE_TINTS, colour, tint
from levelfield.harness.report.panels import (
    absent,
    at_end,
    interval,
    jitter,
    panels,
    value_axis,
    why,
)
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
_MOST_DOTS = 2000  # of an arm: more dots show nothing more and take long to draw


def step_time_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Milliseconds per step: a dot per slice, hollow where disturbed; the 95 % interval."""
    slices = frames.slices
    slices = slices[(slices["statistic"] == "throughput") & (slices["residency"] != AUDIT)]
    columns = ["step_seconds", "disturbed"]
    times = {key: part[columns] for key, part in slices.groupby(["run", "cell"])}

    def draw(axes: Axes, comparison: Comparison) -> None:
        shown: list[float] = []
        for row, cell in enumerate(comparison.rows.to_dict("records")):
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
    return panels(comparisons, "Time per step", draw, [dot, ring, _estimate()], "median")


_INTERVAL = ("step_seconds", "step_seconds_low", "step_seconds_high")


def throughput_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Examples per second as bars, with the 95 % interval."""

    def draw(axes: Axes, comparison: Comparison) -> None:
        shown: list[float] = []
        for row, cell in enumerate(comparison.rows.to_dict("records")):
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

    return panels(comparisons, "Examples per second", draw, [_estimate()], "median")


def _estimate() -> Line2D:
    bar = Line2D([], [], marker="|", color="black", linestyle="-", markersize=10)
    bar.set(markeredgewidth=1.8, label="estimate and interval")
    return bar


def ratio_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Seconds of each arm over those of the first, with the pair's interval and the margin."""

    def draw(axes: Axes, comparison: Comparison) -> None:
        judged = comparison.judged.get("throughput")
        shown: list[float] = []
        for row, cell in enumerate(comparison.rows.to_dict("records")):
            if judged is None or cell["status"] != "ok" or comparison.leader is None:
                absent(axes, row, why(cell, "no verdict: smoke run"))
                continue
            if cell["arm"] == comparison.leader:
                interval(axes, row, 1.0, 1.0, 1.0)
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
        value_axis(axes, shown, "times the seconds of the first", logarithmic=True, zero=False)
        if judged is not None and shown:
            margin = judged.verdicts.margin
            axes.axvspan(1 / (1 + margin), 1 + margin, color="#DDDDDD", zorder=0)

    band = Patch(facecolor="#DDDDDD", label="within the margin")
    return panels(comparisons, "Ratio to the first", draw, [_estimate(), band], "ratio")


def memory_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """MiB of peak resident memory: the amount that each stage added to the highest peak before."""
    memory = frames.memory
    peaks = dict(
        zip(
            zip(memory["run"], memory["cell"], memory["stage"], strict=True),
            memory["peak_bytes"],
            strict=True,
        )
    )

    def parts(cell: Mapping[Any, Any]) -> list[float]:
        keys = [(cell["run"], cell["cell"], stage) for stage in STAGES]
        return _increments([peaks.get(key) for key in keys])

    title = "Peak memory, by the stage that raised it"
    return _stacked(comparisons, title, parts, list(STAGES.values()), "MiB")


def startup_chart(frames: Frames, comparisons: Sequence[Comparison]) -> Figure:
    """Seconds from the start of the process to the end of the first step, by stage."""

    def parts(cell: Mapping[Any, Any]) -> list[float]:
        seconds = [cell[name] for name in STARTUP_STAGES]
        return [0.0 if pandas.isna(value) else float(value) for value in seconds]

    return _stacked(
        comparisons, "Start-up, by stage", parts, list(STARTUP_STAGES.values()), "seconds"
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
    unit: str,
) -> Figure:
    tints = STAGE_TINTS[len(STAGE_TINTS) - len(names) :]

    def draw(axes: Axes, comparison: Comparison) -> None:
        totals: list[float] = []
        for row, cell in enumerate(comparison.rows.to_dict("records")):
            sizes = parts(cell) if cell["status"] == "ok" else []
            if not sum(sizes):
                absent(axes, row, why(cell, "not measured"))
                continue
            left = 0.0
            for size, whiteness in zip(sizes, tints, strict=True):
                tone = tint(colour(cell["framework"]), whiteness)
                axes.barh(row, size, left=left, height=0.66, color=tone, zorder=3)
                left += size
            axes.barh(
                row, left, height=0.66, fill=False, edgecolor="#333333", linewidth=0.6, zorder=4
            )
            at_end(axes, row, significant(left))
            totals.append(left)
        value_axis(axes, totals, unit, logarithmic=False)

    legend = [
        Patch(facecolor=tint("#444444", whiteness), edgecolor="#333333", linewidth=0.6, label=name)
        for name, whiteness in zip(names, tints, strict=True)
    ]
    return panels(comparisons, title, draw, legend, "total")
