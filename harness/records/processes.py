"""The process that served each record: its purpose and block, and the state of its cache."""

from __future__ import annotations

from typing import Any

import numpy

from levelfield.harness.records.arrays import YES_NO, Columns


class Served:
    """The purpose of each process: residency and block by run and number of the process."""

    def __init__(self, processes: Columns, run_of: Any) -> None:
        names = ("owner", "process", "purpose", "block", "cache_entries")
        rows = zip(*(processes[name] for name in names), strict=True)
        self._found = {(run, number): facts for run, number, *facts in rows}
        self._run_of = run_of

    def keys(self, columns: Columns) -> list[tuple[int, int]]:
        """Return (run, number) of the process of each row of a cell's record."""
        owners = self._run_of[numpy.asarray(columns["owner"], dtype=numpy.int64)]
        return list(zip(owners.tolist(), columns["process"], strict=True))

    def facts(self, columns: Columns) -> list[list[Any]]:
        """Return [purpose, block, cache entries] of those processes."""
        return [self._found.get(key, [None, None, None]) for key in self.keys(columns)]

    def residency(self, columns: Columns) -> Columns:
        """Return the column "residency": the purpose of those processes."""
        return {"residency": [facts[0] for facts in self.facts(columns)]}


def startup_columns(columns: Columns, served: Served) -> Columns:
    """Return the columns of ``startup``, with the state of the cache and the process's purpose."""
    facts_of_rows = served.facts(columns)
    entries, caches = dict[tuple[int, int], int](), []
    for process, new_entries, facts in zip(
        served.keys(columns), columns["new_cache_entries"], facts_of_rows, strict=True
    ):
        # Entries that the process found when it started, and those it made for earlier cells since.
        before = entries.setdefault(process, facts[2] or 0)
        caches.append("cold" if new_entries else "warm" if before else "none")
        entries[process] = before + (new_entries or 0)
    return {
        **columns,
        "capped": [YES_NO.get(capped, "") for capped in columns["capped"]],
        "cache": caches,
        "purpose": [facts[0] for facts in facts_of_rows],
        "block": [facts[1] for facts in facts_of_rows],
    }
