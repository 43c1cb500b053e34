"""Checks the replies and answer files of workers, which are foreign data.

A worker runs code that Levelfield did not write. ``REPLIES`` is the table of the replies that
``harness.worker.worker`` may give, one row per request. :func:`parsed` checks a reply by this
table, and :func:`read_arrays` checks a file of arrays. The engine therefore only sees values of the
types that it expects. Nonsense raises :class:`harness.errors.WorkerFailure`, which costs the cell.
"""

from __future__ import annotations

import json
import lzma
import os
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import WorkerFailure
from harness.plan.vocabulary import FENCED

# The largest honest reply lists the seconds of each step of a latency slice: a slice of 10 s with
# the shortest steps that are timed (20 us) takes 6 MB.
REPLY_LIMIT_BYTES = 32 << 20
LARGEST = 1e15  # no count, size or time of a worker is larger
# ``describe`` is for people: a report shows each value in a line.
DESCRIBE_ENTRIES, DESCRIBE_CHARACTERS = 64, 1000
REASON_CHARACTERS = 600
# Kinds of NumPy's types: floating-point and integer. Arms give float32. Among honest arms, Keras
# gives some losses and OpenCV its parameters as float64.
NUMBERS = "fiu"
ENTRY_BYTES = 2048  # most bytes of an array's name and header in a file of arrays
NAME_CHARACTERS = 300  # most characters of an array's name
SHOWN_CHARACTERS = 60  # most characters of a wrong value in a reason
FAILURES = ("failed", "out-of-memory", "unsupported")


@dataclass(frozen=True)
class Kind:
    """A kind of JSON value: its name for people and the test for it."""

    name: str
    fits: Callable[[Any], bool]


def optional(kind: Kind) -> Kind:
    """Return a kind that accepts null, too."""
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.fits(value))


def list_of(kind: Kind) -> Kind:
    """Return the kind of a list with such elements."""
    return Kind(
        f"a list, each {kind.name}",
        lambda value: isinstance(value, list) and all(map(kind.fits, value)),
    )


def table_of(**fields: Kind) -> Kind:
    """Return the kind of an object with exactly these fields.

    Fields whose kind accepts null may be missing.
    """
    return Kind(
        f"an object of {', '.join(fields)}",
        lambda value: (
            isinstance(value, dict) and not _misfit({**dict.fromkeys(fields), **value}, fields)
        ),
    )


def _is_number(value: Any) -> bool:
    # JSON's true is Python's bool, which is an int.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= LARGEST


