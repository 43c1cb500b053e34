"""``levelfield new``: writes working starting points for a framework or a model."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from levelfield import reference
from levelfield.harness.cli.terminal import terminal
from levelfield.harness.errors import BadInput
from levelfield.harness.plan.arms import frameworks, unusable
from levelfield.harness.records.store import writing_failed

TEMPLATES = Path(__file__).with_name("templates")
CHECKOUT = Path(__file__).resolve().parents[2]
# A model's file for each of these frameworks is in templates/model.
STARTED = ("torch", "jax", "flax", "keras", "tensorflow")
# Files of a new framework's folder, and their templates.
FRAMEWORK_FILES = {
    "__init__.py": "adapter.py",
    "env.toml": "env.toml",
    "mlp.py": "mlp.py",
    "stand_in.py": "stand_in.py",
}
# The name becomes a folder, a Python package and a part of arms.
_MODULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")
CLONE = "clone Levelfield's repository and type the command there"

app = typer.Typer(
    help="Write a working starting point: a framework or a model.", no_args_is_help=True
)


@app.command("framework")
def framework_command(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _, such as mindspore.")],
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A package of its own here, not in adapters/."),
    ] = None,
) -> None:
    """Write an adapter that passes the check at once, with NumPy in the framework's place.

    Its comments say which lines to replace by the framework's own.
    """
    _refuse_bad_name("framework", name)
    if name in frameworks() or name in unusable():
        raise BadInput(f"there is a framework '{name}' already; choose another name")
    files = _framework_files(name, folder)
    _write(files)
    package = folder or files[0][0].parent
    steps = [
        *([f"pip install -e {folder}"] if folder else []),
        f"levelfield check --arms '{name}:*' --models mlp",
        f"change the lines marked CHANGE in {package}, and check after each change",
    ]
    _say_next(files, steps)


@app.command("model")
def model_command(
    name: Annotated[str, typer.Argument(help="Small letters, digits and _, such as perceptron.")],
    frameworks: Annotated[
        str, typer.Option(help=f"Separated by commas, from {', '.join(STARTED)}.")
    ] = "torch,jax",
) -> None:
    """Write the definition of a net with one layer, and its file for each framework.

    It passes the check at once. Comments say which lines to replace by the model's own.
    """
    _refuse_bad_name("model", name)
    if name in reference.definitions():
        raise BadInput(f"there is a model '{name}' already; choose another name")
    chosen = list(dict.fromkeys(framework.strip() for framework in frameworks.split(",")))
    for framework in chosen:
        if framework not in STARTED:
            raise BadInput(
                f"there is no starting point for the framework '{framework}'; choose from"
                f" {', '.join(STARTED)}, and write adapters/FRAMEWORK/{name}.py for others"
            )
    if not _is_checkout():
        raise BadInput(f"Levelfield is installed without its repository; {CLONE}")
    values = {"name": name, "title": name.replace("_", " ").capitalize()}
    files = [
        (CHECKOUT / "reference" / "models" / f"{name}.py", _text("model/definition.py", values))
    ]
    files += [
        (CHECKOUT / "adapters" / framework / f"{name}.py", _text(f"model/{framework}.py", values))
        for framework in chosen
    ]
    for path, _ in files:
        if path.exists():
            raise BadInput(f"{path} exists already; choose another name")
    _write(files)
    patterns = ",".join(f"{framework}:*" for framework in chosen)
    steps = [
        f"levelfield env build {' '.join(_environments(chosen))}",
        f"levelfield check --models {name} --arms '{patterns}'",
        "change the lines marked CHANGE, and check after each change",
    ]
    _say_next(files, steps)


def _refuse_bad_name(what: str, name: str) -> None:
    if not _MODULE_NAME.fullmatch(name) or keyword.iskeyword(name):
        raise BadInput(
            f"{name!r} cannot name a {what}; use at most 30 small letters, digits and _, a letter"
            " first, and no word of Python"
        )


def _is_checkout() -> bool:
    return (CHECKOUT / "pyproject.toml").is_file()


def _framework_files(name: str, folder: Path | None) -> list[tuple[Path, str]]:
    """The files of a new framework, in the checkout or in a package of its own: path, text."""
    if folder is not None:
        if folder.exists():
            raise BadInput(f"{folder} exists already; name a new folder")
        # The package must not hide that of the framework, which may have the framework's name.
        package = f"levelfield_{name}"
        target = folder / package
    elif _is_checkout():
        package, target = f"levelfield.adapters.{name}", CHECKOUT / "adapters" / name
        for path in (target, target.with_suffix(".py")):
            if path.exists():
                raise BadInput(f"{path} exists already; choose another name")
    else:
        raise BadInput(
            f"Levelfield is installed without its repository; {CLONE}, or write a package of your"
            f" own: levelfield new framework {name} --folder DIR"
        )
    values = {
        "name": name,
        "package": package,
        "distribution": f"levelfield-{name.replace('_', '-')}",
        "numpy": version("numpy"),
        "today": date.today().isoformat(),
        "imports": _imports(package),
    }
    files = [
        (target / file, _text(f"framework/{template}", values))
        for file, template in FRAMEWORK_FILES.items()
    ]
    if folder is not None:
        files.append((folder / "pyproject.toml", _text("framework/pyproject.toml", values)))
    return files


def _imports(package: str) -> str:
    """The adapter's imports of the contract and of the stand-in, in the order of their names."""
    contract = (
        "from levelfield.adapters.base import Adapter as Base\n"
        "from levelfield.adapters.layout import Layout"
    )
    return "\n".join(sorted([contract, f"from {package} import stand_in"]))


def _text(template: str, values: Mapping[str, str]) -> str:
    text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _environments(names: list[str]) -> list[str]:
    """The labels of the environments of some frameworks."""
    all_frameworks = frameworks()
    modes = (mode for name in names for mode in all_frameworks[name].modes.values())
    return list(dict.fromkeys(mode.environment.label for mode in modes))


def _write(files: list[tuple[Path, str]]) -> None:
    for path, text in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise writing_failed(error, path, advice="name another folder") from error


def _say_next(files: list[tuple[Path, str]], steps: list[str]) -> None:
    lines = [f"wrote {path}" for path, _ in files]
    lines += ["Next:", *(f"  {step}" for step in steps)]
    terminal().print("\n".join(lines), soft_wrap=True)
