"""Checks the replies and answer files of workers, which are foreign data.

A worker runs code that Levelfield did not write, and sends JSON. There is one class for each kind
of reply of ``levelfield.harness.worker.worker``. :func:`parsed` checks a reply by the fields of its
class and makes the object, and :func:`read_arrays` checks a file of arrays. No other module sees
the JSON. Nonsense raises :class:`levelfield.harness.errors.WorkerFailure`, which costs the cell.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from levelfield.harness.errors import WorkerFailure, cause_of
from levelfield.harness.plan.vocabulary import FENCED, OPERATOR_CATEGORIES

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
# Of a profile. Its figures come from two clocks, so that their sum may exceed the whole a little.
MOST_OPERATORS, MOST_COUNTS, OPERATOR_CHARACTERS = 250, 16, 200
TWO_CLOCKS_SHARE, TWO_CLOCKS_SECONDS = 0.05, 0.001
SHOWN_CHARACTERS = 60  # most characters of a wrong value in a reason
FAILURES = ("failed", "out-of-memory", "unsupported")


@dataclass(frozen=True)
class Kind:
    """A kind of JSON value: its name for people, the test for it, and how it is converted."""

    name: str
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


def optional(kind: Kind) -> Kind:
    """Return a kind that accepts null, too."""
    return Kind(
        f"{kind.name} or null",
        lambda value: value is None or kind.fits(value),
        lambda value: None if value is None else kind.convert(value),
    )


def list_of(kind: Kind) -> Kind:
    """Return the kind of a list with such elements, which becomes a tuple."""
    return Kind(
        f"a list, each {kind.name}",
        lambda value: isinstance(value, list) and all(map(kind.fits, value)),
        lambda value: tuple(map(kind.convert, value)),
    )


def by_name(kind: Kind) -> Kind:
    """Return the kind of an object with such values under any names."""
    return Kind(
        f"an object, each {kind.name}",
        lambda value: isinstance(value, dict) and all(map(kind.fits, value.values())),
        lambda value: {name: kind.convert(part) for name, part in value.items()},
    )


def object_of(shape: type) -> Kind:
    """Return the kind of an object with the fields of a dataclass, which becomes one.

    Fields that have a default may be missing.
    """
    return Kind(
        f"an object of {', '.join(_kinds(shape))}",
        lambda value: isinstance(value, dict) and not _misfit(value, shape),
        lambda value: _made(shape, value),
    )


def _is_number(value: Any) -> bool:
    # JSON's true is Python's bool, which is an int.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= LARGEST


YES_OR_NO = Kind("true or false", lambda value: isinstance(value, bool))
PLAIN_TEXT = Kind("a text", lambda value: isinstance(value, str))
# The loss of an honest arm that diverges is not finite. Integers are always finite.
REAL = Kind("a number", lambda value: isinstance(value, float) or _is_amount(value))
AMOUNT = Kind("a finite number, zero or more", _is_amount)
POSITIVE = Kind("a finite number above zero", lambda value: _is_amount(value) and value > 0)
WHOLE = Kind("a whole number, zero or more", lambda v: isinstance(v, int) and _is_amount(v))
STEP_COUNT = Kind("a whole number above zero", lambda value: WHOLE.fits(value) and value > 0)
DESCRIPTION = Kind(
    "an object", lambda value: isinstance(value, dict), lambda value: described(value)
)


SHORT_TEXT = Kind(
    "a text", lambda value: isinstance(value, str), lambda value: cut(value, OPERATOR_CHARACTERS)
)
CATEGORY = Kind(
    f"one of {', '.join(OPERATOR_CATEGORIES)}",
    lambda value: isinstance(value, str) and value in OPERATOR_CATEGORIES,
)
FILE_NAME = Kind(
    "the name of a file without a folder",
    lambda value: isinstance(value, str) and re.fullmatch(r"\w[\w.-]{0,99}", value) is not None,
)
COUNTS = Kind(
    f"an object of at most {MOST_COUNTS} whole numbers",
    lambda value: (
        isinstance(value, dict)
        and len(value) <= MOST_COUNTS
        and all(map(WHOLE.fits, value.values()))
    ),
    lambda value: {cut(name, OPERATOR_CHARACTERS): count for name, count in value.items()},
)


@dataclass(frozen=True)
class Reply:
    """The reply to the request ``do``. The annotation of a field has the kind of its JSON value.

    The methods of ``levelfield.harness.worker.worker.Server`` say how each value is measured.
    """

    do: ClassVar[str]


AnyReply = TypeVar("AnyReply", bound=Reply)
_Shape = TypeVar("_Shape")


@dataclass(frozen=True)
class PrepareReply(Reply):
    """The interpreter of a worker; ``interpreter_up`` is when it started to run its file."""

    do = "prepare"
    interpreter_up: Annotated[float, AMOUNT]
    python: Annotated[str, PLAIN_TEXT]


@dataclass(frozen=True)
class StartReply(Reply):
    """A framework that was imported and configured, and the adapter's description of it."""

    do = "start"
    import_seconds: Annotated[float, AMOUNT]
    device_seconds: Annotated[float, AMOUNT]
    describe: Annotated[Mapping[str, str | float | None], DESCRIPTION]


