"""The values that an annotation allows, and how an error names the first one that it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from levelfield.harness.plan.domains import (
    ABOVE_0,
    AT_LEAST_1,
    UP_TO_1,
    EqualLengths,
    OneOf,
    Unlimited,
    described,
)


@dataclass(frozen=True)
class Part:
    """An object with a field that must be there and one that may be missing."""

    name: str
    share: Annotated[float, UP_TO_1] = 0.0


GOOD = [
    (float, [0, 1.5, -1e15]),
    (Annotated[float, Unlimited()], [1e300, "nan", "inf", "-inf"]),
    (Annotated[float, ABOVE_0], [5e-324, 1e15]),
    (int | None, [None, -3]),
    (Annotated[str, OneOf(("a", "b"))], ["a"]),
    (Sequence[int], [[], [1, 2]]),
    (tuple[int, ...], [[], [1, 2]]),
    (Annotated[Sequence[Sequence[float]], EqualLengths()], [[], [[1], [2]]]),
    (Mapping[str, int], [{}, {"x": 1}]),
    (Part, [{"name": "x"}, {"name": "x", "share": 1, "unknown": None}]),
    (Annotated[Mapping[str, Any], Part], [{"name": "x"}]),
    (Any, [None, [math.nan]]),
]
BAD = [
    (float, True, "x is True, not a number from -1e+15 to 1e+15"),
    (float, "nan", "x is 'nan', not a number"),
    (float, math.inf, "x is inf, not a number"),
    (Annotated[float, Unlimited()], "none", "x is 'none', not a number"),
    (Annotated[float, ABOVE_0], 0, "x is 0, not a number above 0, at most 1e+15"),
    (Annotated[int, AT_LEAST_1], 0, "x is 0, not a whole number from 1 to 1e+15"),
    (int, 10**16, f"x is {10**16}, not a whole number"),
    (int, 1.0, "x is 1.0, not a whole number"),
    (int, None, "x is None, not a whole number"),
    (Annotated[str, OneOf(("a", "b"))], "c", "x is 'c', not one of a, b"),
    (int, "\n" + "y" * 99, f"x is '\\n{'y' * 37}..., not a whole number"),
    (Sequence[int], [1, "2"], "x[1] is '2', not a whole number"),
    (Sequence[Sequence[int]], [[1], [2, None]], "x[1][1] is None, not a whole number"),
    (Annotated[Sequence[Sequence[int]], EqualLengths()], [[1], [2, 3]], "not a list of lists of"),
    (Annotated[Sequence[Sequence[int]], EqualLengths()], [[1], 2], "x[1] is 2, not a list"),
    (Mapping[str, int], {"a": 1, "b": "2"}, "x['b'] is '2', not a whole number"),
    (Part, {}, "x has no 'name'"),
    (Part, {"name": "x", "share": 2}, "x.share is 2, not a number from 0 to 1"),
    (Sequence[Part], [{"name": "x"}, {"name": 1}], "x[1].name is 1, not a text"),
]


@pytest.mark.parametrize(("annotation", "values"), GOOD, ids=str)
def test_good_values(annotation: Any, values: list[Any]) -> None:
    _, domain = described(annotation)
    assert domain.holds(values)
    assert [domain.fault(value, "x") for value in values] == [None] * len(values)


@pytest.mark.parametrize(("annotation", "value", "words"), BAD, ids=str)
def test_bad_values(annotation: Any, value: Any, words: str) -> None:
    _, domain = described(annotation)
    good = next(values for known, values in [*GOOD, (annotation, [])] if known == annotation)
    assert not domain.holds([*good, value])
    fault = domain.fault(value, "x")
    assert words in str(fault)
    assert str(fault).isprintable()


def test_the_outermost_meaning_counts() -> None:
    inner = Annotated[float, "of all", AT_LEAST_1]
    assert described(Annotated[inner | None, "of this"])[0] == "of this"
    assert described(inner | None)[0] == "of all"
