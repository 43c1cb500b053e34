"""The report as one HTML file that works offline.

Everything that comes from a record goes through Jinja's escaping. Charts are images inside the
file, each with a text that describes it and its data as a table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.errors import clean
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.frames import Frames
from levelfield.harness.report import charts, curves, series
from levelfield.harness.report.code import code_size, model_sources, module_of
from levelfield.harness.report.findings import SMOKE, not_quiet
from levelfield.harness.report.overview import WORDS, overviews
from levelfield.harness.report.panels import svg
from levelfield.harness.report.provenance import run_facts, versions
from levelfield.harness.report.tables import ComparisonTable, comparison_tables
from levelfield.harness.report.text import significant
from levelfield.harness.statistics.decisions import Verdict

_TEXTS = (
    *("arm", "status", "verdict", "reason", "notes", "pair", "statistic", "model", "phase"),
    *("optimizer", "comparison", "run", "version", "environment", "read back", "framework"),
    "fastest set",
)
_PIXELS_PER_INCH = 96
_IN_ROWS = ("arm", "status", "step_seconds", "step_seconds_low", "step_seconds_high")
_STARTED = ("arm", "status", *charts.STARTUP_STAGES)


def html(
    frames: Frames, comparisons: Sequence[Comparison], *, data: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the page; ``data`` are names and relative addresses of files next to it."""
    environment = Environment(
        loader=PackageLoader("levelfield.harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    tables = comparison_tables(frames, comparisons)
    cells = frames.cells[~frames.cells["arm"].str.endswith(TWIN)]
    runs = ", ".join(dict.fromkeys(map(clean, frames.runs["run"])))
    fine = int((cells["status"] == "ok").sum())
    return environment.get_template("page.html").render(
        title="Levelfield report",
        subtitle=f"{'Runs' if len(frames.runs) != 1 else 'Run'} {runs}",
        compared=(
            f"{cells['arm'].nunique()} arms of {cells['framework'].nunique()} frameworks in"
            f" {len(comparisons)} comparisons of {cells['model'].nunique()} models; {fine} of"
            f" {len(cells)} cells are ok: they compute the same as the reference and were measured."
        ),
        concluded=_table(_concluded(comparisons)),
        common_details=comparisons[0].details
        if len({comparison.details for comparison in comparisons}) == 1
        else "",
        open=[*_open(frames, comparisons)],
        bars=[*_bars(frames, comparisons)],
        overviews=[
            {
                "title": f"All comparisons of run {clean(run)} together",
                "words": f"Against {clean(anchor)}, {WORDS}",
                "table": _table(table),
            }
            for run, anchor, table in overviews(frames, comparisons)
        ],
        whole=[*_whole(frames, comparisons)],
        comparisons=[
            _section(number, frames, comparison, table)
            for number, (comparison, table) in enumerate(
                zip(comparisons, tables, strict=True), start=1
            )
        ],
        coverage=_table(_coverage(frames)),
        code=[*_code(frames)],
        runs=[_run(frames, run) for run in frames.runs.to_dict("records")],
        data=data,
    )


def _concluded(comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """A row per comparison with verdicts: arms that no arm beats, and their possible error."""
    same_details = len({comparison.details for comparison in comparisons}) == 1
    rows = []
    for comparison in comparisons:
        judged = comparison.judged.get("throughput")
        if judged is None:
            continue
        verdicts, control = judged.verdicts, judged.control
        open_pairs = sum(pair.verdict == Verdict.INCONCLUSIVE for pair in verdicts.pairs)
        fastest = ", ".join(verdicts.fastest) or "none"
        rows.append(
            {
                "comparison": comparison.title
                if same_details
                else f"{comparison.title}, {comparison.details}",
                "fastest set": f"void: {'; '.join(verdicts.void)}" if verdicts.void else fastest,
                "pairs still open": "-"
                if verdicts.void
                else f"{open_pairs} of {len(verdicts.pairs)}",
                "A/A": f"{control.ratio:.4f} ± {control.half_width:.2%}" if control else "no twin",
                "margin (%)": significant(100 * verdicts.margin, 2),
                "blocks": verdicts.blocks,
                "disturbed (%)": significant(
                    100 * sum(judged.rules.values()) / max(judged.rounds, 1), 2
                ),
            }
        )
    return pandas.DataFrame(rows)


def _open(frames: Frames, comparisons: Sequence[Comparison]) -> Iterable[str]:
    smoke = sum("throughput" not in comparison.judged for comparison in comparisons)
    if smoke:
        yield f"{smoke} of {len(comparisons)} comparisons: {SMOKE}"
    judged = [
        comparison.judged["throughput"]
        for comparison in comparisons
        if "throughput" in comparison.judged
    ]
    void = sum(bool(comparison.verdicts.void) for comparison in judged)
    if void:
        yield f"{void} of {len(judged)} comparisons are void: the table says why."
    pairs = [
        pair
        for comparison in judged
        if not comparison.verdicts.void
        for pair in comparison.verdicts.pairs
    ]
    undecided = sum(pair.verdict == Verdict.INCONCLUSIVE for pair in pairs)
    if undecided:
        yield (
            f"{undecided} of {len(pairs)} pairs of arms are inconclusive: the tables say how many"
            " more blocks they need."
        )
    counts = frames.cells["status"].value_counts()
    failed = [f"{count} {status}" for status, count in counts.items() if status != "ok"]
    if failed:
        yield f"Cells without a number: {', '.join(failed)}. The reason of each is below."
    yield "Results on another machine, with other versions or other sizes may differ."


def _bars(frames: Frames, comparisons: Sequence[Comparison]) -> Iterable[str]:
    yield from not_quiet(frames)
    if any("throughput" in comparison.judged for comparison in comparisons):
        yield (
            "In every comparison one arm runs twice, under two names (A/A). The difference"
            " between the two, with its 95 % half-width, is this session's own error; no margin is"
            " smaller. A round that other programs disturbed counts for less, for all arms."
        )
    else:
        yield "A smoke run does not measure its own error."


def _whole(frames: Frames, comparisons: Sequence[Comparison]) -> Iterable[dict[str, Any]]:
    """Yield the charts over all comparisons."""
    kinds: tuple[tuple[str, Callable[..., Figure], Callable[..., pandas.DataFrame]], ...] = (
        ("Times the fastest, for every comparison", curves.heat_chart, series.heat_data),
        ("Performance profile", curves.profile_chart, series.profile_data),
        ("Roofline", curves.roofline_chart, series.roofline_data),
        ("Scaling", curves.scaling_chart, series.scaling_data),
    )
    for title, draw, tell in kinds:
        table = tell(frames, comparisons)
        if len(table):
            arms = ", ".join(dict.fromkeys(map(clean, table["arm"])))
            alternative = f"{title}: {arms}. The data follow as a table."
            yield _chart(title, draw(frames, comparisons), table, alternative)


def _section(
    number: int, frames: Frames, comparison: Comparison, table: ComparisonTable
) -> dict[str, Any]:
    return {
        "id": f"comparison-{number}",
        "title": comparison.title,
        "details": comparison.details,
        "table": _table(table.cells),
        "below": [line for line in table.below if line],
        "notes": table.notes,
        "pairs": _table(table.pairs),
        "charts": [*_charts(frames, comparison, table)],
    }


def _charts(
    frames: Frames, comparison: Comparison, table: ComparisonTable
) -> Iterable[dict[str, Any]]:
    """Yield the charts of one comparison, except those without anything to show."""
    fine = comparison.rows["status"] == "ok"
    measured = ["step_seconds", "step_seconds_low", "step_seconds_high", *charts.STARTUP_STAGES]
    rows = comparison.rows.assign(**{name: comparison.rows[name].where(fine) for name in measured})
    memory = frames.memory
    mine = (memory["run"] == comparison.run) & (memory["comparison"] == comparison.id)
    memory = memory[mine & memory["arm"].isin(rows.loc[fine, "arm"])]
    peaks = (memory["peak_bytes"].astype(float) / 2**20).rename("peak (MiB)")
    peak_table = pandas.concat([memory[["arm", "stage"]], peaks], axis=1)
    timed = rows["step_seconds"].notna().any()
    learned = series.learning_data(frames, [comparison])
    kinds: tuple[tuple[str, Callable[..., Figure], pandas.DataFrame, bool], ...] = (
        ("Ratio to the first", charts.ratio_chart, table.pairs, len(table.pairs) > 0),
        ("Time per step", charts.step_time_chart, rows[[*_IN_ROWS]], bool(timed)),
        (
            "Total time against the number of steps",
            curves.break_even_chart,
            series.break_even_data(frames, [comparison]).drop(columns=["comparison", "framework"]),
            bool(timed),
        ),
        (
            "Learning",
            curves.learning_chart,
            learned.drop(columns=["comparison", "framework"]),
            len(learned) > 0,
        ),
        ("Peak memory", charts.memory_chart, peak_table, bool(peaks.notna().any())),
        ("Start-up", charts.startup_chart, rows[[*_STARTED]], bool(timed)),
    )
    for title, draw, data, shown in kinds:
        if shown:
            title = f"{title}: {comparison.title}"
            alternative = f"{title}. {_words(comparison)}"
            yield _chart(title, draw(frames, [comparison]), data, alternative)


def _words(comparison: Comparison) -> str:
    """Each arm's number in a sentence, for readers who cannot see the picture."""
    rows = comparison.rows[comparison.rows["status"] == "ok"]
    times = [
        f"{clean(arm)} {significant(1000 * seconds)} ms"
        for arm, seconds in zip(rows["arm"], rows["step_seconds"], strict=True)
        if not pandas.isna(seconds)
    ]
    return f"Steps take: {', '.join(times)}." if times else "No arm has a number."


def _chart(title: str, figure: Figure, data: pandas.DataFrame, alternative: str) -> dict[str, Any]:
    width, height = figure.get_size_inches()
    picture = base64.b64encode(svg(figure)).decode()
    return {
        "title": title,
        "alternative": alternative,
        "source": f"data:image/svg+xml;base64,{picture}",
        "width": round(width * _PIXELS_PER_INCH),
        "height": round(height * _PIXELS_PER_INCH),
        "data": _table(data),
    }


def _coverage(frames: Frames) -> pandas.DataFrame:
    columns = ["arm", "model", "preset", "phase", "optimizer", "batch", "threads", "numeric"]
    columns += ["device", "status", "reason"]
    several = ["run"] if frames.cells["run"].nunique() > 1 else []
    return frames.cells[[*columns, *several]]


def _table(frame: pandas.DataFrame) -> dict[str, Any]:
    """Columns and rows in the form that the template expects; numbers have at most four digits."""
    rows = [
        {
            "cells": [_cell(value) for value in row],
            "bad": "status" in frame and not str(row[status]).startswith("ok"),
        }
        for status in [list(frame.columns).index("status") if "status" in frame else 0]
        for row in frame.to_numpy(dtype=object).tolist()
    ]
    columns = [{"name": str(name), "left": str(name) in _TEXTS} for name in frame.columns]
    return {"columns": columns, "rows": rows}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return significant(value, 4)
    return "-" if value is None or value is pandas.NA else clean(str(value))


def _code(frames: Frames) -> Iterable[dict[str, Any]]:
    used = set(frames.cells["framework"])
    models = frames.cells.drop_duplicates("model")["model"]
    modules: dict[str, str] = {}
    for model in map(str, models):
        if module := module_of(model):
            modules.setdefault(clean(module), model)
    for module, model in modules.items():
        sources = {n: source for n, source in model_sources(model).items() if n in used}
        sizes = [(title, *code_size(text)) for title, text in sources.values()]
        if sources:
            yield {
                "title": module,
                "sizes": _table(pandas.DataFrame(sizes, columns=["framework", "tokens", "lines"])),
                "sources": [{"title": title, "text": text} for title, text in sources.values()],
            }


def _run(frames: Frames, run: dict[Any, Any]) -> dict[str, Any]:
    return {
        "name": clean(run["run"]),
        "facts": [(name, clean(text)) for name, text in run_facts(run, frames) if text],
        "versions": _table(pandas.DataFrame(versions(frames, run["run"]), dtype="str")),
        "locks": [*_locks(run["locks"])],
        "suite": _pretty(run["suite"]),
    }


def _locks(text: str) -> Iterable[dict[str, str]]:
    try:
        locks = json.loads(text)
    except ValueError:
        return
    for label, lock in locks.items() if isinstance(locks, dict) else ():
        packages = lock.get("lock") if isinstance(lock, dict) else None
        if isinstance(packages, list):
            yield {"label": clean(label), "packages": "\n".join(map(clean, packages))}


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    except ValueError:
        return clean(text)
