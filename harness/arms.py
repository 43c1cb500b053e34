"""Which frameworks there are and what each offers, read from their ``env.toml`` files alone.

A built-in framework is a folder of ``adapters`` that holds an ``env.toml``; a third party's is a
package named by an entry point of the group ``levelfield.adapters``. Nothing of either is imported.

An arm's name is ``framework[@version]:mode[#suffix]``. A version pins the framework's own package
in an environment of its own. The suffix makes another arm of the same program: ``#2``, ``#3``, ...
are copies, the first of which is the A/A twin; ``#+5%`` is a copy made slower by 5 % of extra
steps.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import reference
from harness.errors import BadInput
from harness.gate import TOLERANCES
from reference.spec import UnknownName

PHASES = ("inference", "training", "generation")
STATISTICS = ("throughput", "latency")
PROFILES = ("default", "tuned")
ENTRY_POINT_GROUP = "levelfield.adapters"
TWIN = "#2"
_NAME = re.compile(
    r"(?P<framework>[^@:#]+)(@(?P<version>[0-9][\w.]*))?:(?P<mode>[^@:#]+)"
    r"(#((?P<copy>[2-9]|[1-9]\d+)|\+(?P<percent>\d+(\.\d+)?)%))?"
)


@dataclass(frozen=True)
class EnvironmentSpec:
    """What a framework's interpreter must have.

    ``python`` is a PEP 440 version specifier, ``requirements`` are pip's, and ``imports`` are the
    modules whose presence tells that an interpreter can serve. Without requirements there is
    nothing to build: an interpreter that has the imports is looked for. ``programs`` are patterns
    of names, such as those of compilers, one of which must be on PATH. ``hint`` tells how to get
    what is looked for.
    """

    framework: str
    name: str
    python: str
    requirements: tuple[str, ...]
    imports: tuple[str, ...]
    hint: str = ""
    programs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How people name it: "torch", "keras/jax"."""
        return self.framework if self.name == "default" else f"{self.framework}/{self.name}"

    def at(self, version: str) -> EnvironmentSpec:
        """The same with another version of the framework, which is the first requirement.

        Requirements pinned to the very version of the framework, as jaxlib is to jax's, follow it.
        """
        first, pinned, old = self.requirements[0].partition("==")
        follow = [
            f"{each.partition('==')[0]}=={version}"
            if pinned and each.endswith(f"=={old}")
            else each
            for each in self.requirements[1:]
        ]
        return replace(
            self,
            framework=f"{self.framework}@{version}",
            requirements=(f"{first}=={version}", *follow),
        )


@dataclass(frozen=True)
class Mode:
    """One way of running a framework: what stands behind the colon of an arm's name.

    ``statistics`` are the kinds of slices that make sense: a mode whose loop belongs to the
    framework (Keras' ``fit``) has no single steps whose latency could be taken. ``profile`` is
    "default", or "tuned" for what the framework's documentation offers beyond it; the two are
    never compared in one ranking. ``numerics`` are the numeric modes in which it computes.
    ``overhead`` is what its documentation says of its own work around the arithmetic.
    """

    name: str
    summary: str
    environment: EnvironmentSpec
    phases: tuple[str, ...]
    statistics: tuple[str, ...]
    profile: str = "default"
    numerics: tuple[str, ...] = ("float32",)
    overhead: str = ""


@dataclass(frozen=True)
class Framework:
    """A framework as its folder describes it.

    ``package`` is the dotted name under which the worker imports the adapter, ``root`` the folder
    of the top-level package of that name. ``generic`` adapters need no file per model.
    """

    name: str
    title: str
    documentation: str
    package: str
    root: Path
    folder: Path
    modes: Mapping[str, Mode]
    generic: bool

    def model_file(self, model: str) -> Path:
        """Where the file of a model is, if it is written."""
        return self.folder / f"{reference.get(model).file}.py"


@dataclass(frozen=True)
class Arm:
    """A framework in one mode: ``torch:eager``; ``suffix`` as in the module's docstring."""

    framework: Framework
    mode: Mode
    version: str | None = None
    suffix: str = ""

    @property
    def base(self) -> str:
        """The name without the suffix: what computes."""
        version = f"@{self.version}" if self.version else ""
        return f"{self.framework.name}{version}:{self.mode.name}"

    @property
    def name(self) -> str:
        """``framework[@version]:mode[#suffix]``."""
        return self.base + (f"#{self.suffix}" if self.suffix else "")

    @property
    def planted(self) -> float:
        """By which share of its steps it is made slower on purpose."""
        return float(self.suffix[1:-1]) / 100 if self.suffix.startswith("+") else 0.0


