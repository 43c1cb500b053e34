"""Suites: TOML files that say what is compared.

Everything is checked when the file is read, before anything is built or run. A wrong name gives one
line of error, which says the name, its place in the file and the names that were probably meant.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date, datetime
from datetime import time as time_of_day
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from levelfield import reference
from levelfield.harness.errors import BadInput, cause_of, clean
from levelfield.harness.machine.describe import shown
from levelfield.harness.machine.resources import (
    available_cores,
    expanded,
    most_threads,
    total_memory_bytes,
)
from levelfield.harness.plan.arms import arms, get_arm, objection_to, top_folder
from levelfield.harness.plan.domains import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    POSSIBLE_BATCH,
    Between,
    OneOf,
    members_of,
)
from levelfield.harness.plan.files import read_text, read_toml
from levelfield.harness.plan.installed import entries_of, package_of
from levelfield.harness.plan.vocabulary import DEVICES, NUMERICS, PHASES, RESIDENCIES
from levelfield.harness.statistics.levels import LEVELS
from levelfield.reference.errors import UnknownName, by_definition
from levelfield.reference.optimizers import OPTIMIZERS
from levelfield.reference.presets import TIME
from levelfield.reference.spec import Model

MODELS_GROUP = "levelfield.models"
BYTES_OF_FLOAT64 = 8
SUITES = Path(__file__).with_name("suites")


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


@dataclass(frozen=True)
class Effort:
    """Amount of measurement; times in seconds."""

    rounds: Annotated[
        int, "rounds of each block until the variances decide their number", AT_LEAST_1
    ] = 6
    rounds_extra: Annotated[
        float, "share of these rounds that may be run again in place of disturbed ones", AT_LEAST_0
    ] = 0.5
    slice_seconds: Annotated[float, "seconds of a slice, about", ABOVE_0] = 0.05
    rewarm_seconds: Annotated[float, "seconds of steps before every slice", ABOVE_0] = 0.02
    warm_up_seconds: Annotated[float, "seconds of steps before the first slice", ABOVE_0] = 1.0
    warm_up_steps: Annotated[int, "fewest steps before the first slice", AT_LEAST_1] = 10
    warm_up_cap_seconds: Annotated[
        float, "most seconds of steps before the first slice", ABOVE_0
    ] = 30.0
    latency: Annotated[bool, "also time steps one by one"] = True
    quiet_seconds: Annotated[float, "most seconds of waiting for a quiet machine", AT_LEAST_0] = (
        120.0
    )
    ceilings: Annotated[bool, "measure the best rates of the machine"] = True
    time_cap_minutes: Annotated[
        float, "minutes after which no block begins; 0 is no cap", AT_LEAST_0
    ] = 0.0
    memory: Annotated[bool, "measure peak memory, in processes of its own"] = True
    memory_processes: Annotated[
        int, "processes per cell that measure memory, whose median counts", AT_LEAST_1
    ] = 2
    memory_steps: Annotated[int, "steps of a process that measures memory", AT_LEAST_1] = 20
    accuracy: Annotated[bool, "train on real data where the model has any"] = True
    accuracy_epochs: Annotated[int, "epochs of such a training", AT_LEAST_1] = 10
    accuracy_seeds: Annotated[
        int, "seeds from which the arm with a twin is trained", AT_LEAST_1
    ] = 1


@dataclass(frozen=True)
class Limits:
    """Resources a worker may use before its cell ends as "timeout" or "out-of-memory"."""

    start_seconds: Annotated[float, "seconds from its start to its first answer", ABOVE_0] = 180.0
    load_seconds: Annotated[float, "seconds for building and loading a model", ABOVE_0] = 120.0
    compile_seconds: Annotated[float, "seconds for compilation and first steps", ABOVE_0] = 300.0
    step_seconds: Annotated[
        float, "seconds of any later request, next to the seconds that it times", ABOVE_0
    ] = 120.0
    memory_gib: Annotated[
        float, "GiB of private memory; 0 is three quarters of the machine's memory", AT_LEAST_0
    ] = 0.0


@dataclass(frozen=True)
class OwnSizes:
    """A preset that a suite defines, as JSON: the sizes of ``base`` with ``changes``."""

    base: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """The contents of a suite file, all names valid. ``arms`` are expanded patterns, in order.

    The meanings are those for users (docs/suite.md). ``models_from`` are absolute paths here.
    ``own_presets`` are presets that the file defines: name -> its base and the sizes that differ
    from it.
    """

    name: Annotated[str, "the name of the file without .toml"]
    title: Annotated[str, "a sentence that says what the suite compares"]
    models: Annotated[tuple[str, ...], "models, as `levelfield list models` names them"]
    arms: Annotated[tuple[str, ...], "arms or patterns such as `torch:*`, in the order of reports"]
    presets: Annotated[
        tuple[str, ...],
        "sizes of the models; a table instead of a list can define sizes of your own, see below",
    ] = ("small",)
    phases: Annotated[
        tuple[str, ...],
        "`inference`, `training`, `generation`; models without a phase leave it out",
    ] = PHASES
    optimizers: Annotated[tuple[str, ...], f"of training: {_quoted(OPTIMIZERS)}"] = ("adam",)
    batches: Annotated[
        tuple[Annotated[int, POSSIBLE_BATCH], ...], "examples per step; several values are a sweep"
    ] = (64,)
    times: Annotated[
        tuple[Annotated[int, AT_LEAST_1], ...],
        "lengths of sequences instead of the presets' own, in models that have any; decoding keeps"
        " its own",
    ] = ()
    threads: Annotated[
        tuple[Annotated[int, AT_LEAST_1], ...],
        'cores that each arm may use; `"all"` is all that are available',
    ] = (1,)
    numeric: Annotated[str, "numeric mode; `int8` is dynamic quantisation", OneOf(NUMERICS)] = (
        "float32"
    )
    device: Annotated[str, "device of all arms", OneOf(DEVICES)] = "cpu"
    level: Annotated[str, "amount of blocks, see below", OneOf((*LEVELS,))] = "standard"
    margin: Annotated[
        float, "share below which a difference does not matter", Between(ABOVE_0.least, 1)
    ] = 0.02
    twin: Annotated[
        str,
        "arm that runs twice as the A/A control; `auto` is the first arm that runs and offers the"
        " most kinds of slices; with `none` there are no verdicts",
    ] = "auto"
    residency: Annotated[
        str,
        "`resident`, or `sequential` where memory cannot hold all arms at the same time",
        OneOf(RESIDENCIES),
    ] = "resident"
    seed: Annotated[int, "from which parameters and inputs are drawn", AT_LEAST_0] = 0
    models_from: Annotated[
        tuple[str, ...], "folders of models that are not built in, relative to the suite's file"
    ] = ()
    own_presets: Mapping[str, Annotated[Mapping[str, Any], OwnSizes]] = field(default_factory=dict)
    variables: Annotated[Mapping[str, str], "environment variables of all arms"] = field(
        default_factory=dict
    )
    effort: Annotated[Effort, "amount of measurement, see below"] = field(default_factory=Effort)
    limits: Annotated[Limits, "resources that end a cell, see below"] = field(
        default_factory=Limits
    )

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for the run's description."""
        return {**asdict(self), "models_from": [shown(Path(folder)) for folder in self.models_from]}


