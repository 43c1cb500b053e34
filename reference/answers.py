"""The answers to a case: what every arm must compute, solved by NumPy and by JAX.

NumPy in float64 is the truth of outputs and decoded tokens. JAX under jit adds losses, gradients
and training steps. Answers are stored like a case, in a file of their own that no worker sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.reference.case import Arrays, Case, below, read_arrays, write_arrays
from levelfield.reference.layers_numpy import NumpyLayers
from levelfield.reference.optimizers import OPTIMIZERS
from levelfield.reference.registry import get

STEPS = 10  # training steps that are made unless another number is given


@dataclass(frozen=True)
class Answers:
    """The expected answers to a case.

    ``outputs``: of inference, per input set. ``losses``: in training, per set by objective.
    ``gradients``: of the same sets, for each objective by the parameters that it trains.
    ``step_losses``: of ``steps`` steps over the sets in turn, per optimiser and objective.
    ``stepped`` and ``trained``: how far the first of these steps and all of them moved each
    parameter and statistic, per optimiser. ``tokens``: decoded after each set's prompt. NumPy fills
    only ``outputs`` and ``tokens``. ``scatter``: the largest change of each of
    ``levelfield.reference.settled.SCATTERED`` by noise on the parameters, or by Adam's other form.
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
        return max(
            (len(v) for losses in self.step_losses.values() for v in losses.values()), default=0
        )


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
    clear, chunks, position = np.inf, [], 0
    tokens, cache = generation.first(layers, case.sizes, inputs[generation.prompt])
    for _ in range(generation.count(case.sizes)):
        logits, cache = generation.advance(layers, case.sizes, tokens, position, cache)
        position += tokens.shape[1]
        second, first = np.sort(logits, axis=-1)[:, -2:].T
        clear = min(clear, float(((first - second) / logits.std(axis=-1)).min()))
        tokens = layers.most_likely(logits)[:, None]
        chunks.append(tokens)
    return np.concatenate(chunks, 1), clear


@cache
def _jitted(model: str, preset: str, optimizer: str | None) -> Any:
    """Jit the programs: ``(infer, losses and gradients)``, or an optimiser's training step."""
    import jax

    from levelfield.reference import programs

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
    from levelfield.reference.programs import initial_slots

    step = _jitted(case.model.name, case.preset, optimizer)
    slots, step_losses = initial_slots(case.model, optimizer, moved[0]), []
    for number in range(1, steps + 1):
        inputs = sets[(number - 1) % len(sets)]
        *moved, slots, step_loss = step(*moved, slots, inputs, number)
        step_losses.append(_numpy(step_loss))
        if number == 1:
            stepped = _moves(start, moved)
    losses = {
        objective.name: tuple(float(loss[objective.name]) for loss in step_losses)
        for objective in case.model.objectives
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
        "losses": [dict(losses) for losses in answers.losses],
        "step_losses": {name: dict(losses) for name, losses in answers.step_losses.items()},
        "scatter": dict(answers.scatter),
    }
    write_arrays(path, meta, arrays)


def read_answers(path: Path) -> Answers:
    """Read what :func:`write_answers` wrote."""
    meta, arrays = read_arrays(path)
    under = partial(below, arrays)
    return Answers(
        outputs=tuple(under(f"output/{number}/") for number in range(meta["sets"])),
        losses=tuple(meta["losses"]),
        gradients=tuple(under(f"gradient/{number}/") for number in range(len(meta["losses"]))),
        step_losses={
            optimizer: {name: tuple(losses) for name, losses in by_name.items()}
            for optimizer, by_name in meta["step_losses"].items()
        },
        stepped={name: under(f"stepped/{name}/") for name in meta["step_losses"]},
        trained={name: under(f"trained/{name}/") for name in meta["step_losses"]},
        tokens=tuple(arrays[f"tokens/{n}"] for n in range(meta["sets"]) if f"tokens/{n}" in arrays),
        scatter=meta["scatter"],
    )
