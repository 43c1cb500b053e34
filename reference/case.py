"""Cases: arrays that all arms get, and the answers that they must give.

A case is drawn from a seed: parameters and input sets by canonical name, in float32. Every
framework thus receives exactly the same numbers, and the float64 truth starts from them too. The
case file holds the questions, and a worker sees nothing else. The answers stay with the host.
Arrays are stored as ``.npz`` without pickle, everything else as JSON inside it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.layers_numpy import NumpyLayers
from reference.optimizers import EPSILON_HAT, OPTIMIZERS
from reference.spec import PHASES, ArraySpec, Model, Sizes, get
from reference.trace import Summary, summarize

Arrays = dict[str, NDArray[Any]]

SETS = 4  # input sets that the steps cycle over, so that no step repeats its predecessor
# Training steps that are compared: MOST_STEPS where STEPPED operations pay for them and the draw
# stays settled for that long. With a second moment that forgets ten times too fast (beta2 of 0.99),
# the movement of mlp/small changes by 8e-4 in 10 steps and by 9e-3 in 40. Rounding changes it by
# 1e-5 in both.
STEPS, MOST_STEPS, STEPPED = 10, 40, 1e10
GRADED = 1.2e8  # elements of gradients that are compared: all sets of resnet50/paper, one of gpt2's
TRIES = 40  # draws tried for one that is clear of ties
NOISE = 1e-6  # relative, on the parameters of a draw that is being tried
ROUNDING = 5e-7  # relative error of a forward pass in float32 (measured: 2e-7 to 6e-7)
SHAKES = 2  # independent noises under which all steps of a draw must stay settled
GRADIENT_SHAKES = 8  # more noises, for the gradients alone; half of them switch a unit near a tie
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
NEGLIGIBLE = 1e-3  # of the typical gradient: rounding may move a parameter as much as such a one
CLEAR = 2e-5  # margin of the best token, relative to the spread of logits: 20 times rounding
BIAS_SCALE = 0.1  # biases are drawn away from zero: a forgotten bias must show
IDLE_BIAS = -30.0  # of a unit whose ReLU never passes anything: five times its largest possible sum


@dataclass(frozen=True)
class Case:
    """The arrays of one model at one preset and batch.

    ``parameters`` and ``state``: float32 by canonical name. ``inputs``: one mapping per set,
    targets included.
    """

    model: Model
    preset: str
    batch: int
    seed: int
    attempt: int
    parameters: Arrays
    state: Arrays
    inputs: tuple[Arrays, ...]

    @property
    def sizes(self) -> Sizes:
        """The sizes of the preset."""
        return self.model.sizes(self.preset)

    @property
    def summary(self) -> Summary:
        """The shapes, counts and costs of the model."""
        return summarize(self.model, self.preset, self.batch)

    def lookups(self, name: str) -> NDArray[np.int64]:
        """An upper bound on how often one input set reads each row of an embedding: (rows, 1).

        Every input with as many classes as the table has rows counts. Any other parameter or
        statistic is read as a whole, once: (1,).
        """
        if not name.endswith("/embedding"):
            return np.ones(1, np.int64)
        most = np.ones(len(self.parameters[name]), np.int64)
        for arrays in self.inputs:
            counts = np.zeros_like(most)
            for spec in self.summary.inputs:
                if spec.classes == len(most):
                    counts += np.bincount(arrays[spec.name].ravel(), minlength=len(most))
            most = np.maximum(most, counts)
        return most.reshape(-1, 1)

    def meta(self) -> dict[str, Any]:
        """Everything that a worker must know about the arrays, as plain values."""
        summary, generation = self.summary, self.model.generation

        def dimensions(specs: tuple[ArraySpec, ...]) -> dict[str, Any]:
            return {spec.name: [each.to_json() for each in spec.dimensions] for spec in specs}

        return {
            "model": self.model.name,
            "preset": self.preset,
            "batch": self.batch,
            "seed": self.seed,
            "attempt": self.attempt,
            "sizes": dict(self.sizes),
            "sets": len(self.inputs),
            "parameters": dimensions(summary.parameters),
            "state": dimensions(summary.state),
            "inputs": dimensions(summary.inputs),
            "used": list(summary.used),
            "outputs": dimensions(summary.outputs),
            "objectives": [
                {
                    "name": each.name,
                    "loss": each.loss,
                    "outputs": list(each.outputs),
                    "targets": list(each.targets),
                    "trains": each.trains,
                }
                for each in self.model.objectives
            ],
            "generation": generation
            and {"prompt": generation.prompt, "count": generation.count(self.sizes)},
            "optimizers": {name: dict(constants) for name, constants in OPTIMIZERS.items()},
        }


@dataclass(frozen=True)
class Answers:
    """The expected answers to a case.

    ``outputs``: of inference, per input set. ``losses``: in training, per set by objective.
    ``gradients``: of the same sets, for each objective by the parameters that it trains.
    ``step_losses``: of ``steps`` steps over the sets in turn, per optimiser and objective.
    ``stepped`` and ``trained``: how far the first of these steps and all of them moved each
    parameter and statistic, per optimiser. ``tokens``: decoded after each set's prompt. NumPy fills
    only ``outputs`` and ``tokens``. ``scatter``: the largest change of each of ``SCATTERED`` by
    noise on the parameters, or by Adam's other form.
    """

    outputs: tuple[Arrays, ...]
    losses: tuple[Mapping[str, float], ...] = ()
    gradients: tuple[Arrays, ...] = ()
    step_losses: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    stepped: Mapping[str, Arrays] = field(default_factory=dict)
    trained: Mapping[str, Arrays] = field(default_factory=dict)
    tokens: tuple[NDArray[np.int32], ...] = ()
    scatter: Mapping[str, float] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The number of training steps made: as many as can be compared."""
        return max((len(v) for each in self.step_losses.values() for v in each.values()), default=0)


