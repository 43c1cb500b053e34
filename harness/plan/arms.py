"""Frameworks and their modes, read from their ``env.toml`` files alone.

A built-in framework is a folder of ``adapters`` that holds an ``env.toml``. A third party's
framework is a package named by an entry point of the group ``levelfield.adapters``. Neither is
imported here. A third party's framework that cannot be used is left out with a warning; all others
stay usable.

An arm's name is ``framework[@version]:mode[#suffix]``. A version pins the framework's own package
in an environment of its own. The suffix makes another arm of the same program. ``#2``, ``#3``, ...
are copies, the first of which is the A/A twin. ``#+5%`` is a copy made slower by 5 % of extra
steps.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from levelfield import reference
from levelfield.harness.errors import BadInput, cause_of, clean
from levelfield.harness.machine.resources import is_reserved
from levelfield.harness.plan.files import read_text, read_toml
from levelfield.harness.plan.installed import entries_of, package_of
from levelfield.harness.plan.vocabulary import NUMERICS, PHASES, PROFILES, STATISTICS
from levelfield.reference.errors import UnknownName
from levelfield.reference.registry import outside_of

ENTRY_POINT_GROUP = "levelfield.adapters"
OWN_DISTRIBUTION = "levelfield"
PACKAGE_FOLDER = Path(__file__).parents[2]  # of `levelfield`; in a checkout it holds links
# Names of frameworks, modes and environments. The name of an arm contains ":", "@" and "#", the
# name of an environment "/", and patterns of arms contain "*", "?", "[" and ",".
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TEXT_CHARACTERS = 500  # the longest title, summary or address
PINS_LAST = timedelta(days=90)  # the policy of CONTRIBUTING.md
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COLOUR = re.compile(r"#[0-9A-F]{6}")
VERSION = re.compile(r"[0-9][0-9A-Za-z_.]*")  # of a framework, in the name of an arm or environment
_NAME = re.compile(
    rf"(?P<framework>[^@:#]+)(@(?P<version>{VERSION.pattern}))?:(?P<mode>[^@:#]+)"
    r"(#((?P<copy>[2-9]|[1-9]\d+)|\+(?P<percent>\d+(\.\d+)?)%))?"
)


@dataclass(frozen=True)
class EnvironmentSpec:
    """Requirements for a framework's interpreter.

    ``python`` is a PEP 440 version specifier. ``requirements`` are pip's. ``imports`` are the
    modules that an interpreter must have to be usable. Without requirements there is nothing to
    build: the harness looks for an interpreter that has the imports. ``programs`` are patterns of
    names, such as those of compilers, one of which must be on PATH. ``hint`` says how to install
    whatever is missing. ``pinned`` is the day when the versions were chosen, if it is known.
    """

    framework: str
    name: str
    python: str
    requirements: tuple[str, ...]
    imports: tuple[str, ...]
    hint: str = ""
    programs: tuple[str, ...] = ()
    pinned: date | None = None

    @property
    def label(self) -> str:
        """Name for people: "torch", "keras/jax"."""
        return self.framework if self.name == "default" else f"{self.framework}/{self.name}"

    def at(self, version: str) -> EnvironmentSpec:
        """Return the same environment with another version of the framework.

        The framework is the first requirement. Requirements pinned to the same version as the
        framework, as jaxlib is to jax's, get the new version too.
        """
        first, pinned, old_version = self.requirements[0].partition("==")
        rest = [
            f"{requirement.partition('==')[0]}=={version}"
            if pinned and requirement.endswith(f"=={old_version}")
            else requirement
            for requirement in self.requirements[1:]
        ]
        return replace(
            self,
            framework=f"{self.framework}@{version}",
            requirements=(f"{first}=={version}", *rest),
            pinned=None,
        )


@dataclass(frozen=True)
class Note:
    """Text that a report prints below every number of a mode for these models, with its source."""

    models: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Mode:
    """One way of running a framework: the part of an arm's name after the colon.

    ``statistics`` are the kinds of slices that make sense. A mode whose loop belongs to the
    framework (Keras' ``fit``) has no single steps whose latency could be taken. ``profile`` is
    "default", or "tuned" for settings that the framework's documentation offers beyond the default.
    The two profiles are never compared in one ranking. ``numerics`` are the numeric modes in which
    it computes. ``overhead`` is what the documentation says about the framework's own work around
    the arithmetic. ``notes`` say what a way of writing single models costs. ``variables`` are
    environment variables of its workers, in addition to those of a suite.
    """

    name: str
    summary: str
    environment: EnvironmentSpec
    phases: tuple[str, ...]
    statistics: tuple[str, ...]
    profile: str = "default"
    numerics: tuple[str, ...] = ("float32",)
    overhead: str = ""
    notes: tuple[Note, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Framework:
    """A framework as its folder describes it.

    ``package`` is the dotted name under which the worker imports the adapter. ``root`` is the
    folder of the top-level package of that name. ``generic`` adapters need no file per model.
    ``distribution`` is the installed package that contains the framework, ``version`` the version
    of that package. ``colour`` is the one in charts, ``#RRGGBB``, or empty where none is stated.
    """

    name: str
    title: str
    documentation: str
    package: str
    root: Path
    folder: Path
    modes: Mapping[str, Mode]
    generic: bool
    distribution: str = OWN_DISTRIBUTION
    version: str = ""
    colour: str = ""

    def identity(self) -> dict[str, str]:
        """Data that distinguish this adapter from another one of its name; ``run.json`` keeps them.

        The keys are "package", "distribution", "version" and "hash". The hash is the SHA-256 over
        the names and contents of the code and the tables in its folder, and of the files that all
        adapters share.
        """
        return {
            "package": self.package,
            "distribution": self.distribution,
            "version": self.version or version(OWN_DISTRIBUTION),
            "hash": _hash_of_adapter(self.folder),
        }

    def model_file(self, model: str) -> Path:
        """Path of the file of a model, whether or not the file exists.

        The files of an outside model are in the folder of its definition, below the framework's
        name.
        """
        outside = outside_of(model)
        folder = outside.folder / self._folder_name if outside else self.folder
        return folder / f"{reference.get(model).file}.py"

    def model_module(self, model: str) -> str:
        """The dotted name under which a worker imports the file of a model."""
        outside = outside_of(model)
        package = f"{outside.package}.{self._folder_name}" if outside else self.package
        return f"{package}.{reference.get(model).file}"

    def missing_file(self, model: str) -> str:
        """Say which file of a model is missing, without a path of this machine."""
        path, outside = self.model_file(model), outside_of(model)
        place = f"{outside.folder.name}/{self._folder_name}" if outside else self.package
        return f"{place}: {path.name} is missing"

    @property
    def _folder_name(self) -> str:
        """The framework's name as that of a folder of outside models; a dot would part packages."""
        return self.name.replace(".", "_")


@dataclass(frozen=True)
class Arm:
    """A framework in one mode: ``torch:eager``; the module's docstring explains ``suffix``."""

    framework: Framework
    mode: Mode
    version: str | None = None
    suffix: str = ""

    @property
    def base(self) -> str:
        """The name without the suffix; it identifies the program that computes."""
        version = f"@{self.version}" if self.version else ""
        return f"{self.framework.name}{version}:{self.mode.name}"

    @property
    def name(self) -> str:
        """``framework[@version]:mode[#suffix]``."""
        return self.base + (f"#{self.suffix}" if self.suffix else "")

    @property
    def planted(self) -> float:
        """The share of extra steps that make this arm slower on purpose."""
        return float(self.suffix[1:-1]) / 100 if self.suffix.startswith("+") else 0.0


_MEANWHILE: dict[str, Framework] = {}


class UnusableAdapter(UserWarning):
    """A third party's framework, or a part of it, cannot be used; the message says why."""


def frameworks() -> Mapping[str, Framework]:
    """Return every framework that can be used, by name, built-in ones first.

    Raises BadInput if a built-in framework cannot be read.
    """
    return _found()[0]


def unusable() -> Mapping[str, str]:
    """The third parties' frameworks that cannot be used: name -> why, each in one line."""
    return _found()[1]


@cache
def _found() -> tuple[Mapping[str, Framework], Mapping[str, str]]:
    names = [path.parent.name for path in sorted(PACKAGE_FOLDER.glob("adapters/*/env.toml"))]
    frameworks_by_name = {
        name: read_framework(name, f"levelfield.adapters.{name}", PACKAGE_FOLDER) for name in names
    }
    refused: dict[str, str] = {}
    for entry in entries_of(ENTRY_POINT_GROUP):
        distribution, its_version = package_of(entry.dist)
        try:
            framework = _third_party(entry, frameworks_by_name)
        except BadInput as error:
            refused[clean(entry.name)] = clean(f"{error}; mend, update or uninstall {distribution}")
            continue
        frameworks_by_name[entry.name] = replace(
            framework, distribution=distribution, version=its_version
        )
    for name, reason in refused.items():
        warnings.warn(
            f"the framework '{name}' is left out: {reason}", UnusableAdapter, stacklevel=3
        )
    return frameworks_by_name, refused


def _third_party(entry: EntryPoint, frameworks_by_name: Mapping[str, Framework]) -> Framework:
    """The framework of an entry point. Raises BadInput."""
    if entry.name in frameworks_by_name:
        raise BadInput("the name is that of another framework")
    return read_framework(entry.name, entry.value, top_folder(entry))


def top_folder(entry: EntryPoint) -> Path:
    """The folder of the top-level package that an entry point names. Raises BadInput."""
    if not all(part.isidentifier() for part in entry.value.split(".")):
        raise BadInput(f"its entry point names {entry.value!r}, which is no dotted package")
    # find_spec of a top-level name locates it without importing it.
    top = entry.value.split(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"its entry point names the package '{entry.value}', which is not there")
    if spec.origin is None:
        raise BadInput(
            f"the package '{top}' needs an __init__.py, because workers find it by its own folder "
            "alone"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def hash_of_models(folder: Path) -> str:
    """SHA-256 over the .py files of a folder of models and those of its frameworks' folders."""
    total = hashlib.sha256()
    for path in sorted((*folder.glob("*.py"), *folder.glob("*/*.py"))):
        total.update(_line_of(path, folder))
    return total.hexdigest()


def models_identity(models: Iterable[str]) -> dict[str, dict[str, str]]:
    """Data that distinguish the outside ones among models from others of their names.

    ``run.json`` keeps them. The keys of each are "folder", the last part of its path, and "hash".
    """
    folders = {name: outside.folder for name in models if (outside := outside_of(name))}
    hashes = {folder: hash_of_models(folder) for folder in set(folders.values())}
    return {
        name: {"folder": folder.name, "hash": hashes[folder]} for name, folder in folders.items()
    }


def _hash_of_adapter(folder: Path) -> str:
    """SHA-256 over the .py and .toml files of a folder and the files that all adapters share.

    The shared ones are the .py files of ``levelfield.adapters`` itself. Files that a framework, a
    compiler or an editor leaves in the folder do not count.
    """
    total = hashlib.sha256()
    for path in sorted(PACKAGE_FOLDER.glob("adapters/*.py")):
        total.update(_line_of(path, PACKAGE_FOLDER))
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(subfolder for subfolder in folders if subfolder != "__pycache__")
        for path in (Path(parent, name) for name in sorted(names)):
            if path.suffix in (".py", ".toml") and path.is_file():
                total.update(_line_of(path, folder))
    return total.hexdigest()


def _line_of(path: Path, folder: Path) -> bytes:
    """Return the name of a file below ``folder`` and the hash of its content, as one line."""
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        content = "unreadable"
    return f"{path.relative_to(folder).as_posix()!r} {content}\n".encode()


def read_framework(name: str, package: str, root: Path) -> Framework:
    """Read one ``env.toml``. Raises BadInput naming the file and what is wrong in it."""
    folder = root.joinpath(*package.split(".")[1:])
    path = folder / "env.toml"
    try:
        text = read_toml(read_text(path))
        environments = {
            _word(key, "an environment"): EnvironmentSpec(
                framework=_word(name, "a framework"),
                name=key,
                python=_specifier(table["python"]),
                requirements=_texts(table["requirements"]),
                imports=_texts(table["imports"]),
                hint=_text(table.get("hint", "")),
                programs=_texts(table.get("programs", ())),
                pinned=_day(table["pinned"]) if "pinned" in table else None,
            )
            for key, table in text["environments"].items()
        }
        modes = {
            _word(key, "a mode"): _mode(key, table, environments)
            for key, table in text["modes"].items()
        }
        if not modes:
            raise ValueError("it has no mode")
        return Framework(
            name=name,
            title=_text(text["title"]),
            documentation=_text(text["documentation"]),
            package=package,
            root=root,
            folder=folder,
            modes=modes,
            generic=_truth(text.get("generic", False)),
            colour=_colour(text["colour"]) if "colour" in text else "",
        )
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: {cause_of(error)}") from error
    except KeyError as error:
        raise BadInput(
            f"{path}: the key {error} is missing; compare with another env.toml"
        ) from error


def _word(name: str, what: str) -> str:
    if not _WORD.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name {what}; use at most 64 letters, digits and - _ . + in ASCII"
        )
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > TEXT_CHARACTERS:
        excerpt = repr(value)[:60]
        raise TypeError(
            f"{excerpt} should be a text of one line, {TEXT_CHARACTERS} characters long"
        )
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} should be true or false")
    return value


