"""The most bytes that an honest answer file may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from levelfield.harness.proof.replies import ENTRY_BYTES
from levelfield.reference.answers import Answers
from levelfield.reference.case import Case
from levelfield.reference.closing import READ, Closing


def answer_bytes(case: Case, answers: Answers) -> int:
    """The most bytes that an honest answer file may have: several times the bytes that it needs.

    Every parameter and statistic comes as loaded, after one step and after all, with gradients;
    the outputs come once per input set. All may be float64.
    """
    arrays = [value for outputs in answers.outputs for value in outputs.values()]
    return _most_bytes(case, [*arrays, *answers.tokens, *answers.tokens], answers.steps)


def closing_bytes(case: Case, closing: Closing) -> int:
    """The most bytes that an honest file of the answers of a closing case may have."""
    arrays = [value for outputs in closing.outputs for value in outputs.values()]
    return _most_bytes(case, [*arrays, *(3 * closing.tokens)], READ)


def _most_bytes(case: Case, arrays: Sequence[NDArray[Any]], steps: int) -> int:
    variables = [*case.parameters.values(), *case.state.values()]
    elements = sum(8 * value.size for value in variables) + sum(2 * value.size for value in arrays)
    names = 8 * len(variables) + 2 * len(arrays) + steps * len(case.model.objectives)
    return 16 * elements + 2 * ENTRY_BYTES * names + (1 << 20)
