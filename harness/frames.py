"""Runs as tidy pandas frames. ``harness.columns`` is their schema.

Everything here is recomputed from raw records: same records, same frames, same files, to the byte.

* No number of a cell leaves before its answers agree: ``startup``, ``slices``, ``steps``,
  ``memory``, ``accuracy`` and the measured columns of the summary have only cells whose gate
  passed. What was recorded of others stays in records.jsonl.
* No planned cell vanishes: ``cells`` and the summary have a row for each.
* Text is never missing (null becomes the empty text), so that no grouping drops a row; a number
  not measured is NaN or NA.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy
import pandas

from harness.columns import CELL, COLUMNS, COUNT, COUNT_OR_NA, NUMBER, STARTUP, TEXT
from harness.errors import BadInput
from harness.store import Run, iterate_records, open_run, write_atomically, writing_failed

_NONE = type(None)
_TYPES: dict[str, set[type]] = {
    NUMBER: {float, int, str, _NONE},
    TEXT: {str, _NONE},
    COUNT: {int},
    COUNT_OR_NA: {int, _NONE},
    "bool": {bool},
}
_NOT_FINITE = {"nan": numpy.nan, "inf": numpy.inf, "-inf": -numpy.inf}
_CHECK = ("name", "error", "tolerance", "passed")
_JSON_OF_RUN = ("code_version", "suite", "machine", "locks")
_LATER_STAGES = ("build", "first_step", "steady")
# What is kept of each kind of record, and the columns that are named otherwise than their fields.
_FIELDS = {
    "process": (
        *("process", "at", "arm", "purpose", "interpreter", "how", "python", "lock_hash"),
        *("asked", "describe", "interpreter_seconds", "import_seconds", "cache_entries"),
    ),
    "startup": ("process", *STARTUP, "second_step_seconds"),
    "gate": ("process", "passed", "checks"),
    "slice": ("process", "index", "statistic", "at", "steps", "seconds", "step_seconds"),
    "memory": ("process", "phase", "peak_bytes", "reason"),
    "accuracy": ("process", "test_accuracy", "test_loss", "train_loss", "train_steps", "reason"),
    "status": ("status", "reason"),
}
_RENAMED = {"at": "at_seconds", "index": "slice", "phase": "stage"}
_Rows = dict[str, list[tuple[Any, ...]]]  # by kind: (position of cell or run, *fields)
_Columns = dict[str, Any]  # by name: sequences of equal length, "owner" being the position


@dataclass(frozen=True)
class Frames:
    """Tidy frames with the columns, order and dtypes of ``COLUMNS``."""

    runs: pandas.DataFrame
    cells: pandas.DataFrame
    processes: pandas.DataFrame
    startup: pandas.DataFrame
    gate: pandas.DataFrame
    slices: pandas.DataFrame
    steps: pandas.DataFrame
    memory: pandas.DataFrame
    accuracy: pandas.DataFrame


def load(paths: Path | str | Iterable[Path | str]) -> Frames:
    """Frames of run folders, or of folders of run folders such as ``results/``.

    Raises BadInput for a path that is neither and for records that cannot be understood; warns
    with TornRecord where a run's last line is torn.
    """
    runs = _open_all([paths] if isinstance(paths, str | Path) else paths)
    cells = [(label, cell) for label, run in runs.items() for cell in run.description["cells"]]
    owners = [f"run {label}, cell {cell['id']}" for label, cell in cells]
    rows = _collect(runs)
    for kind in ("startup", "gate", "memory", "accuracy"):
        latest = {row[0]: row[1] for row in rows[kind]}
        rows[kind] = [row for row in rows[kind] if row[1] == latest[row[0]]]
    ends = {row[0]: row[1:] for row in rows["status"]}
    ended = [ends.get(position, ("unfinished", "")) for position in range(len(cells))]
    columns: _Columns = {name: [cell.get(name) for _, cell in cells] for name in CELL}
    columns |= {
        "owner": range(len(cells)),
        "run": [label for label, _ in cells],
        "cell": [cell["id"] for _, cell in cells],
        "status": [status for status, _ in ended],
        "reason": [reason for _, reason in ended],
    }
    cell_frame = _frame("cells", columns, owners)

    checks = _checks(_columns("gate", rows), owners)
    agreed = set(checks["owner"])  # a gate that checked nothing has proved nothing
    agreed -= {row[0] for row in rows["gate"] if row[2] is not True}
    agreed -= {owner for owner, ok in zip(checks["owner"], checks["passed"], strict=True) if not ok}
    agreed -= {position for position, end in enumerate(ended) if end[0] == "wrong"}
    for kind in ("startup", "slice", "memory", "accuracy"):
        rows[kind] = [row for row in rows[kind] if row[0] in agreed]

    def of_cells(name: str, columns: _Columns) -> pandas.DataFrame:
        owner = numpy.asarray(columns["owner"], dtype=numpy.int64)
        identity = {column: cell_frame[column].array.take(owner) for column in CELL}
        return _frame(name, {**identity, **columns}, owners)

    slices, steps = _slices(_columns("slice", rows), owners)
    return Frames(
        runs=_runs_frame(runs),
        cells=cell_frame,
        processes=_processes_frame(_columns("process", rows), [*runs]),
        startup=of_cells("startup", _columns("startup", rows)),
        gate=of_cells("gate", checks),
        slices=of_cells("slices", slices),
        steps=of_cells("steps", steps),
        memory=of_cells("memory", _columns("memory", rows)),
        accuracy=of_cells("accuracy", _columns("accuracy", rows)),
    )


def summary(frames: Frames) -> pandas.DataFrame:
    """One row per planned cell with what was measured of it: ``COLUMNS["summary"]``."""
    key = ["run", "cell"]
    table = frames.cells.set_index(key)
    throughput = frames.slices[frames.slices["statistic"] == "throughput"]
    step = throughput.groupby(key)["step_seconds"].agg(["median", "min", "max", "size"])
    latency = frames.steps.groupby(key)["step_seconds"]
    imported = frames.processes.drop_duplicates(["run", "process"], keep="last")
    imported = imported.set_index(["run", "process"])[["import_seconds"]]
    startup = frames.startup.join(imported, on=["run", "process"])
    startup = startup.drop_duplicates(key, keep="last").set_index(key)
    accuracy = frames.accuracy.drop_duplicates(key, keep="last").set_index(key)
    later = frames.memory["stage"].isin(_LATER_STAGES)
    imports = frames.memory["stage"] == "import"

    def peak(memory: pandas.DataFrame) -> Any:
        return memory.groupby(key)["peak_bytes"].max()

    gate = frames.gate.set_index(key)
    unmeasurable = gate["error"].isna() & ~gate["passed"]
    error = gate["error"].mask(unmeasurable, numpy.inf)
    share = (error / gate["tolerance"]).mask(error == 0, 0.0).mask(unmeasurable, numpy.inf)

    measured = {
        "step_seconds": step["median"],
        "step_seconds_low": step["min"],
        "step_seconds_high": step["max"],
        **{f"latency_p{p}_seconds": latency.quantile(p / 100) for p in (50, 95, 99)},
        "examples_per_second": table["batch"] / step["median"],
        **{name: startup[name] for name in ("import_seconds", *STARTUP)},
        "first_step_extra_seconds": startup["first_step_seconds"] - step["median"],
        "peak_bytes": peak(frames.memory),
        "peak_over_import_bytes": peak(frames.memory[later]) - peak(frames.memory[imports]),
        "output_error": error[gate["name"].str.startswith("outputs")].groupby(level=key).max(),
        "gradient_error": error[gate["name"].str.startswith("gradient")].groupby(level=key).max(),
        "worst_error_share": share.groupby(level=key).max(),
        "test_accuracy": accuracy["test_accuracy"],
        "test_loss": accuracy["test_loss"],
        "slices": step["size"].reindex(table.index, fill_value=0),
    }
    for name, values in measured.items():
        table[name] = values.reindex(table.index).astype(COLUMNS["summary"][name][0])
    return table.reset_index()[[*COLUMNS["summary"]]]


def write_csv(frames: Frames, folder: Path) -> list[Path]:
    """Each frame and the summary as ``folder/<name>.csv`` (RFC 4180, UTF-8); missing is empty."""

    def encode(frame: pandas.DataFrame) -> bytes:
        return frame.to_csv(index=False, lineterminator="\r\n").encode()

    return _write(frames, Path(folder), "csv", encode)


def write_parquet(frames: Frames, folder: Path) -> list[Path]:
    """Each frame and the summary as ``folder/<name>.parquet``."""
    return _write(frames, Path(folder), "parquet", lambda frame: frame.to_parquet(index=False))


def _write(
    frames: Frames, folder: Path, suffix: str, encode: Callable[[pandas.DataFrame], bytes]
) -> list[Path]:
    tables = {field.name: getattr(frames, field.name) for field in fields(frames)}
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in {**tables, "summary": summary(frames)}.items():
            paths.append(folder / f"{name}.{suffix}")
            write_atomically(paths[-1], encode(frame))
    except OSError as error:
        advice = "choose a folder that you may write to"
        raise writing_failed(error, folder, advice=advice) from error
    return paths


def _open_all(paths: Iterable[Path | str]) -> dict[str, Run]:
    """Run folders at or right below ``paths``, each once, by labels that do not repeat."""
    runs: dict[Path, Run] = {}
    for path in map(Path, paths):
        below = sorted(child.parent for child in path.glob("*/run.json"))
        for folder in below if below and not (path / "run.json").exists() else [path]:
            runs.setdefault(folder.resolve(), open_run(folder))
    names = [str(run.description.get("name", path.name)) for path, run in runs.items()]
    count, labels = Counter(names), names
    for length in range(1, 1 + max((len(path.parts) for path in runs), default=0)):
        if len({*labels}) == len(labels):
            break
        ends = ["/".join(path.parts[-length:]) for path in runs]
        labels = [n if count[n] == 1 else end for n, end in zip(names, ends, strict=True)]
    return dict(zip(labels, runs.values(), strict=True))


def _collect(runs: Mapping[str, Run]) -> _Rows:
    """Records as bare rows: far smaller than the objects of their lines."""
    rows: _Rows = {kind: [] for kind in _FIELDS}
    first = 0
    for number, run in enumerate(runs.values()):
        ids = [cell["id"] for cell in run.description["cells"]]
        position = {cell: first + offset for offset, cell in enumerate(ids)}
        first += len(ids)
        for record in iterate_records(run):
            kind = record["record"]
            try:
                owner = number if kind == "process" else position[record["cell"]]
            except (KeyError, TypeError) as error:
                raise BadInput(
                    f"{run.records_path}: a {kind} record of cell {record['cell']!r}, which is not"
                    " in run.json"
                ) from error
            rows[kind].append((owner, *map(record.get, _FIELDS[kind])))
    return rows


def _columns(kind: str, rows: _Rows) -> _Columns:
    names = ["owner", *(_RENAMED.get(field, field) for field in _FIELDS[kind])]
    return {name: [row[place] for row in rows[kind]] for place, name in enumerate(names)}


def _checks(gate: _Columns, owners: Sequence[str]) -> _Columns:
    """The columns of ``gate`` records with a row per check."""
    found = []
    for owner, process, checks in zip(gate["owner"], gate["process"], gate["checks"], strict=True):
        if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
            raise BadInput(f"{owners[owner]}: the checks of its gate are not a list of objects")
        found += [(owner, process, *map(check.get, _CHECK)) for check in checks]
    names = ("owner", "process", *_CHECK)
    return {name: [row[place] for row in found] for place, name in enumerate(names)}


def _slices(columns: _Columns, owners: Sequence[str]) -> tuple[_Columns, _Columns]:
    """The columns of ``slices`` and of ``steps`` from those of slice records."""
    each = columns["step_seconds"]
    if strange := {type(steps) for steps in each} - {list, _NONE}:
        raise BadInput(f"a slice record has {strange.pop().__name__} as step_seconds, not a list")
    lengths = numpy.array([len(steps) if steps else 0 for steps in each], dtype=numpy.int64)
    rows = numpy.repeat(numpy.arange(len(each)), lengths)
    owner = numpy.asarray(columns["owner"], dtype=numpy.int64)[rows]
    flat = [seconds for steps in each if steps for seconds in steps]
    seconds = _array(NUMBER, flat, lambda row: f"{owners[owner[row]]}, step_seconds")
    steps: _Columns = {
        "owner": owner,
        "process": [columns["process"][row] for row in rows],
        "slice": [columns["slice"][row] for row in rows],
        "step": numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(lengths) - lengths, lengths),
        "step_seconds": seconds,
    }
    medians = pandas.Series(seconds, dtype=NUMBER).groupby(rows).median()

    def where(row: int) -> str:
        return f"{owners[columns['owner'][row]]}, slice"

    with numpy.errstate(all="ignore"):
        means = _array(NUMBER, columns["seconds"], where) / _array(COUNT, columns["steps"], where)
    latency = numpy.array([statistic == "latency" for statistic in columns["statistic"]], bool)
    step_seconds = numpy.where(latency, medians.reindex(range(len(each))).to_numpy(), means)
    return {**columns, "step_seconds": step_seconds}, steps


def _runs_frame(runs: Mapping[str, Run]) -> pandas.DataFrame:
    contents = [run.description for run in runs.values()]
    columns: _Columns = {"owner": range(len(runs)), "run": list(runs)}
    columns |= {name: [c.get(name) for c in contents] for name in ("created", "seed")}
    columns |= {name: [_text(c.get(name)) for c in contents] for name in _JSON_OF_RUN}
    columns["cells"] = [len(content["cells"]) for content in contents]
    return _frame("runs", columns, [f"run {label}" for label in runs])


def _processes_frame(columns: _Columns, labels: Sequence[str]) -> pandas.DataFrame:
    texts = {name: [_text(value) for value in columns[name]] for name in ("asked", "describe")}
    run = [labels[owner] for owner in columns["owner"]]
    owners = [f"run {label}, process" for label in labels]
    return _frame("processes", {**columns, **texts, "run": run}, owners)


def _text(value: Any) -> str:
    """``value`` as canonical JSON, but a text as itself and null as nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _frame(name: str, columns: _Columns, owners: Sequence[str]) -> pandas.DataFrame:
    """The frame that ``COLUMNS`` describes; ``owners`` name the positions, for errors."""
    arrays = {}
    for column, (dtype, _) in COLUMNS[name].items():
        values = columns[column]
        if isinstance(values, Sequence):

            def where(row: int, column: str = column) -> str:
                return f"{owners[columns['owner'][row]]}, {name}, {column}"

            values = _array(dtype, values, where)
        arrays[column] = values
    return pandas.DataFrame(arrays, copy=False)


def _array(dtype: str, values: Sequence[Any], where: Callable[[int], str]) -> Any:
    """An array of ``values`` as recorded. Raises BadInput for one that cannot be in the column."""
    types = set(map(type, values))
    if strange := types - _TYPES[dtype]:
        row = next(row for row, value in enumerate(values) if type(value) in strange)
        raise BadInput(f"{where(row)}: {values[row]!r} is not of type {dtype}")
    try:
        if dtype == NUMBER and str in types:
            values = [_NOT_FINITE[v] if type(v) is str else v for v in values]
        if dtype in (NUMBER, COUNT, "bool"):
            return numpy.array(values, dtype=dtype)
        if dtype == COUNT_OR_NA:
            return pandas.array(values, dtype="Int64")
        return pandas.array([value or "" for value in values], dtype="str")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
        values = [(value or "").encode("utf-8", "backslashreplace").decode() for value in values]
        return pandas.array(values, dtype="str")
    except (KeyError, OverflowError) as error:
        raise BadInput(f"{where(0)} and below: {error} is not of type {dtype}") from error