@dataclass(frozen=True)
class LoadReply(Reply):
    """A case that was loaded."""

    do = "load"
    build_seconds: Annotated[float, AMOUNT]


@dataclass(frozen=True)
class CompileReply(Reply):
    """The seconds of ahead-of-time compilation; None where there is none."""

    do = "compile"
    compile_seconds: Annotated[float | None, optional(AMOUNT)]


@dataclass(frozen=True)
class FirstStepsReply(Reply):
    """The seconds of the first two steps, each fenced."""

    do = "first_steps"
    first_step_seconds: Annotated[float, POSITIVE]
    second_step_seconds: Annotated[float, POSITIVE]


@dataclass(frozen=True)
class AnswerReply(Reply):
    """The number of arrays in the file of answers."""

    do = "answer"
    arrays: Annotated[int, WHOLE]


@dataclass(frozen=True)
class WarmUpReply(Reply):
    """A warm-up, and the seconds of a step after it."""

    do = "warm_up"
    warm_up_steps: Annotated[int, WHOLE]
    warm_up_seconds: Annotated[float, AMOUNT]
    capped: Annotated[bool, YES_OR_NO]
    step_seconds: Annotated[float, POSITIVE]


@dataclass(frozen=True)
class CalibrateReply(Reply):
    """The number of steps that make a slice, and the seconds of a fence and of reading a step."""

    do = "calibrate"
    fence_seconds: Annotated[float, AMOUNT]
    slice_steps: Annotated[int, STEP_COUNT]
    read_seconds: Annotated[float, AMOUNT]


@dataclass(frozen=True)
class CheckFenceReply(Reply):
    """The seconds of ``levelfield.harness.worker.measure.check_fence``."""

    do = "check_fence"
    fenced: Annotated[float, POSITIVE]
    after: Annotated[float, AMOUNT]
    later: Annotated[float, AMOUNT]


@dataclass(frozen=True)
class CheckHandlesReply(Reply):
    """The seconds of ``levelfield.harness.worker.measure.check_handles``."""

    do = "check_handles"
    earlier: Annotated[float, AMOUNT]
    last: Annotated[float, AMOUNT]
    fenced: Annotated[float, POSITIVE]


@dataclass(frozen=True)
class KeptReply(Reply):
    """The answers of the timed load were written."""

    do = "kept"


@dataclass(frozen=True)
class ClosingReply(Reply):
    """The seconds of the closing gate; a tuple has those of each step, or nothing."""

    do = "closing"
    first_seconds: Annotated[tuple[float, ...], list_of(AMOUNT)]
    again_seconds: Annotated[tuple[float, ...], list_of(AMOUNT)]
    first_token_seconds: Annotated[tuple[float, ...], list_of(AMOUNT)]
    again_token_seconds: Annotated[tuple[float, ...], list_of(AMOUNT)]
    fresh_seconds: Annotated[float, AMOUNT]
    waited_share: Annotated[float, AMOUNT]
    cpu_share: Annotated[float, AMOUNT]

    def undisturbed(self, threads: int) -> float:
        """The share of the seconds that an undisturbed machine would have taken, from 0 to 1.

        Other programs make threads wait for a core. No step takes less than its CPU seconds.
        """
        return min(max(1 - self.waited_share / threads, self.cpu_share / threads), 1.0)


@dataclass(frozen=True)
class Slice:
    """A timed slice and the use of the worker during it; fields of a ``slice`` record."""

    seconds: Annotated[float, POSITIVE]
    cpu_seconds: Annotated[float, AMOUNT]
    step_seconds: Annotated[tuple[float, ...] | None, optional(list_of(POSITIVE))] = None
    wait_seconds: Annotated[float | None, optional(AMOUNT)] = None
    switches: Annotated[int | None, optional(WHOLE)] = None
    major_faults: Annotated[int | None, optional(WHOLE)] = None