def suite_names() -> dict[str, Path]:
    """The suites that come with Levelfield, by name."""
    return {path.stem: path for path in sorted(SUITES.glob("*.toml"))}


def load_suite(name_or_path: str) -> Suite:
    """Read a suite by its name or the path of a TOML file. Raises BadInput or UnknownName."""
    path = suite_names().get(name_or_path)
    if path is None:
        path = Path(name_or_path)
        # A word that names no file is probably the mistyped name of a suite.
        if path.suffix != ".toml" and not path.is_file():
            raise UnknownName("suite", name_or_path, suite_names(), where="the command line")
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"cannot read the suite {path}: {cause_of(error)}; 'levelfield list suites' names the"
            " suites"
        ) from error
    try:
        tables = read_toml(text)
    except ValueError as error:
        raise BadInput(f"{path} is not TOML: {error}") from error
    return _Reader(path, text).suite(tables)


@dataclass(frozen=True)
class _Reader:
    """Checks one file; error messages get the line of an error from ``text``."""

    path: Path
    text: str

    def suite(self, tables: Mapping[str, Any]) -> Suite:
        keys = {member.name for member in fields(Suite)} - {"name", "own_presets"}
        values = {key: self._known(key, keys) and tables[key] for key in tables}
        for key in ("title", "models", "arms"):
            if key not in values:
                raise BadInput(f"{self.path}: the key '{key}' is missing")
        checked: dict[str, Any] = {"name": self.path.stem}
        for key, value in values.items():
            if key in ("effort", "limits"):
                checked[key] = self._table(key, value, Effort if key == "effort" else Limits)
            elif key == "presets" and isinstance(value, dict):
                checked[key], checked["own_presets"] = self._presets(value)
            elif key == "variables":
                checked[key] = self._variables(value)
            elif key in _SCALARS:
                checked[key] = self._typed(key, value, _SCALARS[key])
            else:
                checked[key] = self._list(key, value)
        folders = [self.path.parent / folder for folder in checked.get("models_from", ())]
        try:
            checked["models_from"] = add_folders(folders)
        except BadInput as error:
            raise BadInput(f"{self._place('models_from')}: {error}") from error
        try:
            add_presets(checked.get("own_presets", {}))
            suite = validated(Suite(**checked))
            refuse_copies(suite.arms)
            return suite
        except UnknownName as error:
            raise BadInput(f"{self._place(error.name)}: {error}") from error
        except _BadValue as error:
            raise BadInput(f"{self._place(error.key)}: {error}") from error
        except reference.BadDefinition as error:
            raise BadInput(f"{self._place('presets')}: {clean(str(error))}") from error

    def _presets(
        self, tables: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
        """Return the presets to compare, and those of them that have sizes of their own.

        An empty table names a built-in preset.
        """
        own_presets: dict[str, dict[str, Any]] = {}
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise BadInput(
                    f"{self._place(name)}: write [presets.{name}] above the sizes of the preset"
                )
            if table:
                base = self._typed("base", table.get("base", "small"), str)
                changes = {key: value for key, value in table.items() if key != "base"}
                own_presets[name] = {"base": base, "changes": changes}
        if not tables:
            raise BadInput(f"{self._place('presets')}: 'presets' names no preset")
        return tuple(tables), own_presets

    def _variables(self, table: Any) -> dict[str, str]:
        if not isinstance(table, dict):
            raise BadInput(
                f"{self._place('variables')}: 'variables' is a table: write [variables] above its"
                " names"
            )
        for name, value in table.items():
            self._typed(name, value, str)
            if objection := objection_to(name, value):
                raise BadInput(f"{self._place(name)}: {objection}")
        return table

    def _known(self, key: str, keys: Sequence[str] | set[str]) -> bool:
        if key not in keys:
            suggestions = difflib.get_close_matches(key, sorted(keys), n=3) or sorted(keys)
            raise BadInput(
                f"{self._place(key)}: unknown key '{key}'; did you mean {', '.join(suggestions)}?"
            )
        return True

    def _table(self, name: str, table: Any, kind: type[Effort] | type[Limits]) -> Effort | Limits:
        if not isinstance(table, dict):
            raise BadInput(
                f"{self._place(name)}: '{name}' is a table: write [{name}] above its keys"
            )
        defaults = vars(kind())
        for key, value in table.items():
            self._known(key, set(defaults))
            self._typed(key, value, type(defaults[key]))
            if fault := members_of(kind)[key].domain.fault(value, key):
                raise BadInput(f"{self._place(key)}: {fault}")
        return kind(**table)

    def _typed(self, key: str, value: Any, kind: type) -> Any:
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise BadInput(
                f"{self._place(key)}: '{key}' is {_words(kind)}, not {_words(type(value))}"
            )
        return value

    def _list(self, key: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise BadInput(f"{self._place(key)}: '{key}' is a list with at least one entry")
        kinds = {"batches": (int,), "times": (int,), "threads": (int, str)}.get(key, (str,))
        for entry in value:
            if not isinstance(entry, kinds) or isinstance(entry, bool):
                raise BadInput(f"{self._place(key)}: '{key}' cannot hold {entry!r}")
        return tuple(value)

    def _place(self, word: str) -> str:
        """Return ``path:line`` of the first line that holds the word as a key or a value."""
        pattern = re.compile(rf"(?<![\w:*-]){re.escape(word)}(?![\w:*-])" if word else "\"\"|''")
        for number, line in enumerate(self.text.splitlines(), start=1):
            if re.match(r"title\s*=", line) and word != "title":
                continue  # a title may hold any word
            if pattern.search(line.split("#")[0]):
                return f"{self.path}:{number}"
        return str(self.path)


_SCALARS: Mapping[str, type] = {
    **dict.fromkeys(("title", "numeric", "device", "level", "twin", "residency"), str),
    "seed": int,
    "margin": float,
}


def _words(kind: type) -> str:
    names: dict[type, str] = {
        **{str: "text", int: "a whole number", float: "a number", bool: "true or false"},
        **{
            dict: "a table",
            list: "a list",
            datetime: "a date",
            date: "a date",
            time_of_day: "a time",
        },
    }
    return names.get(kind, f"a {kind.__name__}")


class _BadValue(BadInput):
    """A value out of range; ``key`` is its key in a suite file."""

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def validated(suite: Suite) -> Suite:
    """Return the suite with patterns expanded and no duplicates. Raises UnknownName or BadInput."""
    cores = most_threads()
    for time in suite.times:
        if time < 1:
            raise _BadValue("times", f"a sequence has at least 1 element, not {time}")
    for model in suite.models:
        definition = reference.get(model)
        _check_traceable(
            definition, [preset for preset in suite.presets if preset in suite.own_presets]
        )
        for preset in suite.presets:
            definition.sizes(preset)
            for variant in presets_of(suite, model, preset, "training"):
                definition.sizes(variant)
    _all_known("phase", suite.phases, PHASES)
    _all_known("optimizer", suite.optimizers, tuple(OPTIMIZERS))
    _all_known("numeric mode", (suite.numeric,), NUMERICS)
    _all_known("device", (suite.device,), DEVICES)
    _all_known("level", (suite.level,), tuple(LEVELS))
    _all_known("residency", (suite.residency,), RESIDENCIES)
    threads = (_threads(count, cores) for count in suite.threads)
    names = expand_arms(suite.arms)
    if suite.twin not in ("auto", "none") and get_arm(suite.twin).name not in names:
        raise _BadValue(
            "twin",
            f"the A/A twin {suite.twin} is not among the arms ({', '.join(names)}): name one of"
            ' them, "auto" or "none"',
        )
    result = replace(
        suite,
        models=tuple(dict.fromkeys(suite.models)),
        arms=names,
        presets=tuple(dict.fromkeys(suite.presets)),
        phases=tuple(dict.fromkeys(suite.phases)),
        optimizers=tuple(dict.fromkeys(suite.optimizers)),
        batches=tuple(dict.fromkeys(suite.batches)),
        times=tuple(dict.fromkeys(suite.times)),
        threads=tuple(dict.fromkeys(threads)),
    )
    members = members_of(Suite)
    for key, value in result.to_json().items():
        listed = [*value] if isinstance(value, tuple) else value
        if fault := members[key].domain.fault(listed, key):
            raise _BadValue(key, fault)
    return result


def add_folders(folders: Iterable[Path]) -> tuple[str, ...]:
    """Add folders of outside models and return them as a suite keeps them. Raises BadInput."""
    added = []
    for folder in folders:
        try:
            models = reference.add_models(expanded(folder), _check_traceable)
        except reference.BadDefinition as error:
            raise BadInput(clean(str(error))) from error
        added.append(str(models.folder))
    return tuple(dict.fromkeys(added))


def add_presets(own: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the presets that a suite defines. Raises reference.BadDefinition."""
    for name, preset in own.items():
        reference.add_preset(name, preset["base"], preset["changes"])


def _check_traceable(model: Model, presets: Iterable[str] | None = None) -> None:
    """Raise BadDefinition where the shapes of a preset cannot be computed.

    ``presets``: those of the definition by default, which may be meant for larger machines.
    """
    for preset in model.presets if presets is None else presets:
        with by_definition(f"{model.name}/{preset} cannot be traced"):
            count = reference.summarize(model, preset, 1).parameter_count
        needed, total = count * BYTES_OF_FLOAT64, total_memory_bytes()
        if presets is not None and needed > total:
            raise reference.BadDefinition(
                f"{model.name}/{preset} has {count:,} parameters, {needed / 2**30:,.1f} GiB in the"
                f" float64 of the reference, and this machine has {total / 2**30:,.1f} GiB; choose"
                " smaller sizes"
            )


@cache
def add_installed_models() -> None:
    """Add the models of installed packages, which entry points of MODELS_GROUP name.

    Those that cannot be used are left out with a warning.
    """
    for entry in entries_of(MODELS_GROUP):
        try:
            add_folders([top_folder(entry).joinpath(*entry.value.split(".")[1:])])
        except BadInput as error:
            distribution, _ = package_of(entry.dist)
            words = f"are left out: {error}; mend, update or uninstall {distribution}"
            warnings.warn(clean(f"the models '{entry.name}' {words}"), UnusableModels, stacklevel=2)


class UnusableModels(UserWarning):
    """The models of an installed package cannot be used; the message says why."""


def _all_known(what: str, names: Sequence[str], choices: Sequence[str]) -> None:
    for name in names:
        if name not in choices:
            raise UnknownName(what, name, choices)


def _threads(count: int | str, cores: int) -> int:
    if count == "all":
        return cores
    if not isinstance(count, int):
        raise UnknownName("number of threads", str(count), ("all",))
    if not 1 <= count <= cores:
        raise _BadValue(
            "threads",
            f"threads must be from 1 to the {cores} available cores{_quota(cores)}, not {count}",
        )
    return count


def _quota(cores: int) -> str:
    return " within the quota of this control group" if cores < len(available_cores()) else ""


def expand_arms(patterns: Sequence[str]) -> tuple[str, ...]:
    """Expand names and patterns like ``keras:*`` to names, each once. Raises UnknownName."""
    names = tuple(arms())
    chosen: list[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            matches = [get_arm(pattern).name]
        chosen.extend(name for name in matches if name not in chosen)
    return tuple(chosen)


def refuse_copies(names: Iterable[str]) -> None:
    """Raise BadInput for an arm with a suffix, which a plan or the self-test gives, and no user."""
    for name in names:
        base = get_arm(name).base
        if name != base:
            raise _BadValue(
                "arms",
                f"{name} is a copy that Levelfield makes, not an arm to name; type {base}; A/A"
                f" twins are made by --twin {base}",
            )


def presets_of(suite: Suite, model: str, preset: str, phase: str) -> list[str]:
    """Return the preset, or one preset for each sequence length of the suite's sweep."""
    if phase == "generation" or "time" not in reference.get(model).sizes(preset):
        return [preset]
    return [f"{preset}{TIME}{time}" for time in suite.times] or [preset]
