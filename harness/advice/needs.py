"""The needs of a user: one table of questions for flags, TOML files and prompts.

A hard constraint excludes arms. A weight says how much a doubling of one cost matters compared with
a doubling of another cost.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from packaging.version import Version

from levelfield.harness.advice.facts import facts_of
from levelfield.harness.errors import BadInput, cause_of
from levelfield.harness.plan.arms import frameworks
from levelfield.harness.plan.domains import shortened
from levelfield.harness.plan.files import read_text, read_toml
from levelfield.harness.plan.vocabulary import DEVICES, NUMERICS, PROFILES
from levelfield.reference.errors import UnknownName
from levelfield.reference.registry import definitions


@dataclass(frozen=True)
class Purpose:
    """The measurements that count for a purpose, and their default weights."""

    says: str
    phases: tuple[str, ...]
    statistic: str
    weights: Mapping[str, float]


CRITERIA = {
    "time": "seconds per step, or of all steps if their number is stated",
    "startup": "seconds from the start of the process to the end of the first step",
    "memory": "peak memory",
    "coverage": "planned cells over cells that are ok",
}
MOST_WEIGHT = 1e9
SERVED = ("inference", "generation")
PURPOSES = {
    "prototyping": Purpose(
        *("research: short runs, many changes", ("training",), "throughput"),
        {"time": 2, "startup": 3, "memory": 1, "coverage": 2},
    ),
    "training": Purpose(
        *("long training", ("training",), "throughput"),
        {"time": 4, "startup": 0, "memory": 1, "coverage": 1},
    ),
    "latency": Purpose(
        *("serving single requests, for short latency", SERVED, "latency"),
        {"time": 4, "startup": 1, "memory": 1, "coverage": 1},
    ),
    "throughput": Purpose(
        *("serving many requests, for high throughput", SERVED, "throughput"),
        {"time": 4, "startup": 0, "memory": 1, "coverage": 1},
    ),
    "edge": Purpose(
        *("a small device: memory and start-up count as much", SERVED, "latency"),
        {"time": 2, "startup": 2, "memory": 2, "coverage": 1},
    ),
}
PLATFORMS = ("linux-x86_64", "linux-aarch64", "macos-arm64", "macos-x86_64", "windows-x86_64")
PRECISIONS = ("float64", "float32", "bfloat16", "float16", "int8")
GRAPHS = ("dynamic", "static", "lazy")
_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def tasks() -> tuple[str, ...]:
    """Return the families of models, then the models; a name of both is that of the family."""
    families = (definition.family for definition in definitions().values())
    return (*dict.fromkeys([*families, *definitions()]),)


def formats() -> tuple[str, ...]:
    """Formats to which any framework is known to export a model."""
    facts = (facts_of(framework) for framework in frameworks().values())
    return tuple(
        sorted({form for own in facts if "exports" in own for form in own["exports"].value})
    )


def _asked(question: str, default: Any, known: Any = (), least: float = 0.0) -> Any:
    """A field of :class:`Need` with the question that flags, files and prompts ask for it."""
    return field(default=default, metadata={"asks": question, "known": known, "least": least})


@dataclass(frozen=True)
class Need:
    """The fields in the order in which they are asked; empty or 0 is no constraint."""

    task: str = _asked("Family of models, or one model; empty for all.", "", tasks)
    purpose: str = _asked("Purpose.", "training", (*PURPOSES,))
    device: str = _asked("Device.", "cpu", DEVICES)
    profile: str = _asked(
        "Arms with default options, or tuned by their documentation.", *("default", PROFILES)
    )
    numeric: str = _asked("Numeric mode.", "float32", NUMERICS)
    steps: int = _asked("Steps per process; 0 if not stated.", 0)
    memory_mib: float = _asked("Limit for peak memory, in MiB; 0 for none.", 0.0)
    startup_seconds: float = _asked(
        "Limit in seconds for the time to the end of the first step; 0 for none.", 0.0
    )
    platform: str = _asked("Platform that needs a wheel.", "", PLATFORMS)
    python: str = _asked("Python that needs a wheel, such as 3.12.", "")
    licences: tuple[str, ...] = _asked("Acceptable licences, as SPDX identifiers.", ())
    exports: str = _asked("Format to which the model must be exported, such as ONNX.", "", formats)
    precision: str = _asked("Numeric type that the framework must document.", "", PRECISIONS)
    graph: str = _asked("Kind of graph.", "", GRAPHS)
    distributed: bool = _asked("Require training over several devices or processes.", False)
    maintained: bool = _asked("Require a framework that is still maintained.", False)
    weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({}),
        metadata={"asks": "Weights of time, startup, memory and coverage.", "known": CRITERIA},
    )

    @property
    def weighted(self) -> dict[str, float]:
        """Weights of all criteria, of sum 1. With a number of steps, time includes start-up."""
        chosen = {**PURPOSES[self.purpose].weights}
        if self.steps and "startup" not in self.weights:
            chosen["startup"] = 0
        chosen |= self.weights
        total = sum(chosen.values())
        return {name: chosen[name] / total for name in CRITERIA}


QUESTIONS = {question.name: question for question in fields(Need)}


def stated(answers: Mapping[str, Any], base: Need | None = None) -> Need:
    """Make a need from answers, the rest as in ``base``. Raises BadInput and UnknownName."""
    values = {name: _checked(name, value) for name, value in answers.items()}
    need = replace(base or Need(), **values)
    if not sum({**PURPOSES[need.purpose].weights, **need.weights}.values()) > 0:
        raise BadInput("all weights are 0; give at least one above 0, such as --weight time=1")
    return need


def read_need(path: Path) -> Need:
    """Read a need from a TOML file. Raises BadInput naming the file and its error."""
    try:
        return stated(read_toml(read_text(path)))
    except (OSError, ValueError, UnknownName, BadInput) as error:
        raise BadInput(f"{path}: {cause_of(error)}") from error


def _checked(name: str, value: Any) -> Any:
    if name not in QUESTIONS:
        raise UnknownName("need", name, QUESTIONS)
    question = QUESTIONS[name].metadata
    known = question["known"]() if callable(question["known"]) else question["known"]
    if name == "weights":
        return _weights(value)
    if name == "licences":
        is_list = isinstance(value, list | tuple)
        if not is_list or not all(isinstance(item, str) for item in value):
            raise BadInput(f"licences should be a list of SPDX identifiers, not {value!r}")
        if not all(item.strip() for item in value):
            raise BadInput("one of the licences has no name; name them as in MIT,Apache-2.0")
        return tuple(item.strip() for item in value)
    default: Any = QUESTIONS[name].default
    wanted = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, wanted) or isinstance(value, bool) is not isinstance(default, bool):
        raise BadInput(f"{name} should be {_KINDS[type(default)]}, not {value!r}")
    if isinstance(value, str):
        if known and (value or default):  # empty means no constraint, where that can be
            spelled = {item.lower(): item for item in known}
            if value.lower() not in spelled:
                raise UnknownName(name, value, known)
            value = spelled[value.lower()]
        if name == "python" and value:
            _version(value)
    elif not 0 <= value <= sys.float_info.max:
        kind = "a whole number" if isinstance(default, int) else "a finite number"
        raise BadInput(f"{name} should be {kind} from 0, not {shortened(value)}")
    return value


def _version(value: str) -> None:
    refused = BadInput(f"python should be a version such as 3.12, not {shortened(value)}")
    try:
        parts = len(Version(value).release)
    except ValueError as error:  # also of int(), which takes no thousands of digits
        raise refused from error
    if parts > 3:  # as in 3.12.4
        raise refused


def _weights(value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise BadInput(f"weights should be a table such as time = 4, not {value!r}")
    for name, weight in value.items():
        if name not in CRITERIA:
            raise UnknownName("weight", str(name), CRITERIA)
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= MOST_WEIGHT:
            raise BadInput(
                f"the weight of {name} should be a number from 0 to {MOST_WEIGHT:g}, not"
                f" {shortened(weight)}"
            )
    return MappingProxyType({str(name): float(weight) for name, weight in value.items()})
