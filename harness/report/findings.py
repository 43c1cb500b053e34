"""Notes below a comparison: its error bar, its noise, and anything unusual."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.verdicts import Judged
from levelfield.harness.errors import clean
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.records.frames import AUDIT, Frames
from levelfield.harness.report.text import json_object, milliseconds
from levelfield.reference.errors import UnknownName

RARE_SLOW_STEPS = 1.05  # throughput's mean over latency's median
# An arm so much slower than the fastest, at so low a share of the machine's speed, spends its time
# outside the arithmetic.
SLOW, IDLE = 3.0, 0.1
SMOKE = (
    "No verdicts: a smoke run has one block, and one process per arm does not allow a conclusion."
    " Arms are in the order of the run's plan."
)
UNMEASURED = "No verdicts: no arm was measured. Arms are in the order of the run's plan."


def no_verdicts(comparison: Comparison) -> str:
    """Say why a comparison has no verdicts; "" if it has some."""
    if "throughput" in comparison.judged:
        return ""
    return SMOKE if comparison.rows["step_seconds"].notna().any() else UNMEASURED


def error_bar(judged: Judged) -> str:
    """The A/A control, the margin, and the amount of measurement."""
    control, share = judged.control, sum(judged.rules.values()) / max(judged.rounds, 1)
    parts = [
        f"A/A: {control.arm} against itself {control.ratio:.4f} ± {control.half_width:.2%}"
        if control
        else "A/A: no twin ran, so this session's own error is not known",
        f"margin {judged.verdicts.margin:.1%}",
        f"{judged.verdicts.blocks} blocks, {judged.rounds} rounds",
        f"{share:.0%} of the rounds disturbed"
        + (f" ({', '.join(f'{rule} {n}' for rule, n in judged.rules.items())})" if share else ""),
    ]
    if carried := judged.carry_over:
        parts.append(
            f"in {judged.audits} audit blocks, each arm alone, {' against '.join(carried.pair)} is"
            f" off by {carried.difference:+.1%} [{carried.low:+.1%}, {carried.high:+.1%}], more"
            " than any other pair"
        )
    return "; ".join(parts) + "."


def noise(frames: Frames, comparison: Comparison) -> str:
    """Other load on the machine during the comparison, in medians and worst rounds."""
    rounds = frames.rounds
    rounds = rounds[(rounds["run"] == comparison.run) & (rounds["comparison"] == comparison.id)]
    rounds = rounds[rounds["residency"] != AUDIT]
    if rounds.empty:
        return ""
    parts = [
        f"{words} {rounds[name].median():.1%}, worst round {rounds[name].max():.1%}"
        if rounds[name].notna().any()
        else f"{words} not counted by this host"
        for name, words in (("foreign_share", "foreign load"), ("canary_spread", "canary spread"))
    ]
    stolen = rounds["steal_share"].mean()
    parts.append("stolen not counted" if math.isnan(stolen) else f"stolen {stolen:.2%}")
    return f"Noise: {'; '.join(parts)}."


def findings(frames: Frames, comparison: Comparison) -> Iterator[str]:
    """Yield notes on single arms, and on a loose gate."""
    for words in dict.fromkeys(filter(None, comparison.rows["loose"])):
        yield (
            f"The gate was loose by today's tolerances: {words}. A mistake with a smaller effect"
            " would not have been seen."
        )
    for row in comparison.rows.to_dict("records"):
        if row["mean_over_median"] > RARE_SLOW_STEPS:
            yield (
                f"{row['arm']}: the mean of throughput ({milliseconds(row['step_seconds'])} ms) is"
                f" {row['mean_over_median']:.2f} times the median of latency: some steps are slow,"
                " or work does not overlap"
            )
        if row["capped_share"] > 0:
            yield (
                f"{row['arm']}: {row['capped_share']:.0%} of its processes were not steady when"
                " their warm-up ended at its cap"
            )
        yield from _overhead(row, comparison)
        yield from _notes(row)
        yield from _differences(frames, row)
    yield from spread(frames, comparison)


def _overhead(row: dict[Any, Any], comparison: Comparison) -> Iterator[str]:
    """For a surprisingly slow arm, say how small a part of its step is arithmetic."""
    seconds, share = row["step_seconds"], row["roofline_share"]
    fine = comparison.rows["status"] == "ok"
    times = seconds / comparison.rows.loc[fine, "step_seconds"].min()
    if row["status"] == "ok" and times > SLOW and share < IDLE:
        yield (
            f"{row['arm']}: its step takes {times:.1f} times as long as the fastest. At the"
            " machine's full speed the arithmetic would take"
            f" {milliseconds(share * seconds)} ms of its {milliseconds(seconds)} ms: the rest is"
            " the framework's overhead, or kernels far from that speed"
            f"{_documented(row['arm'])}"
        )


def _notes(row: dict[Any, Any]) -> Iterator[str]:
    """Notes of the arm's ``env.toml`` on this model, for arms that have a number."""
    if row["status"] != "ok":
        return
    try:
        notes = get_arm(row["arm"]).mode.notes
    except UnknownName:
        return  # a record of an arm that this version no longer has
    for note in notes:
        if row["model"] in note.models:
            yield f"{row['arm']}: {note.text}"


