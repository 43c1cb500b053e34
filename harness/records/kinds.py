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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from levelfield.harness.machine.ceilings import COPY, PRODUCT
from levelfield.harness.plan.domains import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    UP_TO_1,
    Between,
    EqualLengths,
    Member,
    OneOf,
    Unlimited,
    members_of,
    shortened,
)
from levelfield.harness.plan.vocabulary import FENCED, MEMORY_STAGES, RESIDENCIES, STATISTICS

STATUSES = (
    *("ok", "wrong", "failed", "timeout", "out-of-memory"),
    *("unsupported", "unwritten", "no-environment"),
)
NUMBER, TEXT, COUNT, COUNT_OR_NA = "float64", "str", "int64", "Int64"
TRUTH = "bool"

Seconds = Annotated[float, AT_LEAST_0]
# NaN on a host that does not count what other programs use.
CountedSeconds = Annotated[float, Between(0, unknown=True)]
Count = Annotated[int, AT_LEAST_0]
Process = Annotated[Count, "number of the worker process within its run"]
Block = Annotated[Count, "number of the block within its run"]
Round = Annotated[Count, "number of the round within its block and comparison"]
Accuracy = Annotated[
    float,
    "share of test examples answered right, 0 to 1; for a recommender, hit rate at 10",
    UP_TO_1,
]
TestLoss = Annotated[float, "loss on the test examples", Unlimited()]
TrainLoss = Annotated[float, "loss of the last training step", Unlimited()]
Reason = Annotated[str | None, "reason why it could not be measured"]
Cores = Sequence[Count] | None
Residency = OneOf((*RESIDENCIES, "audit"))


@dataclass(frozen=True, kw_only=True)
class RecordedCheck:
    """A check within a record: what was compared, and whether it passed."""

    name: str
    passed: bool
    error: Annotated[float | None, Unlimited()] = None
    tolerance: Annotated[float | None, Unlimited()] = None
    note: str = ""


Checks = Sequence[Annotated[Mapping[str, Any], RecordedCheck]]


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
    waited_seconds: Annotated[Seconds, "seconds waited for a quiet machine"]
    foreign_share: Annotated[
        CountedSeconds,
        "share of the cores to measure on (older runs: of all cores) that other programs used then",
    ]
    watched_cores: Annotated[Cores, "the cores that the share refers to"] = None
    cores: Annotated[Cores, "the cores to measure on, the first ones first"] = None


@dataclass(frozen=True, kw_only=True)
class CeilingRecord(Record):
    """A rate that the machine reaches at best."""

    kind = "ceiling"
    threads: Annotated[int, "threads used", AT_LEAST_1]
    what: Annotated[
        str,
        "matrix product (flop per second) or copy (bytes per second)",
        OneOf((PRODUCT, COPY)),
    ]
    size_bytes: Annotated[Count | None, "size of an array"]
    per_second: Annotated[
        float, "best of several: operations, or bytes read and written", Between(1, 1e18)
    ]


