"""One row per planned cell with its measurements: ``COLUMNS["summary"]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import pandas

from levelfield.harness.analysis import roofline
from levelfield.harness.analysis.logs import block_times, measured
from levelfield.harness.machine.ceilings import Ceiling
from levelfield.harness.proof.tolerances import closing_loose, loose
from levelfield.harness.records.columns import COLUMNS, STARTUP
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.statistics.estimates import estimate
from levelfield.reference.errors import BadDefinition, UnknownName

_KEY = ["run", "cell"]
_LATER_STAGES = ("build", "compile", "first_step", "steady")
_BEGUN = ("interpreter_seconds", "import_seconds", "device_seconds")
_BLOCK_PURPOSES = ("resident", "sequential", AUDIT)


def summary(frames: Frames) -> pandas.DataFrame:
    """Return one row per cell; a cell that is not proven keeps its row but has no numbers."""
    table = frames.cells.set_index(_KEY)
    accuracy = frames.accuracy.drop_duplicates(_KEY, keep="first").set_index(_KEY)
    measured = {
        **_times(frames),
        **_startup(frames),
        **_memory(frames),
        **_errors(frames),
        "test_accuracy": accuracy["test_accuracy"],
        "test_loss": accuracy["test_loss"],
    }
    for name, values in measured.items():
        dtype = COLUMNS["summary"][name][0]
        fill = {"int64": 0, "str": ""}.get(dtype)
        table[name] = values.reindex(table.index, fill_value=fill).astype(dtype)
    table["examples_per_second"] = table["batch"] / table["step_seconds"]
    table["mean_over_median"] = table["step_seconds"] / table["latency_p50_seconds"]
    table["first_step_extra_seconds"] = table["first_step_seconds"] - table["step_seconds"]
    work = _roofline(frames, table)
    table["flops"], table["roofline_share"] = work["flops"], work["roofline_share"]
    return table.reset_index()[[*COLUMNS["summary"]]]


def counted(slices: pandas.DataFrame, statistic: str, *columns: str) -> pandas.DataFrame:
    """Slices of a kind that count, which are those of no audit.

    The result has the columns run, cell and ``columns`` only. Copying all columns of a million rows
    takes longer than counting them.
    """
    kind = (slices["statistic"] == statistic) & (slices["residency"] != AUDIT)
    return slices.loc[kind, [*_KEY, *columns]]


def _means(times: pandas.DataFrame) -> pandas.DataFrame:
    """Seconds of each (run, cell) with their 95 % interval, from the rows of ``block_times``."""
    cells = times.groupby(_KEY, sort=False)
    index, rows = [], []
    for key, blocks in cells:
        mean = estimate(blocks["log_seconds"].to_numpy(), blocks["weight"].to_numpy())
        ends = mean.interval() if mean.blocks > 1 else (numpy.nan, numpy.nan)
        index.append(key)
        rows.append((*numpy.exp([mean.log_ratio, *ends]), int(mean.blocks)))
    names = pandas.MultiIndex.from_tuples(index, names=_KEY)
    columns = ["seconds", "low", "high", "blocks"]
    return pandas.DataFrame(rows, index=names, columns=columns)


def _times(frames: Frames) -> dict[str, Any]:
    throughput = counted(frames.slices, "throughput", "seconds", "cpu_seconds", "wait_seconds")
    logs = measured(frames)
    steps = _means(block_times(logs, "throughput"))
    stepped = frames.steps[frames.steps["phase"] != "generation"]  # those are first tokens
    latency = stepped.groupby(_KEY)["step_seconds"]
    tokens = {
        f"{statistic}_seconds": _means(block_times(logs, statistic))["seconds"]
        for statistic in ("first_token", "further_token")
    }
    quantiles = {f"latency_p{p}_seconds": latency.quantile(p / 100) for p in (50, 95, 99)}
    seconds = throughput["seconds"]
    shares = {"concurrency": "cpu_seconds", "wait_share": "wait_seconds"}
    return {
        "step_seconds": steps["seconds"],
        "step_seconds_low": steps["low"],
        "step_seconds_high": steps["high"],
        **quantiles,
        **tokens,
        **{
            name: (throughput[column] / seconds)
            .groupby([throughput["run"], throughput["cell"]])
            .median()
            for name, column in shares.items()
        },
        "blocks": steps["blocks"],
        "slices": throughput.groupby(_KEY).size(),
    }


def startups(frames: Frames) -> pandas.DataFrame:
    """Return ``frames.startup`` with its process's seconds and their sum, ``startup_seconds``."""
    processes = frames.processes.drop_duplicates(["run", "process"], keep="last")
    begun = processes.set_index(["run", "process"])[[*_BEGUN]]
    startup = frames.startup.join(begun, on=["run", "process"])
    startup["startup_seconds"] = startup[[*_BEGUN, *STARTUP]].sum(axis=1)
    return startup