TRUE_OR_FALSE = Kind("true or false", lambda value: isinstance(value, bool))
PLAIN_TEXT = Kind("a text", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
# The loss of an honest arm that diverges is not finite. Integers are always finite.
REAL = Kind("a number", lambda value: isinstance(value, float) or _is_amount(value))
AMOUNT = Kind("a finite number, zero or more", _is_amount)
POSITIVE = Kind("a finite number above zero", lambda value: _is_amount(value) and value > 0)
WHOLE = Kind("a whole number, zero or more", lambda v: isinstance(v, int) and _is_amount(v))
STEP_COUNT = Kind("a whole number above zero", lambda value: WHOLE.fits(value) and value > 0)

SLICE = table_of(
    seconds=POSITIVE,
    step_seconds=optional(list_of(POSITIVE)),
    cpu_seconds=AMOUNT,
    wait_seconds=optional(AMOUNT),
    switches=optional(WHOLE),
    major_faults=optional(WHOLE),
)


# Request -> the only fields that its reply may have, without "ok".
REPLIES: Mapping[str, Mapping[str, Kind]] = {
    "prepare": {"interpreter_up": AMOUNT, "python": PLAIN_TEXT},
    "start": {"import_seconds": AMOUNT, "device_seconds": AMOUNT, "describe": OBJECT},
    "load": {"build_seconds": AMOUNT},
    "compile": {"compile_seconds": optional(AMOUNT)},
    "first_steps": {"first_step_seconds": POSITIVE, "second_step_seconds": POSITIVE},
    "answer": {"arrays": WHOLE},
    "warm_up": {
        "warm_up_steps": WHOLE,
        "warm_up_seconds": AMOUNT,
        "capped": TRUE_OR_FALSE,
        "step_seconds": POSITIVE,
    },
    "calibrate": {"fence_seconds": AMOUNT, "slice_steps": STEP_COUNT},
    "check_fence": {"fenced": POSITIVE, "after": AMOUNT, "later": AMOUNT},
    "check_handles": {"earlier": AMOUNT, "last": AMOUNT, "fenced": POSITIVE},
    "kept": {},
    "closing": {
        "first_seconds": list_of(AMOUNT),
        "again_seconds": list_of(AMOUNT),
        "first_token_seconds": list_of(AMOUNT),
        "again_token_seconds": list_of(AMOUNT),
        "fresh_seconds": AMOUNT,
    },
    "slot": {
        "slices": OBJECT,
        "compiled": WHOLE,
        "worker_seconds": AMOUNT,
        "window_seconds": POSITIVE,
    },
    "steps": {},
    "learn": {"train_losses": list_of(REAL)},
    "memory": {
        "peak_bytes": optional(WHOLE),
        "device": optional(
            table_of(used_peak_bytes=optional(WHOLE), reserved_peak_bytes=optional(WHOLE))
        ),
    },
}


def parsed(request: Mapping[str, Any], line: bytes) -> dict[str, Any]:
    """Return the fields of a reply, without "ok".

    ``request`` is the request as sent: {"do": its name, ...arguments}; ``line`` is the reply as
    received. Raises WorkerFailure with the worker's own status and reason. Raises
    :class:`Nonsense`, a WorkerFailure, if the line is no reply to the request.
    """
    do = request["do"]
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        raise Nonsense(do, "is not JSON", "one JSON object") from None
    if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
        raise Nonsense(do, f"is {shown(reply)}", 'an object whose "ok" is true or false')
    if not reply.pop("ok"):
        _raise_failure(do, reply)
    if misfit := _misfit(reply, REPLIES[do]):
        raise Nonsense(do, *misfit)
    if do == "slot":
        _check_slices(request, reply["slices"])
    if do == "learn" and len(reply["train_losses"]) != request["epochs"]:
        count = len(reply["train_losses"])
        raise Nonsense(do, f"has the losses of {count} epochs", f"those of {request['epochs']}")
    return reply


class Nonsense(WorkerFailure):
    """A reply that does not fit its request."""

    def __init__(self, do: str, found: str, expected: str) -> None:
        super().__init__("failed", f"the reply to '{do}' {found}; expected {expected}")


def _raise_failure(do: str, reply: Mapping[str, Any]) -> None:
    status, reason = reply.get("status"), reply.get("reason")
    if status not in FAILURES:
        raise Nonsense(do, f"fails with the status {shown(status)}", " or ".join(FAILURES))
    if not isinstance(reason, str):
        raise Nonsense(do, f"fails with the reason {shown(reason)}", "a text")
    raise WorkerFailure(status, cut(reason, REASON_CHARACTERS))


def _misfit(reply: Mapping[str, Any], fields: Mapping[str, Kind]) -> tuple[str, str] | None:
    """Return (the mistake of the reply, what was expected), or None."""
    for name in reply:
        if name not in fields:
            return f"has the field {shown(name)}", f"only {', '.join(fields) or 'ok'}"
    for name, kind in fields.items():
        if name not in reply:
            return f"has no field '{name}'", kind.name
        if not kind.fits(reply[name]):
            return f"has {shown(reply[name])} for '{name}'", kind.name
    return None


def _check_slices(request: Mapping[str, Any], slices: Mapping[str, Any]) -> None:
    """Require a slice of each requested kind, with the seconds of each step that was fenced."""
    kinds, steps = list(request["kinds"]), request["steps"]
    if sorted(slices) != sorted(kinds):
        raise Nonsense("slot", f"has slices {shown(sorted(slices))}", f"slices {sorted(kinds)}")
    for kind in kinds:
        if not SLICE.fits(slices[kind]):
            raise Nonsense("slot", f"has the slice {shown(slices[kind])}", SLICE.name)
        each = slices[kind].get("step_seconds") or []
        wanted = steps if kind in FENCED else 0
        if len(each) != wanted:
            raise Nonsense("slot", f"has the seconds of {len(each)} steps", f"those of {wanted}")


def described(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an adapter's description of itself, as a flat object of bounded JSON values.

    Numbers, truth values and null stay as they are; everything else becomes a text of one line.
    A value that exceeds the limits is cut, and says so.
    """
    kept: dict[str, Any] = {}
    for name in list(values)[:DESCRIBE_ENTRIES]:
        value = values[name]
        plain = value is None or isinstance(value, bool) or REAL.fits(value)
        text = value if isinstance(value, str) else _as_text(value)
        kept[cut(name, DESCRIBE_CHARACTERS)] = value if plain else cut(text, DESCRIBE_CHARACTERS)
    if len(values) > DESCRIBE_ENTRIES:
        kept["cut"] = f"{len(values) - DESCRIBE_ENTRIES} more entries were left out"
    return kept


def _as_text(value: Any) -> str:
    """Return a JSON value as a text; Python refuses to write an integer of thousands of digits."""
    try:
        return json.dumps(value)
    except ValueError:
        return "(a number too large to show)"


def cut(text: str, most: int) -> str:
    """Return one line of at most ``most`` characters, none of which steers a terminal."""
    # Twice as many characters are read, since runs of spaces become one. A text of megabytes is
    # not read to its end.
    printable = (mark if mark.isprintable() else " " for mark in text[: 2 * most])
    line = " ".join("".join(printable).split())
    if len(line) <= most and len(text) <= 2 * most:
        return line
    note = f"... (cut, {len(text)} characters)"
    return line[: most - len(note)] + note


def shown(value: Any) -> str:
    """Return a wrong value as a reason shows it."""
    return cut(json.dumps(value), SHOWN_CHARACTERS)


# Errors of opening a damaged file, unpacking it and reading NumPy's headers.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, SyntaxError, ArithmeticError),
    *(RuntimeError, MemoryError, zipfile.BadZipFile, zipfile.LargeZipFile),
    *(zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)


def read_arrays(path: Path, *, limit_bytes: int) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file that a worker wrote, by name.

    ``limit_bytes``: the most bytes that they may take, as stored and unpacked. Raises WorkerFailure
    for anything but a plain file of real numbers within this limit.
    """
    try:
        # A link could lead to any file of the user, and opening a pipe could wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, on headers that it repairs
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is no plain file")
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if max(status.st_size, unpacked) > limit_bytes:
                size = max(status.st_size, unpacked)
                raise ValueError(f"it has {size} bytes, more than the limit of {limit_bytes}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                return {name: _numbers(name, stored[name]) for name in stored.files}
    except _UNREADABLE as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = f"its answers cannot be read: {found or type(error).__name__}"
        words = f"{reason}; expected an .npz file with arrays of real numbers"
        raise WorkerFailure("failed", cut(words, REASON_CHARACTERS)) from error


def _numbers(name: str, value: Any) -> NDArray[Any]:
    """Return the array itself if it can be compared with the reference, else raise ValueError."""
    if not name.isprintable() or len(name) > NAME_CHARACTERS:
        raise ValueError(f"it has an array named {shown(name)}")
    if not isinstance(value, np.ndarray):
        raise ValueError(f"'{name}' is no array")
    if value.dtype.kind not in NUMBERS:
        raise ValueError(f"'{name}' has the type {value.dtype}")
    return value
