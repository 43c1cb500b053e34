"""Reports: tables, charts and files for other programs, from the records of runs.

Reports depend on the records alone. The same records give the same files, byte by byte, wherever
and whenever the report is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import levelfield.harness.report.agg  # noqa: F401  before any import of Matplotlib

# isort: split
from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import Comparison, comparisons_of
from levelfield.harness.analysis.explanation import explanations
from levelfield.harness.analysis.history import History
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.records.runs import run_folders
from levelfield.harness.records.store import write_atomically, writing_failed
from levelfield.harness.report.answer import answer_markdown, answers
from levelfield.harness.report.curves import trend_chart
from levelfield.harness.report.export import write_csv, write_parquet
from levelfield.harness.report.findings import not_quiet
from levelfield.harness.report.gallery import CHARTS, charts_of, drawn
from levelfield.harness.report.interchange import benchmark_json, latex
from levelfield.harness.report.mlperf import mlperf_log
from levelfield.harness.report.overview import overview
from levelfield.harness.report.page import html
from levelfield.harness.report.panels import save
from levelfield.harness.report.provenance import machines_words, provenance
from levelfield.harness.report.pytorch import pytorch_json
from levelfield.harness.report.series import trend_data
from levelfield.harness.report.tables import comparison_tables, markdown
from levelfield.harness.report.text import escape
from levelfield.reference.errors import UnknownName

DEFAULT_FORMATS = ("markdown", "html", "latex", "benchmark")
FORMATS = (*DEFAULT_FORMATS, "charts", "csv", "parquet", "pytorch", "mlperf")


def write_report(
    paths: Path | str | Iterable[Path | str],
    folder: Path | str,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
) -> list[Path]:
    """Write a report of runs into ``folder`` and return its files.

    ``paths`` are run folders or folders of them. "markdown" is ``report.md``, which shows the
    charts if they are made too. "html" is ``report.html``, the whole report in one file for a
    browser. "charts" are PNG and SVG. "latex" is ``tables.tex``, "benchmark" is
    ``pytest-benchmark.json``, "pytorch" is ``pytorch-benchmark.json``, "mlperf" is ``mlperf.log``.
    "csv" and "parquet" are every frame, in a folder each; the frame of single steps may take many
    megabytes. Raises BadInput for an unknown format and for files that cannot be read or written.
    """
    for name in formats:
        if name not in FORMATS:
            raise BadInput(f"unknown format '{name}' of a report; known are {', '.join(FORMATS)}")
    paths = _listed(paths)
    frames = load(paths)
    comparisons = comparisons_of(frames)
    target = Path(folder)
    written: list[Path] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        if "markdown" in formats:
            written.append(target / "report.md")
            write_atomically(written[-1], _markdown(frames, comparisons, formats).encode())
        if "latex" in formats:
            written.append(target / "tables.tex")
            write_atomically(written[-1], latex(comparison_tables(frames, comparisons)).encode())
        if "benchmark" in formats:
            written.append(target / "pytest-benchmark.json")
            write_atomically(written[-1], benchmark_json(frames, comparisons).encode())
        if "pytorch" in formats:
            written.append(target / "pytorch-benchmark.json")
            write_atomically(written[-1], pytorch_json(frames, comparisons).encode())
        if "mlperf" in formats:
            written.append(target / "mlperf.log")
            write_atomically(written[-1], mlperf_log(frames, comparisons).encode())
        if "html" in formats:
            written.append(target / "report.html")
            whys = [one for folder, _ in run_folders(paths) for one in explanations(folder)]
            page = html(frames, comparisons, data=_beside(target, formats), explained=whys)
            write_atomically(written[-1], page.encode())
        for name in charts_of(frames, comparisons) if "charts" in formats else ():
            written += _saved(drawn(name, frames, comparisons), target, name)
    except OSError as error:
        advice = "choose a folder that you may write to by --output"
        raise writing_failed(error, target, advice=advice) from error
    for name, write in (("csv", write_csv), ("parquet", write_parquet)):
        written += write(frames, target / name) if name in formats else []
    return written


def _listed(paths: Path | str | Iterable[Path | str]) -> list[Path | str]:
    return [paths] if isinstance(paths, str | Path) else [*paths]


def _beside(target: Path, formats: Sequence[str]) -> list[tuple[str, str]]:
    """Names and relative addresses of data next to a report."""
    known = {
        "csv": ("Summary and all frames as CSV", "csv/summary.csv"),
        "parquet": ("The same as Parquet", "parquet/summary.parquet"),
        "latex": ("Tables in LaTeX", "tables.tex"),
        "benchmark": ("Slices for pytest-benchmark compare", "pytest-benchmark.json"),
        "pytorch": ("Metrics for PyTorch's benchmark database", "pytorch-benchmark.json"),
        "mlperf": ("Events as MLPerf's log lines", "mlperf.log"),
    }
    links = [known[name] for name in formats if name in known]
    if (target.parent / "records.jsonl").is_file():
        links.append(("The raw records", "../records.jsonl"))
    return links


def _saved(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as PNG and SVG. Raises BadInput if they cannot be written."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            save(figure, path)
    except OSError as error:
        advice = "choose a folder that you may write to by --output"
        raise writing_failed(error, folder, advice=advice) from error
    return paths


def plot(
    kind: str, paths: Sequence[Path], folder: Path, *, highlight: str | Iterable[str] = ()
) -> list[Path]:
    """Draw one chart of runs as PNG and SVG in ``folder``. Raises UnknownName and BadInput.

    The arms to ``highlight``, names or patterns, are in colour, all others grey. A chart for which
    the runs have no data is refused.
    """
    if kind not in CHARTS:
        raise UnknownName("chart", kind, CHARTS)
    frames = load(paths)
    comparisons = comparisons_of(frames)
    drawable = charts_of(frames, comparisons)
    if kind not in drawable:
        raise BadInput(
            f"chart '{kind}': these runs have no data for it; they have data for"
            f" {', '.join(drawable) or 'no chart'}"
        )
    return _saved(drawn(kind, frames, comparisons, highlight=highlight), folder, kind)


def draw_history(history: History, folder: Path) -> list[Path]:
    """Draw each arm's changes from run to run, as PNG and SVG in ``folder``. Raises BadInput."""
    return _saved(trend_chart(trend_data(history)), folder, "history")


def _markdown(frames: Frames, comparisons: Sequence[Comparison], formats: Sequence[str]) -> str:
    texts = answers(frames, comparisons)
    heads = ["The answer"] if len(texts) == 1 else [f"The answer of run {one.run}" for one in texts]
    parts = ["# Report", *map(escape, machines_words(frames))]
    for head, text in zip(heads, texts, strict=True):
        parts += [f"## {escape(head)}", answer_markdown(text)]
    parts += [escape(line) for line in not_quiet(frames)]
    whole = overview(frames, comparisons)
    parts += [whole] if whole else []
    parts += ["## Comparisons", markdown(comparison_tables(frames, comparisons)).rstrip()]
    parts += [provenance(frames).rstrip()]
    if "charts" in formats:
        parts += ["## Charts"]
        parts += [f"![{CHARTS[name].title}]({name}.svg)" for name in charts_of(frames, comparisons)]
    data = [f"[{name}]({name}/summary.{name})" for name in ("csv", "parquet") if name in formats]
    if data:
        parts += [
            "## Data",
            f"The summary as {' and '.join(data)}, in the same folder as every frame of records.",
        ]
    return "\n\n".join(parts) + "\n"
