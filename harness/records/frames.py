"""Loads runs as tidy pandas frames. ``levelfield.harness.records.columns`` is their schema.

Everything here is recomputed from raw records: same records, same frames, same files, to the byte.

* No number of a cell is shown unless its answers agree and its measurement can be trusted.
  ``startup``, ``calibrations``, ``slices``, ``steps``, ``memory``, ``energy``, ``accuracy`` and
  ``epochs`` have only cells that passed their gate and every check. ``slices`` and ``steps`` have
  only cells whose timed process passed the closing gate. The records of other cells stay in
  records.jsonl.
* No planned cell vanishes: ``cells`` has a row for each.
* Text is never missing (null becomes the empty text), so that no grouping drops a row. A number
  that was not measured is NaN or NA.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy
import pandas

from levelfield.harness.errors import BadInput
from levelfield.harness.records.arrays import YES_NO, Columns, json_text, json_texts, typed_frame
from levelfield.harness.records.columns import CELL
from levelfield.harness.records.processes import Served, startup_columns
from levelfield.harness.records.rounds import disturbed, round_columns
from levelfield.harness.records.rows import Rows, collect_rows, columns_of
from levelfield.harness.records.runs import distinct, labelled, read_each, run_folders
from levelfield.harness.records.slices import refuse_doubled, slice_columns, with_further_tokens
from levelfield.harness.records.store import CLOSED_SINCE, Run, open_run

_CHECK = ("name", "error", "tolerance", "passed")
_JSON_OF_RUN = ("code_version", "suite", "machine", "locks", "adapters")
_LATEST = (
    "gate",
    "energy",
    "accuracy",
    "epoch",
)  # in these kinds the records of a cell's latest process win
_WITHHELD = (
    "startup",
    "slice",
    "memory",
    "energy",
    "accuracy",
    "epoch",
    "calibration",
)  # these kinds are withheld unless the answers agree
_JUDGING = ("gate", "check", "closing")  # these kinds say whether a cell's numbers may be shown
AUDIT = "audit"


@dataclass(frozen=True)
class Frames:
    """Tidy frames with the columns, order and dtypes of ``COLUMNS``."""

    runs: pandas.DataFrame
    cells: pandas.DataFrame
    processes: pandas.DataFrame
    startup: pandas.DataFrame
    gate: pandas.DataFrame
    checks: pandas.DataFrame
    closings: pandas.DataFrame
    calibrations: pandas.DataFrame
    ceilings: pandas.DataFrame
    blocks: pandas.DataFrame
    rounds: pandas.DataFrame
    slices: pandas.DataFrame
    steps: pandas.DataFrame
    memory: pandas.DataFrame
    energy: pandas.DataFrame
    accuracy: pandas.DataFrame
    epochs: pandas.DataFrame

    def by_comparison(self) -> dict[tuple[str, str], Frames]:
        """The frames of each comparison alone, by its run and name.

        Frames that have no comparison, such as ``runs``, are whole in each.
        """
        whole = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = {
            name: dict([*frame.groupby(["run", "comparison"], sort=False)])
            for name, frame in whole.items()
            if "comparison" in frame
        }
        return {
            (str(run), str(comparison)): Frames(
                **{
                    name: parts[name].get((run, comparison), frame.iloc[:0])
                    if name in parts
                    else frame
                    for name, frame in whole.items()
                }
            )
            for run, comparison in parts["cells"]
        }


def load(paths: Path | str | Iterable[Path | str]) -> Frames:
    """Load the frames of run folders, or of folders of run folders such as ``results/``.

    Raises BadInput for a path that is neither and for a run that cannot be read. Below a folder of
    run folders such a run is left out, with the warning UnreadableRun, if another can be read.
    Warns with TornRecord if a run's last line is torn. Warns with CopiedRun if a folder is left out
    because it is a copy of another one.
    """
    folders = [paths] if isinstance(paths, str | Path) else [*paths]
    try:
        return _loaded([open_run(folder) for folder, _ in run_folders(folders)])
    except BadInput:
        return _loaded(read_each(folders, _readable))


def _readable(folder: Path) -> Run:
    """Return the run of a folder. Raises BadInput if its records cannot be read."""
    run = open_run(folder)
    _loaded([run])
    return run


def _loaded(runs: Sequence[Run]) -> Frames:
    # Nothing here makes cycles, and the garbage collector would take half the time to look for them
    # among millions of records.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _frames(labelled(distinct(runs)))
    finally:
        if collecting:
            gc.enable()


def _frames(runs: Mapping[str, Run]) -> Frames:
    planned = [(label, cell) for label, run in runs.items() for cell in run.description["cells"]]
    owners = [f"run {label}, cell {cell['id']}" for label, cell in planned]
    rows = collect_rows(runs)
    rows["memory"] = _of_last_qualification(rows)
    for kind in _LATEST:
        latest = {row[0]: row[1] for row in rows[kind]}
        rows[kind] = [row for row in rows[kind] if row[1] == latest[row[0]]]
    columns = _cells(planned, rows)
    cells = typed_frame("cells", columns, owners)
    checks_by_kind = {kind: _checks(columns_of(kind, rows)) for kind in _JUDGING}
    _withhold(rows, checks_by_kind, columns["status"], _never_closed(runs))

    def of_cells(name: str, columns: Columns) -> pandas.DataFrame:
        owner = numpy.asarray(columns["owner"], dtype=numpy.int64)
        identity = {column: cells[column].array.take(owner) for column in CELL}
        return typed_frame(name, {**identity, **columns}, owners)

    processes = columns_of("process", rows)
    rounds = round_columns(columns_of("round", rows), processes, runs)
    run_of = numpy.repeat(
        numpy.arange(len(runs)), [len(run.description["cells"]) for run in runs.values()]
    )
    served = Served(processes, run_of)
    slices, steps = slice_columns(columns_of("slice", rows), owners)
    slices |= served.residency(slices)
    slices = with_further_tokens(slices, [cell.get("tokens") for _, cell in planned])
    slices["disturbed"] = disturbed(slices, rounds, columns["comparison"], run_of)
    slice_frame = of_cells("slices", slices)
    refuse_doubled(slice_frame, runs)
    checks, closings = checks_by_kind["check"], checks_by_kind["closing"]
    return Frames(
        runs=_runs_frame(runs, rows["session"]),
        cells=cells,
        processes=_of_runs("processes", json_texts(processes, "asked", "describe"), runs),
        startup=of_cells("startup", startup_columns(columns_of("startup", rows), served)),
        gate=of_cells("gate", checks_by_kind["gate"]),
        checks=of_cells("checks", {n: [*checks[n], *closings[n]] for n in checks}),
        closings=of_cells("closings", columns_of("closing", rows)),
        calibrations=of_cells("calibrations", columns_of("calibration", rows)),
        ceilings=_of_runs("ceilings", columns_of("ceiling", rows), runs),
        blocks=_of_runs("blocks", json_texts(columns_of("block", rows), "arms"), runs),
        rounds=_of_runs("rounds", rounds, runs),
        slices=slice_frame,
        steps=of_cells("steps", steps),
        memory=of_cells("memory", columns_of("memory", rows)),
        energy=of_cells("energy", columns_of("energy", rows)),
        accuracy=of_cells("accuracy", columns_of("accuracy", rows)),
        epochs=of_cells("epochs", columns_of("epoch", rows)),
    )


def _of_last_qualification(rows: Rows) -> list[tuple[Any, ...]]:
    """Return the rows of ``memory`` of the last processes that measured a cell's memory.

    A cell that a resumed run qualified again has rows of two qualifications. The later one begins
    with its gate, whose process has a lower number than those that measured memory after it.
    """
    last = {row[0]: row[1] for row in rows["memory"]}
    began: dict[int, int] = {}
    for owner, process, *_ in rows["gate"]:
        if process <= last.get(owner, 0):
            began[owner] = max(process, began.get(owner, 0))
    return [row for row in rows["memory"] if row[1] >= began.get(row[0], last[row[0]])]


def _withhold(
    rows: Rows,
    checks_by_kind: Mapping[str, Columns],
    statuses: Sequence[str],
    never_closed: Sequence[int],
) -> None:
    """Remove the numbers of wrong cells from ``rows``: no number of such a cell leaves this file.

    The kinds of ``_WITHHELD`` stay for cells whose answers agree. Such a cell has a gate with
    checks. All its records of ``_JUDGING`` and all their checks passed, and its status is not
    "wrong". Its slices also need a closing gate, except in runs that are older than the closing
    gate. ``checks_by_kind``: the rows of checks, by kind of record. ``statuses``: by position of
    the cell. ``never_closed``: the positions of the cells of older runs.
    """
    agreed = set(checks_by_kind["gate"]["owner"])  # a gate without checks proves nothing
    for kind, checks in checks_by_kind.items():
        agreed -= {row[0] for row in rows[kind] if row[2] is not True}
        agreed -= {
            owner
            for owner, passed in zip(checks["owner"], checks["passed"], strict=True)
            if not passed
        }
    agreed -= {position for position, status in enumerate(statuses) if status == "wrong"}
    for kind in _WITHHELD:
        rows[kind] = [row for row in rows[kind] if row[0] in agreed]
    closed = {*checks_by_kind["closing"]["owner"], *never_closed}
    rows["slice"] = [row for row in rows["slice"] if row[0] in closed]


def _cells(planned: Sequence[tuple[str, Mapping[str, Any]]], rows: Rows) -> Columns:
    """Return the columns of ``cells``, a row for every planned cell; ``planned``: (run, cell)."""
    ends = {row[0]: row[1:4] for row in rows["status"]}
    ended = [ends.get(position, ("unfinished", "", "")) for position in range(len(planned))]
    columns: Columns = {name: [cell.get(name) for _, cell in planned] for name in CELL}
    return columns | {
        "owner": range(len(planned)),
        "run": [label for label, _ in planned],
        "cell": [cell["id"] for _, cell in planned],
        "status": [status for status, _, _ in ended],
        "reason": [reason for _, reason, _ in ended],
        "log": [log for _, _, log in ended],
    }


def _never_closed(runs: Mapping[str, Run]) -> list[int]:
    """Return the positions of the cells of runs that are older than the closing gate."""
    flags = [
        run.description["schema"] < CLOSED_SINCE
        for run in runs.values()
        for _ in run.description["cells"]
    ]
    return [position for position, flag in enumerate(flags) if flag]


def _checks(gate: Columns) -> Columns:
    """Return the columns of ``gate`` records with a row per check."""
    rows = []
    for owner, process, checks in zip(gate["owner"], gate["process"], gate["checks"], strict=True):
        rows += [(owner, process, *map(check.get, _CHECK)) for check in checks]
    names = ("owner", "process", *_CHECK)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _runs_frame(runs: Mapping[str, Run], sessions: Sequence[tuple[Any, ...]]) -> pandas.DataFrame:
    contents = [run.description for run in runs.values()]
    suites = [c["suite"] if isinstance(c.get("suite"), Mapping) else {} for c in contents]
    latest = {owner: facts for owner, *facts in sessions}
    began = [latest.get(number, [None] * 3) for number in range(len(runs))]
    columns: Columns = {"owner": range(len(runs)), "run": list(runs)}
    columns["id"] = [run.identity for run in runs.values()]
    columns |= {name: [c.get(name) for c in contents] for name in ("created", "seed")}
    columns |= {name: [json_text(c.get(name)) for c in contents] for name in _JSON_OF_RUN}
    columns |= {name: [suite.get(name) for suite in suites] for name in ("level", "margin")}
    columns["cells"] = [len(content["cells"]) for content in contents]
    columns["quiet"] = [YES_NO.get(facts[0], "") for facts in began]
    columns["waited_seconds"] = [facts[1] for facts in began]
    columns["foreign_share"] = [facts[2] for facts in began]
    return typed_frame("runs", columns, [f"run {label}" for label in runs])


def _of_runs(name: str, columns: Columns, runs: Mapping[str, Run]) -> pandas.DataFrame:
    labels = [*runs]
    run = [labels[owner] for owner in columns["owner"]]
    return typed_frame(name, {**columns, "run": run}, [f"run {label}, {name}" for label in labels])
