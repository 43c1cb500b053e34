"""The models by name: the built-in ones, and those of folders that a user adds.

Presets that a user adds are added here, too, because their names must differ from all built-in
ones. A host gives its additions to the processes that it starts in an environment variable.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from levelfield.reference.errors import BadDefinition, UnknownName, by_definition
from levelfield.reference.presets import OWN_PRESETS, OwnPreset
from levelfield.reference.spec import Model, Sizes

# A folder of outside models is imported as a package of this name and its number.
OUTSIDE_PACKAGE = "outside_models_"
# Gives the outside models of a host to the processes that it starts, as JSON.
OUTSIDE_VARIABLE = "LEVELFIELD_OUTSIDE"
MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True)
class Outside:
    """A folder of models that are not built in.

    ``package`` is the name under which the files of the folder are imported.
    """

    folder: Path
    package: str
    models: Mapping[str, Model]


_OUTSIDE: dict[Path, Outside] = {}


@cache
def _built_in() -> Mapping[str, Model]:
    """Return the models that the modules of ``levelfield.reference.models`` list in ``MODELS``."""
    models: dict[str, Model] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "models")]):
        for model in importlib.import_module(f"levelfield.reference.models.{module.name}").MODELS:
            models[model.name] = model
    return models


@cache
def _add_those_of_the_host() -> None:
    """Add the outside models and own presets of the host that started this process."""
    given = json.loads(os.environ.get(OUTSIDE_VARIABLE, "{}"))
    for folder in given.get("folders", ()):
        add_models(Path(folder))
    for name, (base, changes) in given.get("presets", {}).items():
        add_preset(name, base, changes)


def outside() -> tuple[Outside, ...]:
    """Return the folders of outside models, in the order in which they were added."""
    return tuple(_OUTSIDE.values())


def outside_of(model: str) -> Outside | None:
    """Return the folder that defines a model; None for a built-in model."""
    return next((group for group in outside() if model in group.models), None)


def outside_variables() -> dict[str, str]:
    """Return the variables from which another process learns outside models and own presets."""
    folders = [str(group.folder) for group in outside()]
    presets = {name: [own.base, dict(own.changes)] for name, own in OWN_PRESETS.items()}
    if not folders and not presets:
        return {}
    return {OUTSIDE_VARIABLE: json.dumps({"folders": folders, "presets": presets})}


def add_preset(name: str, base: str, changes: Sizes) -> None:
    """Add a preset: the sizes of the preset ``base`` of a model, with ``changes``.

    It replaces an earlier one of its name. Lists become tuples. Raises BadDefinition for the name
    of a built-in preset.
    """
    models = [*_built_in().values(), *(m for group in outside() for m in group.models.values())]
    taken = {preset for model in models for preset in model.presets}
    if name in taken or not MODEL_NAME.fullmatch(name):
        raise BadDefinition(
            f"{name!r} cannot name a preset of one's own: use letters, digits and _, and none of"
            f" {', '.join(sorted(taken))}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    OWN_PRESETS[name] = OwnPreset(base, values)


def add_models(folder: Path, check: Callable[[Model], None] = lambda model: None) -> Outside:
    """Add the models of a folder to :func:`definitions`. A folder that was added stays as it was.

    Each ``.py`` file at its top whose name does not begin with "_" defines models in ``MODELS``, as
    the files of ``levelfield.reference.models`` do. It may import NumPy, ``levelfield.reference``
    and the standard library. ``check`` is called for each model and may raise BadDefinition, too.
    Raises BadDefinition; then no model is added.
    """
    folder = Path(os.path.realpath(folder))  # which raises nothing for a link to itself
    if folder in _OUTSIDE:
        return _OUTSIDE[folder]
    package = f"{OUTSIDE_PACKAGE}{len(_OUTSIDE)}"
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        models = _models_of(folder, package)
        for model in models.values():
            check(model)
    except BadDefinition:
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
            del sys.modules[name]  # the next folder has the same number
        raise
    _OUTSIDE[folder] = Outside(folder, package, models)
    return _OUTSIDE[folder]


def _models_of(folder: Path, package: str) -> dict[str, Model]:
    """Import the definitions of a folder. Raises BadDefinition."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".py")
    except OSError as error:
        raise BadDefinition(f"{folder}: not a folder of models ({error.strerror})") from error
    known = {**_built_in(), **{name: model for o in outside() for name, model in o.models.items()}}
    models: dict[str, Model] = {}
    for path in (path for path in paths if not path.name.startswith("_")):
        for model in _models_in(path, f"{package}.{path.stem}"):
            if model.name in models or model.name in known:
                raise BadDefinition(f"{path}: another model has the name '{model.name}'; rename it")
            models[model.name] = model
    if not models:
        raise BadDefinition(f"{folder}: no file at its top defines a model in MODELS")
    return models


def _models_in(path: Path, name: str) -> tuple[Model, ...]:
    """Import a file of definitions by its dotted name. Raises BadDefinition."""
    if path.exists() and not path.is_file():  # reading a pipe or a device would never end
        raise BadDefinition(f"{path}: it is no regular file")
    with by_definition(str(path)):
        allowed = {"numpy", "levelfield.reference", *sys.stdlib_module_names}
        if foreign := sorted(_imported(path) - allowed):
            raise BadDefinition(
                f"{path}: imports {', '.join(foreign)}; a definition may import numpy and"
                " levelfield.reference only"
            )
        models = getattr(importlib.import_module(name), "MODELS", None)
        if not isinstance(models, tuple | list) or not all(isinstance(m, Model) for m in models):
            raise BadDefinition(f"{path}: MODELS is not a tuple of levelfield.reference.spec.Model")
        for model in models:
            for word in (model.name, model.file, *model.presets):
                if not isinstance(word, str) or not MODEL_NAME.fullmatch(word):
                    raise BadDefinition(
                        f"{path}: {word!r} cannot name a model, its file or a preset; use letters,"
                        " digits and _"
                    )
            if not model.presets:
                raise BadDefinition(f"{path}: the model '{model.name}' has no presets")
    return tuple(models)


def _imported(path: Path) -> set[str]:
    """Return the packages that a file imports: top-level ones, and those below ``levelfield``.

    Relative imports are its own.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "levelfield":
            names |= {f"levelfield.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    parts = (name.split(".") for name in names)
    return {".".join(words[: 2 if words[0] == "levelfield" else 1]) for words in parts}


def definitions() -> Mapping[str, Model]:
    """All models by name: the built-in ones, and those of folders that were added."""
    _add_those_of_the_host()
    added = {name: model for group in outside() for name, model in group.models.items()}
    return dict(sorted({**_built_in(), **added}.items()))


def get(name: str) -> Model:
    """The definition of a model. Raises :class:`UnknownName` with the nearest valid names."""
    known = definitions()
    if name not in known:
        raise UnknownName("model", name, known)
    return known[name]
