"""The data of the charts of ``levelfield.harness.report.curves``.

Sources: E. D. Dolan, J. J. Moré, "Benchmarking optimization software with performance profiles",
Mathematical Programming 91 (2002); S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52
(2009).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.history import History
from levelfield.harness.analysis.questions import on_front
from levelfield.harness.analysis.roofline import work
from levelfield.harness.analysis.sessions import OTHER_MACHINE
from levelfield.harness.machine.ceilings import COPY, PRODUCT
from levelfield.harness.records.frames import Frames
from levelfield.harness.statistics.decisions import Verdict
from levelfield.reference.errors import BadDefinition, UnknownName
from levelfield.reference.presets import TIME

SWEPT = ("batch", "threads", "time")
VOID = str(Verdict.VOID)


def series_name(comparison: Comparison) -> str:
    """The name of a comparison in the data of charts."""
    return f"{comparison.title}, {comparison.details}"


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the preset and the optimiser, if all have the same."""
    presets = {name.partition("/")[2].partition(" ")[0] for name in names if "/" in name}
    optimizers = {name.partition(" with ")[2] for name in names} - {""}
    shown = []
    for name in names:
        name = name.partition(" with ")[0] if len(optimizers) == 1 else name
        shown.append(name.replace(f"/{presets.copy().pop()}", "") if len(presets) == 1 else name)
    return shown


def _ok(comparison: Comparison) -> pandas.DataFrame:
    rows = comparison.rows
    return rows[(rows["status"] == "ok") & rows["step_seconds"].notna()]


def break_even_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm: seconds before the first step is done, seconds per step, and break-even steps.

    The break-even point is the number of steps at which the arm and the leader need equal time.
    """
    rows = [
        {
            "comparison": series_name(comparison),
            "arm": cell["arm"],
            "framework": cell["framework"],
            "startup_seconds": cell["startup_seconds"],
            "step_seconds": cell["step_seconds"],
            "break_even_steps": comparison.breakeven[cell["arm"]].steps
            if cell["arm"] in comparison.breakeven
            else numpy.nan,
        }
        for comparison in comparisons
        for cell in _ok(comparison).to_dict("records")
        if not pandas.isna(cell["startup_seconds"])
    ]
    columns = ["comparison", "arm", "framework", "startup_seconds", "step_seconds"]
    return pandas.DataFrame(rows, columns=[*columns, "break_even_steps"])


def roofline_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm: operations per byte of its step by the definition, and operations per second."""
    rows = []
    for comparison in comparisons:
        for cell in _ok(comparison).to_dict("records"):
            optimizer = cell["optimizer"] or None
            try:
                operations, size = work(
                    cell["model"],
                    cell["preset"],
                    cell["batch"],
                    phase=cell["phase"],
                    optimizer=optimizer,
                )
            except (UnknownName, BadDefinition):
                continue  # a record of a model that this version or its folder no longer has
            rows.append(
                {
                    "run": f"run {cell['run']}, threads: {cell['threads']}",
                    "comparison": f"{cell['model']} {cell['phase']}",
                    "arm": cell["arm"],
                    "framework": cell["framework"],
                    "operations_per_byte": operations / size,
                    "operations_per_second": operations / cell["step_seconds"],
                    **_ceilings(frames, cell["run"], cell["threads"]),
                }
            )
    columns = ["run", "comparison", "arm", "framework", "operations_per_byte"]
    columns += ["operations_per_second", "ceiling_operations", "ceiling_bytes"]
    return pandas.DataFrame(rows, columns=columns).dropna()


def _ceilings(frames: Frames, run: str, threads: int) -> dict[str, float]:
    ceilings = frames.ceilings
    ceilings = ceilings[(ceilings["run"] == run) & (ceilings["threads"] == threads)]
    best = ceilings.groupby("what")["per_second"].max()
    return {
        "ceiling_operations": best.get(PRODUCT, numpy.nan),
        "ceiling_bytes": best.get(COPY, numpy.nan),
    }


