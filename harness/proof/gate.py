"""The gate: compares the answers of an arm with those of the reference.

The gate compares a worker's answers with the float64 answers of the case:

* parameter count, shapes and values as loaded;
* outputs of every input set, or every decoded token, in two rounds over the sets, and the first
  token once more, decoded alone;
* for training, losses and gradients of every set, the losses of all steps, and how far the first
  step and all steps moved each parameter and each running statistic.

Errors are relative norms, |got - expected| / |expected| in float64 over a whole array. Movements of
both sides are taken relative to the start, so that a parameter that never moved has error 1 however
large it is. The possible rounding of each step's result in float32 is subtracted from the error.

If single units may be on the other side of a tie, these errors must be allowed to be large. A wrong
factor on a gradient or an update still shows in the scale between both arrays. Elements that no
example reaches (``Model.still``) must stay exactly where they are, because even weak weight decay
moves them.

Some gradients are zero or nearly zero by mathematics, for example that of a key's bias in
attention. A framework computes only rounding for them. They are compared with the size of all
gradients. Adam turns any rounding into steps of its full rate, so such a parameter may move by the
rate at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.proof.replies import ENTRY_BYTES, NUMBERS
from reference.answers import Answers
from reference.case import Arrays, Case
from reference.closing import READ, Closing
from reference.optimizers import OPTIMIZERS
from reference.scales import NEGLIGIBLE, null_names, root_mean_square, scale_error
from reference.settled import SETTLED


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted relative error of each kind of answer."""

    outputs: float
    loss: float
    gradients: float
    gradient_scale: float
    step_losses: float
    stepped: float
    stepped_scale: float
    stepped_statistics: float
    trained: float
    trained_scale: float
    trained_statistics: float


# One row per numeric mode. float32: the design sets outputs, gradients and losses as its goals. The
# reference in float32 stays ten times below these (five times below ``trained``) for the cells of
# every suite that comes with Levelfield; a test in tests/harness/test_gate.py measures it.
#
# ``trained`` is wider than rounding needs. In ten steps a ReLU or a maximum of the larger models
# can come within rounding of a tie, after which correct programs differ by up to 2e-2 of a
# parameter's way. Draws that do so under noise are skipped if other draws are possible
# (reference.settled.settled_case). Only this check detects a parameter that is never updated or a
# wrong update after the first; their errors are 1e-1 and more.
#
# The first step, scales and running statistics do not need that width. Running statistics depend on
# the forward pass alone: float32 was at 3e-6 after the first step of resnet50/small, TF32 would be
# at 5e-4. Seven frameworks that trained tiny models were at most at 6e-6 after the first step and
# at 1e-5 in the scale: computing 1 - 0.999 in float32 costs 1.3e-5 of it. When a tie
# changed an array of dcgan/tiny by 2e-3, the scale of all changed by 6e-5.
#
# Two mistakes of the mutation suite are the smallest above these entries. An epsilon of 1e-7
# instead of 1e-8 is at 9e-5 after the first step of mlp/tiny. A beta2 of 0.99 is at 4e-4 in the
# scale of gpt2/tiny. If gradients are not far above epsilon, correct programs differ by more than
# these entries allow (gpt2/small after the first step: by 8e-4). Then the case's own scatter
# decides.
#
# int8, dynamic quantisation of weights and activations, is for inference only. In the tiny and
# small presets the worst of three draws was at 1e-1 (bert/tiny), most at 1e-2; an exchanged axis
# or gate is at 1.
TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(
        outputs=1e-5,
        loss=1e-5,
        gradients=1e-4,
        gradient_scale=1e-3,
        step_losses=1e-3,
        stepped=5e-5,
        stepped_scale=1e-4,
        stepped_statistics=1e-4,
        trained=5e-2,
        trained_scale=3e-4,
        trained_statistics=1e-3,
    ),
    "int8": Tolerance(1.5e-1, *[0] * 10),
}

