"""What ``import levelfield`` gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import levelfield

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("name", levelfield.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(levelfield)
    assert getattr(levelfield, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'levelfield' has no attribute 'lood'"):
        levelfield.lood  # noqa: B018


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_run(number: int) -> None:
    subprocess.run([sys.executable, "-c", EXAMPLES[number]], cwd=ROOT, check=True)


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) == 2