def heat_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per comparison and arm: seconds over those of the fastest, or the status without a number.

    Comparisons without verdicts are left out, because a smoke run shows no arm to be faster. In a
    void comparison the status of every measured cell is "void". No rows if no cell has a number.
    """
    rows = []
    for comparison in comparisons:
        judged = comparison.judged.get("throughput")
        if judged is None:
            continue
        best, void = _ok(comparison)["step_seconds"].min(), bool(judged.verdicts.void)
        for cell in comparison.rows.to_dict("records"):
            fine = cell["status"] == "ok" and not pandas.isna(cell["step_seconds"])
            rows.append(
                {
                    "comparison": series_name(comparison),
                    "arm": cell["arm"],
                    "framework": cell["framework"],
                    "ratio": cell["step_seconds"] / best if fine and not void else numpy.nan,
                    "status": VOID if fine and void else cell["status"],
                }
            )
    table = pandas.DataFrame(rows, columns=["comparison", "arm", "framework", "ratio", "status"])
    return table if table["ratio"].notna().any() else table.iloc[:0]


def pareto_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm: seconds per step, bytes of peak memory, and whether none beats it in both."""
    parts = []
    for comparison in comparisons:
        rows = _ok(comparison)
        rows = rows[rows["peak_bytes"].notna()]
        costs = rows[["step_seconds", "peak_bytes"]].to_numpy(float)
        parts.append(
            pandas.DataFrame(
                {
                    "comparison": series_name(comparison),
                    "arm": rows["arm"],
                    "framework": rows["framework"],
                    "step_seconds": costs[:, 0],
                    "peak_bytes": costs[:, 1],
                    "on_front": on_front(costs),
                }
            )
        )
    columns = ["comparison", "arm", "framework", "step_seconds", "peak_bytes", "on_front"]
    return pandas.concat(parts) if parts else pandas.DataFrame(columns=columns)


def time_to_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm and seed: seconds until a test accuracy that every arm of the comparison reaches.

    Seconds are those of :func:`learning_data`: start-up and steps, without the tests in between.
    """
    learned = learning_data(frames, comparisons)
    rows = []
    for comparison, part in learned.groupby("comparison", sort=False):
        goal = part.groupby(["arm", "seed"])["test_accuracy"].max().min()
        for (arm, seed), mine in part.groupby(["arm", "seed"], sort=False):
            reached = mine[mine["test_accuracy"] >= goal].iloc[0]
            rows.append(
                {
                    "comparison": comparison,
                    "arm": arm,
                    "framework": mine["framework"].iloc[0],
                    "seed": seed,
                    "test_accuracy": goal,
                    "seconds": reached["seconds"],
                }
            )
    columns = ["comparison", "arm", "framework", "seed", "test_accuracy", "seconds"]
    return pandas.DataFrame(rows, columns=columns)


def geometric_means(data: pandas.DataFrame) -> pandas.DataFrame:
    """Per arm of :func:`heat_data`: geometric mean of its ratios, and how many of how many.

    A mean does not hide failures: arms with the fewest gaps come first. A void comparison is no
    failure of an arm.
    """
    data = data[data["status"] != VOID]
    logs = numpy.log(data["ratio"])
    table = data.assign(log=logs).groupby("arm", sort=False)
    means = pandas.DataFrame(
        {
            "geometric_mean": numpy.exp(table["log"].mean()),
            "measured": table["ratio"].count(),
            "planned": table["status"].size(),
        }
    )
    gaps = means["planned"] - means["measured"]
    return means.assign(gaps=gaps).sort_values(["gaps", "geometric_mean"]).drop(columns="gaps")


def profile_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm and factor: the share of its comparisons within that factor of the fastest."""
    data = heat_data(frames, comparisons)
    data = data[data["status"] != VOID]
    planned = data.groupby("arm", sort=False)["status"].size()
    rows = []
    for arm, part in data.groupby("arm", sort=False):
        factors = numpy.sort(part["ratio"].dropna().to_numpy())
        for count, factor in enumerate(factors, start=1):
            rows.append(
                {
                    "arm": arm,
                    "framework": part["framework"].iloc[0],
                    "factor": factor,
                    "share": count / planned[arm],
                }
            )
    return pandas.DataFrame(rows, columns=["arm", "framework", "factor", "share"])


