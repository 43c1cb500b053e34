"""Cases: the same arrays for everybody, and the answers that they must give.

A case is drawn from a seed: parameters and input sets by canonical name, in float32, so that every
framework receives exactly the same numbers and the float64 truth starts from them too. The case
file carries the questions and is all that a worker sees; the answers stay with the host.
Arrays travel as ``.npz`` without pickle, everything else as JSON inside it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.layers_numpy import NumpyLayers
from reference.optimizers import OPTIMIZERS, initial_state, update
from reference.spec import ArraySpec, Model, get
from reference.trace import Summary, summarize

Arrays = dict[str, NDArray[Any]]

SETS = 4  # input sets that the steps cycle over, so that no step repeats its predecessor
STEPS = 10  # training steps whose losses are compared
ATTEMPTS = 40  # draws tried for one that is clear of ties
NOISE = 1e-6  # relative, on the parameters of a draw that is being tried
SHAKES = 2  # independent noises that a draw must stand
# What the noise may do to a draw: a tenth of the gate's tolerances.
SETTLED = {"gradients": 1e-5, "stepped": 2e-4, "trained": 5e-3}
BIAS_SCALE = 0.1  # biases are drawn away from zero: a forgotten bias must show


@dataclass(frozen=True)
class Case:
    """The arrays of one model at one preset and batch.

    ``parameters``: float32 by canonical name. ``inputs``: one mapping per set, targets included.
    """

    model: Model
    preset: str
    batch: int
    seed: int
    attempt: int
    parameters: Arrays
    inputs: tuple[Arrays, ...]

    @property
    def summary(self) -> Summary:
        """Shapes, counts and costs."""
        return summarize(self.model, self.preset, self.batch)

    def meta(self) -> dict[str, Any]:
        """What a worker must know about the arrays, as plain values."""
        summary = self.summary

        def dimensions(specs: tuple[ArraySpec, ...]) -> dict[str, Any]:
            return {spec.name: [each.to_json() for each in spec.dimensions] for spec in specs}

        return {
            "model": self.model.name,
            "preset": self.preset,
            "batch": self.batch,
            "seed": self.seed,
            "attempt": self.attempt,
            "sizes": dict(self.model.sizes(self.preset)),
            "sets": len(self.inputs),
            "parameters": dimensions(summary.parameters),
            "inputs": dimensions(summary.inputs),
            "outputs": dimensions(summary.outputs),
            "objectives": [vars(objective) for objective in self.model.objectives],
            "optimizers": {name: dict(constants) for name, constants in OPTIMIZERS.items()},
        }


@dataclass(frozen=True)
class Answers:
    """What a case must give.

    ``outputs`` and ``losses`` per input set; ``gradients`` of the first set's loss;
    ``step_losses`` of ten steps over the sets in turn, the parameters ``stepped`` by the first of
    them and ``trained`` by all, per optimiser. NumPy fills the first two only.
    """

    outputs: tuple[Arrays, ...]
    losses: tuple[float, ...]
    gradients: Arrays = field(default_factory=dict)
    step_losses: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    stepped: Mapping[str, Arrays] = field(default_factory=dict)
    trained: Mapping[str, Arrays] = field(default_factory=dict)


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

    The same arguments give the same arrays on every machine; ``attempt`` tells the draws of one
    seed apart. Raises :class:`reference.spec.UnknownName`, and ``ValueError`` for a batch below 1.
    """
    definition = get(model)
    summary = summarize(definition, preset, _positive(batch))
    stream = np.random.default_rng([seed, zlib.crc32(f"{model}/{preset}".encode()), attempt])
    parameters = {spec.name: _draw_parameter(spec, stream) for spec in summary.parameters}
    inputs = tuple(
        {spec.name: _draw_input(spec, stream) for spec in summary.inputs} for _ in range(sets)
    )
    return Case(definition, preset, batch, seed, attempt, parameters, inputs)


