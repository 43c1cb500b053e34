"""Compares two sessions of one suite, arm by arm.

Two sessions are not interleaved. If the seconds of one were divided by those of the other, nothing
would protect the ratio from a machine that changed between them. Therefore each arm is compared,
within its own session and round by round, with an anchor that both sessions share. The verdict is
about how far the arm moved relative to that anchor. It uses Welch's t interval over blocks (Welch
1947, "The generalization of 'Student's' problem when several different population variances are
involved", Biometrika 34).

An anchor protects from a machine that was slower for a while, but not from another machine. On
another machine two arms may differ by another ratio although neither has changed. Such sessions get
no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas

from levelfield.harness.analysis.logs import Key, Logs, Measured, measured
from levelfield.harness.analysis.summary import summary
from levelfield.harness.analysis.verdicts import NO_CONTROL, judge
from levelfield.harness.errors import BadInput
from levelfield.harness.machine.describe import difference, recorded
from levelfield.harness.plan.arms import unversioned
from levelfield.harness.plan.cells import TASK
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.statistics.corrections import holm
from levelfield.harness.statistics.decisions import ALPHA_PER_LOOK
from levelfield.harness.statistics.estimates import Estimate, welch_freedom
from levelfield.harness.statistics.moderation import compared

OTHER_MACHINE = "other machine"  # replaces every verdict


@dataclass(frozen=True)
class Change:
    """The change of one arm's seconds from the first session to the second, as ratios.

    ``raw`` is seconds over seconds, without protection. ``ratio`` with ``low`` and ``high`` is the
    same ratio relative to the anchor, with its 95 % interval. ``word`` is "slower", "faster", "no
    change beyond the margin", "open", ``NO_CONTROL`` or ``OTHER_MACHINE``.
    """

    comparison: str
    before: str
    after: str
    anchor: str
    raw: float
    ratio: float
    low: float
    high: float
    p_value: float
    margin: float
    word: str


@dataclass(frozen=True)
class Agreement:
    """Two sessions' verdicts on a pair: "agree", "contradict", "open" or ``OTHER_MACHINE``."""

    comparison: str
    first: str
    second: str
    before: str
    after: str
    word: str


@dataclass(frozen=True)
class Compared:
    """Two sessions compared; if ``machines`` lists differences of machines, there is no verdict.

    ``left_out`` names the arms of shared comparisons that only one of the sessions has.
    """

    machines: tuple[str, ...]
    changes: tuple[Change, ...]
    agreements: tuple[Agreement, ...]
    left_out: tuple[str, ...]

    @property
    def decides(self) -> bool:
        """Whether the sessions give any verdict on a change, be it "open"."""
        return any(change.word not in (NO_CONTROL, OTHER_MACHINE) for change in self.changes)

    def slower_than(self, limit: float) -> list[Change]:
        """Return the arms that became slower by more than a share, the worst first."""
        slower = [c for c in self.changes if c.word == "slower" and c.ratio > 1 + limit]
        return sorted(slower, key=lambda change: -change.ratio)


def compare(before: Path, after: Path) -> Compared:
    """Compare two sessions. Raises BadInput if they have nothing to compare."""
    sessions = [load(path) for path in (before, after)]
    for path, frames in zip((before, after), sessions, strict=True):
        if len(frames.runs) != 1:
            raise BadInput(f"{path} holds {len(frames.runs)} runs; name two run folders")
    if sessions[0].runs["id"].iloc[0] == sessions[1].runs["id"].iloc[0]:
        raise BadInput(
            f"{before} and {after} hold one run, which cannot differ from itself; name two runs of"
            " one suite"
        )
    keys = [_comparisons(frames) for frames in sessions]
    shared = [key for key in keys[0] if key in keys[1]]
    if not shared:
        raise BadInput(
            f"{before} and {after} have no comparison in common (model, preset, phase, batch,"
            " optimiser, threads); compare two runs of one suite"
        )
    changes: list[Change] = []
    left_out: dict[str, None] = {}
    tables = [summary(frames) for frames in sessions]
    logs_of_sessions = [measured(frames) for frames in sessions]
    for key in shared:
        ids = [session[key] for session in keys]
        logs = [*map(_logs, logs_of_sessions, sessions, ids)]
        timed = [one for one in logs if one is not None]
        if len(timed) == len(sessions):
            changes += _changes(key, sessions, tables, ids, timed)
        left_out |= dict.fromkeys(_only_in_one(sessions, ids))
    if not changes:
        raise BadInput(
            f"{before} and {after} share only an anchor with the same packages, or none, so their"
            " comparison is not protected from changes of the machine; run one suite twice"
        )
    agreements = [*_agreements(shared, sessions, tables, keys)]
    machines = difference(*(recorded(session.runs["machine"].iloc[0]) for session in sessions))
    if machines:
        changes = [replace(change, word=OTHER_MACHINE) for change in changes]
        agreements = [replace(agreement, word=OTHER_MACHINE) for agreement in agreements]
    return Compared(tuple(machines), tuple(changes), tuple(agreements), tuple(left_out))


def _comparisons(frames: Frames) -> dict[str, str]:
    """Description of each comparison -> its id."""
    cells = frames.cells.drop_duplicates("comparison")
    rows = cells[[*TASK, "comparison"]].astype(str).replace({"profile": {"default": ""}})
    return {", ".join(filter(None, row[:-1])): row[-1] for row in rows.to_numpy()}


def _logs(session: Mapping[Key, Measured], frames: Frames, comparison: str) -> Logs | None:
    logs = session.get((str(frames.runs["run"].iloc[0]), comparison, "throughput"))
    return logs.blocks if logs else None


