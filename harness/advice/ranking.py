"""Ranks arms by several costs at once, with the uncertainty and sensitivity of the ranking.

The score is a weighted product (E. Triantaphyllou, "Multi-criteria decision making methods", 2000,
section 2.2.2). Every cost is divided by the least cost of any arm, in each comparison, and raised
to the power of its weight. No arm gains by the choice of a unit, and twice as slow has the same
weight at any speed.

The uncertainty has three sources. The ranking is repeated for many draws of the means of logs, by
Student's t of as many blocks as there are; that is the error of these measurements. In the same
draws the models, and the machines if there are several, are drawn with replacement, because a need
is about further models and machines than those that were measured (A. Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 1 (2007)). All comparisons of a model are drawn together.

The sensitivity is twofold: which arm leads without one of the models or machines, and how far one
weight must move, the others in proportion, before another arm leads. E. Triantaphyllou and A.
Sánchez, "A sensitivity analysis approach for some deterministic multi-criteria decision-making
methods", Decision Sciences 28 (1997), ask the latter question for weights that move alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from levelfield.harness.advice.needs import CRITERIA
from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.logs import block_seconds, measured
from levelfield.harness.analysis.machines import machine_numbers
from levelfield.harness.analysis.summary import startups
from levelfield.harness.records.frames import Frames
from levelfield.harness.statistics.estimates import Floats

DRAWS = 4000
LEAST_COUNT = 0.5  # comparisons; a draw may have none in which an arm was measured
ENDS = 1e-9  # distance of a weight from 0 and from 1 within which a crossing is ignored


@dataclass(frozen=True)
class Costs:
    """``logs[draw, arm, criterion]``, 0 being the least of any arm; draw 0 is the estimate.

    Models and machines are drawn with replacement in ``logs``, and are those that were measured in
    ``fixed``, which is ``logs`` unless given. ``without`` has the estimates [arm, criterion] if one
    model or machine, by its name, is left out. Each arm was measured in ``measured`` of its
    ``planned`` comparisons.
    """

    arms: tuple[str, ...]
    logs: Floats
    measured: tuple[int, ...]
    planned: tuple[int, ...]
    fixed: Floats | None = None
    without: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Flip:
    """``arm`` leads instead of the first if the comparisons of ``without`` are left out."""

    without: str
    arm: str


@dataclass(frozen=True)
class Place:
    """An arm's place.

    ``score`` is its weighted product over that of the first, with its 95 % interval over the draws.
    ``leads`` is the share of the draws in which it is first, with models and machines drawn too;
    ``leads_here`` is that share for these models and machines, by errors of measurement alone.
    ``costs`` gives each criterion as a
    multiple of the least of any arm, a geometric mean over ``measured`` of ``planned`` comparisons.
    """

    arm: str
    score: float
    low: float
    high: float
    leads: float
    leads_here: float
    costs: dict[str, float]
    measured: int
    planned: int


@dataclass(frozen=True)
class Move:
    """The weight of a criterion, of a sum of 1, and the nearest with which ``arm`` leads instead.

    ``needed`` is None if no weight of this criterion makes another arm lead.
    """

    criterion: str
    weight: float
    needed: float | None
    arm: str


def costs_of(
    frames: Frames, evidence: Sequence[tuple[Comparison, str]], arms: Sequence[str], *, steps: int
) -> Costs:
    """Costs of arms in comparisons, each with the statistic that counts.

    With ``steps``, time is start-up and so many steps, else one step.
    """
    seeds = frames.runs["seed"].dropna()
    generator = np.random.default_rng(int(seeds.iloc[0]) if len(seeds) else 0)
    logs = measured(frames)
    per_step = {
        statistic: block_seconds(logs, statistic)
        for statistic in dict.fromkeys(statistic for _, statistic in evidence)
    }
    begun = startups(frames)
    begun = begun[begun["block"].notna()]
    begins = begun.groupby(["run", "cell", "block"])["startup_seconds"].last()
    costs = []
    for comparison, statistic in evidence:
        rows = comparison.rows.set_index("arm").reindex(list(arms))
        fine = (rows["status"] == "ok").to_numpy()
        cells = [
            (comparison.run, str(cell)) if ok else None
            for cell, ok in zip(rows["cell"], fine, strict=True)
        ]
        step = _drawn(_blocks(per_step[statistic], cells), generator, shared=True)
        start = _drawn(_blocks(begins, cells), generator, shared=False)
        time = np.logaddexp(start, math.log(steps) + step) if steps else step
        peak = np.where(fine, np.log(rows["peak_bytes"].astype(float).to_numpy()), np.nan)
        costs.append(np.stack([time, start, np.broadcast_to(peak, time.shape)], axis=-1))
    every = np.stack(costs)  # [comparison, draw, arm, criterion]
    with np.errstate(all="ignore"):
        every = every - np.fmin.reduce(every[:, :1], axis=2)[:, :, None]
    planned = np.array(
        [[arm in set(comparison.rows["arm"]) for arm in arms] for comparison, _ in evidence]
    )
    sources = _sources(frames, evidence)
    equal = np.ones((1, len(evidence)))
    drawn = np.vstack([equal, _weights(sources, generator)])
    counts = (~np.isnan(every[:, 0, :, 0])).sum(axis=0)
    return Costs(
        tuple(arms),
        _combined(every, planned, drawn),
        tuple(counts.tolist()),
        tuple(planned.sum(axis=0).tolist()),
        fixed=_combined(every, planned, np.broadcast_to(equal, drawn.shape)),
        without={
            name: _combined(every[:, :1], planned, 1.0 - member[None])[0]
            for of_kind in sources
            for name, member in of_kind.items()
            if 0 < member.sum() < len(member)
        },
    )


def _sources(
    frames: Frames, evidence: Sequence[tuple[Comparison, str]]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The models and the machines by name: 1 for each comparison [comparison] of theirs, else 0."""
    numbers = machine_numbers(frames)
    models = [str(comparison.rows.iloc[0]["model"]) for comparison, _ in evidence]
    machines = [f"machine {numbers[comparison.run]}" for comparison, _ in evidence]

    def members(names: Sequence[str]) -> dict[str, Floats]:
        return {
            name: np.array([other == name for other in names], float)
            for name in dict.fromkeys(names)
        }

    return members(models), members(machines)


