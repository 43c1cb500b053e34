"""An answer file: compares one array of it after the other with the expected array.

Errors are relative norms, |got - expected| / |expected| in float64 over a whole array. Movements of
both sides are taken relative to the start, so that a parameter that never moved has error 1 however
large it is. The possible rounding of each step's result in float32 is subtracted from the error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.harness.proof.outcome import Check
from levelfield.harness.proof.replies import NUMBERS
from levelfield.harness.proof.tolerances import EXACT_SIZE, Tolerance
from levelfield.reference.answers import Answers
from levelfield.reference.case import Arrays, Case


@dataclass(frozen=True)
class AnswerFile:
    """The arrays of one answer file. A gate is a subclass, which says what is compared.

    ``got`` holds the arrays, and ``known`` collects the names that they may have.
    """

    case: Case
    answers: Answers
    got: Arrays
    tolerance: Tolerance
    known: set[str]
    exact: float  # outputs with a smaller error are too exact

    def outputs(self, rounds: int) -> Iterator[Check]:
        """Check the outputs of every input set, in every round."""
        for name in self.answers.outputs[0]:
            for number, outputs in enumerate(rounds * self.answers.outputs):
                check = self._compare(
                    f"outputs/{name}/{number}",
                    f"output/{number}/{name}",
                    outputs[name],
                    self.tolerance.outputs,
                )
                if check.error < self.exact and outputs[name].size >= EXACT_SIZE:
                    note = f"error {check.error:.1e}: too exact for float32"
                    check = replace(check, error=float("inf"), note=note)
                yield check

    def _tokens(self, key: str, expected: NDArray[Any]) -> Check:
        """Check tokens; the error is the share of wrong ones."""
        check = self._compare(key, key, expected, 0.0)
        if check.note:
            return check
        share = float((self.got[key] != expected).mean())
        return Check(key, share, 0.0, f"{share:.0%} of the tokens are others" if share else "")

    def _start(self, name: str) -> NDArray[Any]:
        """A parameter or statistic as it was loaded."""
        return self.case.parameters[name] if name in self.case.parameters else self.case.state[name]

    def _stored(self, name: str, moved: NDArray[Any], steps: int) -> NDArray[np.float64]:
        """The rounding of storing each moving element: half a unit in the last place per step.

        A framework may add the contributions of a table row's readings to it one after the other,
        as TensorFlow's scatter does. The roundings of n such sums add up to the square root of n.
        """
        half_unit = np.spacing(np.abs(self._start(name))).astype(np.float64) / 2
        roundings = steps * np.sqrt(self.case.lookups(name))
        return np.where(moved != 0, roundings * half_unit, 0.0)

    def _way(self, key: str, start: NDArray[Any]) -> NDArray[np.float64]:
        """How far an array of the answer is from its start."""
        return np.asarray(self.got[key].astype(np.float64) - start.astype(np.float64))

    def _held(self, name: str, stage: str = "initial") -> str:
        """The name under which a framework keeps a statistic; some keep unbiased variances."""
        unbiased = name.removesuffix("variance") + "unbiased_variance"
        return unbiased if f"{stage}/state/{unbiased}" in self.got else name

    def _compare(
        self,
        name: str,
        key: str,
        expected: NDArray[Any],
        tolerance: float,
        *,
        scale: float = 0.0,
    ) -> Check:
        """Compare one array; ``scale``: the size for relative errors, if not the expected norm."""
        self.known.add(key)
        if key not in self.got:
            return Check(name, float("inf"), tolerance, "missing from the answer")
        value = self.got[key]
        if value.shape != expected.shape:
            note = f"shape {value.shape} instead of {expected.shape}"
            return Check(name, float("inf"), tolerance, note)
        if value.dtype.kind not in NUMBERS:
            return Check(name, float("inf"), tolerance, f"type {value.dtype} instead of numbers")
        if not np.isfinite(value).all():
            return Check(name, float("nan"), tolerance, "not finite")
        if scale:
            return Check(name, _distance(value, expected) / scale, tolerance)
        return Check(name, relative_error(value, expected), tolerance)

    def _moved(
        self,
        title: str,
        key: str,
        name: str,
        expected: NDArray[Any],
        *,
        steps: int,
        tolerance: float,
    ) -> Check:
        start = self._start(name)
        check = self._compare(title, key, start, tolerance)
        if check.note:
            return check
        stored = float(np.linalg.norm(self._stored(name, expected, steps)))
        distance = max(_distance(self._way(key, start), expected) - stored, 0.0)
        return Check(check.name, distance / (float(np.linalg.norm(expected)) or 1.0), tolerance)


def relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """|got - expected| / |expected|, or the absolute error if all expected values are zero."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    scale = float(np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected)) / (scale or 1.0)


def _distance(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - expected.astype(np.float64)))
