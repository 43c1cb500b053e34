"""Finds the runs in folders: each run once, without those that cannot be read."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from levelfield.harness.errors import BadInput
from levelfield.harness.records.store import Run

_T = TypeVar("_T")


class CopiedRun(UserWarning):
    """Two folders hold the same run, which counts once: the second folder is left out."""


class UnreadableRun(UserWarning):
    """A run in a folder of runs cannot be read and is left out; the message says why."""


def run_folders(paths: Iterable[Path | str]) -> Iterator[tuple[Path, bool]]:
    """Yield the run folders at or right below ``paths``, and whether each is one of ``paths``."""
    for path in map(Path, paths):
        is_run = os.path.exists(path / "run.json")  # False also for a path that none can have
        is_parent = not is_run and os.path.isdir(path)
        below = sorted(child.parent for child in path.glob("*/run.json")) if is_parent else []
        yield from ((folder, False) for folder in below)
        if not below:
            yield path, True


def read_each(paths: Iterable[Path | str], read: Callable[[Path], _T]) -> list[_T]:
    """Return what ``read`` returns for each run folder at or right below ``paths``.

    Raises the BadInput of ``read`` for a folder that is one of ``paths``. A folder below them is
    left out with the warning UnreadableRun, unless no other can be read.
    """
    results: list[_T] = []
    faults: list[BadInput] = []
    for folder, named in run_folders(paths):
        try:
            results.append(read(folder))
        except BadInput as error:
            if named:
                raise
            faults.append(error)
    if faults and not results:
        raise faults[0]
    for fault in faults:
        warnings.warn(f"left out: {fault}", UnreadableRun, stacklevel=2)
    return results


def labelled(opened: Iterable[Run]) -> dict[str, Run]:
    """Return runs by unique labels."""
    runs = {run.path.resolve(): run for run in opened}
    names = [run.description.get("name") or path.name for path, run in runs.items()]
    count, labels = Counter(names), names
    for length in range(1, 1 + max((len(path.parts) for path in runs), default=0)):
        if len({*labels}) == len(labels):
            break
        ends = ["/".join(path.parts[-length:]) for path in runs]
        labels = [n if count[n] == 1 else end for n, end in zip(names, ends, strict=True)]
    return dict(zip(labels, runs.values(), strict=True))


def distinct(runs: Iterable[Run]) -> list[Run]:
    """Keep the first folder of every run. Warns with CopiedRun for each further folder of a run."""
    first: dict[str, Run] = {}
    for run in runs:
        original = first.setdefault(run.identity, run)
        if original.path.resolve() != run.path.resolve():
            warnings.warn(
                f"{run.path} is a copy of the run in {original.path} and is left out: two copies"
                " are no two measurements",
                CopiedRun,
                stacklevel=2,
            )
    return [*first.values()]
