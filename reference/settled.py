"""Searches the draws of a seed for a case that is clear of ties.

Where a ReLU, a maximum or a decoded token lies within rounding of a tie, correct programs differ.
Noise on the parameters shows how far: a draw that it changes too much is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import erfc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.reference.answers import STEPS, Answers, both_variances, decoded, run_jax
from levelfield.reference.case import SETS, Case, draw_case, positive_batch, shaken
from levelfield.reference.layers_numpy import NumpyLayers
from levelfield.reference.optimizers import EPSILON_HAT, OPTIMIZERS
from levelfield.reference.registry import get
from levelfield.reference.scales import null_names, scale_error
from levelfield.reference.spec import PHASES
from levelfield.reference.trace import summarize

# Training steps that are compared, instead of STEPS, where STEPPED operations pay for them and the
# draw stays settled for that long. With a second moment that forgets ten times too fast (beta2 of
# 0.99), the movement of mlp/small changes by 8e-4 in 10 steps and by 9e-3 in 40. Rounding changes
# it by 1e-5 in both.
MOST_STEPS, STEPPED = 40, 1e10
GRADED = 1.2e8  # elements of gradients that are compared: all sets of resnet50/paper, one of gpt2's
TRIES = 40  # draws tried for one that is clear of ties
NOISE = 1e-6  # relative, on the parameters of a draw that is being tried
ROUNDING = 5e-7  # relative error of a forward pass in float32 (measured: 2e-7 to 6e-7)
SHAKES = 2  # independent noises under which all steps of a draw must stay settled
GRADIENT_SHAKES = 8  # more noises, for the gradients alone; half of them switch a unit near a tie
NOISES = SHAKES + GRADIENT_SHAKES // 2  # of the first set's gradients
NULL = 1e-12  # relative to the others of its array: a gradient that is zero by mathematics
CLEAR_OF_ZERO = 8  # standard deviations of noise, beyond which no gradient changes its sign
# SETTLED limits the effect of NOISE on a draw: a third to a tenth of what the gate allows. LOOSEST
# limits the effect of ROUNDING where no draw is so clear. The gate then allows three times that
# effect. A parameter that was not moved, or moved once too often, exceeds even this. Outputs and
# losses, also those of training's forward pass, are exempt and judged as closely as ever. Only the
# backward pass is left to loose gradients, and its faults are as large as the gradients. At batch
# 4, no draw of resnet50/paper was below 2e-2, 0.25 and two steps; the last one differed by 4e-2.
SETTLED = {"gradients": 3e-5, "stepped": 2e-4, "trained": 5e-3}
LOOSEST = {"gradients": 5e-2, "step_losses": 5e-3, "stepped": 0.25, "trained": 0.25}
# The answers report for each of these how far noise changed the reference itself. "scale": the
# factor between two arrays, on which single units have little effect (``scale_error``).
# "statistics": running statistics.
SCATTERED = (
    "gradients",
    "gradient_scale",
    "step_losses",
    *(f"{when}{kind}" for when in ("stepped", "trained") for kind in ("", "_scale", "_statistics")),
)
HORIZONS = (STEPS, 5, 3, 2, 1)  # training steps; the most that keep rounding within LOOSEST count
RETRIES = 4  # further draws of a deep network, tried with noise of the size of rounding
DRAWN = 4e9  # operations of a training step, over all draws that are tried
CLEAR = 2e-5  # margin of the best token, relative to the spread of logits: 20 times rounding


def settled_case(
    model: str,
    preset: str,
    seed: int = 0,
    *,
    batch: int = 8,
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
    phases: Sequence[str] = PHASES,
) -> tuple[Case, Answers]:
    """Find the first draw of a seed that is clear of ties, and its answers.

    Only the answers that ``phases`` need are computed. Without "training" the first draw is taken.

    Where a ReLU or a maximum lies within rounding of a tie, correct programs differ: the gradient
    jumps although nothing else does. Relative noise of 1e-6 on the start is ten times the error of
    float32. Under this noise, gradients and movements should stay within ``SETTLED``. Otherwise the
    next draw is tried.

    A deep network has units near a tie in every draw. After as many draws as ``DRAWN`` operations
    pay for, the draw with the least scatter is taken. Its answers also report how far rounding
    alone scatters it. Fewer steps are compared where that is too far after ten steps, or where the
    training diverges. Decoded tokens need a margin of ``CLEAR`` times the spread of the logits.
    Raises ``ValueError`` when no draw is good enough.
    """
    summary = summarize(get(model), preset, positive_batch(batch))
    operations = summary.reference_operations
    tries = min(max(int(DRAWN / operations), 1), TRIES)
    search = _Search(
        *(model, preset, seed, batch, optimizers),
        decodes="generation" in phases,
        graded=range(min(max(int(GRADED / summary.parameter_count), 1), SETS)),
        tries=tries,
        longest=min(max(int(STEPPED / operations), STEPS), MOST_STEPS) if tries > 1 else STEPS,
    )
    return search.settled() if "training" in phases else search.first_clear()


@dataclass(frozen=True)
class _Search:
    """The search for a draw of one seed that is clear of ties.

    ``decodes``: whether tokens are compared. ``graded``: the sets whose gradients are compared.
    ``tries``: draws that are paid for. ``longest``: training steps that are compared at most.
    """

    model: str
    preset: str
    seed: int
    batch: int
    optimizers: Sequence[str]
    decodes: bool
    graded: range
    tries: int
    longest: int

    def first_clear(self) -> tuple[Case, Answers]:
        """Return the first draw with clear tokens, and its answers without training."""
        for case, tokens in self._clear_draws(range(TRIES)):
            return case, replace(run_jax(case, steps=0, graded=()), tokens=tokens)
        raise self._unclear("every one decodes a near tie")

    def settled(self) -> tuple[Case, Answers]:
        """Return the first draw that is settled under noise, or the best of them if it will do."""
        best, last = None, TRIES - 1
        for case, tokens in self._clear_draws(range(TRIES)):
            worst, answers = self._under_noise(case, tokens)
            if worst <= 1:
                return case, answers
            if best is None or worst < best[0]:
                best = worst, case, answers
            if case.attempt + 1 >= self.tries:
                last = case.attempt
                break
        if best is None:
            raise self._unclear("every one decodes a near tie")
        return self._under_rounding(best[1], best[2], last + 1)

    def _clear_draws(
        self, attempts: Iterable[int]
    ) -> Iterator[tuple[Case, tuple[NDArray[np.int32], ...]]]:
        """Yield the draws without a near tie of tokens, and their tokens."""
        for attempt in attempts:
            case = draw_case(self.model, self.preset, self.seed, batch=self.batch, attempt=attempt)
            tokens = _clear_tokens(case) if self.decodes else ()
            if tokens is not None:
                yield case, tokens

    def _solve(self, case: Case, tokens: tuple[NDArray[np.int32], ...], steps: int) -> Answers:
        answers = run_jax(case, steps=steps, optimizers=self.optimizers, graded=self.graded)
        return replace(answers, tokens=tokens)

    def _under_noise(
        self, case: Case, tokens: tuple[NDArray[np.int32], ...]
    ) -> tuple[float, Answers]:
        """Solve a draw -> its largest change by ``NOISE``, over the limit of ``SETTLED``; answers.

        Where only one draw is paid for, it is not tried with this noise: the change is infinite.
        """
        worst = np.inf
        for steps in sorted({self.longest, STEPS}, reverse=True):
            answers = self._solve(case, tokens, steps)
            if self.tries > 1:
                scatter = _scatter(case, answers, self.optimizers, noise=NOISE, limits=SETTLED)
                worst = max(scatter[kind] / SETTLED[kind] for kind in SETTLED)
                if worst <= 1:
                    return worst, _scattered(case, answers, self.optimizers, scatter)
        return worst, answers

    def _under_rounding(self, case: Case, answers: Answers, following: int) -> tuple[Case, Answers]:
        """Return the draw with as many steps as ``ROUNDING`` leaves within ``LOOSEST``.

        Where it leaves none, the draws from number ``following`` on are tried.
        """
        for further in range(following, following + 1 + RETRIES):
            for steps in HORIZONS:
                if steps < answers.steps:
                    answers = self._solve(case, answers.tokens, steps)
                scatter = _scatter(case, answers, self.optimizers, noise=ROUNDING, limits=LOOSEST)
                if all(scatter[kind] <= LOOSEST[kind] for kind in LOOSEST):
                    return case, _scattered(case, answers, self.optimizers, scatter)
            for another, tokens in self._clear_draws([further]):
                case, answers = another, self._solve(another, tokens, STEPS)
        words = ", ".join(f"{kind} {value:.0e}" for kind, value in scatter.items())
        raise self._unclear(f"rounding parts {words}")

    def _unclear(self, why: str) -> ValueError:
        return ValueError(
            f"no draw of seed {self.seed} for {self.model}/{self.preset} at batch {self.batch} is"
            f" clear of ties: {why}; choose another seed or another batch"
        )


def _scatter(
    case: Case,
    answers: Answers,
    optimizers: Sequence[str],
    *,
    noise: float,
    limits: Mapping[str, float],
) -> dict[str, float]:
    """The largest change of each of ``SCATTERED`` by relative noise on the parameters.

    Once a limit is passed, no further noise is tried.
    """
    generator = np.random.default_rng(case.attempt)
    worst = dict.fromkeys(SCATTERED, 0.0)
    first_gradients = []  # of the first set under every noise
    for shake in range(SHAKES + GRADIENT_SHAKES):
        # The noises for gradients alone are applied to every other set.
        steps, graded = answers.steps, list(range(len(answers.gradients)))
        if shake >= SHAKES:
            steps, graded = 0, graded[shake % min(2, len(graded)) :: 2]
        changed = shaken(case, noise, generator)
        other = run_jax(changed, steps=steps, optimizers=optimizers, graded=graded)
        for kind, apart in _gradients_apart(answers, other, graded):
            _widen(worst, kind, apart)
        if 0 in graded:
            first_gradients.append(other.gradients[graded.index(0)])
        for optimizer in other.step_losses:
            for kind, apart in _steps_apart(case, answers, optimizer, other, optimizer):
                _widen(worst, kind, apart)
        if any(worst[kind] > limit for kind, limit in limits.items()):
            break
    if "adam" in optimizers and len(first_gradients) >= NOISES:
        for apart in _turned(answers, first_gradients, noise):
            _widen(worst, "stepped", apart)
    return worst


def _turned(
    answers: Answers, noisy: Sequence[Mapping[str, NDArray[Any]]], noise: float
) -> Iterator[float]:
    """Yield how far Adam's first movement of each parameter may be turned by noise.

    That movement has the sign of the gradient and hardly depends on its size. A gradient near zero
    therefore turns it by its double, which few noises show where few elements are that near. The
    distance is the expected one, if the noise of each element is normal.

    ``noisy``: the gradients of the first set under at least six noises of the relative size
    ``noise``.
    """
    epsilon = OPTIMIZERS["adam"]["epsilon"]
    for name in _moving(answers):
        gradient = np.abs(answers.gradients[0][name])
        squares = sum((gradients[name] - answers.gradients[0][name]) ** 2 for gradients in noisy)
        deviation = np.sqrt(squares / len(noisy))
        # An element that is zero by mathematics is near zero in float64, but no nearer in float32
        # than the rounding of its neighbours: a channel that no ReLU cuts, before a batch norm.
        null = (deviation > 0) & (gradient < NULL * np.sqrt(np.mean(gradient**2)))
        deviation[null] = ROUNDING / noise * np.sqrt(np.mean(deviation**2))
        distance = np.full_like(deviation, np.inf)
        np.divide(gradient, deviation, out=distance, where=deviation > 0)
        moved = np.maximum(gradient, deviation)
        sizes = (moved / (moved + epsilon)) ** 2
        near = distance < CLEAR_OF_ZERO
        chances = [erfc(way / 2**0.5) / 2 for way in distance[near]]
        turned = 4 * float(np.sum(chances * sizes[near]))
        yield (turned / (float(sizes.sum()) or 1.0)) ** 0.5


def _gradients_apart(
    answers: Answers, other: Answers, graded: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """Yield how far gradients of the sets ``graded`` differ from the answers: (kind, error)."""
    moving = _moving(answers)
    for number, gradients in zip(graded, other.gradients, strict=True):
        expected = answers.gradients[number]
        for name in moving:
            yield "gradients", _apart(gradients[name], expected[name])
            yield "gradient_scale", scale_error([(gradients[name], expected[name])])


def _scattered(
    case: Case, answers: Answers, optimizers: Sequence[str], scatter: Mapping[str, float]
) -> Answers:
    """Add the scatter to the answers; it includes Adam's other form, which is no mistake.

    Where gradients are not far above epsilon, the two forms differ by more than noise. Where they
    differ by more than ``LOOSEST``, the other form is left out and has no effect on the judgement.
    """
    forms = dict.fromkeys(SCATTERED, 0.0)
    if "adam" in optimizers:
        hat = run_jax(case, steps=answers.steps, optimizers=[EPSILON_HAT], graded=())
        for kind, apart in _steps_apart(case, answers, "adam", hat, EPSILON_HAT):
            _widen(forms, kind, apart)
    # A kind without a limit may differ by as much as if nothing had moved.
    if any(forms[kind] > LOOSEST.get(kind, 1.0) for kind in forms):
        forms = dict.fromkeys(SCATTERED, 0.0)
    widest = {kind: max(scatter[kind], forms[kind]) for kind in SCATTERED}
    return replace(answers, scatter=widest)


def _steps_apart(
    case: Case, answers: Answers, optimizer: str, other: Answers, other_optimizer: str
) -> Iterator[tuple[str, float]]:
    """Yield how far other training steps differ from the answers: (kind, error) of each part."""
    moving = _moving(answers)
    for objective, losses in answers.step_losses[optimizer].items():
        got = other.step_losses[other_optimizer][objective]
        yield "step_losses", _apart(np.array(got), np.array(losses))
    for when, moved, expected in (
        ("stepped", other.stepped[other_optimizer], answers.stepped[optimizer]),
        ("trained", other.trained[other_optimizer], answers.trained[optimizer]),
    ):
        for name in moving:
            yield when, _apart(moved[name], expected[name])
        for name in both_variances(case.state):
            yield f"{when}_statistics", _apart(moved[name], expected[name])
        for trained_objective in case.model.objectives:
            names = [name for name in moving if name.startswith(trained_objective.trains)]
            pairs = ((moved[name], expected[name]) for name in names)
            yield f"{when}_scale", scale_error(pairs)


def _moving(answers: Answers) -> list[str]:
    """The parameters that are moved by more than rounding."""
    null = null_names(answers.gradients)
    return [name for name in answers.gradients[0] if name not in null]


def _widen(worst: dict[str, float], kind: str, apart: float) -> None:
    """Keep the largest value; a value that is not finite counts as infinite."""
    worst[kind] = max(worst[kind], apart if np.isfinite(apart) else np.inf)


def _apart(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """|got - expected| / |expected|."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(got - expected)) / (float(np.linalg.norm(expected)) or 1.0)


def _clear_tokens(case: Case) -> tuple[NDArray[np.int32], ...] | None:
    """The tokens of every set, or None where one of them was a near tie."""
    if case.model.generation is None:
        return ()
    layers = NumpyLayers({n: v.astype(np.float64) for n, v in case.parameters.items()})
    decodings = [decoded(case, inputs, layers) for inputs in case.inputs]
    return (
        tuple(tokens for tokens, _ in decodings) if min(c for _, c in decodings) > CLEAR else None
    )
