"""The kinds of records: one class for each kind of line in ``records.jsonl``.

The store writes these classes, the frames are made of their fields, and ``docs/columns.md`` quotes
their annotations. The meaning of a field is described only here. A field with a default may be
missing in an older run. ``at`` is when the record was made, in seconds since 1970.

A run's schema number (``run.json``) says how to read it. 2: no closing gate, and foreign load is
counted on the whole machine. 3: no slice counts without a closing gate, and foreign load is counted
on the watched cores. Runs of another number are refused.
"""

from __future__ import annotations

import math
import time
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, ClassVar

STATUSES = (
    *("ok", "wrong", "failed", "timeout", "out-of-memory"),
    *("unsupported", "unwritten", "no-environment"),
)
# JSON (RFC 8259) has no NaN: floats that are not finite are stored as texts.
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
NUMBER, TEXT, COUNT, COUNT_OR_NA = "float64", "str", "int64", "Int64"
TRUTH = "bool"

Process = Annotated[int, "number of the worker process within its run"]
Block = Annotated[int, "number of the block within its run"]
Round = Annotated[int, "number of the round within its block and comparison"]
Accuracy = Annotated[
    float, "share of test examples answered right, 0 to 1; for a recommender, hit rate at 10"
]
TestLoss = Annotated[float, "loss on the test examples"]
TrainLoss = Annotated[float, "loss of the last training step"]
Reason = Annotated[str | None, "reason why it could not be measured"]
Checks = Sequence[Mapping[str, Any]]  # name, error, tolerance, note, passed of each


@dataclass(frozen=True, kw_only=True)
class Record:
    """A line of the file; ``kind`` is its field "record"."""

    kind: ClassVar[str]
    at: Annotated[float, "when it was recorded, seconds since 1970"] = field(
        default_factory=time.time
    )


@dataclass(frozen=True, kw_only=True)
class SessionRecord(Record):
    """How a session began."""

    kind = "session"
    quiet: Annotated[
        bool | None, "whether the machine was quiet when the session began: yes, no or empty"
    ]
    waited_seconds: Annotated[float, "seconds waited for a quiet machine"]
    foreign_share: Annotated[
        float,
        "share of the cores to measure on (older runs: of all cores) that other programs used then",
    ]
    watched_cores: Annotated[Sequence[int] | None, "the cores that the share refers to"] = None
    cores: Annotated[Sequence[int] | None, "the cores to measure on, the first ones first"] = None


@dataclass(frozen=True, kw_only=True)
class CeilingRecord(Record):
    """A rate that the machine reaches at best."""

    kind = "ceiling"
    threads: Annotated[int, "threads used"]
    what: Annotated[str, "matrix product (flop per second) or copy (bytes per second)"]
    size_bytes: Annotated[int | None, "size of an array"]
    per_second: Annotated[float, "best of several: operations, or bytes read and written"]


@dataclass(frozen=True, kw_only=True)
class ProcessRecord(Record):
    """A worker that started."""

    kind = "process"
    process: Process
    arm: Annotated[str, "framework:mode"]
    purpose: Annotated[str, "qualification, memory, gate; resident, sequential or audit block"]
    interpreter: Annotated[str, "the Python that ran"]
    how: Annotated[str, "how it was found: given, sealed, running or found"]
    python: Annotated[str, "its version"]
    lock_hash: Annotated[str | None, "hash of the packages installed"]
    asked: Annotated[Mapping[str, Any], "threads, device and numeric mode asked for, as JSON"]
    describe: Annotated[
        Mapping[str, Any], "versions and settings that the framework reports, as JSON"
    ]
    interpreter_seconds: Annotated[float, "seconds until the interpreter was up"]
    import_seconds: Annotated[float, "seconds to import the framework and its adapter"]
    device_seconds: Annotated[float, "seconds to configure the framework and open the device"]
    block: Annotated[int | None, "number of the block that it served"] = None
    cache_entries: Annotated[int | None, "entries of compilation caches found at the start"] = None


