"""Which rounds other load disturbed, and by which rule.

Rounds are judged by the covariates of ``levelfield.harness.machine.noise`` alone and never by their
own times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.harness.machine.noise import FOREIGN_SHARE, STEAL_SHARE, TICK_SECONDS

# Measured on a two-core virtual machine, 2026-11-21. In a quiet hour the median spread of a round's
# canaries was 2 %. In another hour, with nothing else running, it was 10 %, while the A/A twin of
# that session stayed within 0.8 %. The spread matters only if it disturbs pairs. Over 2,980 pairs
# of identical arms in rounds without foreign load (the runs of results/example and
# results/selftest), a round's scatter about its block is 0.4 to 0.5 % in the median. It does not
# grow with the spread, up to the 20 % that were measured. A limit of 3 % would judge the canary and
# not the machine. A busy neighbour, which no counter of such a machine shows, makes the loop 30 to
# 50 % slower. A speed that all slots of a round share cancels in every pair, so only slots that
# disagree count.
CANARY_SPREAD = 0.20
TICKS = 2.5  # foreign and stolen time must exceed this many ticks, whatever their share


def judge_rounds(
    spreads: Sequence[float] | NDArray[np.float64],
    *,
    wall_seconds: Sequence[float] | NDArray[np.float64],
    foreign_seconds: Sequence[float] | NDArray[np.float64],
    steal_seconds: Sequence[float] | NDArray[np.float64],
    throttled_seconds: Sequence[float] | NDArray[np.float64],
    major_faults: Sequence[float] | NDArray[np.float64],
    gpu: Sequence[Mapping[str, Any] | None] = (),
    cores: Any,
) -> list[str]:
    """Return the rule by which each round is disturbed, "" if none applies.

    ``spreads`` are those of the canaries. All arrays have shape [round]. ``cores`` is the number of
    cores that the foreign and the stolen seconds cover, for all rounds or [round]. ``gpu`` holds
    the fields "gpu" of the records (a ``GpuReading`` as JSON), None where no GPU was used.
    """
    readings = [reading or {} for reading in gpu or [None] * len(wall_seconds)]
    wall, foreign, steal, throttled, faults = (
        np.nan_to_num(np.asarray(array, float))
        for array in (wall_seconds, foreign_seconds, steal_seconds, throttled_seconds, major_faults)
    )
    least_seconds = TICKS * TICK_SECONDS
    rules = {
        "foreign load": foreign > np.maximum(FOREIGN_SHARE * wall * cores, least_seconds),
        "steal": steal > np.maximum(STEAL_SHARE * wall * cores, least_seconds),
        "throttled": throttled > 0,
        "major faults": faults > 0,
        "canary": np.asarray(spreads, float) > CANARY_SPREAD,
        "GPU slowed": np.array([bool(reading.get("slowing")) for reading in readings], bool),
        "GPU shared": np.array(
            [bool(reading.get("foreign_processes")) for reading in readings], bool
        ),
    }
    return [str(name) for name in np.select(list(rules.values()), list(rules), "")]


def canary_spread(boundaries: Sequence[Sequence[float]]) -> float:
    """Slowest over fastest boundary of a round less 1, of the core with the largest value."""
    if not boundaries:
        return 0.0
    return float(canary_spreads(np.array([boundaries], float))[0])


def canary_spreads(canaries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the canary spread of many rounds, from ``canaries[round, boundary, core]``."""
    return np.asarray((canaries.max(axis=1) / canaries.min(axis=1)).max(axis=1) - 1)