def _weights(sources: Sequence[Mapping[str, Floats]], generator: np.random.Generator) -> Floats:
    """How often each comparison counts in each draw [DRAWS, comparison].

    Models and machines are drawn with replacement; a draw without any comparison is drawn again.
    """
    weights = np.zeros((DRAWS, len(next(iter(sources[0].values())))))
    while not (full := weights.any(axis=1)).all():
        empty = np.flatnonzero(~full)
        drawn = np.ones((len(empty), weights.shape[1]))
        for members in sources:
            shares = np.full(len(members), 1 / len(members))
            times = generator.multinomial(len(members), shares, size=len(empty))
            drawn = drawn * (times @ np.stack([*members.values()]))
        weights[empty] = drawn
    return weights


def _combined(every: Floats, planned: NDArray[np.bool_], weights: Floats) -> Floats:
    """Costs over all comparisons [draw, arm, criterion], in the order of CRITERIA.

    ``every``: [comparison, draw, arm, criterion but coverage]. ``weights``: [draw, comparison]. An
    arm that lacks a criterion in all comparisons of a draw is taken to be as bad as the worst arm;
    half a comparison counts as its coverage there.
    """
    present = ~np.isnan(every)
    totals = np.einsum("dc,cdak->dak", weights, np.where(present, every, 0.0))
    counts = np.einsum("dc,cdak->dak", weights, present.astype(float))
    with np.errstate(all="ignore"):
        means = totals / counts
        gaps = np.log((weights @ planned) / np.maximum(counts[..., 0], LEAST_COUNT))
    means = np.concatenate([means, np.maximum(gaps, 0.0)[..., None]], axis=-1)
    worst = np.nan_to_num(np.fmax.reduce(means, axis=1), nan=0.0)[:, None]
    return np.where(np.isnan(means), worst, means)


def _blocks(values: Any, cells: Sequence[tuple[str, str] | None]) -> Floats:
    """Logs [arm, block] of a series by run, cell and block; NaN where there is none."""
    nothing = pandas.Series(dtype=float)
    columns = [values.loc[cell] if cell in values.index else nothing for cell in cells]
    table = pandas.concat(columns, axis=1, keys=range(len(cells)))
    logs: Floats = np.log(table.to_numpy(float).T)
    return logs


