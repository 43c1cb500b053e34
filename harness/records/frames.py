"""Loads runs as tidy pandas frames. ``harness.records.columns`` is their schema.

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
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas

from harness.errors import BadInput
from harness.machine import quarantine
from harness.plan.vocabulary import FENCED
from harness.records.columns import CELL, COLUMNS
from harness.records.kinds import (
    COUNT,
    COUNT_OR_NA,
    KINDS,
    NOT_FINITE,
    NUMBER,
    TEXT,
    TRUTH,
    fields_of,
)
from harness.records.store import CLOSED_SINCE, Run, iterate_records, open_run, read_records

_NONE = type(None)
_TYPES: dict[str, set[type]] = {
    NUMBER: {float, int, str, _NONE},
    TEXT: {str, _NONE},
    COUNT: {int},
    COUNT_OR_NA: {int, _NONE},
    TRUTH: {bool},
}
_CHECK = ("name", "error", "tolerance", "passed")
_JSON_OF_RUN = ("code_version", "suite", "machine", "locks", "adapters")
# The fields of each kind that frames are made of; the fields of a cell are added by its owner.
_FIELDS = {
    kind: [each for each in fields_of(kind).values() if each.name != "cell"]
    for kind in KINDS
    if kind != "death"  # only a resumed run uses it
}
_OF_RUN = ("session", "ceiling", "process", "block", "round")  # the other kinds belong to a cell
_RENAMED = {"at": "at_seconds", "phase": "stage"}
_LATEST = (
    "gate",
    "memory",
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


class CopiedRun(UserWarning):
    """Two folders hold the same run, which counts once: the second folder is left out."""


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


def load(paths: Path | str | Iterable[Path | str]) -> Frames:
    """Load the frames of run folders, or of folders of run folders such as ``results/``.

    Raises BadInput for a path that is neither and for records that cannot be understood. Warns
    with TornRecord if a run's last line is torn. Warns with CopiedRun if a folder is left out
    because it is a copy of another one.
    """
    runs = _open_all([paths] if isinstance(paths, str | Path) else paths)
    # Nothing here makes cycles, and the garbage collector would take half the time to look for them
    # among millions of records.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _loaded(runs)
    finally:
        if collecting:
            gc.enable()


def _loaded(runs: Mapping[str, Run]) -> Frames:
    planned = [(label, cell) for label, run in runs.items() for cell in run.description["cells"]]
    owners = [f"run {label}, cell {cell['id']}" for label, cell in planned]
    rows = _collect(runs)
    for kind in _LATEST:
        latest = {row[0]: row[1] for row in rows[kind]}
        rows[kind] = [row for row in rows[kind] if row[1] == latest[row[0]]]
    columns = _cells(planned, rows)
    cells = _frame("cells", columns, owners)
    found = {kind: _checks(_columns(kind, rows), owners) for kind in _JUDGING}
    _withhold(rows, found, columns["status"], _never_closed(runs))

    def of_cells(name: str, columns: _Columns) -> pandas.DataFrame:
        owner = numpy.asarray(columns["owner"], dtype=numpy.int64)
        identity = {column: cells[column].array.take(owner) for column in CELL}
        return _frame(name, {**identity, **columns}, owners)

    processes = _columns("process", rows)
    rounds = _rounds(_columns("round", rows), processes, runs)
    run_of = numpy.repeat(
        numpy.arange(len(runs)), [len(run.description["cells"]) for run in runs.values()]
    )
    served = _Served(processes, run_of)
    slices, steps = _slices(_columns("slice", rows), owners)
    slices |= served.residency(slices)
    slices = _with_further_tokens(slices, [cell.get("tokens") for _, cell in planned])
    slices["quarantined"] = _quarantined(slices, rounds, columns["comparison"], run_of)
    slice_frame = of_cells("slices", slices)
    _refuse_doubled(slice_frame, slices["owner"], owners)
    checks, closings = found["check"], found["closing"]
    return Frames(
        runs=_runs_frame(runs, rows["session"]),
        cells=cells,
        processes=_of_runs("processes", _texts(processes, "asked", "describe"), runs),
        startup=of_cells("startup", _startup(_columns("startup", rows), served)),
        gate=of_cells("gate", found["gate"]),
        checks=of_cells("checks", {n: [*checks[n], *closings[n]] for n in checks}),
        closings=of_cells("closings", _columns("closing", rows)),
        calibrations=of_cells("calibrations", _columns("calibration", rows)),
        ceilings=_of_runs("ceilings", _columns("ceiling", rows), runs),
        blocks=_of_runs("blocks", _texts(_columns("block", rows), "arms"), runs),
        rounds=_of_runs("rounds", rounds, runs),
        slices=slice_frame,
        steps=of_cells("steps", steps),
        memory=of_cells("memory", _columns("memory", rows)),
        energy=of_cells("energy", _columns("energy", rows)),
        accuracy=of_cells("accuracy", _columns("accuracy", rows)),
        epochs=of_cells("epochs", _columns("epoch", rows)),
    )


def _withhold(
    rows: _Rows, found: Mapping[str, _Columns], statuses: Sequence[str], never_closed: Sequence[int]
) -> None:
    """Remove the numbers of wrong cells from ``rows``: no number of such a cell leaves this file.

    The kinds of ``_WITHHELD`` stay for cells whose answers agree. Such a cell has a gate with
    checks. All its records of ``_JUDGING`` and all their checks passed, and its status is not
    "wrong". Its slices also need a closing gate, except in runs that are older than the closing
    gate. ``found``: the rows of checks, by kind of record. ``statuses``: by position of the cell.
    ``never_closed``: the positions of the cells of older runs.
    """
    agreed = set(found["gate"]["owner"])  # a gate without checks proves nothing
    for kind, checks in found.items():
        agreed -= {row[0] for row in rows[kind] if row[2] is not True}
        agreed -= {
            owner for owner, ok in zip(checks["owner"], checks["passed"], strict=True) if not ok
        }
    agreed -= {position for position, status in enumerate(statuses) if status == "wrong"}
    for kind in _WITHHELD:
        rows[kind] = [row for row in rows[kind] if row[0] in agreed]
    closed = {*found["closing"]["owner"], *never_closed}
    rows["slice"] = [row for row in rows["slice"] if row[0] in closed]


def _cells(planned: Sequence[tuple[str, Mapping[str, Any]]], rows: _Rows) -> _Columns:
    """Return the columns of ``cells``, a row for every planned cell; ``planned``: (run, cell)."""
    ends = {row[0]: row[1:4] for row in rows["status"]}
    ended = [ends.get(position, ("unfinished", "", "")) for position in range(len(planned))]
    columns: _Columns = {name: [cell.get(name) for _, cell in planned] for name in CELL}
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
    old = [
        run.description["schema"] < CLOSED_SINCE
        for run in runs.values()
        for _ in run.description["cells"]
    ]
    return [position for position, never in enumerate(old) if never]


def _open_all(paths: Iterable[Path | str]) -> dict[str, Run]:
    """Open the run folders at or right below ``paths``, each run once, by unique labels."""
    folders: list[Path] = []
    for path in map(Path, paths):
        below = sorted(child.parent for child in path.glob("*/run.json"))
        folders += below if below and not (path / "run.json").exists() else [path]
    runs = {run.path.resolve(): run for run in distinct(map(open_run, folders))}
    names = [str(run.description.get("name", path.name)) for path, run in runs.items()]
    count, labels = Counter(names), names
    for length in range(1, 1 + max((len(path.parts) for path in runs), default=0)):
        if len({*labels}) == len(labels):
            break
        ends = ["/".join(path.parts[-length:]) for path in runs]
        labels = [n if count[n] == 1 else end for n, end in zip(names, ends, strict=True)]
    return dict(zip(labels, runs.values(), strict=True))


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Keep the first folder of every run. Warns with CopiedRun for each further folder of a run."""
    first: dict[str, Run] = {}
    for run in runs:
        kept = first.setdefault(run.identity, run)
        if kept.path.resolve() != run.path.resolve():
            warnings.warn(
                f"{run.path} is a copy of the run in {kept.path} and is left out: two copies are no"
                " two measurements",
                CopiedRun,
                stacklevel=2,
            )
    return [*first.values()]


