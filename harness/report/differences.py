"""Known differences between frameworks that explain why an arm is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Difference:
    """An entry of the catalogue ``differences.toml`` that explains wrong cells.

    ``arms`` is a pattern such as ``keras:tensorflow*``.
    """

    name: str
    what: str
    handled: str
    arms: str
    models: tuple[str, ...]
    optimizers: tuple[str, ...]


def explanation(arm: str, model: str, optimizer: str) -> Difference | None:
    """The entry that explains why this arm is wrong, if the catalogue has one."""
    for difference in _explaining():
        if (
            fnmatchcase(arm, difference.arms)
            and model in difference.models
            and optimizer in difference.optimizers
        ):
            return difference
    return None


@cache
def _explaining() -> tuple[Difference, ...]:
    text = files("levelfield.adapters").joinpath("differences.toml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["differences"]
    return tuple(
        Difference(
            entry["name"],
            entry["what"],
            entry["handled"],
            entry["explains"]["arms"],
            tuple(entry["explains"]["models"]),
            tuple(entry["explains"]["optimizers"]),
        )
        for entry in entries
        if "explains" in entry
    )


def reproduce(cell: dict[Any, Any]) -> str:
    """The command that shows the error of a cell again. ``cell`` is a row of the summary."""
    parts = [
        f"levelfield check --arms {cell['arm']} --models {cell['model']}",
        f"--preset {cell['preset']} --phases {cell['phase']} --batch {cell['batch']}",
        f"--optimizers {cell['optimizer']}" if cell["optimizer"] else "",
    ]
    return " ".join(filter(None, parts))
