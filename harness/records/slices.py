"""The columns of slices and of their steps, and the further tokens of generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas

from levelfield.harness.errors import BadInput
from levelfield.harness.plan.vocabulary import FENCED
from levelfield.harness.records.arrays import Columns, typed_array
from levelfield.harness.records.kinds import COUNT, NUMBER
from levelfield.harness.records.store import Run, iterate_records


def slice_columns(columns: Columns, owners: Sequence[str]) -> tuple[Columns, Columns]:
    """Return the columns of ``slices`` and of ``steps`` from those of slice records."""
    lists = columns["step_seconds"]
    lengths = numpy.array([len(steps) if steps else 0 for steps in lists], dtype=numpy.int64)
    rows = numpy.repeat(numpy.arange(len(lists)), lengths)
    owner = numpy.asarray(columns["owner"], dtype=numpy.int64)[rows]
    flat = [seconds for steps in lists if steps for seconds in steps]
    seconds = typed_array(NUMBER, flat, lambda row: f"{owners[owner[row]]}, step_seconds")

    def place(name: str) -> Any:
        def where(row: int) -> str:
            return f"{owners[columns['owner'][row]]}, slice, {name}"

        return typed_array(COUNT, columns[name], where)[rows]

    steps: Columns = {
        "owner": owner,
        **{name: place(name) for name in ("process", "block", "round")},
        "step": numpy.arange(len(rows)) - numpy.repeat(numpy.cumsum(lengths) - lengths, lengths),
        "step_seconds": seconds,
    }
    medians = pandas.Series(seconds, dtype=NUMBER).groupby(rows).median()

    def where(row: int) -> str:
        return f"{owners[columns['owner'][row]]}, slice"

    with numpy.errstate(all="ignore"):
        means = typed_array(NUMBER, columns["seconds"], where) / typed_array(
            COUNT, columns["steps"], where
        )
    fenced = numpy.isin(columns["statistic"], FENCED)
    step_seconds = numpy.where(fenced, medians.reindex(range(len(lists))).to_numpy(), means)
    return {**columns, "step_seconds": step_seconds}, steps


def refuse_doubled(slices: pandas.DataFrame, runs: Mapping[str, Run]) -> None:
    """Raise BadInput if a cell has two slices of one kind in one round, so that none are mixed.

    An earlier Levelfield gave the block after an interruption the number of the interrupted one.
    """
    names = ["cell", "block", "round", "statistic"]
    duplicates = slices.duplicated(["run", *names]).to_numpy()
    if not duplicates.any():
        return
    row = slices.iloc[int(duplicates.argmax())]
    run, place = runs[row["run"]], [row[name] for name in names]
    first, second = [
        (line, record["process"])
        for line, record in enumerate(iterate_records(run), 1)
        if record["record"] == "slice" and [record[name] for name in names] == place
    ][:2]
    raise BadInput(
        f"{run.records_path}, line {second[0]}: slice record whose cell, block, round and statistic"
        f" are those of line {first[0]} (processes {first[1]} and {second[1]}); it is not known"
        " which of them is right, so measure it again: levelfield run SUITE"
    )


def with_further_tokens(columns: Columns, tokens: Sequence[int | None]) -> Columns:
    """Add a row "further_token" for every generation whose first token was timed with it.

    Its seconds per step are the seconds of a token after the first one: (seconds of all tokens -
    seconds of the first token) / number of further tokens.
    """
    if "first_token" not in columns["statistic"]:
        return columns
    columns = {**columns, "step_seconds": columns["step_seconds"].tolist()}
    firsts, rows = {}, len(columns["owner"])
    keys = [*zip(*(columns[n] for n in ("owner", "process", "block", "round")), strict=True)]
    for row, statistic in enumerate(columns["statistic"]):
        if statistic == "first_token":
            firsts[keys[row]] = columns["step_seconds"][row]
    sources, seconds = [], []
    for row in range(rows):
        count = tokens[columns["owner"][row]]
        if columns["statistic"][row] == "throughput" and keys[row] in firsts and count:
            sources.append(row)
            whole = columns["step_seconds"][row]
            seconds.append((whole - firsts[keys[row]]) / max(count - 1, 1))
    additions = {name: [values[row] for row in sources] for name, values in columns.items()}
    additions |= {"statistic": ["further_token"] * len(sources), "step_seconds": seconds}
    for name in ("seconds", "cpu_seconds", "wait_seconds", "switches", "major_faults"):
        additions[name] = [None] * len(sources)  # these cover the whole generation, in its own row
    return {name: [*values, *additions[name]] for name, values in columns.items()}