def _startup(frames: Frames) -> dict[str, Any]:
    """Start of the blocks' fresh processes, or of the qualification's where there were none.

    A resumed run begins with empty caches, so one process of a block may have compiled what the
    others read from the cache. Such a process counts only if all processes compiled.
    """
    startup, stages = startups(frames), [*_BEGUN, *STARTUP]
    qualified = startup[~startup["purpose"].isin(_BLOCK_PURPOSES)]
    first = qualified.drop_duplicates(_KEY, keep="last").set_index(_KEY)
    served = startup["purpose"].isin(_BLOCK_PURPOSES)
    any_served = served.groupby([startup["run"], startup["cell"]]).transform("any")
    fresh = startup[served | ~any_served]
    compiled = fresh["cache"] != "cold"
    fresh = fresh[compiled | ~compiled.groupby([fresh["run"], fresh["cell"]]).transform("any")]
    names = [*stages, "startup_seconds", "warm_up_seconds"]
    medians = fresh.groupby(_KEY)[names].median()
    capped = (fresh["capped"] == "yes").groupby([fresh["run"], fresh["cell"]]).mean()
    cold = first["first_step_seconds"] + first["compile_seconds"].fillna(0)
    return {
        **{name: medians[name] for name in names},
        "capped_share": capped,
        "cold_first_step_seconds": cold.where(first["cache"] != "warm"),
        "cache": first["cache"],
    }


def stage_peaks(frames: Frames) -> pandas.DataFrame:
    """Return the peak of each stage of each cell: the median over the processes that count.

    Columns: run, comparison, cell, arm, stage and ``peak_bytes`` (NA where a stage was not read).
    """
    names = ["run", "comparison", "cell", "arm", "stage"]
    medians = _counted_memory(frames).groupby(names, sort=False)["peak_bytes"].median()
    return medians.round().astype("Int64").reset_index()


def peak_ends(frames: Frames) -> pandas.DataFrame:
    """Return the ``lowest`` and ``highest`` peak of a cell in bytes, and its ``processes``.

    The index is (run, cell). Each process has one peak, that of its highest stage.
    """
    processes = _counted_memory(frames).groupby([*_KEY, "process"])["peak_bytes"].max().dropna()
    ends = processes.groupby(level=_KEY).agg(["min", "max", "count"])
    return ends.set_axis(["lowest", "highest", "processes"], axis="columns")


def _counted_memory(frames: Frames) -> pandas.DataFrame:
    """Rows of memory without processes that failed, unless all processes of the cell did."""
    memory = frames.memory
    cell = [memory["run"], memory["cell"]]
    failed = (memory["reason"] != "").groupby([*cell, memory["process"]]).transform("any")
    all_failed = failed.groupby(cell).transform("all")
    return memory[~failed | all_failed]


def _memory(frames: Frames) -> dict[str, Any]:
    peaks = stage_peaks(frames)
    later, imports = peaks["stage"].isin(_LATER_STAGES), peaks["stage"] == "import"

    def highest(stages: pandas.DataFrame) -> Any:
        return stages.groupby(_KEY)["peak_bytes"].max()

    return {
        "peak_bytes": highest(peaks),
        "peak_over_import_bytes": highest(peaks[later]) - highest(peaks[imports]),
    }