_MEANWHILE: dict[str, Framework] = {}


@cache
def frameworks() -> Mapping[str, Framework]:
    """Every framework, built-in ones first, by name."""
    root = Path(__file__).resolve().parent.parent / "adapters"
    found = {
        path.parent.name: read_framework(path.parent.name, f"adapters.{path.parent.name}", root)
        for path in sorted(root.glob("*/env.toml"))
    }
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in found:
            raise BadInput(
                f"entry point '{entry.name}' of {_distribution(entry)} takes the name of another "
                "framework; rename it there or uninstall that package"
            )
        found[entry.name] = read_framework(entry.name, entry.value, _package_folder(entry))
    return found


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"


def _package_folder(entry: EntryPoint) -> Path:
    # find_spec of a top-level name locates it without importing it.
    top = entry.value.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"entry point '{entry.name}' names the package '{entry.value}', which is not there; "
            f"reinstall or uninstall {_distribution(entry)}"
        )
    if spec.origin is None:
        raise BadInput(
            f"entry point '{entry.name}' of {_distribution(entry)}: the package '{top}' needs an "
            "__init__.py, because workers find it by its own folder alone"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def read_framework(name: str, package: str, root: Path) -> Framework:
    """Read one ``env.toml``. Raises BadInput naming the file and what is wrong in it."""
    folder = root.joinpath(*package.split(".")[1:])
    path = folder / "env.toml"
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
        environments = {
            key: EnvironmentSpec(
                framework=name,
                name=key,
                python=table["python"],
                requirements=_texts(table["requirements"]),
                imports=_texts(table["imports"]),
                hint=table.get("hint", ""),
                programs=_texts(table.get("programs", ())),
            )
            for key, table in text["environments"].items()
        }
        modes = {key: _mode(key, table, environments) for key, table in text["modes"].items()}
        return Framework(
            name=name,
            title=text["title"],
            documentation=text["documentation"],
            package=package,
            root=root,
            folder=folder,
            modes=modes,
            generic=text.get("generic", False),
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BadInput(f"{path}: {error}") from error
    except KeyError as error:
        raise BadInput(
            f"{path}: the key {error} is missing; compare with another env.toml"
        ) from error


def _texts(value: Any, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    # tuple("numpy") would be five requirements.
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{value!r} should be a list of texts")
    for each in value:
        if known and each not in known:
            raise UnknownName("word", each, known)
    return tuple(value)


def _mode(name: str, table: Mapping[str, Any], environments: Mapping[str, EnvironmentSpec]) -> Mode:
    return Mode(
        name=name,
        summary=table["summary"],
        environment=environments[table.get("environment", "default")],
        phases=_texts(table.get("phases", PHASES), PHASES),
        statistics=_texts(table.get("statistics", STATISTICS), STATISTICS),
        profile=_texts([table.get("profile", "default")], PROFILES)[0],
        numerics=_texts(table.get("numerics", ["float32"]), tuple(TOLERANCES)),
        overhead=table.get("overhead", ""),
    )


def arms() -> dict[str, Arm]:
    """Every arm without version and suffix, by its name."""
    return {
        arm.name: arm
        for framework in (*frameworks().values(), *_MEANWHILE.values())
        for arm in (Arm(framework, mode) for mode in framework.modes.values())
    }


def get_arm(name: str) -> Arm:
    """The arm of a name. Raises UnknownName with the nearest valid ones."""
    known, parts = arms(), _NAME.fullmatch(name)
    plain = f"{parts['framework']}:{parts['mode']}" if parts else name
    if parts is None or plain not in known:
        raise UnknownName("arm", name, known)
    arm = known[plain]
    if version := parts["version"]:
        environment = arm.mode.environment.at(version)
        arm = replace(arm, mode=replace(arm.mode, environment=environment), version=version)
    return replace(arm, suffix=name.partition("#")[2])


@contextmanager
def registered(framework: Framework) -> Iterator[None]:
    """A framework that is known meanwhile, for runs by which the harness tests itself."""
    _MEANWHILE[framework.name] = framework
    try:
        yield
    finally:
        del _MEANWHILE[framework.name]
