"""The closing gate: compares the last answers of a timed process with those of the reference.

A training is judged by its last losses and by its parameters after many unread steps. Inference and
generation answer the input sets of the closing case (:mod:`levelfield.reference.closing`). The load
that was timed also answers the input sets of the gate once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from levelfield.harness.proof.answer_file import AnswerFile
from levelfield.harness.proof.outcome import Check, Outcome
from levelfield.harness.proof.tolerances import TOLERANCES, exact
from levelfield.reference.answers import Answers
from levelfield.reference.case import Arrays, Case
from levelfield.reference.closing import Closing

# A few float32 trainings of the reference are a small sample of correct programs. In a chaotic
# network, another order of summation can cause differences that are several times as large.
CLOSING_MARGIN = 10
# Keras, Chainer and CNTK compute the other form of Adam, which is no mistake. The difference
# between the two forms does not depend on chance, so this margin is small.
FORMS_MARGIN = 1.5
# If they hardly differ, float32's own rounding sets the lower bound: float16 leaves 5e-4 and more.
LEAST_LOSSES, LEAST_TRAINED = 2e-5, 2e-4


def judge_closing(
    case: Case, closing: Closing, got: Arrays, *, phase: str, numeric: str = "float32"
) -> Outcome:
    """Compare a timed process's last answers with the answers of the closing case."""
    row = TOLERANCES[numeric]
    judging = _ClosingJudging(
        case, Answers(closing.outputs, tokens=closing.tokens), got, row, set(), exact(numeric)
    )
    with np.errstate(all="ignore"):
        if phase == "generation":
            return Outcome((*judging.closing_tokens(closing),))
        if phase == "inference":
            return Outcome((*judging.outputs(1),))
        return Outcome((*judging.closing_training(closing),))


def judge_kept(
    case: Case, answers: Answers, got: Arrays, *, phase: str, numeric: str = "float32"
) -> Outcome:
    """Compare the answers of a timed load with the answers of its case.

    Its cursor may be at any input set. The set from which the fewest checks fail is taken as its
    start.
    """
    outcomes = []
    for begin in range(len(case.inputs)):
        turned_answers = Answers(
            (*answers.outputs[begin:], *answers.outputs[:begin]),
            tokens=(*answers.tokens[begin:], *answers.tokens[:begin]),
        )
        judging = _ClosingJudging(
            case, turned_answers, got, TOLERANCES[numeric], set(), exact(numeric)
        )
        with np.errstate(all="ignore"):
            checks = judging.kept_tokens() if phase == "generation" else judging.outputs(1)
            outcomes.append(
                Outcome(tuple(replace(check, name=f"as timed, {check.name}") for check in checks))
            )
    return min(outcomes, key=lambda outcome: sum(not check.passed for check in outcome.checks))


@dataclass(frozen=True)
class _ClosingJudging(AnswerFile):
    """Judges the answers of a timed process."""

    def closing_tokens(self, closing: Closing) -> Iterator[Check]:
        """Check all tokens, and the first token before any set was decoded whole and at the end."""
        for number, expected in enumerate(closing.tokens):
            yield self._tokens(f"first/{number}/tokens", expected[:, :1])
            yield self._tokens(f"again/{number}/tokens", expected[:, :1])
            yield self._tokens(f"output/{number}/tokens", expected)

    def kept_tokens(self) -> Iterator[Check]:
        """Check, for every input set, the first token alone and all tokens."""
        for number, expected in enumerate(self.answers.tokens):
            yield self._tokens(f"first/{number}/tokens", expected[:, :1])
            yield self._tokens(f"output/{number}/tokens", expected)

    def closing_training(self, closing: Closing) -> Iterator[Check]:
        """Check the last losses of many steps, and the parameters after all of them."""
        steps = closing.unread + len(next(iter(closing.losses.values())))
        losses, trained = (
            max(least, CLOSING_MARGIN * closing.scatter[kind], FORMS_MARGIN * closing.forms[kind])
            for kind, least in (("losses", LEAST_LOSSES), ("trained", LEAST_TRAINED))
        )
        for name, expected in closing.losses.items():
            keys = [f"step/{number}/{name}" for number in range(len(expected))]
            for key, loss in zip(keys, expected, strict=True):
                yield self._compare(f"{key} of {steps} steps", key, np.asarray(loss), losses)
        if not closing.trained:
            return
        for kind, start in (("parameter", self.case.parameters), ("state", self.case.state)):
            for name in start:
                held_name = self._held(name, "trained") if kind == "state" else name
                if name in closing.still:
                    continue
                key = f"trained/{kind}/{held_name}"
                yield self._moved(
                    f"trained/{name}",
                    key,
                    name,
                    closing.trained[held_name],
                    steps=steps,
                    tolerance=trained,
                )
