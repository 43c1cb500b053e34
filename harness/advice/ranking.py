"""Ranks arms by several costs at once, with the uncertainty and sensitivity of the ranking.

The score is a weighted product (E. Triantaphyllou, "Multi-criteria decision making methods", 2000,
section 2.2.2). Every cost is divided by the least cost of any arm, in each comparison, and raised
to the power of its weight. No arm gains by the choice of a unit, and twice as slow has the same
weight at any speed.

The uncertainty comes from the blocks. The ranking is repeated for many draws of the means of logs,
by Student's t of as many blocks as there are. The sensitivity is how far one weight must move, the
others in proportion, before another arm leads. E. Triantaphyllou and A. Sánchez, "A sensitivity
analysis approach for some deterministic multi-criteria decision-making methods", Decision Sciences
28 (1997), ask the same question for weights that move alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from levelfield.harness.advice.needs import CRITERIA
from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.logs import block_seconds, measured
from levelfield.harness.analysis.summary import startups
from levelfield.harness.records.frames import Frames
from levelfield.harness.statistics.estimates import Floats

DRAWS = 4000
ENDS = 1e-9  # distance of a weight from 0 and from 1 within which a crossing is ignored


@dataclass(frozen=True)
class Costs:
    """``logs[draw, arm, criterion]``, 0 being the least of any arm; draw 0 is the estimate.

    Each arm was measured in ``measured`` of its ``planned`` comparisons.
    """

    arms: tuple[str, ...]
    logs: Floats
    measured: tuple[int, ...]
    planned: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """An arm's place.

    ``score`` is its weighted product over that of the first, with its 95 % interval over the draws.
    ``leads`` is the share of the draws in which it is first. ``costs`` gives each criterion as a
    multiple of the least of any arm, a geometric mean over ``measured`` of ``planned`` comparisons.
    """

    arm: str
    score: float
    low: float
    high: float
    leads: float
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
    counts = (~np.isnan(every[:, 0, :, 0])).sum(axis=0)
    planned = np.sum(
        [[arm in set(comparison.rows["arm"]) for arm in arms] for comparison, _ in evidence], axis=0
    )
    gaps = np.broadcast_to(np.log(planned / counts), (DRAWS + 1, len(arms)))
    means = np.concatenate([_mean(every), gaps[..., None]], axis=-1)  # in the order of CRITERIA
    # A criterion that could not be measured for an arm is taken to be as bad as the worst.
    worst = np.nan_to_num(np.fmax.reduce(means[0], axis=0), nan=0.0)
    means = np.where(np.isnan(means), worst, means)
    return Costs(tuple(arms), means, tuple(counts.tolist()), tuple(planned.tolist()))


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


def _mean(logs: Floats) -> Floats:
    """Mean over the comparisons that have a value."""
    present = (~np.isnan(logs)).sum(axis=0)
    with np.errstate(all="ignore"):
        return np.where(present > 0, np.nansum(logs, axis=0) / present, np.nan)


def ranked(costs: Costs, weights: Mapping[str, float]) -> tuple[Place, ...]:
    """Places from the first; the sum of ``weights`` is 1."""
    scores = costs.logs @ np.array([weights[name] for name in CRITERIA])
    order = np.argsort(scores[0], kind="stable")
    leads = np.bincount(scores[1:].argmin(axis=1), minlength=len(costs.arms)) / DRAWS
    apart = np.exp(scores - scores[:, order[:1]])
    low, high = np.quantile(apart[1:], (0.025, 0.975), axis=0)
    return tuple(
        Place(
            arm=costs.arms[at],
            score=float(apart[0, at]),
            low=float(low[at]),
            high=float(high[at]),
            leads=float(leads[at]),
            costs=dict(zip(CRITERIA, np.exp(costs.logs[0, at]).tolist(), strict=True)),
            measured=costs.measured[at],
            planned=costs.planned[at],
        )
        for at in order.tolist()
    )


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
