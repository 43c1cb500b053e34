"""Finds Python interpreters and lists what is installed in them.

The harness searches the places that the variable LEVELFIELD_PYTHONS names (interpreters, or folders
that hold them, as in PATH), PATH, pyenv, and the places where conda, uv and distributions install
them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.machine.resources import home_folder

MINOR_VERSIONS = range(14, 5, -1)  # of Python 3, newest first: the newest that fits is chosen
# These programs also run under old Pythons, so they keep to the language of 3.6.
DESCRIBE = """
import ensurepip, json, sys, sysconfig, venv
print(json.dumps(["%d.%d.%d" % sys.version_info[:3], sysconfig.get_platform()]))
"""
_IMPORTS = """
import importlib, importlib.util, sys
for name in sys.argv[1:]:
    if "." in name:
        importlib.import_module(name)
    elif importlib.util.find_spec(name) is None:
        sys.exit(1)
print("%d.%d.%d" % sys.version_info[:3])
"""
_LIST = """
import json
from importlib.metadata import distributions
print(json.dumps(["%s==%s" % (d.metadata["Name"], d.version) for d in distributions()]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can make virtual environments; ``platform`` is as in ``linux-x86_64``."""

    path: Path
    version: str
    platform: str

    @property
    def minor(self) -> str:
        """Major and minor version: "3.11"."""
        return self.version.rpartition(".")[0]


def choose_interpreter(python: str) -> Interpreter:
    """Return the running interpreter if it satisfies ``python``, else the first that does.

    The newest minor version is tried first. Raises BadInput for a malformed specifier and RunFailed
    if no interpreter satisfies it.
    """
    specifiers = _specifiers(python)
    for path in _candidates(specifiers):
        interpreter = ask(path)
        if interpreter is not None and interpreter.version in specifiers:
            return interpreter
    raise RunFailed(
        f"no Python {python} with venv and ensurepip is on PATH, under pyenv or in the usual "
        "places; install one, for example with pyenv install, or name it: "
        "export LEVELFIELD_PYTHONS=PATH"
    )


def find_interpreter(python: str, imports: tuple[str, ...]) -> Path | None:
    """Return the first interpreter that fits ``python`` and has all imports; None if none does."""
    specifiers = _specifiers(python)
    for path in _candidates(specifiers):
        version = _version_with(path, imports)
        if version is not None and version in specifiers:
            return path
    return None


def _specifiers(python: str) -> SpecifierSet:
    try:
        return SpecifierSet(python)
    except InvalidSpecifier as error:
        raise BadInput(
            f"python = '{python}' is no version specifier; write '>=3.10,<3.12'"
        ) from error


def _candidates(specifiers: SpecifierSet) -> Iterator[Path]:
    yield Path(sys.executable)
    paths = [
        Path(path) for path in os.environ.get("LEVELFIELD_PYTHONS", "").split(os.pathsep) if path
    ]
    # Not Path.is_file, which raises PermissionError below a folder that cannot be searched.
    yield from filter(os.path.isfile, paths)
    folders = [*filter(os.path.isdir, paths)]
    folders += [*_path_folders(), *_usual_folders()]
    first: dict[str, Path] = {}  # links to a folder, such as /bin, are searched once
    for folder in folders:
        first.setdefault(os.path.realpath(folder), folder)
    for minor in MINOR_VERSIONS:
        # A question costs a process, so minor versions without a fitting patch release are skipped.
        if any(f"3.{minor}.{patch}" in specifiers for patch in range(50)):
            yield from (folder / f"python3.{minor}" for folder in first.values())


def _path_folders() -> Iterator[Path]:
    """The folders of PATH, with pyenv's versions in place of its shims, which start slowly."""
    shims = {root / "shims" for root in _pyenv_roots()}
    for entry in map(Path, filter(None, os.get_exec_path())):
        if entry in shims:
            yield from _pyenv_folders()
        else:
            yield entry


def _pyenv_roots() -> list[Path]:
    """The folder of pyenv; none for a user without a home."""
    if root := os.environ.get("PYENV_ROOT"):
        return [Path(root)]
    home = home_folder()
    return [home / ".pyenv"] if home else []


def _pyenv_folders() -> list[Path]:
    folders = (path for root in _pyenv_roots() for path in _matching(root, "versions/*/bin"))
    return sorted(folders, reverse=True)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The paths below a folder that match; none below one that this user cannot search."""
    try:
        return sorted(folder.glob(pattern))
    except PermissionError:
        return []


def _usual_folders() -> list[Path]:
    folders, home = _pyenv_folders(), home_folder()
    if home is not None:
        for conda in ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "/opt/conda"):
            folders += [home / conda / "bin", *_matching(home / conda, "envs/*/bin")]
        folders += _matching(home / ".local/share/uv/python", "*/bin")[::-1]
    return [*folders, Path("/usr/local/bin"), Path("/usr/bin")]


@cache
def _version_with(path: Path, imports: tuple[str, ...]) -> str | None:
    """The version of a Python that has all imports; a submodule is really imported."""
    if not os.access(path, os.X_OK):
        return None
    try:
        return printed_by(path, "-c", _IMPORTS, *imports).splitlines()[-1]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


@cache
def ask(path: Path) -> Interpreter | None:
    """Describe a Python; None if it fails, such as a pyenv shim that selects nothing."""
    if not os.access(path, os.X_OK):
        return None
    try:
        version, platform = json.loads(printed_by(path, "-c", DESCRIBE))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(path, version, platform)


def printed_by(interpreter: Path, *arguments: str) -> str:
    """Return the output of a Python; raises OSError or SubprocessError."""
    # The worker also uses -s. The working folder is one that shadows no module.
    return subprocess.run(
        [str(interpreter), "-s", *arguments],
        cwd=interpreter.parent,
        env=clean_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=60,
        encoding="utf-8",
    ).stdout


def clean_variables() -> dict[str, str]:
    """The user's environment variables without those that would let another Python leak in.

    The rest of the user's pip configuration stays in force.
    """
    leaks = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "FORCE_COLOR"}
    leaks |= {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}
    variables = {name: value for name, value in os.environ.items() if name not in leaks}
    return variables | {"PIP_USER": "0", "PYTHONIOENCODING": "utf-8"}


def lock_hash(lock: Iterable[str]) -> str:
    """SHA-256 of the sorted lines of a lock."""
    return hashlib.sha256("\n".join(sorted(lock)).encode()).hexdigest()


@cache
def lock_of(interpreter: Path) -> tuple[str, ...]:
    """Packages of an interpreter as ``name==version``, listed once per process.

    Raises BadInput if it does not answer.
    """
    return installed(interpreter)


def installed(interpreter: Path) -> tuple[str, ...]:
    """List the packages in a Python, "name==version" each, sorted. Raises BadInput."""
    for arguments in (
        ("-m", "pip", "--disable-pip-version-check", "list", "--format=freeze"),
        ("-c", _LIST),
    ):
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            printed = printed_by(interpreter, *arguments)
            lines = json.loads(printed) if arguments[0] == "-c" else printed.split()
            return tuple(sorted({line for line in lines if "==" in line}))
    raise BadInput(f"{interpreter} cannot list its packages; name a working Python, or give it pip")
