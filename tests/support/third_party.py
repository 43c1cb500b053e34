"""A framework of a third party, and distributions of such frameworks as pip leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = """
title = "Tidy"
documentation = "https://example.org/tidy"

[environments.default]
python = ">=3.6"
requirements = ["numpy"]
imports = ["numpy"]

[modes.plain]
summary = "dense layers in NumPy"
phases = ["inference"]
"""
ADAPTER = """
import numpy

from levelfield.adapters.base import Adapter as Base
from tidy_company import unit


class Adapter(Base):
    def __init__(self, device, mode, threads, precision):
        assert (device, mode, precision, unit) == ("cpu", "plain", "float32", 1)

    def describe(self):
        return {"version": "1.0", "threads": None}

    def load(self, module, case):
        self.case, self.cursor, self.predict = case, 0, module.build(case.sizes)

    def infer(self):
        inputs = self.case.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.case.sets)
        return {"logits": self.predict(self.case.parameters, inputs["features"])}

    def parameters(self):
        return {"parameter/" + name: value for name, value in self.case.parameters.items()}

    def wait(self, handle):
        pass

    def read(self, handle):
        return handle
"""


def project_of(entry: str) -> str:
    return f"careless_{entry.split()[0]}"


def careless(folder: Path, *, entry: str, package: str, files: Mapping[str, str]) -> None:
    """Such a distribution, as good as pip leaves it."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    name = project_of(entry)
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[levelfield.adapters]\n{entry} = {package}\n")
