"""Sealed environments: one virtual environment per specification, in a cache.

A folder of the cache is named by the hash of its specification alone, so frameworks and checkouts
with the same specification share it. A marker distinguishes a finished environment from a
half-built one; it is written last and removed first. The lock in the marker lists the packages that
were really installed.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from packaging.requirements import Requirement
from platformdirs import user_cache_path

from levelfield.harness.environments.interpreters import (
    DESCRIBE,
    Interpreter,
    choose_interpreter,
    find_interpreter,
    installed,
    lock_hash,
    lock_of,
    printed_by,
)
from levelfield.harness.environments.pip import failure, pip_steps
from levelfield.harness.errors import FULL_DISK, BadInput, RunFailed
from levelfield.harness.machine.resources import expanded
from levelfield.harness.machine.scratch import is_full
from levelfield.harness.plan.arms import EnvironmentSpec
from levelfield.harness.plan.domains import Domain, members_of

MARKER = "levelfield.json"
CHOOSE_CACHE = "name a folder of your own: export LEVELFIELD_CACHE=FOLDER"
# The last line of the log of a failed build starts with this, followed by the reason.
FAILED = "levelfield: failed: "


class EnvironmentFailed(RunFailed):
    """An environment could not be built; the message has the tool's own reason and its log."""


@dataclass(frozen=True)
class Environment:
    """A finished environment: the specifications that asked for it, and the packages in it.

    ``labels`` are those of all specifications that asked. ``lock`` lists the packages that were
    really installed. ``built`` is a UTC date.
    """

    path: Path
    labels: tuple[str, ...]
    python_specifier: str
    requirements: tuple[str, ...]
    python: str
    platform: str
    lock: tuple[str, ...]
    lock_hash: str
    build_seconds: float
    built: str

    @property
    def interpreter(self) -> Path:
        """The Python to start workers with."""
        return self.path / "bin" / "python"


@dataclass(frozen=True)
class Resolution:
    """The interpreter for a specification; ``how``: given, sealed, running, found or none."""

    interpreter: Path | None
    how: str
    reason: str
    lock_hash: str | None
    lock: tuple[str, ...]


def cache_folder() -> Path:
    """Folder of everything that outlives a command; LEVELFIELD_CACHE moves it. Raises BadInput."""
    setting = os.environ.get("LEVELFIELD_CACHE")
    with suppress(RuntimeError):  # by new versions of platformdirs; old ones leave ~ as it is
        folder = Path(setting or user_cache_path("levelfield")).expanduser()
        if setting or folder.is_absolute():
            return folder.absolute()
    raise BadInput(f"no home folder is known for {setting or 'this user'}; {CHOOSE_CACHE}")


def environments_folder() -> Path:
    """Folder of environments, their logs and their locks. Raises BadInput if it is unreadable."""
    folder = cache_folder() / "environments"
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError):
        pass  # the program that creates it reports what is wrong
    except OSError as error:
        raise BadInput(f"{folder}: cannot read it: {error.strerror}; {CHOOSE_CACHE}") from error
    return folder


def environment_folder(spec: EnvironmentSpec, base: Interpreter) -> Path:
    """Folder of a specification, named by a hash of exactly the values that decide its content."""
    content = [spec.python, sorted(spec.requirements), base.platform, base.minor]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return environments_folder() / key


def find(spec: EnvironmentSpec) -> Environment | None:
    """Return the finished environment of a specification, if there is one."""
    if not spec.requirements:
        return None
    try:
        return _read(environment_folder(spec, choose_interpreter(spec.python)))
    except RunFailed:
        return None


def list_environments() -> list[Environment]:
    """List every finished environment of the cache, by label."""
    return sorted(filter(None, map(_read, _folders())), key=lambda environment: environment.labels)


def half_built() -> list[Path]:
    """Folders of the cache that hold an unfinished build or the rest of a removal."""
    return [folder for folder in _folders() if _read(folder) is None]


def _folders() -> list[Path]:
    names = re.compile(r"[0-9a-f]{16}")
    folder = environments_folder()
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in paths if names.fullmatch(path.name) and path.is_dir())


def size_bytes(environment: Environment) -> int:
    """The sum of the sizes of the environment's files; links count as links."""
    return sum(path.lstat().st_size for path in environment.path.rglob("*") if not path.is_dir())


def remove(which: EnvironmentSpec | Path) -> None:
    """Remove an environment, finished or not, with its log, whatever other labels it has.

    Raises BadInput if there is none and RunFailed while it is being built.
    """
    name = str(which) if isinstance(which, Path) else which.label
    if not isinstance(which, Path):
        which = environment_folder(which, choose_interpreter(which.python))
    folder = which.absolute()
    if folder not in _folders():
        labels = {label for environment in list_environments() for label in environment.labels}
        raise BadInput(
            f"{name} has no environment to remove; built are: {', '.join(sorted(labels)) or 'none'}"
        )
    with _locked(folder, None):
        try:
            _discard(folder)
            _log_of(folder).unlink(missing_ok=True)
        except OSError as error:
            raise RunFailed(f"cannot remove {name}: {error.filename}: {error.strerror}") from error


