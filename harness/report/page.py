"""The report as one HTML file that works offline.

Everything that comes from a record goes through Jinja's escaping. Charts are SVG elements of the
page, each with a text that describes it and its data as a table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.explanation import Explanation, section
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.answer import BEST, KEY, Answer, Time, anchors, answers
from levelfield.harness.report.code import code_size, model_sources, module_of
from levelfield.harness.report.differences import Difference, explanation, reproduce
from levelfield.harness.report.findings import no_verdicts, not_quiet
from levelfield.harness.report.gallery import CHARTS, Chart
from levelfield.harness.report.glossary import GLOSSARY
from levelfield.harness.report.inline import Styles, inline_svg
from levelfield.harness.report.overview import WORDS, overviews
from levelfield.harness.report.provenance import machines_words, run_facts, versions
from levelfield.harness.report.tables import ComparisonTable, comparison_tables
from levelfield.harness.report.text import significant

_TEXTS = (
    *("arm", "status", "verdict", "reason", "notes", "pair", "statistic", "model", "phase"),
    *("optimizer", "comparison", "run", "version", "environment", "read back", "framework"),
    "fastest set",
)
# Columns of a comparison that everyone reads; a switch shows the others.
_DEFAULT = (
    *("arm", "status", "verdict", "ratio to first", "step (ms)", "start-up (s)", "peak (MiB)"),
    *("test accuracy (%)", "per further token (ms)"),
)
_BRIEF_LINES = 2  # below a table: how many arms are ok, and the fastest set
_HELP = {
    "ratio to first": "times the seconds of the first arm, lower is better, with its interval",
    "step (ms)": "milliseconds per step with a 95 % interval, lower is better",
    "latency p50 / p95 / p99 (ms)": "one step at a time: the median, and the slow tail",
    "examples/s": "examples per second, higher is better",
    "start-up (s)": "from the start of the process to the end of the first step",
    "first step, cold (s)": "the first step with empty caches, compilation included",
    "break-even with first (steps)": "steps up to which, or from which, the arm is ahead",
    "peak (MiB)": "peak resident memory of the process tree, interpreter and framework included",
    "cores used": "processor seconds over seconds",
    "waited for a core (%)": "its threads were ready and none was free; more threads than cores",
    "of roofline (%)": "share of the best that this machine can do for the step",
    "output error": "distance of the outputs from the float64 reference",
    "test accuracy (%)": "after a short training on real data from the same seed",
    "status": "ok: proved to compute the same, and measured",
    "verdict": "against the first arm",
    "pairs still open": "pairs of arms for which more blocks are needed",
}


@dataclass
class _Words:
    """Explains each word of the glossary where it first stands on the page."""

    seen: set[str] = field(default_factory=set)

    def explained(self, text: str) -> Markup:
        """The text with a link from each word that is new to its meaning."""
        parts, at = [], 0
        for match in _WORD.finditer(text):
            word = _entry(match[1])
            if word not in self.seen:
                self.seen.add(word)
                parts += [escape(text[at : match.start()]), _link(word, match[0])]
                at = match.end()
        return Markup("").join([*parts, escape(text[at:])])


_ENTRIES = {word.lower(): word for word in GLOSSARY}
_WORD = re.compile(
    rf"(?<![\w-])({'|'.join(map(re.escape, sorted(GLOSSARY, key=len, reverse=True)))})s?(?![\w-])",
    re.IGNORECASE,
)


def _entry(word: str) -> str:
    return _ENTRIES[word.lower()]


def _link(word: str, text: str) -> Markup:
    return Markup('<a class="word" href="#{}" title="{}">{}</a>').format(
        word_anchor(word), f"{word}: {GLOSSARY[word]}", text
    )


def word_anchor(word: str) -> str:
    """The name of a word of the glossary on the page."""
    return "word-" + re.sub("[^a-z]+", "-", word.lower())


def html(
    frames: Frames,
    comparisons: Sequence[Comparison],
    *,
    data: Sequence[tuple[str, str]] = (),
    explained: Sequence[Explanation] = (),
) -> str:
    """Return the page; ``data`` are names and relative addresses of files next to it.

    ``explained`` says why arms are slower than others; those of other runs are left out.
    """
    tables = comparison_tables(frames, comparisons)
    places = dict(zip(map(id, comparisons), anchors(comparisons), strict=True))
    runs = ", ".join(dict.fromkeys(map(clean, frames.runs["run"])))
    cells = frames.cells
    parts, pictures = frames.by_comparison(), Pictures()
    sections = [
        _section(places[id(comparison)], parts[_key(comparison)], comparison, table, pictures)
        for comparison, table in zip(comparisons, tables, strict=True)
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=f"Levelfield: {runs}",
            answers=[_answer(answer, places) for answer in answers(frames, comparisons)],
            machines=machines_words(frames),
            key=KEY,
            notes=[*_notes(frames, comparisons)],
            overviews=[*_overviews(frames, comparisons)],
            whole=[
                drawn
                for name, chart in CHARTS.items()
                if chart.together and (drawn := pictures.chart(name, chart, frames, comparisons))
            ],
            why=[_why(one) for one in explained if one.run in set(frames.runs["id"])],
            comparisons=sections,
            filters={
                name: list(dict.fromkeys(map(clean, cells[name])))
                for name in ("framework", "model", "phase")
            },
            frameworks=dict(
                zip(map(clean, cells["arm"]), map(clean, cells["framework"]), strict=True)
            ),
            failures=_table(_failures(frames)),
            differences=_differences(comparisons),
            code=[*_code(frames)],
            glossary=GLOSSARY,
            chart_styles=Markup(pictures.styles.css),
            runs=[_run(frames, run) for run in frames.runs.to_dict("records")],
            data=data,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("levelfield.harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["explained"] = _Words().explained
    environment.filters["word_anchor"] = word_anchor
    return environment


def _overviews(frames: Frames, comparisons: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    for run, anchor, table in overviews(frames, comparisons):
        yield {
            "title": f"All comparisons of run {clean(run)} together",
            "words": f"Against {clean(anchor)}, {WORDS}",
            "table": _table(table),
        }


def _why(explanation: Explanation) -> dict[str, Any]:
    part = section(explanation)
    table = pandas.DataFrame(part.rows, columns=part.columns, dtype="str")
    return {
        "title": part.title,
        "sentences": part.sentences,
        "table": _table(table),
        "notes": part.notes,
    }


def _answer(answer: Answer, places: Mapping[int, str]) -> dict[str, Any]:
    """The answer's table, with a link from each comparison to its section."""
    columns = [_column("comparison"), _column("fastest set")]
    columns += [{**_column(arm), "arm": arm} for arm in answer.arms]
    rows = []
    for row in answer.rows:
        one = row.comparison.rows.iloc[0]
        about = _of(arm="", model=clean(one["model"]), phase=clean(one["phase"]))
        name = _plain(row.name, f"#{places[id(row.comparison)]}")
        cells = [name, _plain(row.fastest), *map(_time, row.times)]
        rows.append({**about, "bad": False, "cells": cells})
    if answer.arms_down:
        columns, rows = _turned(columns, rows)
    return {
        "run": answer.run,
        "sentences": answer.sentences,
        "scope": answer.scope,
        "table": {"columns": columns, "rows": rows},
    }


