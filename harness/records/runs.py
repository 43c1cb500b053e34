"""Opens the runs in folders, each run once."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from harness.records.store import Run, open_run


class CopiedRun(UserWarning):
    """Two folders hold the same run, which counts once: the second folder is left out."""


def open_runs(paths: Iterable[Path | str]) -> dict[str, Run]:
    """Open the run folders at or right below ``paths``, each run once, by unique labels."""
    folders: list[Path] = []
    for path in map(Path, paths):
        below = sorted(child.parent for child in path.glob("*/run.json"))
        folders += below if below and not (path / "run.json").exists() else [path]
    runs = {run.path.resolve(): run for run in distinct(map(open_run, folders))}
    names = [str(run.description.get("name", path.name)) for path, run in runs.items()]
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
        kept = first.setdefault(run.identity, run)
        if kept.path.resolve() != run.path.resolve():
            warnings.warn(
                f"{run.path} is a copy of the run in {kept.path} and is left out: two copies are no"
                " two measurements",
                CopiedRun,
                stacklevel=2,
            )
    return [*first.values()]
