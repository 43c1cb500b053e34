"""Reads the records of runs as rows by kind, and turns the rows of a kind into columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from levelfield.harness.records.arrays import Columns
from levelfield.harness.records.kinds import KINDS, fields_of
from levelfield.harness.records.store import Run, iterate_records

Rows = dict[str, list[tuple[Any, ...]]]  # by kind: (position of cell or run, *fields)

# The fields of each kind that frames are made of; the fields of a cell are added by its owner.
_FIELDS = {
    kind: [name for name in fields_of(kind) if name != "cell"]
    for kind in KINDS
    if kind not in ("death", "pause")  # only a resumed run uses them
}
_OF_RUN = ("session", "ceiling", "process", "block", "round")  # the other kinds belong to a cell
_RENAMED = {"at": "at_seconds", "phase": "stage"}


def collect_rows(runs: Mapping[str, Run]) -> Rows:
    """Collect records as bare rows, which are far smaller than the objects of their lines."""
    rows: Rows = {kind: [] for kind in _FIELDS}
    first = 0
    for number, run in enumerate(runs.values()):
        ids = [cell["id"] for cell in run.description["cells"]]
        position = {cell: first + offset for offset, cell in enumerate(ids)}
        first += len(ids)
        for record in iterate_records(run, strict=True):
            kind, get = record["record"], record.get
            if kind in _FIELDS:
                owner = number if kind in _OF_RUN else position[record["cell"]]
                rows[kind].append((owner, *map(get, _FIELDS[kind])))
    return rows


def columns_of(kind: str, rows: Rows) -> Columns:
    """Return the rows of a kind of record as columns, by the names that frames have."""
    names = ["owner", *(_RENAMED.get(name, name) for name in _FIELDS[kind])]
    columns = zip(*rows[kind], strict=True) if rows[kind] else [()] * len(names)
    return dict(zip(names, columns, strict=True))
