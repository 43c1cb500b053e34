"""The gate and arrays that no honest arm gives: it fails them and never raises."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.test_gate import judged, perfect

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
    "halves": lambda v: np.full(v.shape, 3, np.float16),
    "other byte order": lambda v: np.full(v.shape, 3, ">f4"),
}


@pytest.mark.parametrize("optimizer", ["adam", None])
@pytest.mark.parametrize("other", OTHERS)
def test_any_array_in_any_place_fails_and_nothing_is_raised(
    other: str, optimizer: str | None
) -> None:
    honest = perfect(optimizer)
    assert judged(honest, optimizer).passed
    for name, value in honest.items():
        if other == "a scalar" and value.shape == ():
            continue
        outcome = judged({**honest, name: np.asarray(OTHERS[other](value))}, optimizer)
        assert not outcome.passed, name
        assert outcome.reason


def test_all_arrays_changed_at_random_fail_and_nothing_is_raised() -> None:
    stream, honest = random.Random(17), perfect("adam")
    for _ in range(100):
        got = dict(honest)
        for name in stream.sample(list(got), stream.randrange(1, len(got))):
            change = OTHERS[stream.choice(list(OTHERS))]
            value = np.asarray(change(got.pop(name)))
            got[name if stream.random() < 0.8 else f"{name}/{stream.random()}"] = value
        outcome = judged(got, "adam")
        assert not outcome.passed
        assert outcome.reason
        assert outcome.to_json()