def draw_case(
    model: str,
    preset: str,
    seed: int = 0,
    *,
    batch: int = 8,
    sets: int = SETS,
    attempt: int = 0,
) -> Case:
    """Draw a case: kernels He-normal (He et al. 2015, equation 10), inputs standard normal.

    The first image of the fourth set is flat, like many backgrounds. All values of its pooling
    windows are equally large, and one of them gets the gradient.

    The same arguments give the same arrays on every machine. ``attempt`` numbers the draws of one
    seed. Raises :class:`reference.spec.UnknownName`, and ``ValueError`` for a batch below 1 or for
    lengths that the definition does not state.
    """
    definition = get(model)
    summary = summarize(definition, preset, _positive(batch))
    stream = np.random.default_rng([seed, zlib.crc32(f"{model}/{preset}".encode()), attempt])
    parameters = {spec.name: _draw_parameter(spec, stream) for spec in summary.parameters}
    if definition.idle:
        bias = parameters[definition.idle]
        bias[bias.size // 2] = IDLE_BIAS
    # State is drawn before the inputs: parameters and state are then the same for every batch.
    state = {spec.name: _draw_state(spec, stream) for spec in summary.state}
    inputs = tuple(_draw_inputs(definition, preset, summary, stream) for _ in range(sets))
    for image in (spec.name for spec in summary.inputs if len(spec.shape) == 4):
        for arrays in inputs[SETS - 1 : SETS]:
            arrays[image][0] = 1.0
    return Case(definition, preset, batch, seed, attempt, parameters, state, inputs)


def _positive(batch: int) -> int:
    if batch < 1:
        raise ValueError(f"a batch has at least 1 example, not {batch}")
    return batch


def _draw_parameter(spec: ArraySpec, stream: np.random.Generator) -> NDArray[Any]:
    values = stream.standard_normal(spec.shape)
    kind = spec.name.rpartition("/")[2]
    if kind == "scale":
        values = 1 + BIAS_SCALE * values
    elif kind.endswith("bias"):
        values = BIAS_SCALE * values
    elif kind == "recurrent_kernel":
        # This scale keeps the size of a state; a larger one makes a long sequence chaotic.
        values = values / np.sqrt(spec.shape[0])
    elif kind == "embedding":
        values = values / np.sqrt(spec.shape[1])
    else:
        # A transposed kernel of stride 2 covers a quarter of its window at each place. The fan-in
        # of the largest is used for all; the batch norm after them corrects the scale.
        values = float(np.sqrt(2 / prod(spec.shape[:-1]))) * values
    return np.asarray(values, np.float32)


def _draw_state(spec: ArraySpec, stream: np.random.Generator) -> NDArray[Any]:
    if spec.name.endswith("/variance"):
        return stream.uniform(0.5, 1.5, spec.shape).astype(np.float32)
    return (BIAS_SCALE * stream.standard_normal(spec.shape)).astype(np.float32)


def _draw_inputs(
    model: Model, preset: str, summary: Summary, stream: np.random.Generator
) -> Arrays:
    drawn = {}
    if model.draw is not None:
        drawn = model.draw(model.sizes(preset), summary.inputs[0].shape[0], stream)
    inputs = {
        spec.name: drawn[spec.name] if spec.name in drawn else _draw_input(spec, stream)
        for spec in summary.inputs
    }
    for spec in summary.inputs:
        if spec.lengths is not None:
            _check_lengths(model, spec, inputs[spec.name])
    return inputs


def _check_lengths(model: Model, spec: ArraySpec, values: NDArray[Any]) -> None:
    """Raise ValueError where a draw has other lengths than operations are counted for."""
    found = sorted(values.reshape(len(values), -1).sum(1).tolist())
    if found != sorted(spec.lengths or ()):
        raise ValueError(
            f"{model.name}: a draw of '{spec.name}' has the lengths {found}, its ArraySpec states"
            f" {sorted(spec.lengths or ())}; draw those, or leave out lengths="
        )


def _draw_input(spec: ArraySpec, stream: np.random.Generator) -> NDArray[Any]:
    if spec.classes is not None:
        return stream.integers(0, spec.classes, spec.shape, dtype=np.int32)
    return stream.standard_normal(spec.shape).astype(np.float32)


def run_numpy(case: Case, *, dtype: str = "float64") -> Answers:
    """Compute outputs of every input set by NumPy, and tokens where the model generates."""

    def cast(arrays: Arrays) -> Arrays:
        return {n: v if v.dtype.kind == "i" else v.astype(dtype) for n, v in arrays.items()}

    layers = NumpyLayers(cast(case.parameters), cast(case.state))
    outputs = [case.model.forward(layers, case.sizes, cast(inputs)) for inputs in case.inputs]
    tokens: tuple[NDArray[np.int32], ...] = ()
    if case.model.generation is not None:
        tokens = tuple(decoded(case, inputs, layers)[0] for inputs in case.inputs)
    return Answers(tuple(outputs), tokens=tokens)


def decoded(case: Case, inputs: Arrays, layers: NumpyLayers) -> tuple[NDArray[np.int32], float]:
    """Decode greedily with float64 ``layers`` -> tokens (batch, count), and the smallest margin.

    The margin is the difference of the two largest logits relative to the spread of all logits.
    """
    generation = case.model.generation
    assert generation is not None
    tokens, clear, found, position = inputs[generation.prompt], np.inf, [], 0
    cache = generation.begin(layers, case.sizes, len(tokens))
    for _ in range(generation.count(case.sizes)):
        logits, cache = generation.advance(layers, case.sizes, tokens, position, cache)
        position += tokens.shape[1]
        second, first = np.sort(logits, axis=-1)[:, -2:].T
        clear = min(clear, float(((first - second) / logits.std(axis=-1)).min()))
        tokens = layers.most_likely(logits)[:, None]
        found.append(tokens)
    return np.concatenate(found, 1), clear


@cache
def _jitted(model: str, preset: str, optimizer: str | None) -> Any:
    """Jit the programs: ``(infer, losses and gradients)``, or an optimiser's training step."""
    import jax

    from reference import programs

    definition = get(model)
    sizes = definition.sizes(preset)
    if optimizer is not None:
        step = programs.training_step(definition, sizes, optimizer)
        return jax.jit(step, donate_argnums=(0, 1, 2))
    return (
        jax.jit(programs.inference(definition, sizes)),
        jax.jit(programs.losses_and_gradients(definition, sizes)),
    )


def run_jax(
    case: Case,
    *,
    dtype: str = "float64",
    steps: int = STEPS,
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
    graded: Sequence[int] | None = None,
) -> Answers:
    """Compute outputs, losses, gradients and each optimiser's training steps by JAX under jit.

    ``graded``: the sets whose losses and gradients are computed, all of them by default.
    """
    import jax

    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):

        def placed(arrays: Arrays) -> dict[str, Any]:
            return {
                name: jax.numpy.array(v, None if v.dtype.kind == "i" else dtype)
                for name, v in arrays.items()
            }

        infer, losses_and_gradients = _jitted(case.model.name, case.preset, None)
        parameters, state = placed(case.parameters), placed(both_variances(case.state))
        sets = [placed(inputs) for inputs in case.inputs]
        outputs = tuple(_numpy(infer(parameters, state, inputs)) for inputs in sets)
        losses, gradients = [], []
        for number in range(len(sets)) if graded is None else graded:
            values, arrays = losses_and_gradients(parameters, state, sets[number])
            losses.append({name: float(value) for name, value in values.items()})
            gradients.append(_numpy(arrays))
        start = _numpy({**parameters, **state})
        step_losses, stepped, trained = {}, {}, {}
        for optimizer in optimizers if steps else ():
            step_losses[optimizer], stepped[optimizer], trained[optimizer] = _train(
                case,
                optimizer,
                (placed(case.parameters), placed(both_variances(case.state))),
                start=start,
                sets=sets,
                steps=steps,
            )
        return Answers(
            outputs=outputs,
            losses=tuple(losses),
            gradients=tuple(gradients),
            step_losses=step_losses,
            stepped=stepped,
            trained=trained,
        )


