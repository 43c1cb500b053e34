"""The gate and arrays that no honest arm gives: it fails them and never raises."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from levelfield.harness.proof import gate
from levelfield.harness.proof.outcome import Outcome
from tests.support.engine import TINY_EFFORT, RunModes

Change = Callable[[NDArray[Any]], Any]
RECORD = np.dtype([("a", "f4"), ("b", "i4")])
OTHERS: dict[str, Change] = {
    "objects": lambda v: np.full(v.shape, None, object),
    "text": lambda v: v.astype(str),
    "bytes": lambda v: v.astype(bytes),
    "complex": lambda v: v.astype(complex),
    "dates": lambda v: np.zeros(v.shape, "datetime64[s]"),
    "durations": lambda v: np.zeros(v.shape, "timedelta64[s]"),
    "structures": lambda v: np.zeros(v.shape, RECORD),
    "raw memory": lambda v: np.zeros(v.shape, "V8"),
    "truth values": lambda v: v.astype(bool),
    "one dimension more": lambda v: v[np.newaxis],
    "none of it": lambda v: v.ravel()[:0],
    "a scalar": lambda v: np.float32(1),
    "infinite": lambda v: np.full(v.shape, np.inf),
    "not a number": lambda v: np.full(v.shape, np.nan, np.float32),
    "the largest": lambda v: np.full(v.shape, np.finfo(np.float64).max),
    "the largest of long doubles": lambda v: np.full(v.shape, np.finfo(np.longdouble).max),
    "the smallest integers": lambda v: np.full(v.shape, np.iinfo(np.int64).min),
    "unsigned": lambda v: np.full(v.shape, np.iinfo(np.uint64).max),
    "halves": lambda v: np.full(v.shape, 1000, np.float16),
    "other byte order": lambda v: np.full(v.shape, 1000, ">f4"),
}


@dataclass(frozen=True)
class Judged:
    """What the gate was given by a worker that answers well."""

    arguments: tuple[Any, ...]  # the case and its answers
    arrays: dict[str, NDArray[Any]]
    options: dict[str, Any]

    def again(self, arrays: dict[str, Any]) -> Outcome:
        return gate.judge(*self.arguments, arrays, **self.options)


@pytest.fixture(scope="module")
def honest(run_modes: RunModes) -> dict[str, Judged]:
    """phase -> what a real worker's answer file held."""
    outcomes: dict[str, Judged] = {}

    def recorded(*arguments: Any, **options: Any) -> Outcome:
        *rest, arrays = arguments
        outcomes[options["phase"]] = Judged(tuple(rest), dict(arrays), options)
        return Outcome(())

    effort = replace(TINY_EFFORT, memory=False, accuracy=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("levelfield.harness.engine.qualification.gate.judge", recorded)
        run_modes("well", phases=("training", "inference"), optimizers=("adam",), effort=effort)
    return outcomes


@pytest.mark.parametrize("phase", ["training", "inference"])
@pytest.mark.parametrize("other", OTHERS)
def test_any_array_in_any_place_fails_and_nothing_is_raised(
    honest: dict[str, Judged], other: str, phase: str
) -> None:
    given = honest[phase]
    assert given.again(given.arrays).passed
    for name, value in given.arrays.items():
        if other == "a scalar" and value.shape == ():
            continue
        spoiled = np.asarray(OTHERS[other](value))
        outcome = given.again({**given.arrays, name: spoiled})
        assert not outcome.passed, name
        assert outcome.reason


def test_all_arrays_changed_at_random_fail_and_nothing_is_raised(
    honest: dict[str, Judged],
) -> None:
    stream, given = random.Random(17), honest["training"]
    for _ in range(100):
        got = dict(given.arrays)
        for name in stream.sample(list(got), stream.randrange(1, len(got))):
            change = OTHERS[stream.choice(list(OTHERS))]
            value = np.asarray(change(got.pop(name)))
            got[name if stream.random() < 0.8 else f"{name}/{stream.random()}"] = value
        outcome = given.again(got)
        assert not outcome.passed
        assert outcome.reason
        assert outcome.to_json()
