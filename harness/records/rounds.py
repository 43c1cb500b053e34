"""The columns of rounds: shares of other load, canaries, and which rounds are disturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from levelfield.harness.machine import disturbance
from levelfield.harness.records.arrays import Columns, json_texts, typed_array
from levelfield.harness.records.kinds import NUMBER
from levelfield.harness.records.store import Run


def round_columns(columns: Columns, processes: Columns, runs: Mapping[str, Run]) -> Columns:
    """Return the columns of ``rounds``: shares, canaries, and the rule of a disturbed one."""
    machines = [run.description.get("machine") or {} for run in runs.values()]
    core_counts = [
        machine.get("logical_cores") or machine.get("cores") or 1 for machine in machines
    ]
    # Rounds of older runs name no cores; their seconds cover the whole machine.
    of_run = zip(columns["watched_cores"], columns["owner"], strict=True)
    cores = numpy.array([len(c) if c else core_counts[run] for c, run in of_run], dtype=numpy.int64)
    owner = numpy.asarray(columns["owner"], dtype=numpy.int64)
    purposes = zip(*(processes[name] for name in ("owner", "block", "purpose")), strict=True)
    residency = {(run, block): purpose for run, block, purpose in purposes}
    result: Columns = {**columns}
    seconds = {
        name: typed_array(NUMBER, columns[name], lambda _: "a round's seconds")
        for name in columns
        if name.endswith("_seconds") and name != "at_seconds"
    }
    spread, middle = _canaries(columns["canaries"])
    faults = [count or 0 for count in columns["major_faults"]]
    rules = disturbance.judge_rounds(
        spread,
        wall_seconds=seconds["wall_seconds"],
        foreign_seconds=seconds["foreign_seconds"],
        steal_seconds=seconds["steal_seconds"],
        throttled_seconds=seconds["throttled_seconds"],
        major_faults=faults,
        gpu=columns["gpu"],
        cores=cores,
    )
    wall = seconds["wall_seconds"]
    with numpy.errstate(all="ignore"):
        result |= {
            "foreign_share": seconds["foreign_seconds"] / (wall * cores),
            "steal_share": seconds["steal_seconds"] / (wall * cores),
            "pressure_share": seconds["pressure_seconds"] / wall,
        }
    return {
        **json_texts(result, "order"),
        "residency": [
            residency.get(key, "") for key in zip(owner.tolist(), columns["block"], strict=True)
        ],
        "canary_seconds": middle,
        "canary_spread": spread,
        "major_faults": faults,
        "rule": rules,
        "disturbed": [bool(rule) for rule in rules],
        "watched_cores": cores,
    }


def _canaries(records: Sequence[Any]) -> tuple[Any, Any]:
    """Return spread and median of each round's canaries; rounds of one shape are done together."""
    spread, middle = numpy.zeros(len(records)), numpy.full(len(records), numpy.nan)
    shapes: dict[tuple[int, int], list[int]] = {}
    for at, record in enumerate(records):
        shapes.setdefault((len(record), len(record[0]) if record else 0), []).append(at)
    for (boundaries, cores), rows in shapes.items():
        if boundaries and cores:
            values = numpy.array([records[at] for at in rows], dtype=float)
            spread[rows] = disturbance.canary_spreads(values)
            middle[rows] = numpy.median(values, axis=(1, 2))
    return spread, middle


def disturbed(
    slices: Columns, rounds: Columns, comparisons: Sequence[str], run_of: Any
) -> list[bool]:
    """Return, for each slice, whether its round is disturbed.

    A slice whose round was never closed counts as disturbed, since there is nothing to compare it
    with.
    """
    names = ("owner", "comparison", "block", "round", "disturbed")
    closed = {row[:-1]: row[-1] for row in zip(*(rounds[name] for name in names), strict=True)}
    owner = numpy.asarray(slices["owner"], dtype=numpy.int64)
    slice_comparisons = [comparisons[position] for position in owner]
    keys = zip(
        run_of[owner].tolist(), slice_comparisons, slices["block"], slices["round"], strict=True
    )
    return [closed.get(key, True) for key in keys]