# Deep networks have so many units that some are close to a tie in every draw. Rounding flips a
# share of them as large as itself, and gradients then differ by about its square root. Noise of
# rounding's size changes the float64 reference's answers by a distance that the case records
# (``Answers.scatter``). A tolerance is never below three times that. A case that scatters too far
# to tell right from wrong is refused when it is drawn (``reference.settled.LOOSEST``).
SCATTER_MARGIN = 3
# Factor on the table's entry: a gate with a wider tolerance says that it was loose. A settled draw
# may have SCATTER_MARGIN times SETTLED, which is wider than that after the first step.
LOOSE = 5

ROUNDS = 2  # over the input sets: a result that was cached in the first shows in the second
# Rounding the truth to float32 leaves a relative error of 2e-8 to 3e-8 in an array, and computing
# in float32 leaves more. An array of at least EXACT_SIZE elements below this bound was therefore
# not computed in float32.
EXACT, EXACT_SIZE = 1e-8, 32
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


@dataclass(frozen=True)
class Check:
    """One comparison. ``error`` is infinite if the two sides cannot be compared at all."""

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN never passes."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Outcome:
    """All comparisons of one cell."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether there is a check and every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """The first failed check, which is the most basic one, and how many more failed."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return ""
        first, more = failed[0], len(failed) - 1
        found = first.note or f"error {first.error:.2g}, tolerance {first.tolerance:.0e}"
        return f"{first.name}: {found}" + (f" (and {more} more)" if more else "")

    def worst(self, *prefixes: str) -> float:
        """The largest error among checks whose name begins so; NaN without any."""
        errors = [check.error for check in self.checks if check.name.startswith(prefixes)]
        return max(errors) if errors else float("nan")

    def to_json(self) -> list[dict[str, Any]]:
        """Return the checks for the store."""
        return [{**asdict(check), "passed": check.passed} for check in self.checks]


def relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """|got - expected| / |expected|, or the absolute error if all expected values are zero."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    scale = float(np.linalg.norm(expected))
    return float(np.linalg.norm(got - expected)) / (scale or 1.0)


def tolerances(answers: Answers, numeric: str = "float32") -> Tolerance:
    """Return the row of the table, with no entry below SCATTER_MARGIN times the case's scatter."""
    row = asdict(TOLERANCES[numeric])
    return Tolerance(
        **{kind: max(row[kind], SCATTER_MARGIN * answers.scatter.get(kind, 0.0)) for kind in row}
    )


# The prefixes of the names of checks, and the tolerances that they are judged by.
CHECK_KINDS = {
    "outputs/": "outputs",
    "gradient/": "gradients",
    "gradient scale/": "gradient_scale",
    "step losses": "step_losses",
    **{f"{when}/": when for when in ("stepped", "trained")},
    **{
        f"{when} {kind}/": f"{when}_{kind}"
        for when in ("stepped", "trained")
        for kind in ("scale", "statistics")
    },
}


def loose(tolerances_of: Iterable[tuple[str, float]], numeric: str = "float32") -> dict[str, float]:
    """Return the largest tolerance of each kind that exceeds ``LOOSE`` times the table's entry.

    A tolerance that a settled draw may have is not loose. ``tolerances_of``: (name, tolerance) of
    the checks of one cell. The keys are words for people: "gradients", "trained scale".
    """
    row, widest = asdict(TOLERANCES[numeric]), dict[str, float]()
    for name, tolerance in tolerances_of:
        for prefix, kind in CHECK_KINDS.items():
            usual = max(LOOSE * row[kind], SCATTER_MARGIN * SETTLED.get(kind, 0.0))
            if name.startswith(prefix) and tolerance > usual:
                words = kind.replace("_", " ")
                widest[words] = max(tolerance, widest.get(words, 0.0))
    return widest


# The prefixes of the names of the closing gate's checks of a training, and the tolerance beyond
# which one is loose. For losses it is LOOSE times the entry "step_losses" of the table. For
# movements it is half the effect of a learning rate that is 10 % too large.
CLOSING_KINDS = {"step/": ("closing losses", 5e-3), "trained/": ("closing trained", 5e-2)}


