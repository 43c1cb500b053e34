"""Charts for people: a panel for each group of comparable cells, a row for each planned arm.

Figures are made without pyplot, so that nothing is shared with the caller's own, and drawn to the
same bytes from the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.frames import Frames
from harness.report.colours import STAGE_TINTS, colour, tint
from harness.report.panels import absent, at_end, jitter, panels, value_axis, why
from harness.report.tables import Group
from harness.report.text import milliseconds, significant

STAGES = {
    "interpreter": "interpreter",
    "import": "import",
    "build": "build",
    "first_step": "first step",
    "steady": "steady",
}
STARTUP = {
    "import_seconds": "import",
    "build_seconds": "build",
    "compile_seconds": "compile",
    "first_step_seconds": "first step",
}


def step_time_chart(frames: Frames) -> Figure:
    """Milliseconds per step: a dot per throughput slice, a bar for their median."""
    slices = frames.slices[frames.slices["statistic"] == "throughput"]
    times = {key: each.tolist() for key, each in slices.groupby(["run", "cell"])["step_seconds"]}

    def draw(axes: Axes, group: Group) -> None:
        shown: list[float] = []
        for row, cell in enumerate(group.rows.to_dict("records")):
            slice_ms = [1000 * each for each in times.get((cell["run"], cell["cell"]), [])]
            if cell["status"] != "ok" or not slice_ms:
                absent(axes, row, why(cell, "not timed"))
                continue
            heights = [row + jitter(index) for index in range(len(slice_ms))]
            tone = colour(cell["framework"])
            axes.scatter(slice_ms, heights, s=16, color=tone, alpha=0.65, linewidths=0, zorder=3)
            middle = cell["step_seconds"] * 1000
            axes.vlines(middle, row - 0.36, row + 0.36, color="black", linewidth=1.5, zorder=4)
            at_end(axes, row, milliseconds(cell["step_seconds"]))
            shown += slice_ms
        value_axis(axes, shown, "milliseconds per step", logarithmic=True)

    dot = Line2D([], [], marker="o", color="#444444", linestyle="", markersize=4, label="a slice")
    bar = Line2D([], [], marker="|", color="black", linestyle="", markersize=12, label="median")
    bar.set_markeredgewidth(1.8)
    return panels(frames, "Time per step", draw, [dot, bar], "median")


def memory_chart(frames: Frames) -> Figure:
    """MiB of peak resident memory: what each stage added to the highest peak before it."""
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
    return _stacked(frames, title, parts, list(STAGES.values()), "MiB")


def startup_chart(frames: Frames) -> Figure:
    """Seconds from the start of the import to the end of the first step, by stage."""

    def parts(cell: Mapping[Any, Any]) -> list[float]:
        seconds = [cell[name] for name in STARTUP]
        return [0.0 if pandas.isna(each) else float(each) for each in seconds]

    return _stacked(frames, "Start-up, by stage", parts, list(STARTUP.values()), "seconds")


def _increments(peak_bytes: Sequence[Any]) -> list[float]:
    """MiB that each stage added to the highest peak before it; nothing where it was not read."""
    highest, added = 0.0, []
    for each in peak_bytes:
        peak = 0.0 if each is None or pandas.isna(each) else each / 2**20
        added.append(max(peak - highest, 0.0))
        highest = max(peak, highest)
    return added


def _stacked(
    frames: Frames,
    title: str,
    parts: Callable[[Mapping[Any, Any]], list[float]],
    names: Sequence[str],
    unit: str,
) -> Figure:
    tints = STAGE_TINTS[len(STAGE_TINTS) - len(names) :]

    def draw(axes: Axes, group: Group) -> None:
        totals: list[float] = []
        for row, cell in enumerate(group.rows.to_dict("records")):
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
    return panels(frames, title, draw, legend, "total")