@dataclass(frozen=True, kw_only=True)
class StartupRecord(Record):
    """How a cell started in a process."""

    kind = "startup"
    cell: str
    process: Process
    build_seconds: Annotated[float, "seconds to build the model and copy parameters and inputs"]
    first_step_seconds: Annotated[float, "seconds of the first step, fenced"]
    second_step_seconds: Annotated[float, "seconds of the second step, fenced"]
    compile_seconds: Annotated[
        float | None, "seconds of ahead-of-time compilation; NaN where there is none"
    ] = None
    warm_up_seconds: Annotated[float | None, "seconds from there to the steady state"] = None
    warm_up_steps: Annotated[int | None, "steps of the warm-up"] = None
    capped: Annotated[
        bool | None, "whether the warm-up ended at its cap and not steady: yes, no or empty"
    ] = None
    new_cache_entries: Annotated[int | None, "entries that compilation caches gained"] = None


@dataclass(frozen=True, kw_only=True)
class CheckedRecord(Record):
    """The fields of every record of checks."""

    cell: str
    process: Process
    passed: bool
    checks: Checks


@dataclass(frozen=True, kw_only=True)
class GateRecord(CheckedRecord):
    """The answers of a cell, compared with the reference's."""

    kind = "gate"


@dataclass(frozen=True, kw_only=True)
class CheckRecord(CheckedRecord):
    """Whether the measurement of a cell can be trusted."""

    kind = "check"