@dataclass(frozen=True)
class SlotReply(Reply):
    """The slices of a slot by their kind; ``compiled`` is the number of compilations in them."""

    do = "slot"
    slices: Annotated[Mapping[str, Slice], by_name(object_of(Slice))]
    compiled: Annotated[int, WHOLE]
    worker_seconds: Annotated[float, AMOUNT]
    window_seconds: Annotated[float, POSITIVE]


@dataclass(frozen=True)
class StepsReply(Reply):
    """Untimed steps that have ended."""

    do = "steps"


@dataclass(frozen=True)
class LearnReply(Reply):
    """The loss of the last training step of each epoch."""

    do = "learn"
    train_losses: Annotated[tuple[float, ...], list_of(REAL)]


@dataclass(frozen=True)
class DeviceMemory:
    """The peaks of a framework's own allocator."""

    used_peak_bytes: Annotated[int | None, optional(WHOLE)] = None
    reserved_peak_bytes: Annotated[int | None, optional(WHOLE)] = None


@dataclass(frozen=True)
class MemoryReply(Reply):
    """The peak of resident memory since the last request for it, and that of the device."""

    do = "memory"
    peak_bytes: Annotated[int | None, optional(WHOLE)]
    device: Annotated[DeviceMemory | None, optional(object_of(DeviceMemory))]


@dataclass(frozen=True)
class Operator:
    """An operator in all profiled steps: ``levelfield.adapters.profiles.operators``."""

    name: Annotated[str, SHORT_TEXT, "name of the operator, as the profiler has it"]
    within: Annotated[str, SHORT_TEXT, "its caller or its source, where most of its time is spent"]
    category: Annotated[str, CATEGORY, f"one of {', '.join(OPERATOR_CATEGORIES)}"]
    calls: Annotated[float, AMOUNT, "number of calls"]
    seconds: Annotated[float, AMOUNT, "seconds of the wall clock that are its own"]


@dataclass(frozen=True)
class ProfileReply(Reply):
    """Steps under the framework's own profiler, if the adapter offers one."""

    do = "profile"
    plain_seconds: Annotated[float, POSITIVE]
    profiled_seconds: Annotated[float | None, optional(POSITIVE)]
    counts: Annotated[Mapping[str, int], COUNTS]
    new_counts: Annotated[Mapping[str, int], COUNTS]
    profiler: Annotated[str | None, optional(SHORT_TEXT)]
    trace: Annotated[str | None, optional(FILE_NAME)]
    operators: Annotated[tuple[Operator, ...], list_of(object_of(Operator))]


def parsed(kind: type[AnyReply], request: Mapping[str, Any], line: bytes) -> AnyReply:
    """Return a reply of this kind from ``line``, the JSON as received.

    ``request`` is the request as sent: {"do": its name, ...arguments}. Raises WorkerFailure with
    the worker's own status and reason. Raises :class:`Nonsense`, a WorkerFailure, if the line is no
    reply to the request.
    """
    do = kind.do
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise Nonsense(do, "is not JSON", "one JSON object") from None
    if not isinstance(content, dict) or not isinstance(content.get("ok"), bool):
        raise Nonsense(do, f"is {shown(content)}", 'an object whose "ok" is true or false')
    if not content.pop("ok"):
        _raise_failure(do, content)
    if misfit := _misfit(content, kind):
        raise Nonsense(do, *misfit)
    reply: AnyReply = _made(kind, content)
    if isinstance(reply, SlotReply):
        _check_slices(request, reply.slices)
    if isinstance(reply, LearnReply) and len(reply.train_losses) != request["epochs"]:
        count = len(reply.train_losses)
        raise Nonsense(do, f"has the losses of {count} epochs", f"those of {request['epochs']}")
    if isinstance(reply, ProfileReply):
        _check_profile(reply)
    return reply


class Nonsense(WorkerFailure):
    """A reply that does not fit its request."""

    def __init__(self, do: str, mistake: str, expected: str) -> None:
        super().__init__("failed", f"the reply to '{do}' {mistake}; expected {expected}")


def _raise_failure(do: str, content: Mapping[str, Any]) -> None:
    status, reason = content.get("status"), content.get("reason")
    if status not in FAILURES:
        raise Nonsense(do, f"fails with the status {shown(status)}", " or ".join(FAILURES))
    if not isinstance(reason, str):
        raise Nonsense(do, f"fails with the reason {shown(reason)}", "a text")
    raise WorkerFailure(status, cut(reason, REASON_CHARACTERS))