def _changes(
    key: str,
    sessions: list[Frames],
    tables: list[pandas.DataFrame],
    ids: list[str],
    logs: list[Logs],
) -> list[Change]:
    anchor = _anchor(sessions, logs)
    if anchor is None:
        return []
    margin = float(np.log1p(float(sessions[0].runs["margin"].iloc[0])))
    moves = []
    for arm in logs[0].arms:
        other = _counterpart(arm, logs[1].arms)
        if other is None or anchor in (arm, other) or arm.endswith(TWIN):
            continue
        ends = [_against(log, name, anchor) for log, name in zip(logs, (arm, other), strict=True)]
        raw = [
            _seconds(table, comparison, name)
            for table, comparison, name in zip(tables, ids, (arm, other), strict=True)
        ]
        moves.append((arm, other, raw[1] / raw[0], welch(ends[0], ends[1])))
    # A session in which no arm ran twice does not show how small a difference it can detect.
    controlled = all(session.twin for session in logs)
    p_values = holm(np.array([moved.p_value() for _, _, _, moved in moves]))
    changes = [
        _change(key, arm, other, anchor=anchor, raw=raw, moved=moved, p_value=p, margin=margin)
        for (arm, other, raw, moved), p in zip(moves, p_values, strict=True)
    ]
    return changes if controlled else [replace(change, word=NO_CONTROL) for change in changes]


def _change(
    key: str,
    before: str,
    after: str,
    *,
    anchor: str,
    raw: float,
    moved: Estimate,
    p_value: float,
    margin: float,
) -> Change:
    low, high = moved.interval()
    if p_value <= ALPHA_PER_LOOK and abs(moved.log_ratio) > margin:
        word = "slower" if moved.log_ratio > 0 else "faster"
    elif -margin <= low and high <= margin:
        word = "no change beyond the margin"
    else:
        word = "open"
    ratio, least, most = (float(np.exp(value)) for value in (moved.log_ratio, low, high))
    return Change(
        comparison=key,
        before=before,
        after=after,
        anchor=anchor,
        raw=raw,
        ratio=ratio,
        low=least,
        high=most,
        p_value=float(p_value),
        margin=float(np.expm1(margin)),
        word=word,
    )


def _anchor(sessions: list[Frames], logs: list[Logs]) -> str | None:
    """The twin's arm, else the first arm that both sessions measured with the same packages."""
    hashes = [_locks(frames) for frames in sessions]
    same = [
        arm
        for arm in logs[0].arms
        if arm in logs[1].arms
        and not arm.endswith(TWIN)
        and hashes[0].get(arm) == hashes[1].get(arm)
    ]
    twins = [session.twin[0] for session in logs if session.twin]
    return next((arm for arm in same if arm in twins), same[0] if same else None)


def _locks(frames: Frames) -> dict[str, str]:
    locks = json.loads(frames.runs["locks"].iloc[0] or "{}")
    return {arm: str(lock.get("hash")) for arm, lock in locks.items()}


def _counterpart(arm: str, arms: Sequence[str]) -> str | None:
    """Return the same arm, or else the same framework and mode at another version."""
    if arm in arms:
        return arm
    return next((name for name in arms if unversioned(name) == unversioned(arm)), None)


def _only_in_one(sessions: list[Frames], ids: list[str]) -> Iterator[str]:
    """Yield the planned arms of a comparison that have no counterpart in the other session."""
    arms = [
        [*frames.cells.loc[frames.cells["comparison"] == comparison, "arm"]]
        for frames, comparison in zip(sessions, ids, strict=True)
    ]
    for which, mine, others in (("first", *arms), ("second", *reversed(arms))):
        for arm in mine:
            if _counterpart(arm, others) is None and not arm.endswith(TWIN):
                yield f"{arm} (only in the {which} run)"


def _against(logs: Logs, arm: str, anchor: str) -> Estimate:
    first, second = (np.array([logs.arms.index(name)]) for name in (arm, anchor))
    pair = compared(logs.effects(), first, second).estimate
    return Estimate(pair.log_ratio[0], pair.standard_error[0], pair.blocks[0], pair.freedom[0])


def _seconds(table: pandas.DataFrame, comparison: str, arm: str) -> float:
    row = table[(table["comparison"] == comparison) & (table["arm"] == arm)]
    return float(row["step_seconds"].iloc[0])


def welch(before: Estimate, after: Estimate) -> Estimate:
    """The difference of two independent means, with Welch's degrees of freedom."""
    return Estimate(
        np.asarray(after.log_ratio - before.log_ratio),
        np.sqrt(before.standard_error**2 + after.standard_error**2),
        np.minimum(before.blocks, after.blocks),
        np.nan_to_num(welch_freedom(before, after), posinf=1e9),
    )


def _agreements(
    shared: list[str],
    sessions: list[Frames],
    tables: list[pandas.DataFrame],
    keys: list[dict[str, str]],
) -> Iterator[Agreement]:
    verdicts: list[dict[tuple[str, str, str], str]] = []
    for frames, table, ids in zip(sessions, tables, keys, strict=True):
        names = {comparison: key for key, comparison in ids.items()}
        verdicts.append(
            {
                (names[judged.comparison], pair.first, pair.second): pair.faster
                or str(pair.verdict)
                for judged in judge(frames, table)
                if judged.statistic == "throughput" and names[judged.comparison] in shared
                for pair in judged.verdicts.pairs
            }
        )
    for key, before in verdicts[0].items():
        after = verdicts[1].get(key)
        if after is None:
            continue
        pair = {key[1], key[2]}
        if before == after and before in {*pair, "tie"}:
            word = "agree"
        elif before in pair and after in pair:
            word = "contradict"
        else:
            word = "open"
        yield Agreement(*key, before, after, word)
