"""The tutorial and the guides: their files are good, and their commands work as typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from levelfield.harness.advice.needs import read_need
from levelfield.harness.plan.suite import Suite, load_suite

ROOT = Path(__file__).parent.parent
GUIDES = sorted(path for name in ("tutorial", "howto") for path in (ROOT / "docs" / name).glob("*"))
BLOCK = re.compile(
    r"^(?P<why>(?:<!-- not executed: [^\n]+ -->\n\n)?)"
    r"^```(?P<kind>\w*)(?: title=\"(?P<file>[\w.-]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block of code; ``file`` is the name under which a reader saves it, or ""."""

    kind: str
    text: str
    file: str
    executed: bool


def blocks(path: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        file = match["file"] or ""
        yield Block(match["kind"], match["text"], file, match["kind"] == "sh" and not match["why"])


def saved(path: Path, name: str, folder: Path) -> Path:
    """The file of a name that a page shows."""
    (text,) = (block.text for block in blocks(path) if block.file == name)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_suite_with_every_key_has_every_key_and_its_default(tmp_path: Path) -> None:
    path = saved(ROOT / "docs" / "suite.md", "every-key.toml", tmp_path)
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    shown = set(tables) | set(re.findall(r"^# (\w+) = ", path.read_text("utf-8"), re.MULTILINE))
    assert shown == set(asdict(load_suite(str(path)))) - {"name", "own_presets"}
    needed = {"name": "every-key", "title": "Every key", "models": ("mlp",)}
    defaults = Suite(**needed, arms=("reference:numpy",))
    examples = {"times": (32,), "variables": tables["variables"]}
    assert load_suite(str(path)) == replace(defaults, **examples)


@pytest.mark.parametrize("key", ["models", "presets", "level", "margin", "residency", "twin"])
def test_the_page_of_suites_names_the_values_of_a_key(key: str) -> None:
    text = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{key}` \| .*$", text, re.MULTILINE)
    value, meaning = row.split(" | ")[1], row.split(" | ")[3]
    assert value and len(meaning) > 15


def test_the_need_of_the_page_is_good(tmp_path: Path) -> None:
    need = read_need(saved(ROOT / "docs" / "need.md", "need.toml", tmp_path))
    assert need.purpose == "prototyping"
    assert need.weighted["time"] == 0.4


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_every_suite_of_a_guide_is_good(guide: Path, tmp_path: Path) -> None:
    names = [block.file for block in blocks(guide) if block.file]
    kinds = {block.kind for block in blocks(guide)}
    assert kinds <= {"sh", "toml", "text"}
    for name in names:
        text = saved(guide, name, tmp_path).read_text(encoding="utf-8")
        assert {"title", "models", "arms"} <= set(tomllib.loads(text))


class Reader:
    """A reader who types the commands of a page in a copy of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        without = shutil.ignore_patterns("__pycache__")
        for name in ("harness", "adapters", "reference", "levelfield"):
            shutil.copytree(ROOT / name, self.folder / name, symlinks=True, ignore=without)
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        (self.folder / "results").mkdir()
        for name in ("families", "example", "digits"):
            (self.folder / "results" / name).symlink_to(ROOT / "results" / name)
        command = folder / "bin" / "levelfield"
        command.parent.mkdir()
        program = "from levelfield.harness.cli import main; main()"
        command.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$@\"\n")
        command.chmod(0o755)
        path = f"{command.parent}:{os.environ['PATH']}"
        self.variables = {**os.environ, "PATH": path, "PYTHONPATH": str(self.folder)}

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


# A comparison of two short runs may find a difference, or no verdict, on a machine that is busy.
NO_IS_AN_ANSWER = "--fail-above"


@pytest.mark.long  # minutes: every page measures
@pytest.mark.alone
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_commands_of_a_guide_work_as_typed(guide: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for block in blocks(guide):
        if block.file:
            (reader.folder / block.file).write_text(block.text, encoding="utf-8")
        for line in block.text.splitlines() if block.executed else ():
            done = reader.types(line)
            good = (0, 1) if NO_IS_AN_ANSWER in line else (0,)
            assert done.returncode in good, f"{line}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_command_of_a_guide_that_does_not_work_is_seen(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.types("levelfield list suites").returncode == 0
    assert reader.types("levelfield list suits").returncode == 2
    assert "checkout" in reader.types("python -c 'import levelfield; print(levelfield)'").stdout