def _drawn(logs: Floats, generator: np.random.Generator, *, shared: bool) -> Floats:
    """Means over blocks [1 + DRAWS, arm], drawn by their errors; the first are the means.

    ``shared``: a block may affect all arms in the same way, such as a machine that slowed down.
    That effect is no difference between the arms and is removed first.
    """
    counts = (~np.isnan(logs)).sum(axis=1)
    with np.errstate(all="ignore"):
        means = np.where(counts > 0, np.nansum(logs, axis=1) / counts, np.nan)
        rest = logs - means[:, None]
        arms = int((counts > 1).sum())
        if shared and arms > 1:
            present = (~np.isnan(rest)).sum(axis=0)
            rest = (rest - np.nansum(rest, axis=0) / present) * np.sqrt(arms / (arms - 1))
        errors = np.sqrt(np.nansum(rest**2, axis=1) / (counts - 1) / counts)
    # A single block has no error of its own, so it gets the largest error of the others.
    errors = np.where(counts > 1, errors, np.max(errors[counts > 1], initial=0.0))
    drawn = generator.standard_t(np.maximum(counts - 1, 1), size=(DRAWS, len(logs)))
    return np.vstack([means, means + drawn * errors])


def ranked(costs: Costs, weights: Mapping[str, float]) -> tuple[Place, ...]:
    """Places from the first; the sum of ``weights`` is 1."""
    scores = _scores(costs.logs, weights)
    order = np.argsort(scores[0], kind="stable")
    fixed = scores if costs.fixed is None else _scores(costs.fixed, weights)
    leads, leads_here = (
        np.bincount(drawn[1:].argmin(axis=1), minlength=len(costs.arms)) / DRAWS
        for drawn in (scores, fixed)
    )
    apart = np.exp(scores - scores[:, order[:1]])
    low, high = np.quantile(apart[1:], (0.025, 0.975), axis=0)
    return tuple(
        Place(
            arm=costs.arms[at],
            score=float(apart[0, at]),
            low=float(low[at]),
            high=float(high[at]),
            leads=float(leads[at]),
            leads_here=float(leads_here[at]),
            costs=dict(zip(CRITERIA, np.exp(costs.logs[0, at]).tolist(), strict=True)),
            measured=costs.measured[at],
            planned=costs.planned[at],
        )
        for at in order.tolist()
    )


def _scores(logs: Floats, weights: Mapping[str, float]) -> Floats:
    scores: Floats = logs @ np.array([weights[name] for name in CRITERIA])
    return scores


def flips_of(costs: Costs, weights: Mapping[str, float]) -> tuple[Flip, ...]:
    """The models and machines without which another arm leads."""
    first = int(_scores(costs.logs[0], weights).argmin())
    flips = []
    for name, logs in costs.without.items():
        leader = int(_scores(logs, weights).argmin())
        if leader != first:
            flips.append(Flip(name, costs.arms[leader]))
    return tuple(flips)


def moves_of(costs: Costs, weights: Mapping[str, float]) -> tuple[Move, ...]:
    """For every criterion, the nearest weight with which another arm leads."""
    now = np.array([weights[name] for name in CRITERIA])
    first = int((costs.logs[0] @ now).argmin())
    moves = []
    for at, name in enumerate(CRITERIA):
        rest = np.where(np.arange(len(now)) == at, 0.0, now)
        if rest.sum() == 0:  # this criterion had all weight: the others share it equally
            rest = np.where(np.arange(len(now)) == at, 0.0, 1.0)
        others = costs.logs[0] @ (rest / rest.sum())
        # With a weight of t the score is t own + (1 - t) others: where does it equal the leader's?
        ahead = others - others[first]
        own = costs.logs[0, :, at] - costs.logs[0, first, at]
        with np.errstate(all="ignore"):
            meets = ahead / (ahead - own)
        meets[first] = np.nan
        # At the ends themselves two arms with equal costs are level without any crossing.
        meets = np.where((meets > ENDS) & (meets < 1 - ENDS), meets, np.nan)
        if np.isnan(meets).all():
            moves.append(Move(name, float(now[at]), None, ""))
            continue
        nearest = int(np.nanargmin(np.abs(meets - now[at])))
        moves.append(Move(name, float(now[at]), float(meets[nearest]), costs.arms[nearest]))
    return tuple(moves)