def _discard(folder: Path) -> None:
    # These are removed first, so that an interrupted removal is neither used nor resumed.
    for name in (MARKER, "bin/activate"):
        (folder / name).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def build(spec: EnvironmentSpec, *, on_progress: Callable[[str], None]) -> Environment:
    """Return the environment of a specification; make or finish it if necessary.

    ``on_progress`` gets one short line at a time. A second build of the same specification waits
    for the first. Raises EnvironmentFailed if no Python fits, ``venv`` or ``pip`` fails, the disk
    is full, or the specification has nothing to build. An interrupted build is half-built.
    """
    if not spec.requirements:
        raise EnvironmentFailed(f"nothing can be built for {spec.label}: {_how_to_get(spec)}")
    try:
        base = choose_interpreter(spec.python)
    except RunFailed as error:
        raise EnvironmentFailed(str(error)) from error
    folder = environment_folder(spec, base)
    environment = _read(folder)
    if environment is not None and spec.label in environment.labels:
        return environment
    with _locked(folder, on_progress):
        try:
            environment = _read(folder)
            if environment is None:
                environment = _build(spec, base, folder, on_progress)
            elif spec.label not in environment.labels:
                environment = replace(
                    environment, labels=tuple(sorted({*environment.labels, spec.label}))
                )
            _write(environment)
        except OSError as error:
            full = error.errno in FULL_DISK
            reason = "the disk is full" if full else f"cannot write there: {error.strerror}"
            place = error.filename or folder
            raise EnvironmentFailed(
                f"{place}: {reason}; make room, or {CHOOSE_CACHE}; then type: levelfield env build"
                f" {spec.label}"
            ) from error
        return environment


def _build(
    spec: EnvironmentSpec, base: Interpreter, folder: Path, on_progress: Callable[[str], None]
) -> Environment:
    started = time.perf_counter()
    python = folder / "bin" / "python"
    # Bytecode is compiled here, whatever pip's own settings say. An import then takes the same time
    # in an environment's first process as in later ones, and no worker writes into the environment.
    pip = [str(python), "pip", "install", "--compile", "--no-input", "--disable-pip-version-check"]
    commands = [[*pip, "--progress-bar", "off", *step] for step in pip_steps(spec.requirements)]
    resumed = _resumable(folder)
    if not resumed:
        on_progress(f"making a virtual environment with Python {base.version}")
        _discard(folder)
        commands.insert(0, [str(base.path), "venv", str(folder)])
    log = _log_of(folder)
    with log.open("a" if resumed else "w", encoding="utf-8", buffering=1) as output:
        for command in commands:
            reason = failure(command, output, on_progress)
            if reason is not None:
                print(FAILED, reason, sep="", file=output)
                if is_full(folder, reason):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
                raise EnvironmentFailed(
                    f"{command[1]} could not make the environment of {spec.label}: {reason}; read "
                    f"{log}, then type: levelfield env build {spec.label}"
                )
    version, platform = json.loads(printed_by(python, "-c", DESCRIBE))
    lock = installed(python)
    return Environment(
        path=folder,
        labels=(spec.label,),
        python_specifier=spec.python,
        requirements=tuple(sorted(spec.requirements)),
        python=version,
        platform=platform,
        lock=lock,
        lock_hash=lock_hash(lock),
        build_seconds=time.perf_counter() - started,
        built=datetime.now(UTC).date().isoformat(),
    )


def _resumable(folder: Path) -> bool:
    # venv writes `activate` after it installed its own pip, and pip writes INSTALLER after a
    # package's last file. A package without INSTALLER looks installed to pip but may lack files, so
    # the build starts again.
    packages = folder.glob("lib/python*/site-packages/*.dist-info")
    if not (folder / "bin" / "activate").is_file():
        return False
    if not all((package / "INSTALLER").is_file() for package in packages):
        return False
    try:
        printed_by(folder / "bin" / "python", "-m", "pip", "--version")
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _log_of(folder: Path) -> Path:
    return folder.with_suffix(".log")


