"""The wheel: installed into a fresh environment, and used from a folder that is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from levelfield.harness.environments.interpreters import choose_interpreter, clean_variables
from levelfield.harness.errors import RunFailed

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "adapters", "reference")  # of the checkout; `levelfield` has links to them
PYTHONS = ("3.11", "3.12", "3.13")  # those that pyproject.toml names
pytestmark = pytest.mark.long  # each installs all dependencies: two minutes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the repository, so that the build leaves nothing in the checkout."""
    source = tmp_path_factory.mktemp("source")
    without = shutil.ignore_patterns("__pycache__")
    for name in ("levelfield", *FOLDERS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=without)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    target = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", target, source)
    (file,) = target.glob("*.whl")
    return file


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip, which must succeed."""
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run([python, "-m", "pip", *arguments, *quiet], check=True)


def test_the_wheel_holds_every_file_in_one_package_and_no_other(wheel: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "--list", wheel],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split()[0] for line in listed.stdout.splitlines()[1:]}
    packaged = {name for name in names if ".dist-info/" not in name}
    expected = {
        f"levelfield/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packaged == expected | {"levelfield/__init__.py", "levelfield/py.typed"}


@pytest.mark.parametrize("version", PYTHONS)
def test_an_installed_wheel_checks_a_model_from_another_folder(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    try:
        interpreter = choose_interpreter(f"=={version}.*")
    except RunFailed:
        pytest.skip(f"this machine has no Python {version}")
    environment = tmp_path / "environment"
    subprocess.run([interpreter.path, "-m", "venv", environment], check=True)
    pip(environment / "bin" / "python", "install", wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {**clean_variables(), "LEVELFIELD_CACHE": str(tmp_path / "cache")}
    variables["COLUMNS"] = "200"

    def typed(*words: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "levelfield", *words],
            cwd=elsewhere,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert typed("--version").split()[0] == "levelfield"
    assert "mlp" in typed("list", "models")
    typed("env", "build", "reference")
    words = ("check", "tiny", "--arms", "reference:numpy", "--models", "mlp", "--json")
    assert '"status": "ok"' in typed(*words)
    pip(environment / "bin" / "python", "install", namesakes(tmp_path))
    assert '"status": "ok"' in typed(*words)
    pip(environment / "bin" / "python", "uninstall", "--yes", "namesakes")
    assert '"status": "ok"' in typed(*words)
    assert sorted(os.listdir(elsewhere)) == []


def namesakes(folder: Path) -> Path:
    """Write a project whose packages have the names of Levelfield's folders."""
    project = folder / "namesakes"
    for name in FOLDERS:
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("raise RuntimeError('of another project')\n")
    names = ", ".join(f'"{name}"' for name in FOLDERS)
    (project / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['setuptools>=77']\nbuild-backend = 'setuptools.build_meta'\n"
        "[project]\nname = 'namesakes'\nversion = '1'\n"
        f"[tool.setuptools]\npackages = [{names}]\n"
    )
    return project


def test_the_versions_tested_are_those_that_the_project_requires() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        required = SpecifierSet(tomllib.load(file)["project"]["requires-python"])
    assert f"{PYTHONS[0]}.0" in required
    assert "3.10.13" not in required
