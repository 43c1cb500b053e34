"""The gate: compares the answers of an arm with those of the reference.

The gate compares a worker's answers with the float64 answers of the case:

* parameter count, shapes and values as loaded;
* outputs of every input set, or every decoded token, in two rounds over the sets, and the first
  token once more, decoded alone;
* for training, losses and gradients of every set, the losses of all steps, and how far the first
  step and all steps moved each parameter and each running statistic.

If single units may be on the other side of a tie, the errors of arrays must be allowed to be
large. A wrong factor on a gradient or an update still shows in the scale between both arrays.
Elements that no example reaches (``Model.still``) must stay exactly where they are, because even
weak weight decay moves them.

Some gradients are zero or nearly zero by mathematics, for example that of a key's bias in
attention. A framework computes only rounding for them. They are compared with the size of all
gradients. Adam turns any rounding into steps of its full rate, so such a parameter may move by the
rate at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.harness.proof.answer_file import AnswerFile, relative_error
from levelfield.harness.proof.outcome import Check, Outcome
from levelfield.harness.proof.replies import NUMBERS
from levelfield.harness.proof.tolerances import exact, tolerances
from levelfield.reference.answers import Answers
from levelfield.reference.case import Arrays, Case
from levelfield.reference.optimizers import OPTIMIZERS
from levelfield.reference.scales import NEGLIGIBLE, null_names, root_mean_square, scale_error

ROUNDS = 2  # over the input sets: a result that was cached in the first shows in the second
# Share of the elements without gradient that may move. Weight decay moves nearly all of them, and
# rounding none. An array with fewer than STILL_SIZE of them is not judged.
STILL_SHARE, STILL_SIZE = 0.5, 4
# Share of the root mean square of all gradients. The error of a smaller array is taken relative to
# this share, since rounding leaves some 1e-7 of all gradients in each array. If the optimiser
# normalises, rounding alone moves an array below NEGLIGIBLE.
SMALL_GRADIENT = 1e-2
# Some gradients are zero by mathematics, for example that of the bias of an attention's key, which
# softmax does not see. In float64 it is 1e-16 of the typical gradient. In float32 longer sums leave
# more after cancellation: 1.1e-6 where it exceeded the former bound (gpt2/paper, torch).
ZERO = 1e-9
LEFT_OF_ZERO = 1e-5
PARAMETERS_LOADED = 1e-7  # copied, not computed: at most one rounding


def judge(
    case: Case,
    answers: Answers,
    got: Arrays,
    *,
    phase: str,
    optimizer: str | None,
    numeric: str = "float32",
) -> Outcome:
    """Compare the arrays of a worker's answer file with the answers of the case."""
    judging = _Judging(case, answers, got, tolerances(answers, numeric), set(), exact(numeric))
    with np.errstate(all="ignore"):  # an error that overflows is infinite, and fails
        checks = [*judging.loaded(phase)]
        if phase == "generation":
            checks += judging.tokens()
        else:
            checks += judging.outputs(ROUNDS)
        if phase == "training":
            assert optimizer is not None
            checks += judging.training(optimizer)
    # A misnamed array must not pass for a missing one.
    for key in got:
        if key not in judging.known:
            checks.append(Check(key, float("inf"), 0.0, "the model has no such array"))
    return Outcome(tuple(checks))