def _train(
    case: Case,
    optimizer: str,
    moved: Sequence[Arrays],
    *,
    start: Arrays,
    sets: Sequence[Arrays],
    steps: int,
) -> tuple[dict[str, tuple[float, ...]], Arrays, Arrays]:
    """Train from parameters and state -> step losses by objective, first and all movements.

    ``moved``: parameters and state, which the steps overwrite. ``start``: the same, in NumPy.
    """
    from reference.programs import initial_slots

    step = _jitted(case.model.name, case.preset, optimizer)
    slots, found = initial_slots(case.model, optimizer, moved[0]), []
    for number in range(1, steps + 1):
        inputs = sets[(number - 1) % len(sets)]
        *moved, slots, step_loss = step(*moved, slots, inputs, number)
        found.append(_numpy(step_loss))
        if number == 1:
            stepped = _moves(start, moved)
    losses = {
        each.name: tuple(float(loss[each.name]) for loss in found) for each in case.model.objectives
    }
    return losses, stepped, _moves(start, moved)


def both_variances(state: Arrays) -> Arrays:
    """Add a second copy of running variances: frameworks keep the biased or the unbiased one."""
    unbiased = {
        f"{name.removesuffix('variance')}unbiased_variance": value
        for name, value in state.items()
        if name.endswith("/variance")
    }
    return {**state, **unbiased}