def closing_loose(tolerances_of: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the same as :func:`loose` for the checks of one cell's closing gate."""
    widest = dict[str, float]()
    for name, tolerance in tolerances_of:
        for prefix, (words, usual) in CLOSING_KINDS.items():
            if name.startswith(prefix) and tolerance > usual:
                widest[words] = max(tolerance, widest.get(words, 0.0))
    return widest


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
    judging = _Judging(
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
    found = []
    for begin in range(len(case.inputs)):
        turned = Answers(
            (*answers.outputs[begin:], *answers.outputs[:begin]),
            tokens=(*answers.tokens[begin:], *answers.tokens[:begin]),
        )
        judging = _Judging(case, turned, got, TOLERANCES[numeric], set(), exact(numeric))
        with np.errstate(all="ignore"):
            checks = judging.kept_tokens() if phase == "generation" else judging.outputs(1)
            found.append(
                Outcome(tuple(replace(each, name=f"as timed, {each.name}") for each in checks))
            )
    return min(found, key=lambda each: sum(not check.passed for check in each.checks))


def answer_bytes(case: Case, answers: Answers) -> int:
    """The most bytes that an honest answer file may have: several times the bytes that it needs.

    Every parameter and statistic comes as loaded, after one step and after all, with gradients;
    the outputs come once per input set. All may be float64.
    """
    given = [value for outputs in answers.outputs for value in outputs.values()]
    return _most_bytes(case, [*given, *answers.tokens, *answers.tokens], answers.steps)


def closing_bytes(case: Case, closing: Closing) -> int:
    """The most bytes that an honest file of the answers of a closing case may have."""
    given = [value for outputs in closing.outputs for value in outputs.values()]
    return _most_bytes(case, [*given, *(3 * closing.tokens)], READ)


def _most_bytes(case: Case, given: Sequence[NDArray[Any]], steps: int) -> int:
    held = [*case.parameters.values(), *case.state.values()]
    elements = sum(8 * value.size for value in held) + sum(2 * value.size for value in given)
    names = 8 * len(held) + 2 * len(given) + steps * len(case.model.objectives)
    return 16 * elements + 2 * ENTRY_BYTES * names + (1 << 20)


def exact(numeric: str) -> float:
    """The error below which outputs were not computed in this numeric mode."""
    return EXACT if numeric == "float32" else 0.0


@dataclass(frozen=True)
class _Judging:
    """Judges one answer file; ``known`` collects the names that it may hold."""

    case: Case
    answers: Answers
    got: Arrays
    tolerance: Tolerance
    known: set[str]
    exact: float  # outputs with a smaller error are too exact

    def loaded(self, phase: str) -> Iterator[Check]:
        """Check count, shape and value of every parameter and statistic as the framework holds it.

        A parameter that only training needs (a discriminator's) may be missing if nothing is
        trained.
        """
        summary, prefix = self.case.summary, "initial/parameter/"
        needed = {
            name
            for name in (*self.case.parameters, *self.case.state)
            if phase == "training" or name in summary.held or prefix + name in self.got
        }
        sizes = [value.size for key, value in self.got.items() if key.startswith(prefix)]
        expected = sum(spec.size for spec in summary.parameters if spec.name in needed)
        note = "" if sum(sizes) == expected else f"{sum(sizes)} parameters instead of {expected}"
        yield Check("parameter count", float(abs(sum(sizes) - expected)), 0.0, note)
        for name, value in self.case.parameters.items():
            if name in needed:
                yield self._compare(f"parameter/{name}", prefix + name, value, PARAMETERS_LOADED)
        for name, value in self.case.state.items():
            key = f"initial/state/{self._held(name)}"
            if name in needed or key in self.got:
                yield self._compare(f"state/{name}", key, value, PARAMETERS_LOADED)

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

    def tokens(self) -> Iterator[Check]:
        """Check, for every input set, the first token alone, as it is timed, and all tokens."""
        if not self.answers.tokens:
            yield Check("tokens", float("inf"), 0.0, "the case has none to compare with")
        for number, expected in enumerate(ROUNDS * self.answers.tokens):
            yield self._tokens(f"first/{number}/tokens", expected[:, :1])
            yield self._tokens(f"tokens/{number}", expected)

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

    def _tokens(self, key: str, expected: NDArray[Any]) -> Check:
        """Check tokens; the error is the share of wrong ones."""
        check = self._compare(key, key, expected, 0.0)
        if check.note:
            return check
        wrong = float((self.got[key] != expected).mean())
        return Check(key, wrong, 0.0, f"{wrong:.0%} of the tokens are others" if wrong else "")

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
                held = self._held(name, "trained") if kind == "state" else name
                if name in closing.still:
                    continue
                key = f"trained/{kind}/{held}"
                yield self._moved(
                    f"trained/{name}",
                    key,
                    name,
                    closing.trained[held],
                    steps=steps,
                    tolerance=trained,
                )

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

    def _movements(self, when: str, moved: Arrays, optimizer: str, steps: int) -> Iterator[Check]:
        """Check the changes of ``steps`` steps.

        The checks are of every array, of the common factor, and of the elements that must not move.
        """
        limits, null = asdict(self.tolerance), null_names(self.answers.gradients)
        farthest = OPTIMIZERS[optimizer]["learning_rate"] * steps
        comparable = []
        for name, start in self.case.parameters.items():
            key = f"{when}/parameter/{name}"
            if name in null:
                yield self._barely_moved(when, name, key, start, farthest)
                continue
            limit = limits[when]
            check = self._moved(
                f"{when}/{name}", key, name, moved[name], steps=steps, tolerance=limit
            )
            yield check
            if not check.note:
                comparable.append(name)
                if name in self.case.model.still:
                    yield from self._still(when, name, key, start, moved[name])
        for objective in self.case.model.objectives:
            names = [name for name in comparable if name.startswith(objective.trains)]
            error = self._scale(when, names, moved, steps)
            yield Check(f"{when} scale/{objective.name}", error, limits[f"{when}_scale"])
        for name in self.case.state:
            held = self._held(name)
            title, key = f"{when} statistics/{name}", f"{when}/state/{held}"
            limit = limits[f"{when}_statistics"]
            yield self._moved(title, key, name, moved[held], steps=steps, tolerance=limit)

    def _still(
        self, when: str, name: str, key: str, start: NDArray[Any], expected: NDArray[Any]
    ) -> Iterator[Check]:
        """Check the share of the elements without gradient that moved nevertheless."""
        still = (expected == 0) & (start != 0)
        if still.sum() >= STILL_SIZE:
            share = float((self.got[key][still] != start[still]).mean())
            note = f"{share:.0%} of the elements without gradient moved" if share else ""
            yield Check(f"{when} still/{name}", share, STILL_SHARE, note)

    def _scale(self, when: str, names: Sequence[str], moved: Arrays, steps: int) -> float:
        """The error of the factor between all movements, less the rounding of storing them."""
        start = self.case.parameters
        ways = {name: self._way(f"{when}/parameter/{name}", start[name]) for name in names}
        error = scale_error((ways[name], moved[name]) for name in names)
        stored = sum(
            float((self._stored(name, moved[name], steps) * np.abs(moved[name])).sum())
            for name in names
        )
        squares = sum(float(np.square(moved[name], dtype=np.float64).sum()) for name in names)
        return max(error - stored / (squares or 1.0), 0.0)

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

    def _held(self, name: str, when: str = "initial") -> str:
        """The name under which a framework keeps a statistic; some keep unbiased variances."""
        unbiased = name.removesuffix("variance") + "unbiased_variance"
        return unbiased if f"{when}/state/{unbiased}" in self.got else name

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

    def _barely_moved(
        self, when: str, name: str, key: str, start: NDArray[Any], farthest: float
    ) -> Check:
        check = self._compare(f"{when} by rounding/{name}", key, start, 1.0)
        if check.note:
            return check
        moved = root_mean_square([self._way(key, start)])
        return Check(check.name, moved / farthest, 1.0)


def _distance(got: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(got.astype(np.float64) - expected.astype(np.float64)))