def _collect(runs: Mapping[str, Run]) -> _Rows:
    """Collect records as bare rows, which are far smaller than the objects of their lines."""
    rows: _Rows = {kind: [] for kind in _FIELDS}
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


def _columns(kind: str, rows: _Rows) -> _Columns:
    names = ["owner", *(_RENAMED.get(each.name, each.name) for each in _FIELDS[kind])]
    columns = zip(*rows[kind], strict=True) if rows[kind] else [()] * len(names)
    return dict(zip(names, columns, strict=True))


def _checks(gate: _Columns, owners: Sequence[str]) -> _Columns:
    """Return the columns of ``gate`` records with a row per check."""
    found = []
    for owner, process, checks in zip(gate["owner"], gate["process"], gate["checks"], strict=True):
        if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
            raise BadInput(f"{owners[owner]}: the checks of its gate are not a list of objects")
        found += [(owner, process, *map(check.get, _CHECK)) for check in checks]
    names = ("owner", "process", *_CHECK)
    return {name: [row[place] for row in found] for place, name in enumerate(names)}


def _slices(columns: _Columns, owners: Sequence[str]) -> tuple[_Columns, _Columns]:
    """Return the columns of ``slices`` and of ``steps`` from those of slice records."""
    each = columns["step_seconds"]
    if strange := {type(steps) for steps in each} - {list, _NONE}:
        raise BadInput(f"a slice record has {strange.pop().__name__} as step_seconds, not a list")
    lengths = numpy.array([len(steps) if steps else 0 for steps in each], dtype=numpy.int64)
    rows = numpy.repeat(numpy.arange(len(each)), lengths)
    owner = numpy.asarray(columns["owner"], dtype=numpy.int64)[rows]
    flat = [seconds for steps in each if steps for seconds in steps]
    seconds = _array(NUMBER, flat, lambda row: f"{owners[owner[row]]}, step_seconds")

    def place(name: str) -> Any:
        def where(row: int) -> str:
            return f"{owners[columns['owner'][row]]}, slice, {name}"

        return _array(COUNT, columns[name], where)[rows]

    steps: _Columns = {
        "owner": owner,
        **{name: place(name) for name in ("process", "block", "round")},
        "step": numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(lengths) - lengths, lengths),
        "step_seconds": seconds,
    }
    medians = pandas.Series(seconds, dtype=NUMBER).groupby(rows).median()

    def where(row: int) -> str:
        return f"{owners[columns['owner'][row]]}, slice"

    with numpy.errstate(all="ignore"):
        means = _array(NUMBER, columns["seconds"], where) / _array(COUNT, columns["steps"], where)
    fenced = numpy.isin(columns["statistic"], FENCED)
    step_seconds = numpy.where(fenced, medians.reindex(range(len(each))).to_numpy(), means)
    return {**columns, "step_seconds": step_seconds}, steps