def scaling_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm and size, if comparisons of a run differ in batch, threads or length alone."""
    parts = []
    for swept, rows in _swept(comparisons):
        size = rows[swept].to_numpy(float)
        parts.append(
            pandas.DataFrame(
                {
                    "sweep": rows["words"],
                    "arm": rows["arm"],
                    "framework": rows["framework"],
                    "size": size,
                    "examples_per_second": rows["examples_per_second"],
                }
            )
        )
    columns = ["sweep", "arm", "framework", "size", "examples_per_second"]
    return pandas.concat(parts) if parts else pandas.DataFrame(columns=columns)


def _swept(comparisons: Sequence[Comparison]) -> Iterable[tuple[str, pandas.DataFrame]]:
    if not comparisons:
        return
    rows = pandas.concat([_ok(comparison) for comparison in comparisons])
    bases = [str(preset).partition(TIME) for preset in rows["preset"]]
    rows = rows.assign(
        preset=[base for base, _, _ in bases],
        time=[int(time) if time.isdecimal() else 0 for _, _, time in bases],
    )
    fixed = ["run", "model", "preset", "phase", "optimizer", "numeric", "device", "profile"]
    for swept in SWEPT:
        others = [name for name in SWEPT if name != swept]
        for key, part in rows.groupby([*fixed, *others], sort=False):
            if part[swept].nunique() > 1:
                kept = zip(others, key[-len(others) :], strict=True)
                settings = ", ".join(f"{name}: {value}" for name, value in kept if value)
                words = f"{key[1]}/{key[2]} {key[3]}, {settings}; by {swept}"
                yield swept, part.assign(words=words)


def learning_data(frames: Frames, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """Per arm, seed and epoch: loss and accuracy after that epoch, and the seconds until then.

    Seconds are start-up and the steps at their median, without the tests in between.
    """
    parts = []
    for comparison in comparisons:
        for cell in _ok(comparison).to_dict("records"):
            mine = _of_cell(frames.epochs, cell)
            steps = _of_cell(frames.accuracy, cell)["train_steps"].max()
            if mine.empty or pandas.isna(steps) or pandas.isna(cell["startup_seconds"]):
                continue
            epoch_seconds = steps / mine["epoch"].max() * cell["step_seconds"]
            parts.append(
                pandas.DataFrame(
                    {
                        "comparison": series_name(comparison),
                        "arm": mine["arm"],
                        "framework": mine["framework"],
                        "seed": mine["seed"],
                        "epoch": mine["epoch"],
                        "seconds": cell["startup_seconds"] + mine["epoch"] * epoch_seconds,
                        "test_accuracy": mine["test_accuracy"],
                        "test_loss": mine["test_loss"],
                        "train_loss": mine["train_loss"],
                    }
                )
            )
    columns = ["comparison", "arm", "framework", "seed", "epoch", "seconds"]
    columns += ["test_accuracy", "test_loss", "train_loss"]
    return pandas.concat(parts) if parts else pandas.DataFrame(columns=columns)


def _of_cell(frame: pandas.DataFrame, cell: Mapping[Any, Any]) -> pandas.DataFrame:
    mine = (frame["run"] == cell["run"]) & (frame["cell"] == cell["cell"])
    row: pandas.DataFrame = frame[mine]
    return row


def trend_data(history: History) -> pandas.DataFrame:
    """Per arm and run: seconds over those of the first run, relative to the anchor, chained.

    ``low`` and ``high`` are those of the step that led to the run. ``version`` gives the old and
    the new version if it changed. On another machine an arm starts again at 1, after a row without
    numbers.
    """
    rows: list[dict[str, Any]] = []
    last: dict[tuple[str, str, str], float] = {}
    for step in history.steps:
        change, (before, after) = step.change, step.versions
        key = (step.suite, change.comparison, change.after)
        where = {
            "comparison": f"{step.suite}: {change.comparison}",
            "arm": change.after,
            "framework": change.after.partition(":")[0].partition("@")[0],
        }
        if key not in last:
            last[key] = 1.0
            start = {"run": step.since, "level": 1.0, "low": 1.0, "high": 1.0}
            rows.append({**where, **start, "version": ""})
        if change.word == OTHER_MACHINE:
            last[key] = 1.0
            gap = {
                "run": step.run,
                "level": numpy.nan,
                "low": numpy.nan,
                "high": numpy.nan,
                "version": "",
            }
            start = {"run": step.run, "level": 1.0, "low": 1.0, "high": 1.0}
            rows += [{**where, **gap}, {**where, **start, "version": OTHER_MACHINE}]
            continue
        level = last[key]
        last[key] = level * change.ratio
        rows.append(
            {
                **where,
                "run": step.run,
                "level": last[key],
                "low": level * change.low,
                "high": level * change.high,
                "version": f"{before or '?'} → {after or '?'}" if after != before else "",
            }
        )
    columns = ["comparison", "arm", "framework", "run", "level", "low", "high", "version"]
    return pandas.DataFrame(rows, columns=columns)