@dataclass(frozen=True, kw_only=True)
class ProcessRecord(Record):
    """A worker that started."""

    kind = "process"
    process: Process
    arm: Annotated[str, "framework:mode"]
    purpose: Annotated[
        str,
        "qualification, memory, gate, profile; resident, sequential or audit block",
        OneOf(("qualification", "memory", "gate", "profile", "energy", *Residency.words)),
    ]
    interpreter: Annotated[str, "the Python that ran"]
    how: Annotated[str, "how it was found: given, sealed, running or found"]
    python: Annotated[str, "its version"]
    lock_hash: Annotated[str | None, "hash of the packages installed"]
    asked: Annotated[Mapping[str, Any], "threads, device and numeric mode asked for, as JSON"]
    describe: Annotated[
        Mapping[str, Any], "versions and settings that the framework reports, as JSON"
    ]
    interpreter_seconds: Annotated[Seconds, "seconds until the interpreter was up"]
    import_seconds: Annotated[Seconds, "seconds to import the framework and its adapter"]
    device_seconds: Annotated[Seconds, "seconds to configure the framework and open the device"]
    block: Annotated[Count | None, "number of the block that it served"] = None
    cache_entries: Annotated[Count | None, "entries of compilation caches found at the start"] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class StartupRecord(Record):
    """How a cell started in a process."""

    kind = "startup"
    cell: str
    process: Process
    build_seconds: Annotated[Seconds, "seconds to build the model and copy parameters and inputs"]
    first_step_seconds: Annotated[Seconds, "seconds of the first step, fenced"]
    second_step_seconds: Annotated[Seconds, "seconds of the second step, fenced"]
    compile_seconds: Annotated[
        Seconds | None, "seconds of ahead-of-time compilation; NaN where there is none"
    ] = None
    warm_up_seconds: Annotated[Seconds | None, "seconds from there to the steady state"] = None
    warm_up_steps: Annotated[Count | None, "steps of the warm-up"] = None
    capped: Annotated[
        bool | None, "whether the warm-up ended at its cap and not steady: yes, no or empty"
    ] = None
    new_cache_entries: Annotated[Count | None, "entries that compilation caches gained"] = None


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
        Seconds | None,
        "seconds in which the reference solved the closing case; about 0 for all cells of a"
        " case but the first",
    ] = None
    worker_seconds: Annotated[
        Seconds | None, "seconds in which the timed process answered and was judged"
    ] = None
    note: Annotated[
        str | None, "answers that could not be judged, and why; empty if there are none"
    ] = None
    draws: Annotated[
        int | None,
        "draws of the input sets that the process had not seen: a training that disagrees is"
        " repeated with other sets; empty in older runs",
        AT_LEAST_1,
    ] = None


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord(Record):
    """How a cell's slices are cut."""

    kind = "calibration"
    cell: str
    process: Process
    step_seconds: Annotated[float, "seconds of a step, from which the slice was cut", ABOVE_0]
    slice_steps: Annotated[int, "steps of a slice, frozen for the run", AT_LEAST_1]
    fence_seconds: Annotated[Seconds, "seconds of a fence with nothing to wait for"]
    qualified_seconds: Annotated[
        Seconds | None, "seconds of the cell's gate, checks and lesson, in its lane"
    ] = None


@dataclass(frozen=True, kw_only=True)
class BlockRecord(Record):
    """A block that ended."""

    kind = "block"
    block: Annotated[Count, "number of the block"]
    residency: Annotated[str, "resident, sequential or audit", Residency]
    rounds: Annotated[Count, "clean rounds asked of each comparison"]
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
        Sequence[Sequence[Annotated[float, ABOVE_0]]],
        "seconds of the canary loop, of each boundary and core",
        EqualLengths(),
    ]
    wall_seconds: Annotated[float, "seconds of the round", ABOVE_0]
    foreign_seconds: Annotated[CountedSeconds, "CPU seconds of other programs on the watched cores"]
    steal_seconds: Annotated[
        CountedSeconds, "seconds of the watched cores that the hypervisor took"
    ]
    load: Annotated[float, "load average over one minute", Between(0, unknown=True)]
    throttled_seconds: Annotated[float | None, "seconds held back by a quota"] = None
    pressure_seconds: Annotated[float | None, "seconds in which some task waited for a core"] = None
    frequency_mhz: Annotated[Sequence[float] | None, "frequency of each core"] = None
    major_faults: Annotated[Count | None, "page faults of the slices that went to disk"] = None
    gpu: Annotated[Mapping[str, Any] | None, "clocks, throttling and power by the GPU's driver"] = (
        None
    )
    suspect: Annotated[str | None, "the rule by which it was disturbed when it ended"] = None
    watched_cores: Annotated[Cores, "the cores that foreign seconds refer to"] = None


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
        OneOf(tuple(dict.fromkeys((*STATISTICS, *FENCED)))),  # further_token is computed
    ]
    steps: Annotated[int, "steps in the slice", AT_LEAST_1]
    seconds: Annotated[float, "seconds of the whole slice", ABOVE_0]
    cpu_seconds: Annotated[Seconds, "CPU seconds of the worker in the slice"]
    step_seconds: Annotated[
        Sequence[Annotated[float, ABOVE_0]] | None, "seconds of each step, if each is fenced"
    ] = None
    wait_seconds: Annotated[Seconds | None, "seconds that its threads waited for a core"] = None
    switches: Annotated[Count | None, "involuntary context switches of the worker in the slice"] = (
        None
    )
    major_faults: Annotated[Count | None, "page faults that went to disk"] = None