def _numpy(arrays: Arrays) -> Arrays:
    return {name: np.asarray(value) for name, value in arrays.items()}


def _moves(start: Arrays, moved: Sequence[Arrays]) -> Arrays:
    """Movements in float32, which is exact enough for them and halves a large model's memory."""
    with np.errstate(over="ignore", invalid="ignore"):  # a training may have diverged
        return {
            name: (np.asarray(value) - start[name]).astype(np.float32)
            for arrays in moved
            for name, value in arrays.items()
        }


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
    summary = summarize(get(model), preset, _positive(batch))
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
    for shake in range(SHAKES + GRADIENT_SHAKES):
        # The noises for gradients alone are applied to every other set.
        steps, graded = answers.steps, list(range(len(answers.gradients)))
        if shake >= SHAKES:
            steps, graded = 0, graded[shake % min(2, len(graded)) :: 2]
        changed = _shaken(case, noise, generator)
        other = run_jax(changed, steps=steps, optimizers=optimizers, graded=graded)
        for kind, apart in _gradients_apart(answers, other, graded):
            _widen(worst, kind, apart)
        for optimizer in other.step_losses:
            for kind, apart in _steps_apart(case, answers, optimizer, other, optimizer):
                _widen(worst, kind, apart)
        if any(worst[kind] > limit for kind, limit in limits.items()):
            break
    return worst


def _shaken(case: Case, noise: float, generator: np.random.Generator) -> Case:
    """Return the case with relative noise on its parameters."""
    start = {
        name: value * (1 + noise * generator.standard_normal(value.shape))
        for name, value in case.parameters.items()
    }
    return replace(case, parameters=start)


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
        for each in case.model.objectives:
            names = [name for name in moving if name.startswith(each.trains)]
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