@dataclass(frozen=True)
class _Judging(AnswerFile):
    """Judges the answers that an arm gives before it is timed."""

    def loaded(self, phase: str) -> Iterator[Check]:
        """Check count, shape and value of every parameter and statistic as the framework holds it.

        A parameter that only training needs (a discriminator's) may be missing if nothing is
        trained.
        """
        summary, prefix = self.case.summary, "initial/parameter/"
        names = {
            name
            for name in (*self.case.parameters, *self.case.state)
            if phase == "training" or name in summary.held or prefix + name in self.got
        }
        sizes = [value.size for key, value in self.got.items() if key.startswith(prefix)]
        expected = sum(spec.size for spec in summary.parameters if spec.name in names)
        note = "" if sum(sizes) == expected else f"{sum(sizes)} parameters instead of {expected}"
        yield Check("parameter count", float(abs(sum(sizes) - expected)), 0.0, note)
        for name, value in self.case.parameters.items():
            if name in names:
                yield self._compare(f"parameter/{name}", prefix + name, value, PARAMETERS_LOADED)
        for name, value in self.case.state.items():
            key = f"initial/state/{self._held(name)}"
            if name in names or key in self.got:
                yield self._compare(f"state/{name}", key, value, PARAMETERS_LOADED)

    def tokens(self) -> Iterator[Check]:
        """Check, for every input set, the first token alone, as it is timed, and all tokens."""
        if not self.answers.tokens:
            yield Check("tokens", float("inf"), 0.0, "the case has none to compare with")
        for number, expected in enumerate(ROUNDS * self.answers.tokens):
            yield self._tokens(f"first/{number}/tokens", expected[:, :1])
            yield self._tokens(f"tokens/{number}", expected)

    def training(self, optimizer: str) -> Iterator[Check]:
        """Check losses and gradients, steps and their movements."""
        for number, losses in enumerate(self.answers.losses):
            for name, loss in losses.items():
                key = f"{name}/{number}"
                yield self._compare(key, key, np.asarray(loss), self.tolerance.loss)
        for number in range(len(self.answers.gradients)):
            yield from self._gradients(number)
        for name, step_losses in self.answers.step_losses[optimizer].items():
            yield self._step_losses(name, step_losses)
        # The first loss of all is that of the parameters as loaded: nothing has moved yet.
        first = self.case.model.objectives[0].name
        expected = np.asarray(self.answers.step_losses[optimizer][first][0])
        yield self._compare("first step's loss", f"step/0/{first}", expected, self.tolerance.loss)
        yield from self._movements("stepped", self.answers.stepped[optimizer], optimizer, 1)
        steps = self.answers.steps
        yield from self._movements("trained", self.answers.trained[optimizer], optimizer, steps)

    def _gradients(self, number: int) -> Iterator[Check]:
        """Check every gradient of one input set, and the factor between it and the right one."""
        gradients = self.answers.gradients[number]
        typical = root_mean_square(gradients.values())
        for name, gradient in gradients.items():
            title, key = f"gradient/{name}/{number}", f"gradient/{number}/{name}"
            size = root_mean_square([gradient])
            if size < ZERO * typical:
                yield self._nearly_zero(title, key, gradient, typical)
                continue
            scale = float(np.sqrt(gradient.size)) * max(size, SMALL_GRADIENT * typical)
            check = self._compare(title, key, gradient, self.tolerance.gradients, scale=scale)
            yield check
            if not check.note and size > NEGLIGIBLE * typical:
                error = scale_error([(self.got[key], gradient)])
                limit = self.tolerance.gradient_scale
                yield Check(f"gradient scale/{name}/{number}", error, limit)

    def _movements(self, stage: str, moved: Arrays, optimizer: str, steps: int) -> Iterator[Check]:
        """Check the changes of ``steps`` steps.

        The checks are of every array, of the common factor, and of the elements that must not move.
        """
        limits, null = asdict(self.tolerance), null_names(self.answers.gradients)
        farthest = OPTIMIZERS[optimizer]["learning_rate"] * steps
        comparable = []
        for name, start in self.case.parameters.items():
            key = f"{stage}/parameter/{name}"
            if name in null:
                yield self._barely_moved(stage, name, key, start, farthest)
                continue
            limit = limits[stage]
            check = self._moved(
                f"{stage}/{name}", key, name, moved[name], steps=steps, tolerance=limit
            )
            yield check
            if not check.note:
                comparable.append(name)
                if name in self.case.model.still:
                    yield from self._still(stage, name, key, start, moved[name])
        for objective in self.case.model.objectives:
            names = [name for name in comparable if name.startswith(objective.trains)]
            error = self._scale(stage, names, moved, steps)
            yield Check(f"{stage} scale/{objective.name}", error, limits[f"{stage}_scale"])
        for name in self.case.state:
            held_name = self._held(name)
            title, key = f"{stage} statistics/{name}", f"{stage}/state/{held_name}"
            limit = limits[f"{stage}_statistics"]
            yield self._moved(title, key, name, moved[held_name], steps=steps, tolerance=limit)

    def _still(
        self, stage: str, name: str, key: str, start: NDArray[Any], expected: NDArray[Any]
    ) -> Iterator[Check]:
        """Check the share of the elements without gradient that moved nevertheless."""
        mask = (expected == 0) & (start != 0)
        if mask.sum() >= STILL_SIZE:
            share = float((self.got[key][mask] != start[mask]).mean())
            note = f"{share:.0%} of the elements without gradient moved" if share else ""
            yield Check(f"{stage} still/{name}", share, STILL_SHARE, note)

    def _scale(self, stage: str, names: Sequence[str], moved: Arrays, steps: int) -> float:
        """The error of the factor between all movements, less the rounding of storing them."""
        start = self.case.parameters
        ways = {name: self._way(f"{stage}/parameter/{name}", start[name]) for name in names}
        error = scale_error((ways[name], moved[name]) for name in names)
        stored = sum(
            float((self._stored(name, moved[name], steps) * np.abs(moved[name])).sum())
            for name in names
        )
        squares = sum(float(np.square(moved[name], dtype=np.float64).sum()) for name in names)
        return max(error - stored / (squares or 1.0), 0.0)

    def _nearly_zero(self, title: str, key: str, expected: NDArray[Any], typical: float) -> Check:
        """Check a gradient that is zero by mathematics.

        The error is the share of a typical gradient that rounding leaves there.
        """
        check = self._compare(title, key, expected, LEFT_OF_ZERO)
        if check.note:
            return check
        return Check(title, root_mean_square([self.got[key]]) / typical, LEFT_OF_ZERO)

    def _step_losses(self, name: str, expected: tuple[float, ...]) -> Check:
        title = "step losses" if name == "loss" else f"step losses/{name}"
        tolerance = self.tolerance.step_losses
        keys = [f"step/{number}/{name}" for number in range(len(expected))]
        self.known.update(keys)
        missing = [key for key in keys if key not in self.got]
        if missing:
            return Check(title, float("inf"), tolerance, f"{missing[0]} is missing")
        for key in keys:
            if self.got[key].shape:
                note = f"{key} has shape {self.got[key].shape} and is no scalar"
                return Check(title, float("inf"), tolerance, note)
            if self.got[key].dtype.kind not in NUMBERS:
                note = f"{key} has the type {self.got[key].dtype}"
                return Check(title, float("inf"), tolerance, note)
        losses = np.array([float(self.got[key]) for key in keys])
        if not np.isfinite(losses).all():
            return Check(title, float("nan"), tolerance, "not finite")
        return Check(title, relative_error(losses, np.array(expected)), tolerance)

    def _barely_moved(
        self, stage: str, name: str, key: str, start: NDArray[Any], farthest: float
    ) -> Check:
        check = self._compare(f"{stage} by rounding/{name}", key, start, 1.0)
        if check.note:
            return check
        moved = root_mean_square([self._way(key, start)])
        return Check(check.name, moved / farthest, 1.0)
