"""Goals of the self-test, and whether a result meets its goal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas
from scipy import stats  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Finding:
    """One row of the proof.

    ``part`` is "simulation", "probe" or "machine". ``goal`` and ``figure`` are texts for people.
    ``value`` is the number that was judged. ``note`` is what a reader must also know.
    """

    part: str
    what: str
    goal: str
    figure: str
    value: float
    met: bool
    note: str = ""


def at_most(part: str, what: str, value: float, limit: float, *, note: str = "") -> Finding:
    """Judge a share that must not exceed ``limit``; both are between 0 and 1."""
    return Finding(part, what, f"at most {limit:.3%}", f"{value:.3%}", value, value <= limit, note)


def at_least(part: str, what: str, value: float, limit: float, *, note: str = "") -> Finding:
    """Judge a share that must reach ``limit``; both are between 0 and 1."""
    return Finding(part, what, f"at least {limit:.1%}", f"{value:.2%}", value, value >= limit, note)


def caught(part: str, what: str, outcome: str, expected: str, *, note: str = "") -> Finding:
    """Judge a seeded fault: its ``outcome`` must begin with ``expected``."""
    hit = outcome.startswith(expected)
    return Finding(part, what, f"{expected}", outcome or "nothing", float(hit), hit, note)


def share_of(hits: int, cases: int) -> str:
    """ "2 of 40 (upper 95 % bound 15 %)", the bound being Clopper and Pearson's (1934)."""
    if not cases:
        return "no case"
    upper = 1.0 if hits == cases else float(stats.beta.ppf(0.95, hits + 1, cases - hits))
    return f"{hits} of {cases} (upper 95 % bound {upper:.1%})"


def as_table(findings: Iterable[Finding]) -> pandas.DataFrame:
    """Texts for people: part, what, goal, figure, ``met``, note."""
    rows = [
        {
            "part": finding.part,
            "what": finding.what,
            "goal": finding.goal,
            "found": finding.figure,
            "met": "yes" if finding.met else "NO",
            "note": finding.note,
        }
        for finding in findings
    ]
    return pandas.DataFrame(rows, dtype="str")
