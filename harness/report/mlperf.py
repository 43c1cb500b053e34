"""Reports as MLPerf's log lines, which start with ``:::MLLOG`` and hold one event each.

The log is for programs that read such lines. It is no submission to MLPerf: its arms take turns, so
no line says when a run starts or stops, because the seconds in between would belong to all arms.

Format: https://github.com/mlcommons/logging, ``mlperf_logging.mllog``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.summary import counted
from levelfield.harness.machine.describe import recorded
from levelfield.harness.records.frames import Frames

_TOKEN = ":::MLLOG"
_POINT, _START, _END = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"
_CELL = ["run", "cell"]


@dataclass(frozen=True)
class _Event:
    """A line of the log; its fields are those of the format, in its order."""

    namespace: str
    time_ms: float
    event_type: str
    key: str
    value: Any
    metadata: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the event as a line. No text in it looks like the start of another event."""
        text = json.dumps(asdict(self), allow_nan=False)
        return f"{_TOKEN} " + text.replace(_TOKEN, f"\\u003a{_TOKEN[1:]}")


def mlperf_log(frames: Frames, comparisons: Sequence[Comparison]) -> str:
    """Events of every arm that is ok, in the order of time.

    The namespace of a line is "run/comparison/arm". A throughput slice is a block from
    ``block_start`` to ``block_stop``; ``samples_count`` counts the examples of all blocks so far.
    A block stops when its record was written, which may be one slice late; its length is exact. An
    ``eval_accuracy`` has the time at which the process that learned started. Times are
    milliseconds since 1970.
    """
    slices = counted(
        frames.slices,
        "throughput",
        *("at_seconds", "seconds", "steps", "step_seconds", "block", "round", "disturbed"),
    )
    slices = slices.sort_values("at_seconds", kind="stable")
    blocks = dict(iter(slices.groupby(_CELL, sort=False)))
    owners = {run["run"]: run for run in frames.runs.to_dict("records")}
    learned = _learned(frames)
    events: list[_Event] = []
    for comparison in comparisons:
        for cell in comparison.rows.to_dict("records"):
            part = blocks.get((cell["run"], cell["cell"]))
            if cell["status"] != "ok" or part is None:
                continue
            name = f"{cell['run']}/{comparison.id}/{cell['arm']}"
            begun = float((part["at_seconds"] - part["seconds"]).min())
            events += _facts(name, begun, comparison, cell, owner=owners[cell["run"]])
            events += _blocks(name, part, int(cell["batch"]))
            epochs = learned.get((cell["run"], cell["cell"]))
            events += () if epochs is None else _accuracies(name, epochs)
    events.sort(key=lambda event: event.time_ms)
    return "".join(f"{event.line()}\n" for event in events)


def _facts(
    name: str,
    at_seconds: float,
    comparison: Comparison,
    cell: Mapping[Any, Any],
    *,
    owner: Mapping[Any, Any],
) -> Iterator[_Event]:
    """Yield what is known of a cell before its first block."""
    facts: dict[str, Any] = {
        "submission_benchmark": f"{cell['model']}/{cell['preset']}",
        "submission_platform": recorded(owner["machine"]).get("processor"),
        "seed": None if pandas.isna(owner["seed"]) else int(owner["seed"]),
        "global_batch_size": int(cell["batch"]),
        "opt_name": cell["optimizer"] or None,
    }
    metadata = {
        "title": comparison.title,
        "details": comparison.details,
        "arm": cell["arm"],
        "threads": int(cell["threads"]),
    }
    for key, value in facts.items():
        if value is not None:
            yield _Event(name, _milliseconds(at_seconds), _POINT, key, value, metadata)


def _blocks(name: str, slices: pandas.DataFrame, batch: int) -> Iterator[_Event]:
    """Yield the start and the end of every throughput slice. ``batch``: examples per step."""
    samples = 0
    for row in slices.to_dict("records"):
        start = {"samples_count": samples, "block": int(row["block"]), "round": int(row["round"])}
        samples += batch * int(row["steps"])
        stop = {
            **start,
            "samples_count": samples,
            "step_seconds": float(row["step_seconds"]),
            "disturbed": bool(row["disturbed"]),
        }
        ended = float(row["at_seconds"])
        began = _milliseconds(ended - float(row["seconds"]))
        yield _Event(name, began, _START, "block_start", None, start)
        yield _Event(name, _milliseconds(ended), _END, "block_stop", None, stop)


def _learned(frames: Frames) -> dict[Any, pandas.DataFrame]:
    """Return the epochs of each (run, cell), with "at_seconds" of the process that learned."""
    processes = frames.processes.drop_duplicates(["run", "process"], keep="last")
    begun = processes.set_index(["run", "process"])["at_seconds"]
    epochs = frames.epochs.join(begun, on=["run", "process"])
    return dict(iter(epochs.dropna(subset=["at_seconds"]).groupby(_CELL, sort=False)))


def _accuracies(name: str, epochs: pandas.DataFrame) -> Iterator[_Event]:
    for row in epochs.to_dict("records"):
        accuracy = float(row["test_accuracy"])
        if math.isfinite(accuracy):
            metadata = {"epoch_num": int(row["epoch"]), "seed": int(row["seed"])}
            at = _milliseconds(float(row["at_seconds"]))
            yield _Event(name, at, _POINT, "eval_accuracy", accuracy, metadata)


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)
