"""The values that a field of a record, a cell or a suite may have, as its annotation says.

``Annotated[float, "what it is", AT_LEAST_0]`` is a domain: a type, and what limits its values. A
text is the meaning. Without a limit, a number lies from -MOST to MOST and is finite.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

from levelfield.reference.presets import MOST_BATCH

MOST = 1e15  # no count, size or time is larger; levelfield.harness.proof.replies has the same limit
# JSON (RFC 8259) has no NaN: floats that are not finite are stored as texts.
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
SHOWN = 40  # characters of a wrong value in an error


@dataclass(frozen=True)
class Between:
    """A limit: numbers from ``least`` to ``most``; NaN if it may be ``unknown``."""

    least: float = -MOST
    most: float = MOST
    unknown: bool = False


@dataclass(frozen=True)
class OneOf:
    """A limit: one of these texts."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Unlimited:
    """A limit that is none: every number, also those that are not finite."""


@dataclass(frozen=True)
class EqualLengths:
    """A limit of a list of lists: all have the same length."""


AT_LEAST_0, AT_LEAST_1 = Between(0), Between(1)
ABOVE_0 = Between(math.ulp(0))
UP_TO_1 = Between(0, 1)
POSSIBLE_BATCH = Between(1, MOST_BATCH)

_WORDS = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_NONE = type(None)


@dataclass(frozen=True)
class Domain:
    """A set of JSON values.

    ``kind`` is their type besides null, or None if every value is good. ``of`` is the domain of the
    entries of a list, or of the values of an object with free names. ``members`` are those of an
    object with known names; names that are not known are ignored.
    """

    kind: type | None
    optional: bool = False
    limit: Between | Unlimited = Between()
    words: tuple[str, ...] = ()
    of: Domain | None = None
    equal_lengths: bool = False
    members: Mapping[str, Member] | None = None

    def holds(self, values: Collection[Any]) -> bool:
        """Return whether all values are in the domain; many at once cost far less than singly."""
        if self.kind is None:
            return True
        kinds = set(map(type, values))
        if kinds - self._types():
            return False
        if _NONE in kinds:
            values = [value for value in values if value is not None]
        if self.kind in (int, float):
            return self._holds_numbers(values)
        if self.words and not set(values) <= {*self.words}:
            return False
        return self._holds_parts(values)

    def _types(self) -> set[type]:
        kinds: set[type] = {float, int} if self.kind is float else {self.kind or _NONE}
        kinds |= {str} if isinstance(self.limit, Unlimited) or self.limit.unknown else set()
        return kinds | {_NONE} if self.optional else kinds

    def _holds_numbers(self, values: Collection[Any]) -> bool:
        if isinstance(self.limit, Unlimited):
            return {value for value in values if isinstance(value, str)} <= NOT_FINITE.keys()
        limit = self.limit
        if limit.unknown:
            values = [value for value in values if value != "nan"]
            if str in set(map(type, values)):
                return False
        return not values or bool(limit.least <= min(values) and max(values) <= limit.most)

    def _holds_parts(self, values: Collection[Any]) -> bool:
        """Return whether the parts of lists and objects are in their domains."""
        if self.members is not None and not all(
            member.holds(values, name) for name, member in self.members.items()
        ):
            return False
        if self.of is None or self.of.kind is None:
            return True
        parts = (value.values() for value in values) if self.kind is dict else values
        if not self.of.holds([*chain.from_iterable(parts)]):
            return False
        return not self.equal_lengths or all(len(set(map(len, value))) < 2 for value in values)

    def fault(self, value: Any, place: str) -> str | None:
        """Return what is wrong with a value, in words that begin with its place; None if good."""
        if self.holds([value]):
            return None
        if type(value) is not self.kind:
            parts: list[tuple[str, Any, Domain]] = []
        elif isinstance(value, dict) and self.members is not None:
            members = self.members.items()
            if missing := [
                name for name, member in members if member.required and name not in value
            ]:
                return f"{place} has no {missing[0]!r}"
            parts = [
                (f"{place}.{n}", value[n], member.domain) for n, member in members if n in value
            ]
        elif isinstance(value, list | dict) and self.of is not None:
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            parts = [(f"{place}[{shortened(key)}]", part, self.of) for key, part in pairs]
        else:
            parts = []
        for part_place, part, domain in parts:
            if fault := domain.fault(part, part_place):
                return fault
        return f"{place} is {shortened(value)}, not {self.named()}"

    def named(self) -> str:
        """Return the domain as an error names it."""
        if self.words:
            return f"one of {', '.join(self.words)}"
        text = _WORDS[self.kind or dict] + self._range()
        return text + (" of lists of one length" if self.equal_lengths else "")

    def _range(self) -> str:
        if self.kind not in (int, float) or isinstance(self.limit, Unlimited):
            return ""
        most = f"{self.limit.most:,}" if type(self.limit.most) is int else f"{self.limit.most:g}"
        if self.limit.least == ABOVE_0.least:
            return f" above 0, at most {most}"
        unknown = " or nan" if self.limit.unknown else ""
        return f" from {self.limit.least:g} to {most}{unknown}"


@dataclass(frozen=True)
class Member:
    """A field of an object: its domain, its meaning, and whether it must be there."""

    domain: Domain
    meaning: str
    required: bool

    def holds(self, objects: Collection[Mapping[str, Any]], name: str) -> bool:
        """Return whether the field is good in all objects."""
        values = [item[name] for item in objects if name in item]
        return (len(values) == len(objects) or not self.required) and self.domain.holds(values)


def members_of(shape: type) -> dict[str, Member]:
    """Return the fields of a dataclass as those of a JSON object, in their order.

    A field with a default may be missing. It may be null, too, as in records of older versions.
    """
    hints = typing.get_type_hints(shape, include_extras=True)
    members = {}
    for field in dataclasses.fields(shape):
        missing = dataclasses.MISSING
        required = field.default is missing and field.default_factory is missing
        meaning, domain = described(hints[field.name])
        members[field.name] = Member(domain, meaning, required)
    return members


def described(annotation: Any) -> tuple[str, Domain]:
    """Return the meaning ("" if it has none) and the domain of an annotation."""
    meaning, optional, limits = "", False, list[Any]()
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, *metadata = typing.get_args(annotation)
            meaning = meaning or next((entry for entry in metadata if isinstance(entry, str)), "")
            limits += [entry for entry in metadata if not isinstance(entry, str)]
        elif typing.get_origin(annotation) in (types.UnionType, typing.Union):
            inner = [argument for argument in typing.get_args(annotation) if argument is not _NONE]
            (annotation,), optional = inner, True
        else:
            return meaning, _domain(annotation, optional, limits)


def _domain(annotation: Any, optional: bool, limits: Sequence[Any]) -> Domain:
    if annotation is Any:
        return Domain(None)
    shape = next(
        (entry for entry in (annotation, *limits) if dataclasses.is_dataclass(entry)), None
    )
    if isinstance(shape, type):
        return Domain(dict, optional, members=members_of(shape))
    origin, parts = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    kind = {Sequence: list, tuple: list, Mapping: dict}.get(origin, origin)
    limit = next((entry for entry in limits if isinstance(entry, Between | Unlimited)), Between())
    words = next((entry.words for entry in limits if isinstance(entry, OneOf)), ())
    part = parts[1 if kind is dict else 0] if parts else Any
    return Domain(
        kind,
        optional,
        limit=limit,
        words=words,
        of=described(part)[1] if kind in (list, dict) else None,
        equal_lengths=any(isinstance(entry, EqualLengths) for entry in limits),
    )


def shortened(value: object) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
