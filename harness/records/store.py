"""The folder of a run: records are appended as they happen and never changed.

    <results>/<name>/run.json       the request, machine and software of the run: written once
    <results>/<name>/records.jsonl  the events: one JSON object per line, appended and flushed
    <results>/<name>/logs/          the output of the frameworks
    <results>/<name>/lock           locked (flock(2)) by the one writer, holds its process number

``levelfield.harness.records.kinds`` has the kinds of records and their fields.

A cell without a ``status`` record was interrupted. After it has run again, its slices of all blocks
count. For gate, memory and accuracy the records of the latest process win.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import hashlib
import itertools
import json
import os
import shlex
import uuid
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from levelfield.harness.errors import FULL_DISK, BadInput, LevelfieldError, RunFailed
from levelfield.harness.plan.domains import shortened
from levelfield.harness.records import kinds
from levelfield.harness.records.description import fault_of
from levelfield.harness.records.kinds import STATUSES, Record

SCHEMA, KIND = 3, "levelfield-run"
OLDEST_SCHEMA = 2  # that is read; levelfield.harness.records.kinds says how the numbers differ
CLOSED_SINCE = 3  # since this schema no slice counts without a closing gate
_REQUIRED = {
    kind: frozenset(name for name, member in kinds.fields_of(kind).items() if member.required)
    for kind in kinds.KINDS
}
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class TornRecord(UserWarning):
    """The last line of a record file is dropped, because its writer died while writing it."""


@dataclass
class Run:
    """A run. The first write takes its folder's lock; close() or leaving a ``with`` frees it."""

    path: Path
    description: dict[str, Any]  # the content of run.json
    _lock: int = -1  # descriptors while writing
    _records: int = -1
    _kept: int = 0
    _size: int = 0  # bytes of the records, as this process left them

    @property
    def records_path(self) -> Path:
        """The path of the raw records."""
        return self.path / "records.jsonl"

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        return f"levelfield run --resume {shlex.quote(str(self.path))}"

    @property
    def identity(self) -> str:
        """An id that a run shares with every copy of its folder and with no other run.

        A run older than the field "id" has none. Its identity is a hash of all of run.json, which
        holds the machine's load at the moment when the run was made.
        """
        run_id = self.description.get("id")
        if isinstance(run_id, str) and run_id:
            return run_id
        text = json.dumps(self.description, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def append(self, record: Record) -> None:
        """Add one record; it is on disk when this returns.

        Raises RunFailed if the disk is full, BadInput if another process is writing.
        """
        line = record_line(record)
        repair(self)
        size = self._refuse_foreign()
        try:
            if os.write(self._records, line) < len(line):  # the rest would not fit either
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._records)
        except OSError as error:
            with contextlib.suppress(OSError):  # if this fails, the next repair drops the torn line
                os.ftruncate(self._records, size)
            reason = "the disk is full" if error.errno in FULL_DISK else str(error.strerror)
            raise RunFailed(
                f"{self.records_path}: {reason}; {self._kept} records are kept; to go on later,"
                f" type: {self.resume_command}"
            ) from error
        self._kept += 1
        self._size = size + len(line)

    def _refuse_foreign(self) -> int:
        """Return the size of the records. Raises RunFailed if another program changed them."""
        try:
            status = os.stat(self.records_path)
        except OSError as error:
            raise RunFailed(
                f"{self.records_path} is no longer there: was the run moved or deleted? to go on"
                " where it is now, type: levelfield run --resume RUN"
            ) from error
        file = os.fstat(self._records)
        if (status.st_dev, status.st_ino, status.st_size) != (file.st_dev, file.st_ino, self._size):
            raise RunFailed(
                f"{self.records_path} is not as this run wrote it ({self._size} bytes): another"
                " program changed it, so do not trust what is in it; start a new run"
            )
        return self._size

    def close(self) -> None:
        """Stop writing, so that another process may write."""
        for descriptor in (self._records, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._records = -1

    def __enter__(self) -> Run:
        """Return the run itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the run."""
        self.close()


def create(
    results: Path, name: str, description: Mapping[str, Any], *, elsewhere: str = "--results DIR"
) -> Run:
    """Make a run folder named ``name``, or ``name-2``, ... if taken, and become its writer.

    ``description`` becomes run.json, with "schema", "kind", "name", a fresh "id" and, if missing,
    "created" added. Raises BadInput if the folder cannot be made there, RunFailed if the disk is
    full.
    """
    if not name.isprintable() or "/" in name or name[:1] in ("", ".", "-"):
        raise BadInput(f"{name!r} cannot name a run: use letters, digits and dashes")
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    content = {"created": created, **kinds.json_ready(description), "schema": SCHEMA, "kind": KIND}
    content["id"] = uuid.uuid4().hex
    if fault := fault_of(content):
        raise BadInput(f"the description of a run: {fault}")
    folder = Path(results, name)
    try:
        if Path(results).exists() and not Path(results).is_dir():
            raise BadInput(f"{results} is no folder; choose one that you may write to: {elsewhere}")
        Path(results).mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
            folder = Path(results, f"{name}-{number}")
        content["name"] = folder.name
        (folder / "logs").mkdir()
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(folder / "run.json", text.encode())
    except OSError as error:
        advice = f"choose a folder that you may write to: {elsewhere}"
        raise writing_failed(error, folder, advice=advice) from error
    run = Run(folder, content)
    repair(run)
    return run


def open_run(path: Path | str) -> Run:
    """Open the run in a folder, for reading until something is appended. Raises BadInput."""
    folder = Path(path)
    file, foreign = folder / "run.json", f"{folder} is not a run folder of levelfield"
    try:
        # Reading a pipe would never end, nor reading a device; of records, no more is read than the
        # size of their file, which is none for a device.
        for name in (file, folder / "records.jsonl"):
            if name.is_fifo() or (name == file and name.is_char_device()):
                raise BadInput(f"{foreign}: {name} is no regular file")
        content = _parse_object(file.read_bytes())
    except OSError as error:
        raise BadInput(
            f"{foreign}: its run.json: {error.strerror}; name a folder that levelfield run has"
            " written, such as one in results"
        ) from error
    except ValueError as error:
        raise BadInput(f"{file}: not valid JSON ({error}), so {foreign}") from error
    schema = content.get("schema")
    if content.get("kind") != KIND or type(schema) is not int:
        raise BadInput(f'{file}: it does not say "kind": "{KIND}" and its "schema", so {foreign}')
    if schema > SCHEMA:
        raise BadInput(
            f"{file}: it has schema {schema}, and this levelfield knows schemas up to {SCHEMA}:"
            " upgrade levelfield to read it"
        )
    if schema < OLDEST_SCHEMA:
        raise BadInput(
            f"{file}: it has schema {schema}, and this levelfield reads schemas from"
            f" {OLDEST_SCHEMA} on: run its suite again"
        )
    if fault := fault_of(content):
        raise BadInput(f"{file}: {fault}")
    return Run(folder, content)


def repair(run: Run) -> None:
    """Become the one writer: take the lock, drop a torn last line with a TornRecord warning.

    Raises BadInput if another process is writing. A resumed run begins with this call.
    """
    if run._records >= 0:
        return
    try:
        run._lock = os.open(run.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(run._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(run._lock, 0)
        os.write(run._lock, b"%d" % os.getpid())
        run._records = os.open(run.records_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        data, whole = _whole_lines(run.records_path)
        if whole < len(data):
            os.ftruncate(run._records, whole)
    except BlockingIOError as error:
        holder = os.pread(run._lock, 32, 0).decode()
        run.close()
        raise BadInput(
            f"{run.path} is being written by process {holder}: wait until it ends, or stop it"
        ) from error
    except OSError as error:
        run.close()
        advice = "make the folder writable, or copy it to where you may write"
        raise writing_failed(error, run.path, advice=advice) from error
    run._kept, run._size = data.count(b"\n", 0, whole), whole


def iterate_records(run: Run, *, strict: bool = False) -> Iterator[dict[str, Any]]:
    """Yield each record as written, without a torn last one. Raises BadInput naming the line.

    ``strict``: whether to check all fields, which takes several times as long, and that its cell is
    in run.json.
    """
    path = run.records_path
    planned = {cell["id"] for cell in run.description["cells"]}
    try:
        data, whole = _whole_lines(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror}") from error
    lines = data[:whole].split(b"\n")[:-1]
    for first in range(0, len(lines), _CHUNK):
        chunk = lines[first : first + _CHUNK]
        try:
            records = orjson.loads(b"[%b]" % b",".join(chunk))
        except orjson.JSONDecodeError:
            records = []
        # A line may hold no record, or more than one. Then the lines are parsed singly, so that an
        # error names its line.
        if len(records) != len(chunk):
            records = [_parsed(path, at, line) for at, line in enumerate(chunk, first + 1)]
        if not (kinds.hold(records) if strict else all(map(_is_record, records))):
            _refuse(path, first, records)
        if strict and not {r["cell"] for r in records if r.get("cell") is not None} <= planned:
            _refuse(path, first, records, planned)
        yield from records


def _refuse(
    path: Path, before: int, records: Sequence[Any], planned: Collection[str] | None = None
) -> None:
    """Raise BadInput for the first line that is no record, or whose cell is not ``planned``.

    ``before``: the number of lines before those of ``records``.
    """
    for number, record in enumerate(records, before + 1):
        fault = kinds.why_not(record)
        if planned is not None and record.get("cell") not in {*planned, None}:
            cell = shortened(record["cell"])
            fault = f"{record['record']} record of cell {cell}, which is not in run.json"
        if fault:
            raise BadInput(f"{path}, line {number}: {fault}")


_CHUNK = 4096  # this many lines are decoded together, which takes half the time


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError as error:
        raise BadInput(f"{path}, line {number}: not valid JSON ({error})") from error


def _is_record(record: Any) -> bool:
    """Return whether a line has the fields of its kind; types of values are not checked."""
    try:
        return _REQUIRED[record["record"]] <= record.keys() and (
            record["record"] != "status" or record["status"] in STATUSES
        )
    except (KeyError, TypeError, AttributeError):
        return False


def read_records(run: Run) -> list[dict[str, Any]]:
    """Return every record of a run, in the order written, each with good values in its fields."""
    return list(iterate_records(run, strict=True))


def finished(run: Run) -> set[str]:
    """Return the ids of the cells that ended, well or badly, and need nothing more."""
    return finished_cells(iterate_records(run))


def finished_cells(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the ids of the cells whose status is not followed by a pause, or is not "ok"."""
    last: dict[str, str] = {}
    for record in records:
        if record["record"] == "status":
            last[record["cell"]] = record["status"]
        elif record["record"] == "pause":
            last = {cell: status for cell, status in last.items() if status != "ok"}
    return set(last)


def paused(run: Run) -> bool:
    """Whether the last budget of a run ended before everything was settled."""
    pause = False
    for record in iterate_records(run):
        if record["record"] in ("pause", "status"):
            pause = record["record"] == "pause"
    return pause


def statuses(run: Run) -> dict[str, str]:
    """Return the status of each cell that ended: id of the cell -> status."""
    ended = (record for record in iterate_records(run) if record["record"] == "status")
    return {record["cell"]: record["status"] for record in ended}


def record_line(record: Record) -> bytes:
    """Return a record as its line, without optional fields that are None."""
    required = _REQUIRED[record.kind]
    values = {n: value for n, value in vars(record).items() if value is not None or n in required}
    content = kinds.json_ready({"record": record.kind, **values})
    return (_ENCODER.encode(content) + "\n").encode()


def write_atomically(path: Path, data: bytes) -> None:
    """Write all of ``data``, or leave the former content if that fails. Raises OSError.

    A link is followed. A pipe or a device is written to, because nothing may take its place.
    """
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            file.write(data)
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def writing_failed(error: OSError, path: Path, *, advice: str) -> LevelfieldError:
    """Return the error to raise if a write to ``path`` failed."""
    if error.errno in FULL_DISK:
        return RunFailed(f"{path}: the disk is full; make room, or {advice}")
    return BadInput(f"{path}: cannot write there: {error.strerror}; {advice}")


def _parse_object(text: bytes) -> dict[str, Any]:
    value = orjson.loads(text)  # refuses NaN and values that are nested too deeply
    if not isinstance(value, dict):
        raise ValueError("not one JSON object")
    return value


def _whole_lines(path: Path) -> tuple[bytes, int]:
    """Return the file and the length of its whole lines; warn if the last line is torn."""
    if not path.exists():
        return b"", 0
    with open(path, "rb") as file:
        data = file.read(os.fstat(file.fileno()).st_size)  # no later lines of an active writer
    whole = data.rfind(b"\n") + 1
    if data and whole == len(data):
        last = data.rfind(b"\n", 0, whole - 1) + 1
        try:
            _parse_object(data[last:])
        except ValueError:
            whole = last
    if whole < len(data):
        words = f"{path}: dropped a torn last record of {len(data) - whole} bytes"
        warnings.warn(words, TornRecord, stacklevel=3)
    return data, whole
