"""Comparisons as reports show them: arms ordered by verdict, the fastest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from levelfield.harness.analysis.logs import block_seconds, measured
from levelfield.harness.analysis.summary import startups, summary
from levelfield.harness.analysis.verdicts import Judged, judge, ordered
from levelfield.harness.errors import clean
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.frames import Frames
from levelfield.harness.statistics.break_even import BreakEven, break_even

_KEY = ["run", "comparison"]


@dataclass(frozen=True)
class Comparison:
    """Cells that differ in nothing but the arm; ``id`` is the ``comparison`` of their records.

    ``rows`` are the rows of these cells in the summary. They are ordered by verdict, the fastest
    first, those without a number last; in a smoke run they keep the order of the plan. ``rows`` has
    no row for the A/A twin, which is in ``judged``. ``breakeven`` maps an arm to its break-even
    point with the leader.
    """

    run: str
    id: str
    title: str
    details: str
    rows: pandas.DataFrame
    judged: dict[str, Judged]  # by statistic; empty in a smoke run
    breakeven: dict[str, BreakEven]

    @property
    def leader(self) -> str | None:
        """The arm with which the others are compared."""
        judged = self.judged.get("throughput")
        measured = _measured(self.rows)["arm"]
        return str(measured.iloc[0]) if judged and len(measured) else None


def comparisons_of(frames: Frames) -> list[Comparison]:
    """Return all comparisons, in the order of the plan."""
    everyone = summary(frames)
    twins = [arm.endswith(TWIN) for arm in everyone["arm"]]
    table = everyone.drop(index=everyone.index[twins])
    judged: dict[tuple[str, str], dict[str, Judged]] = {}
    for judgement in judge(frames, everyone):
        judged.setdefault((judgement.run, judgement.comparison), {})[judgement.statistic] = (
            judgement
        )
    several = table["run"].nunique() > 1
    begun = startups(frames)
    begun = begun[begun["block"].notna()]
    totals = begun.groupby(["run", "cell", "block"])["startup_seconds"].last()
    steps = block_seconds(measured(frames), "throughput")
    seeds: dict[str, Any] = dict(zip(frames.runs["run"], frames.runs["seed"], strict=True))
    comparisons = []
    for key, rows in table.groupby(_KEY, sort=False):
        run, identity = map(str, key if isinstance(key, tuple) else (key, ""))
        verdicts = judged.get((run, identity), {})
        rows = _ordered(rows, verdicts)
        seed = 0 if pandas.isna(seeds.get(run)) else int(seeds[run])
        even = _break_evens(rows, totals, steps, seed) if verdicts else {}
        title, details = _words(rows.iloc[0], several)
        comparisons.append(Comparison(run, identity, title, details, rows, verdicts, even))
    return comparisons


def _words(one: Any, several: bool) -> tuple[str, str]:
    optimizer = f" with {one['optimizer']}" if one["optimizer"] else ""
    details = [
        f"batch {one['batch']}",
        f"{one['threads']} thread{'s' if one['threads'] != 1 else ''}",
        one["numeric"],
        one["device"],
        *([one["profile"]] if one["profile"] != "default" else []),
        *([f"run {one['run']}"] if several else []),
    ]
    title = f"{one['model']}/{one['preset']} {one['phase']}{optimizer}"
    return clean(title), clean(", ".join(details))


def _ordered(rows: pandas.DataFrame, verdicts: dict[str, Judged]) -> pandas.DataFrame:
    if "throughput" not in verdicts:
        return rows
    measured = _measured(rows)
    order = ordered(verdicts["throughput"], list(measured["arm"]))
    by_arm = measured.set_index("arm", drop=False).loc[order]
    return pandas.concat([by_arm, rows[~rows["arm"].isin(order)]])


def _measured(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Rows of the arms that have a number to show: an arm that failed after its timing has none."""
    return rows[(rows["status"] == "ok") & rows["step_seconds"].notna()]


def _break_evens(
    rows: pandas.DataFrame, totals: Any, steps: Any, seed: int
) -> dict[str, BreakEven]:
    """Break-even points of every measured arm with the first, from blocks that measured both."""
    measured = _measured(rows)
    break_evens: dict[str, BreakEven] = {}
    if measured.empty:
        return break_evens
    run, leader = measured.iloc[0]["run"], measured.iloc[0]["cell"]
    for arm, cell in zip(measured["arm"].iloc[1:], measured["cell"].iloc[1:], strict=True):
        table = pandas.DataFrame(
            {
                (what, at): values.loc[run, identity]
                if (run, identity) in values.index
                else pandas.Series()
                for what, values in (("start", totals), ("step", steps))
                for at, identity in enumerate((cell, leader))
            }
        ).dropna()
        if len(table) > 1:
            break_evens[arm] = break_even(
                table["start"].to_numpy(float).T,
                table["step"].to_numpy(float).T,
                numpy.random.default_rng(seed),
            )
    return break_evens
