"""Compares a step with the best that the machine can do.

The roofline model is that of Williams, Waterman and Patterson (2009), "Roofline: an insightful
visual performance model", CACM 52.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from levelfield import reference
from levelfield.harness.machine.ceilings import COPY, PRODUCT, Ceiling
from levelfield.reference.errors import UnknownName, by_definition
from levelfield.reference.registry import outside_of
from levelfield.reference.trace import summarize

IMPOSSIBLE_SHARE = 1.05  # of the roofline: a step above this share was not measured correctly
# The optimiser reads and writes a slot of each of its state arrays. The trace's own count has the
# parameters with a gradient already.
STATE_ARRAYS = {"sgd": 0, "momentum": 1, "adam": 2}


def work(
    model: str, preset: str, batch: int, *, phase: str, optimizer: str | None
) -> tuple[int, int]:
    """(floating-point operations, least bytes) of a step.

    ``levelfield.reference.trace`` has the conventions. Operations are those of matrix products and
    convolutions, two per multiply-add. Bytes are those that must move once, the optimiser's state
    included. Raises UnknownName for a model, preset or phase that is not defined, BadDefinition
    where a definition from outside does not allow this batch.
    """
    place = f"{model}/{preset} with batch {batch} cannot be traced"
    with by_definition(place) if outside_of(model) else nullcontext():
        counts = summarize(reference.get(model), preset, batch)
    if phase == "inference":
        return counts.inference_operations, counts.inference_bytes
    if phase == "generation":
        definition = reference.get(model)
        if definition.generation is None:
            raise UnknownName("phase", phase, ("inference", "training"), f"model '{model}'")
        return counts.generation_operations, counts.generation_bytes
    arrays = STATE_ARRAYS[optimizer or "sgd"]
    # An optimiser with state also reads and writes the rows of tables that have no gradient.
    untouched = counts.moved_count - counts.touched_count if arrays else 0
    moved = 2 * 4 * (untouched + arrays * counts.moved_count)
    return counts.training_operations, counts.training_bytes + moved


def roofline_share(
    operations: float,
    least_bytes: float,
    step_seconds: float,
    ceilings: Sequence[Ceiling],
) -> float:
    """The time that the ceilings allow over the measured time; NaN without ceilings.

    The rate of copying is the best among arrays of at least half the step's bytes. A step whose
    data stay in a cache is therefore compared with that cache and not with memory.
    """
    peak = max((best.per_second for best in ceilings if best.what == PRODUCT), default=np.nan)
    copies = [best for best in ceilings if best.what == COPY]
    largest = max((copy.size_bytes for copy in copies), default=0)
    least = min(least_bytes / 2, largest)
    rate = max((copy.per_second for copy in copies if copy.size_bytes >= least), default=np.nan)
    return float(max(operations / peak, least_bytes / rate) / step_seconds)
