"""Reads the records of runs as rows by kind, and turns the rows of a kind into columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import BadInput
from harness.records.arrays import Columns
from harness.records.kinds import KINDS, NOT_FINITE, NUMBER, fields_of
from harness.records.store import Run, iterate_records, read_records

Rows = dict[str, list[tuple[Any, ...]]]  # by kind: (position of cell or run, *fields)

# The fields of each kind that frames are made of; the fields of a cell are added by its owner.
_FIELDS = {
    kind: [each for each in fields_of(kind).values() if each.name != "cell"]
    for kind in KINDS
    if kind != "death"  # only a resumed run uses it
}
_OF_RUN = ("session", "ceiling", "process", "block", "round")  # the other kinds belong to a cell
_RENAMED = {"at": "at_seconds", "phase": "stage"}


def collect_rows(runs: Mapping[str, Run]) -> Rows:
    """Collect records as bare rows, which are far smaller than the objects of their lines."""
    rows: Rows = {kind: [] for kind in _FIELDS}
    names = {kind: [each.name for each in found] for kind, found in _FIELDS.items()}
    first = 0
    for number, run in enumerate(runs.values()):
        ids = [cell["id"] for cell in run.description["cells"]]
        position = {cell: first + offset for offset, cell in enumerate(ids)}
        first += len(ids)
        for record in iterate_records(run):
            kind, get = record["record"], record.get
            if kind not in _FIELDS:
                continue
            try:
                owner = number if kind in _OF_RUN else position[record["cell"]]
            except (KeyError, TypeError) as error:
                raise BadInput(
                    f"{run.records_path}: a {kind} record of cell {record['cell']!r}, which is not"
                    " in run.json"
                ) from error
            rows[kind].append((owner, *map(get, names[kind])))
    if not all(_well_typed(kind, found) for kind, found in rows.items()):
        for run in runs.values():
            read_records(run)  # raises BadInput naming the line
    return rows


def _well_typed(kind: str, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Return whether every field of every record has one of its types; by columns, for speed."""
    for place, each in enumerate(_FIELDS[kind], start=1):
        found = {type(row[place]) for row in rows}
        if found - each.types:
            return False
        if str in found and each.dtype == NUMBER:
            texts = {row[place] for row in rows if type(row[place]) is str}
            if texts - NOT_FINITE.keys():
                return False
    return True


def columns_of(kind: str, rows: Rows) -> Columns:
    """Return the rows of a kind of record as columns, by the names that frames have."""
    names = ["owner", *(_RENAMED.get(each.name, each.name) for each in _FIELDS[kind])]
    columns = zip(*rows[kind], strict=True) if rows[kind] else [()] * len(names)
    return dict(zip(names, columns, strict=True))
