"""Reports: the records of runs as tables, charts and files that other programs read.

Made of the records alone: the same records give the same files, to the byte, wherever and whenever
the report is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from harness.errors import BadInput
from harness.export import write_csv, write_parquet
from harness.frames import Frames, load
from harness.report.charts import memory_chart, ratio_chart, startup_chart, step_time_chart
from harness.report.comparison import Group, groups
from harness.report.findings import not_quiet
from harness.report.overview import overview
from harness.report.panels import save
from harness.report.provenance import provenance
from harness.report.tables import comparison_tables, markdown
from harness.report.text import escape
from harness.store import write_atomically, writing_failed

FORMATS = ("markdown", "csv", "parquet", "charts")
CHARTS: dict[str, tuple[str, Callable[[Frames, Sequence[Group]], Figure]]] = {
    "ratio": ("Ratio to the first", ratio_chart),
    "step-time": ("Time per step", step_time_chart),
    "memory": ("Peak memory", memory_chart),
    "startup": ("Start-up", startup_chart),
}


def write_report(
    paths: Path | str | Iterable[Path | str],
    folder: Path | str,
    *,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write a report of runs into ``folder`` and return its files.

    ``paths`` are run folders or folders of them. "markdown" is ``report.md`` and shows the charts
    if they are made too; "charts" are PNG and SVG; "csv" and "parquet" are every frame, in a
    folder each. Raises BadInput for an unknown format and for what cannot be read or written.
    """
    for name in formats:
        if name not in FORMATS:
            raise BadInput(f"unknown format '{name}' of a report; known are {', '.join(FORMATS)}")
    frames = load(paths)
    found = groups(frames)
    target = Path(folder)
    written: list[Path] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        if "markdown" in formats:
            written.append(target / "report.md")
            write_atomically(written[-1], _markdown(frames, found, formats).encode())
        for name, (_, draw) in CHARTS.items() if "charts" in formats else ():
            figure = draw(frames, found)
            for suffix in ("png", "svg"):
                written.append(target / f"{name}.{suffix}")
                save(figure, written[-1])
    except OSError as error:
        advice = "choose a folder that you may write to"
        raise writing_failed(error, target, advice=advice) from error
    for name, write in (("csv", write_csv), ("parquet", write_parquet)):
        written += write(frames, target / name) if name in formats else []
    return written


def _markdown(frames: Frames, found: Sequence[Group], formats: Sequence[str]) -> str:
    parts = ["# Report", provenance(frames).rstrip()]
    parts += [escape(line) for line in not_quiet(frames)]
    whole = overview(frames, found)
    parts += [whole] if whole else []
    parts += ["## Comparisons", markdown(comparison_tables(frames, found)).rstrip()]
    if "charts" in formats:
        parts += ["## Charts", *(f"![{title}]({name}.svg)" for name, (title, _) in CHARTS.items())]
    data = [f"[{name}]({name}/summary.{name})" for name in ("csv", "parquet") if name in formats]
    if data:
        parts += [
            "## Data",
            f"The summary as {' and '.join(data)}, beside it every frame of records.",
        ]
    return "\n\n".join(parts) + "\n"