def _turned(
    columns: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The table with its arms as rows and its comparisons as columns."""
    heads = [_column("arm")]
    heads += [{**_column(row["cells"][0]["text"]), "href": row["cells"][0]["href"]} for row in rows]
    turned = [
        {
            **_of(arm=column["arm"]),
            "bad": False,
            "cells": [_plain(column["arm"]), *(row["cells"][number] for row in rows)],
        }
        for number, column in enumerate(columns)
        if column["arm"]
    ]
    return heads, turned


def _time(time: Time) -> dict[str, str]:
    return {**_plain(time.marked), "kind": time.kind if time.kind == BEST else _kind(time.kind)}


def _of(*, arm: str, model: str = "", phase: str = "") -> dict[str, str]:
    """The subject of a row, for the filter of the page."""
    return {"arm": arm, "model": model, "phase": phase}


def _plain(text: str, href: str = "") -> dict[str, str]:
    """A cell of a table; ``href`` is the address that it leads to."""
    return {"text": text, "kind": "", "href": href}


def _kind(status: str) -> str:
    """The class of a time that is none, for the style of the page."""
    return {"": "", "void": "void", "wrong": "wrong", "unsupported": "unsupported"}.get(
        status, "failed"
    )


def _notes(frames: Frames, comparisons: Sequence[Comparison]) -> Iterable[str]:
    """Notes on the whole session."""
    yield from not_quiet(frames)
    reasons = Counter(map(no_verdicts, comparisons))
    judged = reasons.pop("", 0)
    for reason, unjudged in reasons.items():
        yield f"{unjudged} of {len(comparisons)} comparisons: {reason}"
    if judged:
        yield (
            "In every comparison one arm runs twice, under two names (A/A). The difference"
            " between the two is this session's own error; no margin is smaller. A round that"
            " other programs disturbed counts for less, for all arms."
        )
    yield "Results on another machine, with other versions or other sizes may differ."


def _key(comparison: Comparison) -> tuple[str, str]:
    return comparison.run, comparison.id


def _section(
    place: str,
    frames: Frames,
    comparison: Comparison,
    table: ComparisonTable,
    pictures: Pictures,
) -> dict[str, Any]:
    one = comparison.rows.iloc[0]
    return {
        **_of(arm="", model=clean(one["model"]), phase=clean(one["phase"])),
        "id": place,
        "title": comparison.title,
        "details": comparison.details,
        "table": _table(table.cells, default=_DEFAULT),
        "below": [line for line in table.below if line],
        "brief_lines": _BRIEF_LINES,
        "notes": table.notes,
        "wrong": [*_wrong(comparison)],
        "pairs": _table(table.pairs),
        "charts": [
            drawn
            for name, chart in CHARTS.items()
            if not chart.together and chart.on_page
            if (drawn := pictures.chart(f"{place}-{name}", chart, frames, [comparison]))
        ],
    }


def _wrong(comparison: Comparison) -> Iterator[dict[str, str]]:
    """Why arms are wrong, where the catalogue says so, and the command that shows it again."""
    for cell in comparison.rows.to_dict("records"):
        if cell["status"] in ("wrong", "failed"):
            known = explanation(cell["arm"], cell["model"], cell["optimizer"])
            yield {
                "arm": clean(cell["arm"]),
                "reason": clean(cell["reason"]),
                "difference": known.name if known else "",
                "command": clean(reproduce(cell)),
            }


def _differences(comparisons: Sequence[Comparison]) -> list[Difference]:
    """The entries of the catalogue that explain a cell of these runs, each once."""
    known = [
        explanation(cell["arm"], cell["model"], cell["optimizer"])
        for comparison in comparisons
        for cell in comparison.rows.to_dict("records")
        if cell["status"] == "wrong"
    ]
    return list(dict.fromkeys(difference for difference in known if difference))


def _words(comparison: Comparison) -> str:
    """Each arm's number in a sentence, for readers who cannot see the picture."""
    rows = comparison.rows[comparison.rows["status"] == "ok"]
    times = [
        f"{clean(arm)} {significant(1000 * seconds)} ms"
        for arm, seconds in zip(rows["arm"], rows["step_seconds"], strict=True)
        if not pandas.isna(seconds)
    ]
    return f"Steps take: {', '.join(times)}." if times else "No arm has a number."


@dataclass
class Pictures:
    """Draws the charts of one page; ``drawn`` counts them."""

    styles: Styles = field(default_factory=Styles)
    drawn: int = 0

    def chart(
        self, place: str, chart: Chart, frames: Frames, comparisons: Sequence[Comparison]
    ) -> dict[str, Any] | None:
        """A chart and its data; none where there are no data."""
        data = chart.data(frames, comparisons)
        if data.empty:
            return None
        if chart.together:
            arms = ", ".join(dict.fromkeys(map(clean, data["arm"])))
            title, words = chart.title, f"{arms}. The data follow as a table."
        else:
            title = f"{chart.title}: {comparisons[0].title}"
            words = _words(comparisons[0])
            data = data.drop(columns=["comparison", "framework"], errors="ignore")
        self.drawn += 1
        label, figure = f"{title}. {words}", chart.draw(frames, comparisons)
        return {
            "title": title,
            "id": place,
            "brief": chart.in_brief,
            "svg": Markup(inline_svg(figure, label, f"c{self.drawn}", self.styles)),
            "data": _table(data),
        }


def _failures(frames: Frames) -> pandas.DataFrame:
    """Every cell without a number and its reason; the chart of statuses has the others."""
    columns = ["arm", "model", "preset", "phase", "optimizer", "batch", "threads", "numeric"]
    columns += ["device", "status", "reason"]
    several = ["run"] if frames.cells["run"].nunique() > 1 else []
    cells = frames.cells
    return cells.loc[cells["status"] != "ok", [*columns, *several]]


def _column(name: str, *, more: bool = False) -> dict[str, Any]:
    help_text = _HELP.get(name) or GLOSSARY.get(name, "")
    return {
        "name": name,
        "left": name in _TEXTS,
        "more": more,
        "help": help_text,
        "arm": "",
        "href": "",
    }


def _table(frame: pandas.DataFrame, *, default: Sequence[str] | None = None) -> dict[str, Any]:
    """Columns and rows in the form that the template expects; numbers have at most four digits.

    Columns that are not in ``default`` are shown on demand.
    """
    names = [str(name) for name in frame.columns]
    columns = [_column(name, more=default is not None and name not in default) for name in names]
    rows = []
    for values in frame.to_numpy(dtype=object).tolist():
        row = dict(zip(names, values, strict=True))
        about = {key: clean(str(row.get(key, ""))) for key in ("arm", "model", "phase")}
        bad = "status" in row and not str(row["status"]).startswith("ok")
        cells = [_plain(_cell(value)) for value in values]
        rows.append({**about, "bad": bad, "cells": cells})
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