@dataclass(frozen=True, kw_only=True)
class ClosingRecord(CheckedRecord):
    """The closing gate of a cell."""

    kind = "closing"
    passed: Annotated[bool, "whether the cell passed its closing gate"]
    reference_seconds: Annotated[
        float | None,
        "seconds in which the reference solved the closing case; about 0 for all cells of a"
        " case but the first",
    ] = None
    worker_seconds: Annotated[
        float | None, "seconds in which the timed process answered and was judged"
    ] = None
    note: Annotated[
        str | None, "answers that could not be judged, and why; empty if there are none"
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord(Record):
    """How a cell's slices are cut."""

    kind = "calibration"
    cell: str
    process: Process
    step_seconds: Annotated[float, "seconds of a step, from which the slice was cut"]
    slice_steps: Annotated[int, "steps of a slice, frozen for the run"]
    fence_seconds: Annotated[float, "seconds of a fence with nothing to wait for"]


@dataclass(frozen=True, kw_only=True)
class BlockRecord(Record):
    """A block that ended."""

    kind = "block"
    block: Annotated[int, "number of the block"]
    residency: Annotated[str, "resident, sequential or audit"]
    rounds: Annotated[int, "clean rounds asked of each comparison"]
    seed: Annotated[int | None, "seed of its order"]
    arms: Annotated[Sequence[str], "its arms in the order started, as JSON"]
    comparisons: Annotated[Sequence[str], "ids of its comparisons in their order"]


@dataclass(frozen=True, kw_only=True)
class RoundRecord(Record):
    """A round that ended, with the other load of the machine."""

    kind = "round"
    comparison: Annotated[str, "id of the comparison"]
    block: Block
    round: Round
    order: Annotated[Sequence[str], "ids of the cells in the order of their slots, as JSON"]
    canaries: Annotated[
        Sequence[Sequence[float]], "seconds of the canary loop, of each boundary and core"
    ]
    wall_seconds: Annotated[float, "seconds of the round"]
    foreign_seconds: Annotated[float, "CPU seconds of other programs on the watched cores"]
    steal_seconds: Annotated[float, "seconds of the watched cores that the hypervisor took"]
    load: Annotated[float, "load average over one minute"]
    throttled_seconds: Annotated[float | None, "seconds held back by a quota"] = None
    pressure_seconds: Annotated[float | None, "seconds in which some task waited for a core"] = None
    frequency_mhz: Annotated[Sequence[float] | None, "frequency of each core"] = None
    major_faults: Annotated[int | None, "page faults of the slices that went to disk"] = None
    gpu: Annotated[Mapping[str, Any] | None, "clocks, throttling and power by the GPU's driver"] = (
        None
    )
    suspect: Annotated[str | None, "the rule of quarantine that it fell under when it ended"] = None
    watched_cores: Annotated[Sequence[int] | None, "the cores that foreign seconds refer to"] = None


@dataclass(frozen=True, kw_only=True)
class SliceRecord(Record):
    """A slice: the timed steps."""

    kind = "slice"
    cell: str
    process: Process
    block: Block
    round: Round
    statistic: Annotated[
        str,
        "throughput (one fence at the end), latency (a fence per step), first_token (a fence"
        " per prompt and token) or further_token (the tokens after the first)",
    ]
    steps: Annotated[int, "steps in the slice"]
    seconds: Annotated[float, "seconds of the whole slice"]
    cpu_seconds: Annotated[float, "CPU seconds of the worker in the slice"]
    step_seconds: Annotated[Sequence[float] | None, "seconds of each step, if each is fenced"] = (
        None
    )
    wait_seconds: Annotated[float | None, "seconds that its threads waited for a core"] = None
    switches: Annotated[int | None, "involuntary context switches of the worker in the slice"] = (
        None
    )
    major_faults: Annotated[int | None, "page faults that went to disk"] = None


@dataclass(frozen=True, kw_only=True)
class MemoryRecord(Record):
    """Peak memory in a stage of a process that is never timed."""

    kind = "memory"
    cell: str
    process: Process
    phase: Annotated[str, "interpreter, import, build, compile, first_step or steady"]
    peak_bytes: Annotated[int | None, "peak resident bytes of the process in this stage"] = None
    tree_bytes: Annotated[
        int | None, "largest proportional set size of its process tree, sampled"
    ] = None
    device_bytes: Annotated[
        int | None, "largest device memory of the process by the driver, sampled"
    ] = None
    framework_bytes: Annotated[int | None, "peak of the framework's own device allocator"] = None
    reason: Reason = None


@dataclass(frozen=True, kw_only=True)
class EnergyRecord(Record):
    """Energy of a step on a GPU."""

    kind = "energy"
    cell: str
    process: Process
    steps: Annotated[int | None, "steps of the loop"] = None
    seconds: Annotated[float | None, "seconds of the loop"] = None
    joules_per_step: Annotated[
        float | None, "joules per step by the board's counter, less idling"
    ] = None
    idle_watts: Annotated[float | None, "power before and after the loop"] = None
    reason: Reason = None


@dataclass(frozen=True, kw_only=True)
class AccuracyRecord(Record):
    """The result of a lesson."""

    kind = "accuracy"
    cell: str
    process: Process
    seed: Annotated[
        int | None, "seed of initial parameters, split and order; the run's own seed comes first"
    ] = None
    test_accuracy: Accuracy | None = None
    test_loss: TestLoss | None = None
    train_loss: TrainLoss | None = None
    train_steps: Annotated[int | None, "training steps made"] = None
    reason: Reason = None


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Record):
    """The result of a lesson after one epoch."""

    kind = "epoch"
    cell: str
    process: Process
    seed: Annotated[int, "seed of initial parameters, split and order"]
    epoch: Annotated[int, "epochs learned by then; the first is 1"]
    test_accuracy: Accuracy
    test_loss: TestLoss
    train_loss: TrainLoss


@dataclass(frozen=True, kw_only=True)
class DeathRecord(Record):
    """The death of the host while this arm, and maybe this cell, was in hand."""

    kind = "death"
    arm: str
    cell: str | None = None


@dataclass(frozen=True, kw_only=True)
class StatusRecord(Record):
    """How a cell ended."""

    kind = "status"
    cell: str
    status: Annotated[
        str, "how the cell ended; unfinished if it was interrupted or has not yet run"
    ]
    reason: Annotated[str | None, "why, in one line"] = None
    log: Annotated[
        str | None,
        "file in the run's folder logs with the output of its process, if one is kept",
    ] = None

    def __post_init__(self) -> None:
        """Refuse a status that no cell can have: it would be a mistake in Levelfield."""
        if self.status not in STATUSES:
            raise TypeError(f"no cell has the status {self.status!r}")


