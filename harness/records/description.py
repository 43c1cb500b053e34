"""The content of ``run.json``: its fields and the values that they may have.

``levelfield.harness.plan`` has the classes of the suite and of a cell. A field with a default may
be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from levelfield.harness.plan.cells import TASK, Cell
from levelfield.harness.plan.domains import AT_LEAST_0, AT_LEAST_1, described, shortened
from levelfield.harness.plan.suite import Suite


@dataclass(frozen=True, kw_only=True)
class RecordedMachine:
    """The facts of a machine with which a report computes; there are more of them."""

    processor: str | None = None
    architecture: str | None = None
    system: str | None = None
    cores: Annotated[int | None, AT_LEAST_1] = None
    logical_cores: Annotated[int | None, AT_LEAST_1] = None
    physical_cores: Annotated[int | None, AT_LEAST_1] = None
    memory_bytes: Annotated[int | None, AT_LEAST_1] = None


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The environment of an arm: how it was found, its interpreter, and its packages."""

    how: str | None = None
    interpreter: str | None = None
    hash: str | None = None
    lock: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """The request, the machine and the software of a run, and its planned cells."""

    schema: int
    kind: str
    name: str = ""
    id: str = ""
    created: str = ""
    seed: Annotated[int | None, AT_LEAST_0] = None
    suite: Suite | None = None
    machine: RecordedMachine = RecordedMachine()
    code_version: Any = None
    locks: Mapping[str, Lock] = field(default_factory=dict)
    adapters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cells: Sequence[Cell]


def fault_of(content: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the content of run.json, beginning with the field; None if good."""
    _, domain = described(Description)
    if fault := domain.fault(content, ""):
        return fault.removeprefix(".").strip()
    cells = content["cells"]
    return _doubled(cells, "id") or _doubled(cells, "comparison", "arm") or _mixed(cells)


def _mixed(cells: Sequence[Mapping[str, Any]]) -> str | None:
    """Return which cell is not of the same task as the others of its comparison, or None.

    Cells of different comparisons have different tasks.
    """
    of_comparison: dict[str, int] = {}
    of_task: dict[tuple[Any, ...], int] = {}
    for number, cell in enumerate(cells):
        first = of_comparison.setdefault(cell["comparison"], number)
        for name in TASK:
            if cell[name] != cells[first][name]:
                expected, value = (shortened(member[name]) for member in (cells[first], cell))
                place = f"cells[{number}].{name}"
                return (
                    f"{place} is {value}, but {expected} in cells[{first}] of the same comparison"
                )
        first = of_task.setdefault(tuple(cell[name] for name in TASK), number)
        if cell["comparison"] != cells[first]["comparison"]:
            return (
                f"cells[{number}].comparison is not that of cells[{first}], which has the same task"
            )
    return None


def _doubled(cells: Sequence[Mapping[str, Any]], *names: str) -> str | None:
    """Return which two cells have the same values of these fields, or None."""
    numbers: dict[tuple[Any, ...], int] = {}
    for number, cell in enumerate(cells):
        first = numbers.setdefault(tuple(cell[name] for name in names), number)
        if first != number:
            return f"cells[{number}] has the {' and '.join(names)} of cells[{first}]"
    return None