@contextmanager
def _locked(folder: Path, on_wait: Callable[[str], None] | None) -> Iterator[None]:
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        if on_wait is None:
            raise RunFailed(
                f"{folder} is in use by a build; wait for its end or stop it"
            ) from error
        on_wait("waiting for another process that works on the same environment")
        lock.acquire()
    except OSError as error:
        raise RunFailed(
            f"cannot write to {folder.parent}: {error.strerror}; name a folder that can be "
            "written: export LEVELFIELD_CACHE=FOLDER"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write(environment: Environment) -> None:
    marker = environment.path / MARKER
    content = {name: value for name, value in asdict(environment).items() if name != "path"}
    temporary = marker.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(temporary, marker)


def _read(folder: Path) -> Environment | None:
    # None without a valid marker, or if the Python on which the environment depends is gone. Fields
    # that this version does not know come from another version and do no harm.
    members = {name: member for name, member in members_of(Environment).items() if name != "path"}
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not Domain(dict, members=members).holds([content]):
        return None
    values = {name: content[name] for name in members}
    for name in ("labels", "requirements", "lock"):
        values[name] = tuple(values[name])
    environment = Environment(path=folder, **values)
    return environment if os.access(environment.interpreter, os.X_OK) else None


def resolve(spec: EnvironmentSpec, given: Mapping[str, Path]) -> Resolution:
    """Find a specification's interpreter: given, else sealed, else running or found, else none.

    ``given`` has labels ("keras/jax") or frameworks as keys. Raises BadInput if a given
    interpreter cannot run.
    """
    if _lacks_programs(spec):
        reason = f"{' or '.join(spec.programs)} is not on PATH; {spec.hint}"
        return Resolution(None, "none", reason, None, ())
    for name in (spec.label, spec.framework):
        if name in given:
            path = expanded(given[name]).absolute()
            if not (os.path.isfile(path) and os.access(path, os.X_OK)):
                raise BadInput(
                    f"the interpreter given for {name}, {path}, is not an executable file; give "
                    f"the path of a Python, or none and type: levelfield env build {spec.label}"
                )
            return _unsealed(path, "given", "interpreter given on the command line")
    sealed = find(spec)
    if sealed is not None:
        reason = f"sealed environment built {sealed.built}"
        return Resolution(sealed.interpreter, "sealed", reason, sealed.lock_hash, sealed.lock)
    if not spec.requirements:
        return _found(spec)
    lack = _lack_of_this_interpreter(spec)
    if not lack:
        reason = f"this interpreter can import {' and '.join(spec.imports)}"
        return _unsealed(Path(sys.executable), "running", reason)
    reason = (
        f"{_why_not_sealed(spec)}, and this interpreter {lack}; "
        f"type: levelfield env build {spec.label}"
    )
    return Resolution(None, "none", reason, None, ())


def _lack_of_this_interpreter(spec: EnvironmentSpec) -> str:
    """Say why the running interpreter cannot serve a specification; "" if it can.

    Where a version was asked for, no other one may take its place.
    """
    missing = [name for name in spec.imports if not _importable(name)]
    if missing:
        return f"cannot import {' and '.join(missing)}"
    wanted = Requirement(spec.requirements[0])
    if "@" not in spec.framework:
        return ""
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:  # the module came from elsewhere
        return f"does not say which version of {wanted.name} it has"
    right = wanted.specifier.contains(version, prereleases=True)
    return "" if right else f"has {wanted.name} {version}"


def buildable(spec: EnvironmentSpec) -> bool:
    """Return whether a build could give a specification that has no interpreter one."""
    return bool(spec.requirements) and not _lacks_programs(spec)


def _lacks_programs(spec: EnvironmentSpec) -> bool:
    return bool(spec.programs) and not any(map(_is_on_path, spec.programs))


def _found(spec: EnvironmentSpec) -> Resolution:
    path = find_interpreter(spec.python, spec.imports)
    if path is None:
        reason = f"no Python that imports {' and '.join(spec.imports)} was found; "
        return Resolution(None, "none", reason + _how_to_get(spec), None, ())
    how = "running" if path == Path(sys.executable) else "found"
    return _unsealed(path, how, f"{path} can import {' and '.join(spec.imports)}")


def _how_to_get(spec: EnvironmentSpec) -> str:
    return f"{spec.hint}; then name its Python: export LEVELFIELD_PYTHONS=PATH"


def _unsealed(interpreter: Path, how: str, reason: str) -> Resolution:
    lock = lock_of(interpreter)
    return Resolution(interpreter, how, reason, lock_hash(lock), lock)


def _why_not_sealed(spec: EnvironmentSpec) -> str:
    try:
        folder = environment_folder(spec, choose_interpreter(spec.python))
    except RunFailed:
        return f"no Python {spec.python} was found for a sealed environment"
    log = _log_of(folder)
    last: list[str] = []
    with suppress(OSError):  # it is missing, or another user's
        last = log.read_text(encoding="utf-8").splitlines()[-1:]
    if last and last[0].startswith(FAILED):
        return f"its environment could not be built ({last[0].removeprefix(FAILED)})"
    return "its environment is half-built" if folder.is_dir() else "no sealed environment"


def _is_on_path(pattern: str) -> bool:
    folders = (Path(entry) for entry in os.get_exec_path() if entry)
    return any(os.access(path, os.X_OK) for folder in folders for path in folder.glob(pattern))


def _importable(module: str) -> bool:
    # Locating a top-level module runs no code of it. A folder without code, such as the rest of an
    # uninstalled package, is a namespace without an origin.
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except ValueError:
        return False
    return spec is not None and spec.origin is not None