def _positive(batch: int) -> int:
    if batch < 1:
        raise ValueError(f"a batch has at least 1 example, not {batch}")
    return batch


def _draw_parameter(spec: ArraySpec, stream: np.random.Generator) -> NDArray[Any]:
    fan_in = prod(spec.shape[:-1])
    scale = BIAS_SCALE if len(spec.shape) == 1 else float(np.sqrt(2 / fan_in))
    return (scale * stream.standard_normal(spec.shape)).astype(np.float32)


def _draw_input(spec: ArraySpec, stream: np.random.Generator) -> NDArray[Any]:
    if spec.classes is not None:
        return stream.integers(0, spec.classes, spec.shape, dtype=np.int32)
    return stream.standard_normal(spec.shape).astype(np.float32)


def run_numpy(case: Case, *, dtype: str = "float64") -> Answers:
    """Outputs and loss of every input set by NumPy."""
    layers = NumpyLayers({name: value.astype(dtype) for name, value in case.parameters.items()})
    outputs, losses = [], []
    for inputs in case.inputs:
        cast = {
            name: value if value.dtype.kind == "i" else value.astype(dtype)
            for name, value in inputs.items()
        }
        named = case.model.forward(layers, case.model.sizes(case.preset), cast)
        (objective,) = case.model.objectives
        loss = getattr(layers, objective.loss)(named[objective.output], cast[objective.target])
        outputs.append(named)
        losses.append(float(loss))
    return Answers(tuple(outputs), tuple(losses))


@cache
def _jitted(model: str, preset: str) -> tuple[Any, Any]:
    """Jitted ``((loss, outputs), gradients) = f(parameters, inputs)`` and optimiser update."""
    import jax

    from reference.layers_jax import JaxLayers

    definition = get(model)
    (objective,) = definition.objectives

    def loss_and_outputs(parameters: Any, inputs: Any) -> tuple[Any, Any]:
        layers = JaxLayers(parameters)
        named = definition.forward(layers, definition.sizes(preset), inputs)
        loss = getattr(layers, objective.loss)(named[objective.output], inputs[objective.target])
        return loss, named

    def step(optimizer: str, parameters: Any, gradients: Any, state: Any, number: Any) -> Any:
        return update(optimizer, parameters, gradients, state=state, step=number)

    value_and_gradient = jax.value_and_grad(loss_and_outputs, has_aux=True)
    return jax.jit(value_and_gradient), jax.jit(step, static_argnums=0)


def run_jax(
    case: Case,
    *,
    dtype: str = "float64",
    steps: int = STEPS,
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
) -> Answers:
    """Outputs, losses, gradients and training steps under each optimiser by JAX under jit."""
    import jax

    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        value_and_gradient, step = _jitted(case.model.name, case.preset)
        parameters = {name: jax.numpy.asarray(v, dtype) for name, v in case.parameters.items()}
        sets = [
            {
                name: jax.numpy.asarray(v, None if v.dtype.kind == "i" else dtype)
                for name, v in inputs.items()
            }
            for inputs in case.inputs
        ]
        results = [value_and_gradient(parameters, inputs) for inputs in sets]
        step_losses, stepped, trained = {}, {}, {}
        for optimizer in optimizers:
            moved, state, losses = parameters, initial_state(optimizer, parameters), []
            for number in range(1, steps + 1):
                inputs = sets[(number - 1) % len(sets)]
                (loss, _), gradients = value_and_gradient(moved, inputs)
                moved, state = step(optimizer, moved, gradients, state, number)
                losses.append(float(loss))
                if number == 1:
                    stepped[optimizer] = {name: np.asarray(v) for name, v in moved.items()}
            step_losses[optimizer] = tuple(losses)
            trained[optimizer] = {name: np.asarray(value) for name, value in moved.items()}
        return Answers(
            outputs=tuple(
                {name: np.asarray(v) for name, v in named.items()} for (_, named), _ in results
            ),
            losses=tuple(float(loss) for (loss, _), _ in results),
            gradients={name: np.asarray(v) for name, v in results[0][1].items()},
            step_losses=step_losses,
            stepped=stepped,
            trained=trained,
        )


