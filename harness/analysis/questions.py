"""The questions that people ask of runs, each answered by one tidy frame."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy
import pandas
from numpy.typing import NDArray

from levelfield.harness.analysis.machines import machine_numbers, unlike_machines
from levelfield.harness.analysis.summary import summary
from levelfield.harness.analysis.verdicts import Judged, judge, pair_of, verdict_frame
from levelfield.harness.errors import BadInput
from levelfield.harness.machine.describe import recorded
from levelfield.harness.plan.cells import TASK
from levelfield.harness.records import frames as records
from levelfield.harness.records.frames import Frames
from levelfield.harness.statistics.across import summarise
from levelfield.reference.errors import UnknownName
from levelfield.reference.presets import TIME

LONGEST_TRAINING = 10**18  # steps; at a nanosecond each they would take thirty years
SWEPT_COLUMNS = ("batch", "threads", "time")
_TASK = [name for name in TASK if name != "profile"]
_IDENTITY = ["run", "comparison", "arm", "framework", *_TASK]


class UnlikeMachines(UserWarning):
    """An answer pools runs of unlike machines; the message says in what these differ."""


@dataclass(frozen=True, repr=False)
class Runs(Frames):
    """The frames of runs, with the questions that people ask of them as methods.

    Every answer has one row per thing asked for, and units in the names of its columns. A/A twins
    and other copies of arms are left out: they control the measurement and are no further arms.
    """

    @cached_property
    def _summary(self) -> pandas.DataFrame:
        return summary(self)

    @cached_property
    def _judgements(self) -> list[Judged]:
        return judge(self, self._summary)

    def results(self) -> pandas.DataFrame:
        """Return a row per cell, as ``levelfield.summary`` does, without copies of arms."""
        table = self._summary
        return table[~table["arm"].str.contains("#")].reset_index(drop=True)

    def table(self) -> pandas.DataFrame:
        """Return milliseconds per step: a row per task, a column per arm, NaN where none is ok."""
        table = self.results()
        table = table.assign(milliseconds=1e3 * table["step_seconds"])
        rows = ["run", "model", "preset", "phase", "optimizer", "batch", "threads"]
        return table.pivot_table(
            index=rows, columns="arm", values="milliseconds", sort=False, dropna=False
        ).dropna(how="all")

    def verdicts(self) -> pandas.DataFrame:
        """Return a row per pair of arms and kind of slice, with the task of their comparison.

        ``ratio``: seconds of ``first`` over seconds of ``second``, with the ends of its interval.
        """
        tasks = self.cells[["run", "comparison", *_TASK]].drop_duplicates(["run", "comparison"])
        return verdict_frame(self._judgements).merge(tasks, on=["run", "comparison"], how="left")

    def speedup(self, over: str) -> pandas.DataFrame:
        """Return how many times as fast as the arm ``over`` every other arm is, a row per task.

        ``speedup`` above 1: the arm is faster. ``low`` and ``high`` are the ends of the interval
        of the verdict. Raises UnknownName for an arm that is in no run.
        """
        self._refuse_unknown(over)
        rows: list[dict[str, Any]] = []
        for judged in self._judgements:
            for arm in judged.arms if judged.statistic == "throughput" else ():
                pair = None if arm == over else pair_of(judged, over, arm)
                if pair is not None:
                    ends = {"speedup": pair.ratio, "low": pair.low, "high": pair.high}
                    verdict = {"verdict": str(pair.verdict), "faster": pair.faster or ""}
                    where = {"run": judged.run, "comparison": judged.comparison, "arm": arm}
                    rows.append({**where, **ends, **verdict})
        columns = ["run", "comparison", "arm", "speedup", "low", "high", "verdict", "faster"]
        identity = self.cells[_IDENTITY].drop_duplicates(["run", "comparison", "arm"])
        return identity.merge(
            pandas.DataFrame(rows, columns=columns), on=["run", "comparison", "arm"]
        )

    def mean_speedup(self, over: str) -> pandas.DataFrame:
        """Return the geometric mean of the speed-up of every arm over tasks, the fastest first.

        ``low`` and ``high``: 95 % bootstrap-t interval over tasks; NaN with fewer than 8 of them.
        ``wins``, ``ties`` and ``losses`` count verdicts, ``open`` the tasks without one. Warns with
        UnlikeMachines if the runs were made on unlike machines.
        """
        self._refuse_unknown(over)
        for words in unlike_machines(self):
            warnings.warn(f"unlike machines are pooled: {words}", UnlikeMachines, stacklevel=2)
        judgements = [one for one in self._judgements if one.statistic == "throughput"]
        arms = dict.fromkeys(arm for judged in judgements for arm in judged.arms if arm != over)
        rows = []
        for arm in arms:
            pairs = [pair for one in judgements if (pair := pair_of(one, arm, over)) is not None]
            if any(pair.verdict != "void" for pair in pairs):
                across = summarise(pairs, len(judgements), numpy.random.default_rng(0))
                ends = {"speedup": 1 / across.ratio, "low": 1 / across.high, "high": 1 / across.low}
                counts = {name: getattr(across, name) for name in ("wins", "ties", "losses")}
                rows.append({"arm": arm, **ends, **counts, "open": across.open})
        columns = ["arm", "speedup", "low", "high", "wins", "ties", "losses", "open"]
        frame = pandas.DataFrame(rows, columns=columns)
        return frame.sort_values("speedup", ascending=False, ignore_index=True)

    def pareto(self) -> pandas.DataFrame:
        """Return seconds per step and peak memory of every arm, and whether it is on the front.

        An arm is on the front of its task if no other arm is better in one of the two and at
        least as good in the other.
        """
        table = self.results()
        table = table[table["step_seconds"].notna() & table["peak_bytes"].notna()]
        front = pandas.Series(True, index=table.index)
        for _, rows in table.groupby(["run", "comparison"], sort=False):
            front[rows.index] = on_front(rows[["step_seconds", "peak_bytes"]].to_numpy(float))
        columns = [*_IDENTITY, "step_seconds", "peak_bytes"]
        return table[columns].assign(on_front=front).reset_index(drop=True)

    def time_to(self, *, accuracy: float) -> pandas.DataFrame:
        """Return the steps and seconds after which a lesson's test accuracy is reached.

        A row per arm and seed; NaN where it is not reached. Accuracy is judged after every epoch.
        Seconds are start-up and steps at their typical time, without the tests in between. Raises
        BadInput if ``accuracy`` is no share.
        """
        if not (isinstance(accuracy, Real) and 0 <= accuracy <= 1):
            raise BadInput(f"accuracy is {accuracy!r}; expected a share from 0 to 1, such as 0.95")
        table = self.results().set_index(["run", "cell"])
        rows = []
        for (run, cell, seed), epochs in self.epochs.groupby(["run", "cell", "seed"], sort=False):
            lessons = self.accuracy
            mine = (lessons["run"] == run) & (lessons["cell"] == cell)
            if (run, cell) not in table.index:
                continue
            row = table.loc[(str(run), str(cell)), :]
            steps_per_epoch = lessons.loc[mine, "train_steps"].max() / epochs["epoch"].max()
            reached = epochs.loc[epochs["test_accuracy"] >= accuracy, "epoch"].min()
            steps = reached * steps_per_epoch
            seconds = row["startup_seconds"] + steps * row["step_seconds"]
            identity = {name: row[name] for name in _IDENTITY if name != "run"}
            rows.append({"run": run, **identity, "seed": seed, "steps": steps, "seconds": seconds})
        return pandas.DataFrame(rows, columns=[*_IDENTITY, "seed", "steps", "seconds"])

    def total(self, steps: int) -> pandas.DataFrame:
        """Return the seconds of a new process from its start to the end of its last step.

        ``total_seconds``: start-up and ``steps`` steps at their typical time; least first. Raises
        BadInput if ``steps`` is negative, beyond ``LONGEST_TRAINING`` or no number.
        """
        if not (isinstance(steps, Real) and 0 <= steps <= LONGEST_TRAINING):
            raise BadInput(f"steps is {steps!r}; expected a number of steps, such as 1000")
        table = self.results()
        seconds = table["startup_seconds"] + steps * table["step_seconds"]
        table = table[[*_IDENTITY, "startup_seconds", "step_seconds"]].assign(total_seconds=seconds)
        known = table[seconds.notna()]
        return known.sort_values(["run", "comparison", "total_seconds"], ignore_index=True)

    def scaling(self, by: str = "batch") -> pandas.DataFrame:
        """Return the speed of every arm over the batch, the threads or the length of sequences.

        ``speedup``: examples per second over those at the smallest value. Only tasks that were
        measured at several values have rows. Raises UnknownName for another ``by``.
        """
        if by not in SWEPT_COLUMNS:
            raise UnknownName("sweep", by, SWEPT_COLUMNS)
        table = self.results()
        parts = table["preset"].str.partition(TIME)
        table = table.assign(preset=parts[0], time=pandas.to_numeric(parts[2]))
        table = table[table["step_seconds"].notna()].sort_values(by, kind="stable")
        fixed = [name for name in ["run", "arm", *_TASK, "time"] if name != by]
        groups = table.groupby(fixed, sort=False, dropna=False)
        several = groups[by].transform("nunique") > 1
        speeds = table["examples_per_second"]
        table = table.assign(speedup=speeds / groups["examples_per_second"].transform("first"))
        columns = dict.fromkeys([*fixed, by, "step_seconds", "examples_per_second", "speedup"])
        return table.loc[several, [*columns]].sort_values(fixed, ignore_index=True, kind="stable")

    def machines(self) -> pandas.DataFrame:
        """Return the facts of the machine of every run, a row per run and a column per fact.

        ``machine`` is its number: runs of one machine share it. Times of runs of unlike machines
        must not be compared.
        """
        numbers = machine_numbers(self)
        rows = []
        for run, text in zip(self.runs["run"], self.runs["machine"], strict=True):
            facts = recorded(text).items()
            plain = {name: value for name, value in facts if not isinstance(value, list | dict)}
            rows.append({"machine": 0, **plain} | {"machine": numbers[run], "run": run})
        return pandas.DataFrame(rows, columns=None if rows else ["run"]).set_index("run")

    def __repr__(self) -> str:
        """The runs, the number of their machines if unlike, and how many rows each frame has."""
        sizes = ", ".join(f"{name}: {rows}" for name, rows in self._sizes())
        return f"Runs({self._names()}; {sizes})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{name}</td><td>{rows}</td></tr>" for name, rows in self._sizes())
        names = html.escape(self._names())
        return f"<table><tr><th>{names}</th><th>rows</th></tr>{rows}</table>"

    def _names(self) -> str:
        machines = len({*machine_numbers(self).values()})
        several = f" on {machines} unlike machines" if machines > 1 else ""
        return ", ".join(self.runs["run"]) + several

    def _sizes(self) -> list[tuple[str, int]]:
        return [(name, len(getattr(self, name))) for name in Frames.__dataclass_fields__]

    def _refuse_unknown(self, arm: str) -> None:
        arms = sorted(set(self.results()["arm"]))
        if arm not in arms:
            raise UnknownName("arm", arm, arms)


def load(paths: Path | str | Iterable[Path | str]) -> Runs:
    """Load run folders, or folders of run folders such as ``results/``.

    Raises BadInput for a path that is neither and for a run that cannot be read. Below a folder of
    run folders such a run is left out, with a warning, if another can be read.
    """
    return Runs(**vars(records.load(paths)))


def on_front(costs: NDArray[numpy.float64]) -> NDArray[numpy.bool_]:
    """Whether each row of costs, shape [arm, cost], is on the Pareto front.

    It is if no other row is better in one cost and at least as good in all others.
    """
    no_worse = (costs[:, None] <= costs).all(axis=-1)
    better = (costs[:, None] < costs).any(axis=-1)
    front: NDArray[numpy.bool_] = numpy.logical_not(numpy.any(no_worse & better, axis=0))
    return front
