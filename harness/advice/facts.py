"""Facts about a framework that no run measures, read from ``facts.toml`` in its folder.

Each fact is a table of ``value``, ``source`` and ``date``. ``source`` is the address of the page
that states the fact. ``date`` is the day on which it was read there, or in a stored copy of the
page. ``as_of`` is the day for which the source states it, where that is another one.
``quote`` is the page's own wording. ``note`` is what a reader should know about the source. A
framework may lack facts: an unknown fact is reported as unknown and never guessed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from levelfield.harness.errors import BadInput, cause_of
from levelfield.harness.plan.arms import (
    OWN_DISTRIBUTION,
    Arm,
    Framework,
    Mode,
    UnusableAdapter,
    frameworks,
)
from levelfield.harness.plan.files import read_text, read_toml
from levelfield.reference.errors import UnknownName

# key -> (type of its value, description)
FACTS: dict[str, tuple[type, str]] = {
    "licence": (str, "SPDX identifier of its licence"),
    "graph": (str, "dynamic, static or lazy, and how graphs are made"),
    "precisions": (list, "numeric types that it documents; int8 is quantised inference"),
    "exports": (list, "formats in which a trained model leaves it"),
    "reads": (list, "formats of models of other frameworks that it runs"),
    "distributed": (bool, "whether training over several devices or processes is documented"),
    "platforms": (list, "platforms with a wheel, as system-machine; any is all of them"),
    "pythons": (list, "Pythons that the wheels are for: versions, or a PEP 440 specifier"),
    "released": (date, "day of the latest release"),
    "releases": (int, "releases in the year before the fact's date, without pre-releases"),
    "maintenance": (str, "active, or ended"),
    "stars": (int, "stars of its repository on GitHub"),
    "documentation": (str, "address of its documentation"),
}
MAINTENANCE = ("active", "ended")
REFERENCE = "reference"  # the others are compared with it, and it is never recommended
TOOLS = ("pip", "numpy", "setuptools", "wheel")
Day = date  # within Fact, "date" is a field
_KEYS, _MORE = {"value", "source", "date"}, {"quote", "note"}
_OPTIONAL = _MORE | {"as_of"}


@dataclass(frozen=True)
class Fact:
    """One fact of one framework."""

    framework: str
    key: str
    value: Any
    source: str
    date: date
    quote: str = ""
    note: str = ""
    as_of: Day | None = None

    @property
    def day(self) -> Day:
        """The day for which the fact is stated."""
        return self.as_of or self.date


def facts_of(framework: Framework) -> dict[str, Fact]:
    """Read the facts of a framework, by key. Raises BadInput naming the file and its error.

    An error in a third party's file costs only that framework's facts, with a warning.
    """
    path = framework.folder / "facts.toml"
    if not path.exists():
        return {}
    try:
        text = read_toml(read_text(path))
        return {key: _fact(framework.name, key, table) for key, table in text.items()}
    except (OSError, ValueError, RecursionError, UnknownName) as error:
        message = f"{path}: {cause_of(error)}; compare with another facts.toml"
        if framework.distribution == OWN_DISTRIBUTION:
            raise BadInput(message) from error
        warnings.warn(message, UnusableAdapter, stacklevel=2)
        return {}


def _fact(framework: str, key: str, table: Any) -> Fact:
    if key not in FACTS:
        raise UnknownName("fact", key, FACTS)
    if not isinstance(table, Mapping) or not _KEYS <= set(table) <= _KEYS | _OPTIONAL:
        raise ValueError(f"{key} should be a table of value, source and date, quote and note")
    value, source, day = table["value"], table["source"], table["date"]
    as_of = table.get("as_of")
    if type(value) is not FACTS[key][0] or (key == "maintenance" and value not in MAINTENANCE):
        raise ValueError(f"{key}: {value!r} cannot be what it says: {FACTS[key][1]}")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key} should be a list of texts")
    if type(day) is not date or not str(source).startswith("https://"):
        raise ValueError(f"{key} should have the https:// address of its source and a date")
    if as_of is not None and (type(as_of) is not date or as_of > day):
        raise ValueError(f"{key}: as_of should be a day up to its date")
    more = {name: str(table.get(name, "")) for name in _MORE}
    return Fact(framework, key, value, str(source), day, **more, as_of=as_of)


def frameworks_of(arm: Arm) -> list[Framework]:
    """The arm's framework and those that pip installs for it, as JAX for Keras on JAX."""
    owners: dict[str, Framework] = {}
    for framework in frameworks().values():
        for package in _packages(framework.modes)[:1]:
            owners.setdefault(package, framework)
    own = _packages(arm.framework.modes)[:1]
    brought = {
        owners[name].name: owners[name]
        for name in _packages({"": arm.mode})
        if name in owners and name not in own and arm.framework.name != REFERENCE
    }
    return [arm.framework, *brought.values()]


def _packages(modes: Mapping[str, Mode]) -> list[str]:
    """Packages that the first of the modes requires, without pip's own options and tools."""
    packages: list[str] = []
    for mode in list(modes.values())[:1]:
        for text in mode.environment.requirements:
            try:
                name = str(canonicalize_name(Requirement(text).name))
            except InvalidRequirement:
                continue
            packages += [name] if name not in TOOLS else []
    return packages
