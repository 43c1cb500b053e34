"""A terminal for tests: commands in processes of their own, and frameworks that pip installs.

What is measured goes through the console script itself. The many small mistakes are typed into
forks of a process that has imported it once, because importing takes longer than being refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engine import MISBEHAVING

ROOT = Path(__file__).parents[2]
CONSOLE_SCRIPT = Path(sys.executable).with_name("levelfield")
# The command line of this checkout, wherever the console script comes from.
COMMAND = (sys.executable, "-c", "from levelfield.harness.cli import main; main()")

# A build backend in the project's own folder, so that pip installs without fetching anything.
BACKEND = """
import pathlib, tomllib, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    information = f"{name}-{version}.dist-info"
    entries = "".join(
        f"[{group}]\\n" + "".join(f"{key} = {value}\\n" for key, value in table.items())
        for group, table in project["entry-points"].items()
    )
    metadata = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    tags = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory, wheel), "w") as archive:
        for path in sorted(pathlib.Path("src").rglob("*.*")):
            archive.write(path, path.relative_to("src"))
        archive.writestr(f"{information}/METADATA", metadata)
        archive.writestr(f"{information}/WHEEL", tags)
        archive.writestr(f"{information}/entry_points.txt", entries)
        archive.writestr(f"{information}/RECORD", "")
    return wheel
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "1.0"

[project.entry-points."levelfield.adapters"]
{entry} = "{package}"
"""
SUITE = """
title = "Modes of the misbehaving framework"
models = ["mlp"]
arms = [{arms}]
presets = ["tiny"]
phases = ["inference", "training"]
optimizers = ["sgd"]
batches = [8]
seed = 3

level = "smoke"
twin = "none"

[effort]
rounds = {rounds}
rounds_extra = 0.0
slice_seconds = 0.002
rewarm_seconds = 0.001
warm_up_seconds = 0.001
warm_up_cap_seconds = 1.0
quiet_seconds = 0.0
ceilings = false
memory_processes = 1
memory_steps = 2
accuracy = false
"""
FORKS = """
import gc, json, os, sys, traceback
import levelfield.harness.cli.application, harness.engine.session
from levelfield.harness.cli import main
gc.freeze()
for line in sys.stdin:
    arguments, folder, output, errors = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for number, name in ((1, output), (2, errors)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv, code = ["levelfield", *arguments], 0
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking down every module that was imported costs more than the command
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """The exit code, output and errors of a command that ended."""

    code: int
    output: str
    errors: str


def write_project(folder: Path, *, entry: str, package: str, files: Mapping[str, str]) -> Path:
    """A project that a third party could publish; ``files`` are by path below its ``src``."""
    for name, text in files.items():
        path = folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "backend.py").write_text(BACKEND)
    project = PROJECT.format(name=folder.name, entry=entry, package=package)
    (folder / "pyproject.toml").write_text(project)
    return folder


def install(target: Path, *projects: Path) -> None:
    """pip, offline, into a folder for PYTHONPATH."""
    options = "--no-deps --no-index --no-build-isolation --disable-pip-version-check --quiet"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options.split(), "--target", target, *projects],
        check=True,
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"},
    )


def installed_misbehaving(factory: pytest.TempPathFactory) -> Path:
    """A folder in which the misbehaving framework is really installed; made once per session."""
    site = factory.getbasetemp() / "site"
    if not site.exists():
        files = {
            "misbehaving/env.toml": (MISBEHAVING / "env.toml").read_text(),
            "misbehaving/__init__.py": "from levelfield.harness.selftest.misbehaving import *",
        }
        folder = factory.mktemp("projects") / "bad_company"
        install(
            site, write_project(folder, entry="misbehaving", package="misbehaving", files=files)
        )
    return site


def variables(factory: pytest.TempPathFactory, site: Path, **more: str) -> dict[str, str]:
    """The environment of a command: nothing is taken from or left in the user's own folders."""
    base = factory.getbasetemp()
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))),
        "LEVELFIELD_CACHE": str(base / "cache"),
        "COLUMNS": "200",
        # The reference compiles the same functions for every command.
        "JAX_COMPILATION_CACHE_DIR": str(base / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **more,
    }


def write_suite(path: Path, *modes: str, rounds: int = 2) -> Path:
    """A suite of modes of the misbehaving framework."""
    quoted = ", ".join(f'"misbehaving:{mode}"' for mode in modes)
    path.write_text(SUITE.format(arms=quoted, rounds=rounds))
    return path


class Terminal:
    """Types commands: into the console script, or into a fork that has imported it already."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder
        self._forks: subprocess.Popen[str] | None = None

    def script(self, *arguments: str | Path) -> Done:
        done = subprocess.run(
            [CONSOLE_SCRIPT, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str | Path) -> Done:
        if self._forks is None:
            self._forks = subprocess.Popen(
                [sys.executable, "-c", FORKS],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._forks.stdin
        assert self._forks.stdout
        output, errors = self.folder / ".output", self.folder / ".errors"
        request = [list(map(str, arguments)), *map(str, (self.folder, output, errors))]
        self._forks.stdin.write(json.dumps(request) + "\n")
        self._forks.stdin.flush()
        code = int(self._forks.stdout.readline())
        return Done(code, output.read_text(), errors.read_text())

    def close(self) -> None:
        if self._forks:
            self._forks.communicate()