def settled_case(
    model: str,
    preset: str,
    seed: int = 0,
    *,
    batch: int = 8,
    optimizers: Sequence[str] = tuple(OPTIMIZERS),
) -> tuple[Case, Answers]:
    """The first draw of a seed that stands clear of ties, with its answers.

    Where a ReLU or a maximum lies within rounding of a tie, correct programs part: the gradient
    jumps although nothing else does. So relative noise of 1e-6 on the start, ten times what float32
    costs, must leave gradients and movements within ``SETTLED``; otherwise the next draw is tried.
    Raises ``ValueError`` when none of ``ATTEMPTS`` draws is clear.
    """
    noise = np.random.default_rng(0)
    for attempt in range(ATTEMPTS):
        case = draw_case(model, preset, seed, batch=batch, attempt=attempt)
        answers = run_jax(case, optimizers=optimizers)
        if all(_stands(case, answers, noise, optimizers) for _ in range(SHAKES)):
            return case, answers
    raise ValueError(
        f"none of {ATTEMPTS} draws of seed {seed} for {model}/{preset} at batch {batch} is clear "
        "of ties; choose another seed or a smaller batch"
    )


def _stands(
    case: Case, answers: Answers, noise: np.random.Generator, optimizers: Sequence[str]
) -> bool:
    """Whether noise on the parameters leaves gradients and movements within ``SETTLED``."""

    def near(got: Any, expected: Any, kind: str) -> bool:
        scale = float(np.linalg.norm(expected)) or 1.0
        return float(np.linalg.norm(got - expected)) <= SETTLED[kind] * scale

    start = {
        name: value * (1 + NOISE * noise.standard_normal(value.shape))
        for name, value in case.parameters.items()
    }
    other = run_jax(replace(case, parameters=start), optimizers=optimizers)
    return all(
        near(other.gradients[name], gradient, "gradients")
        for name, gradient in answers.gradients.items()
    ) and all(
        near(moved[name] - start[name], value - case.parameters[name], when)
        for when in ("stepped", "trained")
        for optimizer, moved in getattr(other, when).items()
        for name, value in getattr(answers, when)[optimizer].items()
    )


def write_case(case: Case, path: Path) -> None:
    """Write the questions: what a worker reads with :func:`adapters.base.read_case`."""
    arrays = {f"parameter/{name}": value for name, value in case.parameters.items()}
    for number, inputs in enumerate(case.inputs):
        arrays.update({f"input/{number}/{name}": value for name, value in inputs.items()})
    _write(path, case.meta(), arrays)


def write_answers(answers: Answers, path: Path) -> None:
    """Write the answers, for the host alone."""
    arrays: Arrays = {f"gradient/{name}": value for name, value in answers.gradients.items()}
    for number, outputs in enumerate(answers.outputs):
        arrays.update({f"output/{number}/{name}": value for name, value in outputs.items()})
    for when, moved in (("stepped", answers.stepped), ("trained", answers.trained)):
        for optimizer, parameters in moved.items():
            arrays.update({f"{when}/{optimizer}/{name}": v for name, v in parameters.items()})
    meta = {
        "sets": len(answers.outputs),
        "losses": answers.losses,
        "step_losses": dict(answers.step_losses),
    }
    _write(path, meta, arrays)


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
        gradients=under("gradient/"),
        step_losses={name: tuple(losses) for name, losses in meta["step_losses"].items()},
        stepped={name: under(f"stepped/{name}/") for name in meta["step_losses"]},
        trained={name: under(f"trained/{name}/") for name in meta["step_losses"]},
    )


def _write(path: Path, meta: Mapping[str, Any], arrays: Arrays) -> None:
    text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(path, allow_pickle=False, meta=text, **arrays)