def _refuse_doubled(slices: pandas.DataFrame, owner: Any, owners: Sequence[str]) -> None:
    """Raise BadInput if a cell has two slices of one kind in one round, so that none are mixed.

    An earlier Levelfield gave the block after an interruption the number of the interrupted one.
    """
    keys = slices[["block", "round", "statistic"]].assign(owner=owner)
    doubled = keys.duplicated(keep=False).to_numpy()
    if not doubled.any():
        return
    first = int(doubled.argmax())
    same = (keys == keys.iloc[first]).all(axis=1).to_numpy()
    processes = " and ".join(map(str, slices["process"][same]))
    place = keys.iloc[first]
    raise BadInput(
        f"{owners[place['owner']]}: block {place['block']}, round {place['round']} has more than"
        f" one {place['statistic']} slice, of processes {processes}; it is not known which of them"
        " is right, so measure it again: levelfield run SUITE"
    )


def _with_further_tokens(columns: _Columns, tokens: Sequence[int | None]) -> _Columns:
    """Add a row "further_token" for every generation whose first token was timed with it.

    Its seconds per step are the seconds of a token after the first one: (seconds of all tokens -
    seconds of the first token) / number of further tokens.
    """
    if "first_token" not in columns["statistic"]:
        return columns
    columns = {**columns, "step_seconds": columns["step_seconds"].tolist()}
    firsts, rows = {}, len(columns["owner"])
    keys = [*zip(*(columns[n] for n in ("owner", "process", "block", "round")), strict=True)]
    for row, statistic in enumerate(columns["statistic"]):
        if statistic == "first_token":
            firsts[keys[row]] = columns["step_seconds"][row]
    sources, seconds = [], []
    for row in range(rows):
        count = tokens[columns["owner"][row]]
        if columns["statistic"][row] == "throughput" and keys[row] in firsts and count:
            sources.append(row)
            whole = columns["step_seconds"][row]
            seconds.append((whole - firsts[keys[row]]) / max(count - 1, 1))
    more = {name: [values[row] for row in sources] for name, values in columns.items()}
    more |= {"statistic": ["further_token"] * len(sources), "step_seconds": seconds}
    for name in ("seconds", "cpu_seconds", "wait_seconds", "switches", "major_faults"):
        more[name] = [None] * len(sources)  # these cover the whole generation, in its own row
    return {name: [*values, *more[name]] for name, values in columns.items()}