def _day(value: Any) -> date:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError(f'{str(value)[:60]!r} should be a day such as "2026-11-21", in quotes')
    return date.fromisoformat(value)  # raises a ValueError for a day that no month has


def _colour(value: Any) -> str:
    if not isinstance(value, str) or not _COLOUR.fullmatch(value):
        raise ValueError(f'{str(value)[:60]!r} should be a colour such as "#D55E00"')
    return value


def _specifier(value: Any) -> str:
    SpecifierSet(_text(value))  # raises a ValueError that names an invalid PEP 440 specifier
    return str(value)


def _texts(value: Any, words: tuple[str, ...] = ()) -> tuple[str, ...]:
    # A list is required because tuple("numpy") would be five requirements.
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"{value!r} should be a list of texts")
    for text in value:
        _text(text)
        if words and text not in words:
            raise UnknownName("word", text, words)
    if words and not value:
        raise ValueError(f"an empty list where at least one of {', '.join(words)} is needed")
    return tuple(value)


def _mode(name: str, table: Mapping[str, Any], environments: Mapping[str, EnvironmentSpec]) -> Mode:
    statistics = _texts(table.get("statistics", STATISTICS), STATISTICS)
    if STATISTICS[0] not in statistics:
        raise ValueError(f"the mode '{name}' lacks the statistic {STATISTICS[0]}, which all have")
    return Mode(
        name=name,
        summary=_text(table["summary"]),
        environment=environments[table.get("environment", "default")],
        phases=_texts(table.get("phases", PHASES), PHASES),
        statistics=statistics,
        profile=_texts([table.get("profile", "default")], PROFILES)[0],
        numerics=_texts(table.get("numerics", ["float32"]), NUMERICS),
        overhead=_text(table.get("overhead", "")),
        notes=tuple(_note(note) for note in table.get("notes", ())),
        variables=_variables(table.get("variables", {})),
    )


