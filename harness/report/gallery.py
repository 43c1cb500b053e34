"""The charts of a report: the name, title, drawing and data of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas
from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.summary import peak_ends, stage_peaks
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import Frames
from levelfield.harness.report import charts, curves, matrices, series
from levelfield.harness.report.tables import pairs_of
from levelfield.reference.errors import UnknownName

# Takes frames, comparisons and, if the chart ``highlights``, the keyword of this name.
Drawing = Callable[..., Figure]
Data = Callable[[Frames, Sequence[Comparison]], pandas.DataFrame]
_STEP = ("step_seconds", "step_seconds_low", "step_seconds_high")


@dataclass(frozen=True)
class Chart:
    """One kind of chart. ``data`` is what it shows, without rows if these runs have none.

    A page draws it once for all comparisons together if ``together``, else in each section. A chart
    that is not ``on_page`` shows the same as another one in other units. A chart ``highlights`` if
    its colours are those of arms. A short print of the page has the charts that are ``in_brief``.
    """

    title: str
    draw: Drawing
    data: Data
    together: bool = False
    on_page: bool = True
    highlights: bool = True
    in_brief: bool = False


def _rows(*columns: str) -> Data:
    """The rows of comparisons that have a number in the first of these columns."""

    def data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
        parts = [
            one.rows.loc[
                (one.rows["status"] == "ok") & one.rows[columns[0]].notna(), ["arm", *columns]
            ].assign(comparison=series.series_name(one))
            for one in comparisons
        ]
        return pandas.concat(parts) if parts else pandas.DataFrame(columns=["arm", *columns])

    return data


def _pairs(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    parts = [pairs_of(one) for one in comparisons if one.judged]
    return pandas.concat(parts) if parts else pandas.DataFrame()


def _peaks(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Peaks by stage, with the ends of each arm's peaks if several processes were measured."""
    stages = stage_peaks(frames)
    parts = []
    for one in comparisons:
        fine = one.rows.loc[one.rows["status"] == "ok", "arm"]
        mine = (stages["run"] == one.run) & (stages["comparison"] == one.id)
        parts.append(stages[mine & stages["arm"].isin(fine) & stages["peak_bytes"].notna()])
    table = pandas.concat(parts) if parts else stages.iloc[:0]
    table = table.join(peak_ends(frames), on=["run", "cell"])
    sizes = {"peak_bytes": "peak (MiB)"}
    if (table["processes"] > 1).any():
        sizes |= {"lowest": "lowest peak (MiB)", "highest": "highest peak (MiB)"}
    shown = table[[*sizes]].astype(float) / 2**20
    return pandas.concat([table[["arm", "stage"]], shown.rename(columns=sizes)], axis=1)


def _statuses(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    columns = ["arm", "status", "reason"]
    parts = [one.rows[columns].assign(comparison=series.series_name(one)) for one in comparisons]
    return pandas.concat(parts) if parts else pandas.DataFrame(columns=columns)


CHARTS: dict[str, Chart] = {
    "heat": Chart(
        "Times the fastest, for every comparison",
        matrices.heat_chart,
        series.heat_data,
        together=True,
        highlights=False,
        in_brief=True,
    ),
    "status": Chart(
        "The status of every cell",
        matrices.status_chart,
        _statuses,
        together=True,
        highlights=False,
        in_brief=True,
    ),
    "profile": Chart(
        "Performance profile",
        curves.profile_chart,
        series.profile_data,
        together=True,
        in_brief=True,
    ),
    "roofline": Chart("Roofline", curves.roofline_chart, series.roofline_data, together=True),
    "scaling": Chart(
        "Scaling with batch, threads and length",
        curves.scaling_chart,
        series.scaling_data,
        together=True,
    ),
    "ratio": Chart("Time against the first arm", charts.ratio_chart, _pairs),
    "step-time": Chart("Time per step", charts.step_time_chart, _rows(*_STEP)),
    "throughput": Chart(
        "Examples per second",
        charts.throughput_chart,
        _rows("examples_per_second"),
        on_page=False,
    ),
    "pareto": Chart("Memory against time", curves.pareto_chart, series.pareto_data),
    "memory": Chart("Peak memory", charts.memory_chart, _peaks),
    "startup": Chart("Start-up", charts.startup_chart, _rows(*charts.STARTUP_STAGES)),
    "break-even": Chart(
        "Total time against the number of steps", curves.break_even_chart, series.break_even_data
    ),
    "learning": Chart("Learning", curves.learning_chart, series.learning_data),
    "time-to": Chart(
        "Time to an accuracy that every arm reaches", charts.time_to_chart, series.time_to_data
    ),
}


def charts_of(frames: Frames, comparisons: Sequence[Comparison]) -> list[str]:
    """The names of the charts that these runs have data for."""
    return [name for name, chart in CHARTS.items() if len(chart.data(frames, comparisons))]


def drawn(
    name: str,
    frames: Frames,
    comparisons: Sequence[Comparison],
    *,
    highlight: str | Iterable[str] = (),
) -> Figure:
    """Draw a chart of ``CHARTS``; the arms to ``highlight`` are in colour, all others grey.

    Arms are names or patterns; a text may have several, separated by commas. Raises UnknownName for
    an arm that no comparison has, and BadInput for a chart whose colours are not those of arms.
    """
    known = list(dict.fromkeys(arm for one in comparisons for arm in one.rows["arm"]))
    texts = [highlight] if isinstance(highlight, str) else highlight
    chosen: set[str] = set()
    for pattern in (part.strip() for text in texts for part in text.split(",")):
        matches = [arm for arm in known if fnmatchcase(arm, pattern)]
        if not matches:
            raise UnknownName("arm", pattern, known, where="these runs")
        chosen.update(matches)
    chart = CHARTS[name]
    if not chosen:
        return chart.draw(frames, comparisons)
    if not chart.highlights:
        able = ", ".join(other for other, one in CHARTS.items() if one.highlights)
        raise BadInput(
            f"chart '{name}' has no colours of arms to highlight; leave the arms out, or choose"
            f" one of {able}"
        )
    return chart.draw(frames, comparisons, highlight=chosen)