def _runs_frame(runs: Mapping[str, Run], sessions: Sequence[tuple[Any, ...]]) -> pandas.DataFrame:
    contents = [run.description for run in runs.values()]
    suites = [c["suite"] if isinstance(c.get("suite"), Mapping) else {} for c in contents]
    latest = {owner: facts for owner, *facts in sessions}
    began = [latest.get(number, [None] * 3) for number in range(len(runs))]
    columns: _Columns = {"owner": range(len(runs)), "run": list(runs)}
    columns["id"] = [run.identity for run in runs.values()]
    columns |= {name: [c.get(name) for c in contents] for name in ("created", "seed")}
    columns |= {name: [_text(c.get(name)) for c in contents] for name in _JSON_OF_RUN}
    columns |= {name: [suite.get(name) for suite in suites] for name in ("level", "margin")}
    columns["cells"] = [len(content["cells"]) for content in contents]
    columns["quiet"] = [_YES.get(facts[0], "") for facts in began]
    columns["waited_seconds"] = [facts[1] for facts in began]
    columns["foreign_share"] = [facts[2] for facts in began]
    return _frame("runs", columns, [f"run {label}" for label in runs])


_YES = {True: "yes", False: "no"}


def _of_runs(name: str, columns: _Columns, runs: Mapping[str, Run]) -> pandas.DataFrame:
    labels = [*runs]
    run = [labels[owner] for owner in columns["owner"]]
    return _frame(name, {**columns, "run": run}, [f"run {label}, {name}" for label in labels])


def _texts(columns: _Columns, *names: str) -> _Columns:
    """Return the columns, the named ones as JSON texts."""
    return {**columns, **{name: [_text(value) for value in columns[name]] for name in names}}


class _Served:
    """The purpose of each process: residency and block by run and number of the process."""

    def __init__(self, processes: _Columns, run_of: Any) -> None:
        names = ("owner", "process", "purpose", "block", "cache_entries")
        rows = zip(*(processes[name] for name in names), strict=True)
        self._found = {(run, number): facts for run, number, *facts in rows}
        self._run_of = run_of

    def keys(self, columns: _Columns) -> list[tuple[int, int]]:
        """Return (run, number) of the process of each row of a cell's record."""
        owners = self._run_of[numpy.asarray(columns["owner"], dtype=numpy.int64)]
        return list(zip(owners.tolist(), columns["process"], strict=True))

    def facts(self, columns: _Columns) -> list[list[Any]]:
        """Return [purpose, block, cache entries] of those processes."""
        return [self._found.get(key, [None, None, None]) for key in self.keys(columns)]

    def residency(self, columns: _Columns) -> _Columns:
        return {"residency": [facts[0] for facts in self.facts(columns)]}


def _startup(columns: _Columns, served: _Served) -> _Columns:
    found = served.facts(columns)
    entries, caches = dict[tuple[int, int], int](), []
    for process, new, facts in zip(
        served.keys(columns), columns["new_cache_entries"], found, strict=True
    ):
        # Entries that the process found when it started, and those it made for earlier cells since.
        before = entries.setdefault(process, facts[2] or 0)
        caches.append("cold" if new else "warm" if before else "none")
        entries[process] = before + (new or 0)
    return {
        **columns,
        "capped": [_YES.get(capped, "") for capped in columns["capped"]],
        "cache": caches,
        "purpose": [facts[0] for facts in found],
        "block": [facts[1] for facts in found],
    }