KINDS: Mapping[str, type[Record]] = {
    each.kind: each
    for each in (
        *(SessionRecord, CeilingRecord, ProcessRecord, StartupRecord, GateRecord, CheckRecord),
        *(ClosingRecord, CalibrationRecord, BlockRecord, RoundRecord, SliceRecord),
        *(MemoryRecord, EnergyRecord, AccuracyRecord, EpochRecord, DeathRecord, StatusRecord),
    )
}
# Type of a field -> its types in JSON, and the dtype of its column.
_JSON: Mapping[Any, tuple[tuple[type, ...], str]] = {
    float: ((float, int, str), NUMBER),  # a float that is not finite is a text
    int: ((int,), COUNT),
    str: ((str,), TEXT),
    bool: ((bool,), TRUTH),
    Sequence: ((list,), TEXT),
    Mapping: ((dict,), TEXT),
}


@dataclass(frozen=True)
class Field:
    """A field of a kind: the JSON types that it may have, and its column."""

    name: str
    required: bool
    types: frozenset[type]
    dtype: str
    meaning: str


def _field(name: str, annotation: Any, *, required: bool) -> Field:
    meaning = ""
    optional = False
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, found = typing.get_args(annotation)[:2]
            meaning = meaning or found
        elif typing.get_origin(annotation) in (types.UnionType, typing.Union):
            inner = [each for each in typing.get_args(annotation) if each is not type(None)]
            (annotation,), optional = inner, True
        else:
            break
    accepted, dtype = _JSON[typing.get_origin(annotation) or annotation]
    if optional:
        dtype = {COUNT: COUNT_OR_NA, TRUTH: TEXT}.get(dtype, dtype)
    absent = (type(None),) if optional or not required else ()
    return Field(name, required, frozenset({*accepted, *absent}), dtype, meaning)


def fields_of(kind: str) -> dict[str, Field]:
    """Return the fields of a kind, in their order, without "record"."""
    return _FIELDS[kind]


def _fields_of(record: type[Record]) -> dict[str, Field]:
    hints = typing.get_type_hints(record, include_extras=True)
    found = {
        each.name: _field(
            each.name,
            hints[each.name],
            required=each.default is MISSING,
        )
        for each in fields(record)
    }
    return {**{name: each for name, each in found.items() if name != "at"}, "at": found["at"]}


_FIELDS = {kind: _fields_of(record) for kind, record in KINDS.items()}


def columns_of(record: type[Record], *names: str, **renamed: str) -> dict[str, tuple[str, str]]:
    """Return column -> (dtype, meaning) of fields; ``renamed``: column="field"."""
    found = {**dict(zip(names, names, strict=True)), **renamed}
    described = _FIELDS[record.kind]
    return {
        column: (described[name].dtype, described[name].meaning) for column, name in found.items()
    }


def why_not(record: object) -> str | None:
    """Return why a decoded line is no record, or None if it is one."""
    if not isinstance(record, dict):
        return "not one JSON object"
    kind = record.get("record")
    described = _FIELDS.get(kind) if isinstance(kind, str) else None
    if described is None:
        return f"unknown kind of record {kind!r}"
    required = {name for name, each in described.items() if each.required}
    if not required <= record.keys():
        return f"{kind} record without {sorted(required - record.keys())}"
    for name, each in described.items():
        value = record.get(name)
        strange = type(value) is str and each.dtype == NUMBER and value not in NOT_FINITE
        if type(value) not in each.types or strange:
            return f"{kind} record whose {name} is {shortened(value)}, not {words(each)}"
    if kind == "status" and record["status"] not in STATUSES:
        return f"unknown status {record['status']!r}"
    return None


def shortened(value: object) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def words(described: Field) -> str:
    """Return the type of a field as an error names it."""
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    names |= {list: "a list", dict: "an object"}
    kinds = [each for each in names if each in described.types]
    if float in kinds:
        kinds = [float]
    return " or ".join(names[each] for each in kinds)


def json_ready(value: Any) -> Any:
    """Return ``value`` with texts for non-finite floats and lists for arrays and tuples."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, str) and not value.isascii():
        # A broken output may hold half of a surrogate pair, which is no Unicode text.
        return value.encode("utf-8", "backslashreplace").decode()
    return json_ready(value.tolist()) if hasattr(value, "tolist") else value
