"""Summarises all comparisons of a run against one arm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.verdicts import pair_of
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.text import ABSENT, markdown_table, significant
from levelfield.harness.statistics.across import Across, summarise
from levelfield.harness.statistics.corrections import benjamini_hochberg
from levelfield.harness.statistics.decisions import PairVerdict

BH_LEVEL = 0.05
WORDS = (
    "throughput, the fastest arm first. An arm's coverage counts the comparisons that it could do,"
    " void ones too. A mean of fewer than 8 comparisons has no interval. Differences hold at a"
    " false discovery rate of 5 % over all comparisons (Benjamini and Hochberg)."
)


def overview(frames: Frames, comparisons: Sequence[Comparison]) -> str:
    """A table per run as Markdown: geometric means with wins, ties, losses and coverage."""
    parts = []
    for run, anchor, table in overviews(frames, comparisons):
        parts += [
            f"### All comparisons of run {clean(run)} together",
            f"Against {clean(anchor)}, {WORDS}",
            markdown_table(table, left=("arm",)),
        ]
    return "\n\n".join(parts)


def overviews(
    frames: Frames, comparisons: Sequence[Comparison]
) -> list[tuple[str, str, pandas.DataFrame]]:
    """Run, anchor arm and table of texts for each run of several comparisons.

    The anchor is the arm with which all others are compared.
    """
    tables = []
    for run in frames.runs["run"]:
        mine = [
            comparison for comparison in comparisons if comparison.run == run and comparison.judged
        ]
        if len(mine) > 1:
            anchor = _anchor(mine)
            table = pandas.DataFrame(_rows(mine, anchor, _seed(frames, run)), dtype="str")
            tables += [(run, anchor, table)] if len(table) else []
    return tables


def _seed(frames: Frames, run: str) -> int:
    seed = frames.runs.loc[frames.runs["run"] == run, "seed"].iloc[0]
    return 0 if pandas.isna(seed) else int(seed)


def _anchor(comparisons: Sequence[Comparison]) -> str:
    """The arm that runs twice; else the first that most comparisons have."""
    for comparison in comparisons:
        control = comparison.judged["throughput"].control
        if control is not None:
            return control.arm
    return str(pandas.concat([comparison.rows["arm"] for comparison in comparisons]).mode().iloc[0])


def _rows(comparisons: Sequence[Comparison], anchor: str, seed: int) -> list[dict[str, str]]:
    pairs_by_arm: dict[str, list[PairVerdict]] = {}
    arms = dict.fromkeys(
        arm for comparison in comparisons for arm in comparison.rows["arm"] if arm != anchor
    )
    for arm in arms:
        for comparison in comparisons:
            pair = pair_of(comparison.judged["throughput"], arm, anchor)
            if pair is not None and numpy.isfinite(pair.ratio):
                pairs_by_arm.setdefault(arm, []).append(pair)
    p_values = numpy.array([pair.p_value for pairs in pairs_by_arm.values() for pair in pairs])
    holds = iter((benjamini_hochberg(p_values) <= BH_LEVEL).tolist())
    rows = []
    for arm in arms:
        pairs = pairs_by_arm.get(arm, [])
        held = sum(next(holds) for _ in pairs)
        if not [pair for pair in pairs if pair.verdict != "void"]:
            rows.append((numpy.inf, {"arm": clean(arm), **_empty(pairs, len(comparisons))}))
            continue
        summary = summarise(pairs, len(comparisons), numpy.random.default_rng(seed))
        rows.append((summary.ratio, {"arm": clean(arm), **_texts(summary, held)}))
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


def _texts(across: Across, held: int) -> dict[str, str]:
    bounded = numpy.isfinite(across.low) and numpy.isfinite(across.high)
    ends = f" [{significant(across.low)}, {significant(across.high)}]" if bounded else ""
    return {
        "geometric mean of the ratios": significant(across.ratio) + ends,
        "faster": str(across.wins),
        "ties": str(across.ties),
        "slower": str(across.losses),
        "open": str(across.open),
        "void": str(across.void),
        "not measured": str(across.missing),
        "differences that hold": str(held),
        "coverage (%)": significant(100 * across.coverage),
    }


def _empty(void: Sequence[PairVerdict], planned: int) -> dict[str, str]:
    return {
        "geometric mean of the ratios": ABSENT,
        "faster": "0",
        "ties": "0",
        "slower": "0",
        "open": "0",
        "void": str(len(void)),
        "not measured": str(planned - len(void)),
        "differences that hold": "0",
        "coverage (%)": significant(100 * len(void) / planned),
    }