@dataclass(frozen=True, kw_only=True)
class MemoryRecord(Record):
    """Peak memory in a stage of a process that is never timed."""

    kind = "memory"
    cell: str
    process: Process
    phase: Annotated[
        str, "interpreter, import, build, compile, first_step or steady", OneOf(MEMORY_STAGES)
    ]
    peak_bytes: Annotated[Count | None, "peak resident bytes of the process in this stage"] = None
    tree_bytes: Annotated[
        Count | None, "largest proportional set size of its process tree, sampled"
    ] = None
    device_bytes: Annotated[
        Count | None, "largest device memory of the process by the driver, sampled"
    ] = None
    framework_bytes: Annotated[Count | None, "peak of the framework's own device allocator"] = None
    reason: Reason = None


@dataclass(frozen=True, kw_only=True)
class EnergyRecord(Record):
    """Energy of a step on a GPU."""

    kind = "energy"
    cell: str
    process: Process
    steps: Annotated[Count | None, "steps of the loop"] = None
    seconds: Annotated[Seconds | None, "seconds of the loop"] = None
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
    train_steps: Annotated[Count | None, "training steps made"] = None
    reason: Reason = None


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Record):
    """The result of a lesson after one epoch."""

    kind = "epoch"
    cell: str
    process: Process
    seed: Annotated[int, "seed of initial parameters, split and order"]
    epoch: Annotated[int, "epochs learned by then; the first is 1", AT_LEAST_1]
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
class PauseRecord(Record):
    """The end of a budget. Cells that are ok until here are measured further by a resumed run."""

    kind = "pause"
    budget_seconds: Annotated[float, ABOVE_0]


@dataclass(frozen=True, kw_only=True)
class StatusRecord(Record):
    """How a cell ended."""

    kind = "status"
    cell: str
    status: Annotated[
        str,
        "how the cell ended; unfinished if it was interrupted or has not yet run",
        OneOf(STATUSES),
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
    record.kind: record
    for record in (
        *(SessionRecord, CeilingRecord, ProcessRecord, StartupRecord, GateRecord, CheckRecord),
        *(ClosingRecord, CalibrationRecord, BlockRecord, RoundRecord, SliceRecord),
        *(MemoryRecord, EnergyRecord, AccuracyRecord, EpochRecord, DeathRecord, StatusRecord),
        PauseRecord,
    )
}
# JSON type of a field -> the dtype of its column. If it may be null, one of the second.
_DTYPES = {float: NUMBER, int: COUNT, bool: TRUTH}
_OPTIONAL_DTYPES = {COUNT: COUNT_OR_NA, TRUTH: TEXT}


def fields_of(kind: str) -> dict[str, Member]:
    """Return the fields of a kind, "at" last, without "record"."""
    return _FIELDS[kind]


def _fields_of(record: type[Record]) -> dict[str, Member]:
    members = members_of(record)
    return {
        **{name: member for name, member in members.items() if name != "at"},
        "at": members["at"],
    }


_FIELDS = {kind: _fields_of(record) for kind, record in KINDS.items()}


def dtype_of(member: Member) -> str:
    """Return the dtype of a field's column."""
    dtype = _DTYPES.get(member.domain.kind or dict, TEXT)
    return _OPTIONAL_DTYPES.get(dtype, dtype) if member.domain.optional else dtype


def columns_of(record: type[Record], *names: str, **renamed: str) -> dict[str, tuple[str, str]]:
    """Return column -> (dtype, meaning) of fields; ``renamed``: column="field"."""
    names_by_column = {**dict(zip(names, names, strict=True)), **renamed}
    described = _FIELDS[record.kind]
    return {
        column: (dtype_of(described[name]), described[name].meaning)
        for column, name in names_by_column.items()
    }


def hold(records: Collection[Any]) -> bool:
    """Return whether decoded lines are records with good values; many at once cost less."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        kind = record.get("record") if isinstance(record, dict) else None
        if not isinstance(kind, str) or kind not in _FIELDS:
            return False
        by_kind.setdefault(kind, []).append(record)
    return all(
        member.holds(objects, name)
        for kind, objects in by_kind.items()
        for name, member in _FIELDS[kind].items()
    )


def why_not(record: object) -> str | None:
    """Return why a decoded line is no record, or None if it is one."""
    if not isinstance(record, dict):
        return "not one JSON object"
    kind = record.get("record")
    described = _FIELDS.get(kind) if isinstance(kind, str) else None
    if described is None:
        return f"unknown kind of record {shortened(kind)}"
    required = {name for name, member in described.items() if member.required}
    if not required <= record.keys():
        return f"{kind} record without {sorted(required - record.keys())}"
    for name, member in described.items():
        if name in record and (fault := member.domain.fault(record[name], name)):
            return f"{kind} record whose {fault}"
    return None


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