def _rounds(columns: _Columns, processes: _Columns, runs: Mapping[str, Run]) -> _Columns:
    """Return the columns of ``rounds``: shares, canaries and the quarantine rule of each."""
    machines = [run.description.get("machine") or {} for run in runs.values()]
    every = [each.get("logical_cores") or each.get("cores") or 1 for each in machines]
    # Rounds of older runs name no cores; their seconds cover the whole machine.
    of_run = zip(columns["watched_cores"], columns["owner"], strict=True)
    cores = numpy.array([_watched(found, every[run]) for found, run in of_run], dtype=numpy.int64)
    owner = numpy.asarray(columns["owner"], dtype=numpy.int64)
    purposes = zip(*(processes[name] for name in ("owner", "block", "purpose")), strict=True)
    residency = {(run, block): purpose for run, block, purpose in purposes}
    found: _Columns = {**columns}
    seconds = {
        name: _array(NUMBER, columns[name], lambda _: "a round's seconds")
        for name in columns
        if name.endswith("_seconds") and name != "at_seconds"
    }
    spread, middle = _canaries(columns["canaries"])
    faults = [each or 0 for each in columns["major_faults"]]
    rules = quarantine.judge_rounds(
        spread,
        wall_seconds=seconds["wall_seconds"],
        foreign_seconds=seconds["foreign_seconds"],
        steal_seconds=seconds["steal_seconds"],
        throttled_seconds=seconds["throttled_seconds"],
        major_faults=faults,
        gpu=columns["gpu"],
        cores=cores,
    )
    wall = seconds["wall_seconds"]
    with numpy.errstate(all="ignore"):
        found |= {
            "foreign_share": seconds["foreign_seconds"] / (wall * cores),
            "steal_share": seconds["steal_seconds"] / (wall * cores),
            "pressure_share": seconds["pressure_seconds"] / wall,
        }
    return {
        **_texts(found, "order"),
        "residency": [
            residency.get(key, "") for key in zip(owner.tolist(), columns["block"], strict=True)
        ],
        "canary_seconds": middle,
        "canary_spread": spread,
        "major_faults": faults,
        "rule": rules,
        "quarantined": [bool(rule) for rule in rules],
        "watched_cores": cores,
    }


def _watched(recorded: Any, machine: int) -> int:
    if recorded is None:
        return machine
    if not isinstance(recorded, list) or not recorded:
        raise BadInput(f"the watched cores of a round are not a list of cores: {recorded!r}")
    return len(recorded)


def _canaries(records: Sequence[Any]) -> tuple[Any, Any]:
    """Return spread and median of each round's canaries; rounds of one shape are done together."""
    spread, middle = numpy.zeros(len(records)), numpy.full(len(records), numpy.nan)
    shapes: dict[tuple[int, int], list[int]] = {}
    try:
        for at, record in enumerate(records):
            shapes.setdefault((len(record), len(record[0]) if record else 0), []).append(at)
        for (boundaries, cores), rows in shapes.items():
            if boundaries and cores:
                values = numpy.array([records[at] for at in rows], dtype=float)
                spread[rows] = quarantine.canary_spreads(values)
                middle[rows] = numpy.median(values, axis=(1, 2))
    except (TypeError, ValueError) as error:
        raise BadInput(f"the canaries of a round are not lists of seconds: {error}") from error
    return spread, middle


def _quarantined(
    slices: _Columns, rounds: _Columns, comparisons: Sequence[str], run_of: Any
) -> list[bool]:
    """Return, for each slice, whether its round is in quarantine.

    A slice whose round was never closed counts as quarantined, since there is nothing to compare it
    with.
    """
    names = ("owner", "comparison", "block", "round", "quarantined")
    closed = {row[:-1]: row[-1] for row in zip(*(rounds[name] for name in names), strict=True)}
    owner = numpy.asarray(slices["owner"], dtype=numpy.int64)
    met = [comparisons[each] for each in owner]
    keys = zip(run_of[owner].tolist(), met, slices["block"], slices["round"], strict=True)
    return [closed.get(key, True) for key in keys]


def _text(value: Any) -> str:
    """Return ``value`` as canonical JSON, but a text as itself and null as the empty text."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _frame(name: str, columns: _Columns, owners: Sequence[str]) -> pandas.DataFrame:
    """Return the frame that ``COLUMNS`` describes; ``owners`` name the positions, for errors."""
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
    """Return an array of recorded values. Raises BadInput for one that does not fit the column."""
    types = set(map(type, values))
    if strange := types - _TYPES[dtype]:
        row = next(row for row, value in enumerate(values) if type(value) in strange)
        raise BadInput(f"{where(row)}: {values[row]!r} is not of type {dtype}")
    try:
        if dtype == NUMBER and str in types:
            values = [NOT_FINITE[v] if type(v) is str else v for v in values]
        if dtype in (NUMBER, COUNT, TRUTH):
            return numpy.array(values, dtype=dtype)
        if dtype == COUNT_OR_NA:
            return pandas.array(values, dtype="Int64")
        return pandas.array([value or "" for value in values], dtype="str")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
        values = [(value or "").encode("utf-8", "backslashreplace").decode() for value in values]
        return pandas.array(values, dtype="str")
    except (KeyError, OverflowError) as error:
        raise BadInput(f"{where(0)} and below: {error} is not of type {dtype}") from error
