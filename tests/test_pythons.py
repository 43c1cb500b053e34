"""The host under the other Pythons that ``pyproject.toml`` names, where this machine has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from levelfield.harness.environments.interpreters import choose_interpreter, clean_variables
from levelfield.harness.errors import RunFailed

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.long  # each installs all dependencies, and runs half of the tests


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_tests_that_need_no_framework_pass(version: str, tmp_path: Path) -> None:
    assert not sys.version.startswith(version)
    try:
        interpreter = choose_interpreter(f"=={version}.*")
    except RunFailed:
        pytest.skip(f"this machine has no Python {version}")
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([interpreter.path, "-m", "venv", tmp_path / "environment"], check=True)
    install = ["install", "--quiet", "--disable-pip-version-check"]
    tools = ["--constraint", ROOT / "constraints.txt", "--editable", f"{ROOT}[dev]"]
    subprocess.run([python, "-m", "pip", *install, *tools], check=True)
    which = ["-m", "not alone and not long and not real"]
    done = subprocess.run(
        [python, "-m", "pytest", "-n", "logical", "-q", "-p", "no:cacheprovider", *which],
        cwd=ROOT,
        env=clean_variables(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