@cache
def _kinds(shape: type) -> Mapping[str, Kind]:
    """Return the kind of each field of a dataclass."""
    hints = get_type_hints(shape, include_extras=True)
    return {field.name: get_args(hints[field.name])[1] for field in fields(shape)}


@cache
def _may_be_missing(shape: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(shape) if field.default is not MISSING)


def _misfit(content: Mapping[str, Any], shape: type) -> tuple[str, str] | None:
    """Return (the mistake of a JSON object, what was expected), or None."""
    kinds = _kinds(shape)
    for name in content:
        if name not in kinds:
            return f"has the field {shown(name)}", f"only {', '.join(kinds) or 'ok'}"
    for name, kind in kinds.items():
        if name in content and not kind.fits(content[name]):
            return f"has {shown(content[name])} for '{name}'", kind.name
        if name not in content and name not in _may_be_missing(shape):
            return f"has no field '{name}'", kind.name
    return None


def _made(shape: type, content: Mapping[str, Any]) -> Any:
    """Return the dataclass of a JSON object that has no misfit."""
    kinds = _kinds(shape)
    return shape(**{name: kinds[name].convert(value) for name, value in content.items()})


def object_from(shape: type[_Shape], content: Any) -> _Shape:
    """Return the dataclass of a JSON value, checked like a reply. Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError(f"it is {shown(content)}; expected one JSON object")
    if misfit := _misfit(content, shape):
        raise ValueError("it {}; expected {}".format(*misfit))
    made: _Shape = _made(shape, content)
    return made


def _check_slices(request: Mapping[str, Any], slices: Mapping[str, Slice]) -> None:
    """Require a slice of each requested kind, with the seconds of each step that was fenced."""
    kinds, steps = list(request["kinds"]), request["steps"]
    if sorted(slices) != sorted(kinds):
        raise Nonsense("slot", f"has slices {shown(sorted(slices))}", f"slices {sorted(kinds)}")
    for kind in kinds:
        count, expected = len(slices[kind].step_seconds or ()), steps if kind in FENCED else 0
        if count != expected:
            raise Nonsense("slot", f"has the seconds of {count} steps", f"those of {expected}")


def _check_profile(reply: ProfileReply) -> None:
    """Require that operators take no more than all steps, and that a profiler profiled them."""
    if len(reply.operators) > MOST_OPERATORS:
        raise Nonsense("profile", f"has {len(reply.operators)} operators", f"{MOST_OPERATORS}")
    if (reply.profiler is None) != (reply.profiled_seconds is None):
        raise Nonsense("profile", "has half of a profile", "a profiler with its seconds")
    seconds = sum(operator.seconds for operator in reply.operators)
    whole = reply.profiled_seconds or 0.0
    if seconds > whole * (1 + TWO_CLOCKS_SHARE) + TWO_CLOCKS_SECONDS:
        words = f"has operators of {seconds:.3g} s in steps of {whole:.3g} s"
        raise Nonsense("profile", words, "operators that take no more than the steps")


def described(values: Mapping[str, Any]) -> dict[str, str | float | None]:
    """Return an adapter's description of itself, as a flat object of bounded JSON values.

    Numbers, truth values and null stay as they are; everything else becomes a text of one line.
    A value that exceeds the limits is cut, and says so.
    """
    entries: dict[str, str | float | None] = {}
    for name in list(values)[:DESCRIBE_ENTRIES]:
        value = values[name]
        plain = value is None or isinstance(value, bool) or REAL.fits(value)
        text = value if isinstance(value, str) else _as_text(value)
        entries[cut(name, DESCRIBE_CHARACTERS)] = value if plain else cut(text, DESCRIBE_CHARACTERS)
    if len(values) > DESCRIBE_ENTRIES:
        entries["cut"] = f"{len(values) - DESCRIBE_ENTRIES} more entries were left out"
    return entries


def _as_text(value: Any) -> str:
    """Return a JSON value as a text.

    Python refuses to write an integer of thousands of digits, and a value that is nested almost as
    deeply as it can read.
    """
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "(a value too large to show)"


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
    return cut(_as_text(value), SHOWN_CHARACTERS)


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
        reason = f"its answers cannot be read: {cause_of(error) or type(error).__name__}"
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
