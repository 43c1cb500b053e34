"""Several runs of one suite in order: how each arm changed from run to run.

Neighbours are compared as two sessions are (``levelfield.harness.analysis.sessions``): against an
anchor in their own session. A change of the machine is therefore not taken for a change of a
framework. A step says so if the version of a framework, or anything else in its environment, has
changed. A step between two machines has no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from levelfield.harness.analysis.sessions import Change, compare
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.records.runs import distinct, read_each
from levelfield.harness.records.store import open_run


@dataclass(frozen=True)
class HistoryStep:
    """A step of the history: the change of an arm from the run ``since`` to ``run``.

    ``versions`` are the versions before and after that the framework itself reports. ``packages``
    says whether anything in its environment has changed.
    """

    suite: str
    since: str
    run: str
    created: str
    versions: tuple[str, str]
    packages: bool
    change: Change


@dataclass(frozen=True)
class History:
    """``steps`` in the order of time.

    ``machines`` lists neighbours that ran on different machines, and the differences of these.
    ``apart`` lists neighbours that have nothing to compare, and why.
    """

    machines: tuple[str, ...]
    steps: tuple[HistoryStep, ...]
    apart: tuple[str, ...]


@dataclass(frozen=True)
class _Session:
    path: Path
    suite: str
    level: str
    run: str
    created: str
    versions: dict[str, str]
    locks: dict[str, str]


def history(paths: Iterable[Path | str]) -> History:
    """Return the history of runs, or of folders of runs. Raises BadInput if no suite ran twice.

    Smoke runs are left out because they have no verdicts. Copies of a run are left out with a
    warning (``levelfield.harness.records.runs.CopiedRun``), and so are runs below a folder that
    cannot be read (``levelfield.harness.records.runs.UnreadableRun``).
    """
    runs = read_each(paths, lambda path: (open_run(path), _session(path)))
    first = {run.path for run in distinct(run for run, _ in runs)}
    sessions = [session for run, session in runs if run.path in first]
    sessions.sort(key=lambda session: (session.created, session.run))
    suites: dict[str, list[_Session]] = {}
    for session in sessions:
        if session.level != "smoke":
            suites.setdefault(session.suite, []).append(session)
    neighbours = [pair for group in suites.values() for pair in pairwise(group)]
    if not neighbours:
        names = ", ".join(f"{name} once" for name in suites) or "no run with verdicts"
        raise BadInput(
            f"a history needs two runs of one suite, not {names}; type: levelfield run SUITE"
        )
    machines: list[str] = []
    steps: list[HistoryStep] = []
    apart: list[str] = []
    for before, after in neighbours:
        try:
            compared = compare(before.path, after.path)
        except BadInput as error:
            apart.append(str(error))
            continue
        steps += _steps(before, after, compared.changes)
        if compared.machines:
            machines.append(f"{before.run} and {after.run}: {'; '.join(compared.machines)}")
    return History(tuple(machines), tuple(steps), tuple(apart))


def _steps(before: _Session, after: _Session, changes: Sequence[Change]) -> Iterator[HistoryStep]:
    for change in changes:
        versions = before.versions.get(change.before, ""), after.versions.get(change.after, "")
        same = before.locks.get(change.before) == after.locks.get(change.after)
        yield HistoryStep(
            after.suite, before.run, after.run, after.created, versions, not same, change
        )


def _session(path: Path) -> _Session:
    frames = load(path)
    (run,) = frames.runs.to_dict("records")
    suite = json.loads(run["suite"] or "{}")
    locks = json.loads(run["locks"] or "{}")
    return _Session(
        path=path,
        suite=str(suite.get("name", "")),
        level=str(run["level"]),
        run=str(run["run"]),
        created=str(run["created"]),
        versions=_versions(frames),
        locks={arm: str(lock.get("hash")) for arm, lock in locks.items()},
    )


def _versions(frames: Frames) -> dict[str, str]:
    """Arm -> the version that its last process reported."""
    versions = {}
    for arm, text in zip(frames.processes["arm"], frames.processes["describe"], strict=True):
        description = json.loads(text or "{}")
        if isinstance(description, dict) and description.get("version"):
            versions[arm] = str(description["version"])
    return versions