def scale_error(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """|<got, expected> / <expected, expected> - 1| over all pairs (got, expected) together.

    A unit on the other side of a tie changes an array by e of its norm, and this error by about e
    squared: the unit's share is nearly orthogonal to the rest. A wrong factor changes both equally.
    """
    products, squares = 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for got, expected in pairs:
            wide = np.asarray(expected, np.float64).ravel()
            products += float(np.asarray(got, np.float64).ravel() @ wide)
            squares += float(wide @ wide)
        return abs(products / squares - 1) if squares else 0.0


def root_mean_square(arrays: Iterable[NDArray[Any]]) -> float:
    """Root mean square over all elements of all arrays."""
    arrays = list(arrays)
    squares = sum(float(np.square(each, dtype=np.float64).sum()) for each in arrays)
    return float(np.sqrt(squares / (sum(each.size for each in arrays) or 1)))


def null_names(by_set: Sequence[Arrays]) -> set[str]:
    """Parameters whose gradient is below ``NEGLIGIBLE`` of the typical one in every set."""
    null = set(by_set[0])
    for gradients in by_set:
        typical = root_mean_square(gradients.values())
        null &= {
            name
            for name, gradient in gradients.items()
            if root_mean_square([gradient]) < NEGLIGIBLE * typical
        }
    return null


def _clear_tokens(case: Case) -> tuple[NDArray[np.int32], ...] | None:
    """The tokens of every set, or None where one of them was a near tie."""
    if case.model.generation is None:
        return ()
    layers = NumpyLayers({n: v.astype(np.float64) for n, v in case.parameters.items()})
    found = [decoded(case, inputs, layers) for inputs in case.inputs]
    return tuple(tokens for tokens, _ in found) if min(c for _, c in found) > CLEAR else None


def write_case(case: Case, path: Path) -> None:
    """Write the questions, which a worker reads with :func:`adapters.base.read_case`."""
    arrays = {f"parameter/{name}": value for name, value in case.parameters.items()}
    arrays.update({f"state/{name}": value for name, value in case.state.items()})
    for number, inputs in enumerate(case.inputs):
        arrays.update({f"input/{number}/{name}": value for name, value in inputs.items()})
    write_arrays(path, case.meta(), arrays)


def read_case(path: Path) -> Case:
    """Read what :func:`write_case` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes())
        arrays = {name: stored[name] for name in stored.files if name != "meta"}

    def under(prefix: str) -> Arrays:
        return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}

    return Case(
        model=get(meta["model"]),
        preset=meta["preset"],
        batch=meta["batch"],
        seed=meta["seed"],
        attempt=meta["attempt"],
        parameters=under("parameter/"),
        state=under("state/"),
        inputs=tuple(under(f"input/{number}/") for number in range(meta["sets"])),
    )


def write_answers(answers: Answers, path: Path) -> None:
    """Write the answers, for the host alone."""
    arrays: Arrays = {}
    for number, gradients in enumerate(answers.gradients):
        arrays.update({f"gradient/{number}/{name}": value for name, value in gradients.items()})
    for number, outputs in enumerate(answers.outputs):
        arrays.update({f"output/{number}/{name}": value for name, value in outputs.items()})
    for number, tokens in enumerate(answers.tokens):
        arrays[f"tokens/{number}"] = tokens
    for when, moved in (("stepped", answers.stepped), ("trained", answers.trained)):
        for optimizer, moves in moved.items():
            arrays.update({f"{when}/{optimizer}/{name}": v for name, v in moves.items()})
    meta = {
        "sets": len(answers.outputs),
        "losses": [dict(each) for each in answers.losses],
        "step_losses": {name: dict(each) for name, each in answers.step_losses.items()},
        "scatter": dict(answers.scatter),
    }
    write_arrays(path, meta, arrays)


def read_answers(path: Path) -> Answers:
    """Read what :func:`write_answers` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes())
        arrays = {name: stored[name] for name in stored.files if name != "meta"}

    def under(prefix: str) -> Arrays:
        return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}

    return Answers(
        outputs=tuple(under(f"output/{number}/") for number in range(meta["sets"])),
        losses=tuple(meta["losses"]),
        gradients=tuple(under(f"gradient/{number}/") for number in range(len(meta["losses"]))),
        step_losses={
            optimizer: {name: tuple(losses) for name, losses in each.items()}
            for optimizer, each in meta["step_losses"].items()
        },
        stepped={name: under(f"stepped/{name}/") for name in meta["step_losses"]},
        trained={name: under(f"trained/{name}/") for name in meta["step_losses"]},
        tokens=tuple(arrays[f"tokens/{n}"] for n in range(meta["sets"]) if f"tokens/{n}" in arrays),
        scatter=meta["scatter"],
    )


def write_arrays(path: Path, meta: Mapping[str, Any], arrays: Arrays) -> None:
    """Write arrays as ``.npz`` without pickle, and ``meta`` as JSON in an array of bytes."""
    text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(path, allow_pickle=False, meta=text, **arrays)