def _errors(frames: Frames) -> dict[str, Any]:
    gate = frames.gate.set_index(_KEY)
    unmeasurable = gate["error"].isna() & ~gate["passed"]
    error = gate["error"].mask(unmeasurable, numpy.inf)
    share = (error / gate["tolerance"]).mask(error == 0, 0.0).mask(unmeasurable, numpy.inf)

    def largest(prefix: str) -> Any:
        return error[gate["name"].str.startswith(prefix)].groupby(level=_KEY).max()

    return {
        "output_error": largest("outputs"),
        "gradient_error": largest("gradient"),
        "worst_error_share": share.groupby(level=_KEY).max(),
        "loose": _loose(frames),
    }


def _loose(frames: Frames) -> Any:
    """Words such as "trained up to 0.67" for cells whose gate or closing gate was loose."""
    numerics = frames.cells.set_index(_KEY)["numeric"]
    words: dict[Any, list[str]] = {}
    for key, named in _widest(frames.gate):
        if key in numerics:  # a caller may have removed cells
            words.setdefault(key, []).extend(_up_to(loose(named, numerics[key])))
    for key, named in _widest(frames.checks):  # these include the closing gate's checks
        words.setdefault(key, []).extend(_up_to(closing_loose(named)))
    unjudged = frames.closings[frames.closings["note"] != ""]
    for key, note in unjudged.drop_duplicates(_KEY, keep="last").set_index(_KEY)["note"].items():
        words.setdefault(key, []).append(note)
    rows = {key: ", ".join(parts) for key, parts in words.items()}
    return pandas.Series(rows, dtype=str).reindex(numerics.index, fill_value="")


def _widest(checks: pandas.DataFrame) -> Iterator[tuple[Any, list[tuple[str, float]]]]:
    """Yield (run, cell) and, for each kind of its checks, (name, largest tolerance)."""
    kinds = checks["name"].str.split("/").str[0] + "/"
    widest = checks["tolerance"].groupby([checks["run"], checks["cell"], kinds]).max()
    for key, tolerances in widest.groupby(level=[0, 1]):
        yield key, [*zip(tolerances.index.get_level_values(-1), tolerances, strict=True)]


def _up_to(widest: Mapping[str, float]) -> list[str]:
    return [f"{kind} up to {tolerance:.2g}" for kind, tolerance in widest.items()]


def _roofline(frames: Frames, table: pandas.DataFrame) -> pandas.DataFrame:
    """Operations of a step, and its share of the roofline of its session."""
    names = ("model", "preset", "batch", "phase", "optimizer")
    works: dict[tuple[Any, ...], tuple[float, float]] = {}
    rows = []
    for row in table.reset_index().to_dict("records"):
        key = tuple(row[name] for name in names)
        if key not in works:
            works[key] = _work(*key)
        operations, least_bytes = works[key]
        all_ceilings = frames.ceilings
        mine = all_ceilings[
            (all_ceilings["run"] == row["run"]) & (all_ceilings["threads"] == row["threads"])
        ]
        share = numpy.nan
        if len(mine) and row["step_seconds"] > 0 and row["device"] == "cpu":
            columns = (mine["threads"], mine["what"], mine["size_bytes"], mine["per_second"])
            ceilings = [Ceiling(*values) for values in zip(*columns, strict=True)]
            share = roofline.roofline_share(operations, least_bytes, row["step_seconds"], ceilings)
        rows.append((operations, share))
    return pandas.DataFrame(
        rows, index=table.index, columns=["flops", "roofline_share"], dtype=float
    )


def _work(model: str, preset: str, batch: int, phase: str, optimizer: str) -> tuple[float, float]:
    """NaN for a model that this version does not know, because records outlive definitions.

    NaN also for a batch that a definition from outside does not allow.
    """
    try:
        return roofline.work(model, preset, batch, phase=phase, optimizer=optimizer or None)
    except (UnknownName, BadDefinition):
        return numpy.nan, numpy.nan