def _documented(name: str) -> str:
    try:
        overhead = get_arm(name).mode.overhead
    except UnknownName:
        return ""  # a record of an arm that this version no longer has
    return f". Its documentation: {overhead}" if overhead else ""


def spread(frames: Frames, comparison: Comparison) -> Iterator[str]:
    """Compare the arms' test accuracies with the spread between the seeds of one arm.

    The spread between seeds is chance.
    """
    learned = frames.accuracy
    learned = learned[
        (learned["run"] == comparison.run)
        & (learned["comparison"] == comparison.id)
        & learned["test_accuracy"].notna()
    ]
    # A comparison covers its whole plan; a comparison that was not learned has no rows here.
    seeds = learned.groupby("arm")["seed"].nunique()
    for arm in seeds.index[seeds > 1]:
        own = learned.loc[learned["arm"] == arm, "test_accuracy"]
        width = float(own.max() - own.min())
        firsts = learned.drop_duplicates("arm", keep="first").set_index("arm")["test_accuracy"]
        apart = (firsts - firsts[arm]).abs()
        outside = [clean(name) for name in apart.index[apart > width]]
        words = f"farther from it: {', '.join(outside)}" if outside else "no arm is farther from it"
        yield (
            f"{clean(arm)}: {own.nunique()} test accuracies from {len(own)} seeds lie within"
            f" {width:.1%} ({own.min():.1%} to {own.max():.1%}); from the same seed {words}"
        )


def _differences(frames: Frames, row: dict[Any, Any]) -> Iterator[str]:
    """Compare the configuration that the framework reports with the one that was asked for."""
    processes = frames.processes
    mine = processes[(processes["run"] == row["run"]) & (processes["arm"] == row["arm"])]
    if mine.empty or row["status"] != "ok":
        return
    asked, reported = (json_object(mine[name].iloc[-1]) for name in ("asked", "describe"))
    for name in ("threads", "device"):
        if reported.get(name) is not None and reported[name] != asked.get(name):
            yield clean(
                f"{row['arm']}: asked for {name} {asked.get(name)}, it reports {reported[name]}"
            )


def not_quiet(frames: Frames) -> Iterator[str]:
    """Yield the sessions that began on a busy machine."""
    for run in frames.runs.to_dict("records"):
        if run["quiet"] == "no":
            share = "" if pandas.isna(run["foreign_share"]) else f" ({run['foreign_share']:.0%})"
            yield (
                f"Run {clean(run['run'])} began on a machine that others were using{share},"
                " after waiting for a quiet moment."
            )