def _variables(table: Mapping[str, Any]) -> dict[str, str]:
    for name, value in table.items():
        if objection := objection_to(name, _text(value)):
            raise ValueError(objection)
    return dict(table)


def objection_to(name: str, value: str) -> str:
    """Say why a suite or a mode must not set an environment variable of workers; "" if it may."""
    if not _VARIABLE.fullmatch(name) or not value.isprintable():
        return f"{name!r} with the value {value!r} cannot be an environment variable"
    if is_reserved(name):
        return f"Levelfield decides what workers get as {name}; leave it out of the variables"
    return ""


def _note(table: Mapping[str, Any]) -> Note:
    return Note(_texts(table["models"], tuple(reference.definitions())), _text(table["text"]))


def arms() -> dict[str, Arm]:
    """Every arm without version and suffix, by its name."""
    return {
        arm.name: arm
        for framework in (*frameworks().values(), *_MEANWHILE.values())
        for arm in (Arm(framework, mode) for mode in framework.modes.values())
    }


def get_arm(name: str) -> Arm:
    """Return the arm of a name. Raises UnknownName with the nearest valid names."""
    parts = _NAME.fullmatch(name)
    framework = parts and {**frameworks(), **_MEANWHILE}.get(parts["framework"])
    if not parts or not framework or parts["mode"] not in framework.modes:
        raise UnknownName("arm", name, arms())
    arm = Arm(framework, framework.modes[parts["mode"]])
    if version := parts["version"]:
        if not arm.mode.environment.requirements:  # nothing installs a version of it
            raise UnknownName("arm", name, arms())
        environment = arm.mode.environment.at(version)
        arm = replace(arm, mode=replace(arm.mode, environment=environment), version=version)
    return replace(arm, suffix=name.partition("#")[2])


def unversioned(name: str) -> str:
    """Return an arm's name without its version. The arm need not be known here."""
    parts = _NAME.fullmatch(name)
    return name.replace(f"@{parts['version']}:", ":", 1) if parts and parts["version"] else name


def old_pins(specs: Iterable[EnvironmentSpec], today: date) -> list[EnvironmentSpec]:
    """Select the environments whose pins are older than PINS_LAST, each once, the oldest first."""
    dated = {(spec.pinned, spec.label): spec for spec in specs if spec.pinned is not None}
    return [spec for (day, _), spec in sorted(dated.items()) if today - day > PINS_LAST]


@contextmanager
def registered(framework: Framework) -> Iterator[None]:
    """Register a framework temporarily, for runs in which the harness tests itself."""
    _MEANWHILE[framework.name] = framework
    try:
        yield
    finally:
        del _MEANWHILE[framework.name]
