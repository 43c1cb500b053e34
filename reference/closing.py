"""The closing case: what a timed process must still answer after its last slice.

The gate judges a process that is not timed. The closing case asks a timed one: the same parameters,
the input sets of the gate and as many that the process has never seen, and many training steps of
which only the last are read. The reference decides how many steps can be compared: it trains in
float64 and a few times in float32, from parameters that differ by float32's rounding. The steps end
before these trainings differ by more than ``CLEAR``.

``python -m reference.closing MODEL PRESET BATCH SEED ATTEMPT PHASE OPTIMIZER GATE ANSWERS`` reads
the gate's answers from the file GATE and writes the closing answers to ANSWERS; the host runs it in
a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.case import CLEAR as CLEAR_LOGITS
from reference.case import (
    ROUNDING,
    SETS,
    Arrays,
    Case,
    both_variances,
    decoded,
    draw_case,
    null_names,
    read_answers,
    run_numpy,
    write_arrays,
)
from reference.layers_numpy import NumpyLayers
from reference.optimizers import EPSILON_HAT
from reference.trace import summarize

FURTHER = SETS  # input sets that a timed process has not seen
TRIED = 4 * FURTHER  # draws for them, of which those near a tie of decoded tokens are passed over
READ = 4  # training steps whose losses are read, after those that nothing is read of
# Training steps in all. Two hundred show what ten do not: the warm-up and calibration of a short
# step take that many. What a long step can afford is bounded by the operations of one training.
MOST_STEPS, FEWEST_STEPS, OPERATIONS = 200, 12, 1e10
TRAININGS = 3  # in float32
# How far these trainings may differ from float64, relative to the loss and to the way that a
# parameter went. A network with ReLUs is chaotic in the long run: beyond, fewer steps are compared.
CLEAR = {"losses": 2e-3, "trained": 2e-2}


@dataclass(frozen=True)
class Closing:
    """What the closing case must give.

    ``outputs`` in inference and ``tokens`` in generation, of every input set. In training:
    ``unread`` steps, then the ``losses`` of ``READ`` further ones by objective, and how far all
    steps moved each parameter and statistic (``trained``). ``scatter``: how far the reference's
    trainings in float32 differ at most, in "losses" and "trained"; ``forms``: how far the two forms
    of Adam do. ``still``: parameters that rounding alone moves, which are not compared.
    """

    outputs: tuple[Arrays, ...] = ()
    tokens: tuple[NDArray[np.int32], ...] = ()
    unread: int = 0
    losses: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    trained: Arrays = field(default_factory=dict)
    scatter: Mapping[str, float] = field(default_factory=dict)
    forms: Mapping[str, float] = field(default_factory=dict)
    still: tuple[str, ...] = ()


def closing_case(case: Case) -> Case:
    """The case with ``FURTHER`` more input sets, drawn after its own.

    Sets whose decoded tokens rounding could change are passed over. Raises ``ValueError`` where too
    few are left.
    """
    drawn = draw_case(
        case.model.name,
        case.preset,
        case.seed,
        batch=case.batch,
        sets=SETS + TRIED,
        attempt=case.attempt,
    )
    further = [
        inputs
        for inputs in drawn.inputs[SETS:]
        if case.model.generation is None or _decoded(case, inputs)[1] > CLEAR_LOGITS
    ]
    if len(further) < FURTHER:
        raise ValueError("too few further input sets decode without a near tie")
    return replace(case, inputs=(*case.inputs, *further[:FURTHER]))


def _decoded(case: Case, inputs: Arrays) -> tuple[NDArray[np.int32], float]:
    layers = NumpyLayers({n: value.astype(np.float64) for n, value in case.parameters.items()})
    return decoded(case, inputs, layers)


def solve(case: Case, phase: str, optimizer: str, gradients: Sequence[Arrays]) -> Closing:
    """The answers of a closing case in a phase.

    Training alone reads ``optimizer`` and ``gradients``, those of the gate's answers by set.
    """
    if phase == "training":
        return _trainings(case, optimizer, tuple(sorted(null_names(gradients))))
    if phase == "generation":
        return Closing(tokens=tuple(_decoded(case, inputs)[0] for inputs in case.inputs))
    inference = replace(case, model=replace(case.model, generation=None))
    return Closing(outputs=run_numpy(inference).outputs)


def _trainings(case: Case, optimizer: str, still: tuple[str, ...]) -> Closing:
    """The longest training of which float32 runs stay clear of float64."""
    operations = summarize(case.model, case.preset, case.batch).training_operations
    longest = int(np.clip(OPERATIONS / operations, FEWEST_STEPS, MOST_STEPS))
    lengths = [longest]
    while lengths[-1] // 2 >= FEWEST_STEPS:
        lengths.append(lengths[-1] // 2)
    lengths.reverse()
    truth = {each.unread: each for each in _train(case, optimizer, "float64", lengths)}
    others = [
        {each.unread: each for each in _train(_shaken(case, run), optimizer, "float32", lengths)}
        for run in range(TRAININGS)
    ]
    hat = truth
    if optimizer == "adam":
        hat = {each.unread: each for each in _train(case, EPSILON_HAT, "float64", lengths)}
    found = None
    for unread, closing in truth.items():
        apart = [_apart(run[unread], closing, still) for run in others]
        scatter = {kind: max(each[kind] for each in apart) for kind in CLEAR}
        if found is not None and any(not scatter[kind] <= CLEAR[kind] for kind in CLEAR):
            break
        forms = _apart(hat[unread], closing, still)
        found = replace(closing, scatter=scatter, forms=forms, still=still)
    assert found is not None
    return found


def _shaken(case: Case, run: int) -> Case:
    """The case with relative noise of float32's rounding on its parameters, from run 1 on."""
    if not run:
        return case
    stream = np.random.default_rng([case.seed, run])
    return replace(
        case,
        parameters={
            name: value * (1 + ROUNDING * stream.standard_normal(value.shape))
            for name, value in case.parameters.items()
        },
    )


def _train(case: Case, optimizer: str, dtype: str, lengths: list[int]) -> Iterator[Closing]:
    """Train once; what must be answered after each number of steps in ``lengths``."""
    import jax

    from reference import programs

    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):

        def placed(arrays: Arrays) -> dict[str, Any]:
            return {
                name: jax.numpy.array(value, None if value.dtype.kind == "i" else dtype)
                for name, value in arrays.items()
            }

        step = jax.jit(
            programs.training_step(case.model, case.sizes, optimizer), donate_argnums=(0, 1, 2)
        )
        sets = [placed(inputs) for inputs in case.inputs]
        start = {**case.parameters, **both_variances(case.state)}
        moved = placed(case.parameters), placed(both_variances(case.state))
        slots = programs.initial_slots(case.model, optimizer, moved[0])
        losses: list[Mapping[str, Any]] = []
        for number in range(1, max(lengths) + 1):
            *moved, slots, loss = step(*moved, slots, sets[(number - 1) % len(sets)], number)
            losses.append(loss)
            if number in lengths:
                last = losses[-READ:]
                yield Closing(
                    unread=number - READ,
                    losses={name: tuple(float(each[name]) for each in last) for name in loss},
                    trained={
                        name: np.asarray(value, np.float64) - start[name]
                        for arrays in moved
                        for name, value in arrays.items()
                    },
                )


def _apart(got: Closing, truth: Closing, still: tuple[str, ...]) -> dict[str, float]:
    """How far a training differs from the true one: relative norms, the largest of all arrays."""
    names = truth.trained.keys() - set(still)

    def apart(one: NDArray[Any], other: NDArray[Any]) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            distance = float(np.linalg.norm(one - other) / (np.linalg.norm(other) or 1.0))
        return distance if np.isfinite(distance) else np.inf

    return {
        "losses": max(
            apart(np.array(got.losses[name]), np.array(losses))
            for name, losses in truth.losses.items()
        ),
        "trained": max(apart(got.trained[name], truth.trained[name]) for name in names),
    }


def write_closing(closing: Closing, path: Path) -> None:
    """Write the answers, for the host alone."""
    arrays: Arrays = {f"trained/{name}": moved for name, moved in closing.trained.items()}
    for number, outputs in enumerate(closing.outputs):
        arrays.update({f"output/{number}/{name}": value for name, value in outputs.items()})
    for number, tokens in enumerate(closing.tokens):
        arrays[f"tokens/{number}"] = tokens
    meta = {
        "outputs": len(closing.outputs),
        "tokens": len(closing.tokens),
        "unread": closing.unread,
        "losses": dict(closing.losses),
        "scatter": dict(closing.scatter),
        "forms": dict(closing.forms),
        "still": list(closing.still),
    }
    write_arrays(path, meta, arrays)


def read_closing(path: Path) -> Closing:
    """Read what :func:`write_closing` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes())
        arrays = {name: stored[name] for name in stored.files if name != "meta"}

    def under(prefix: str) -> Arrays:
        return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}

    return Closing(
        outputs=tuple(under(f"output/{number}/") for number in range(meta["outputs"])),
        tokens=tuple(arrays[f"tokens/{number}"] for number in range(meta["tokens"])),
        unread=meta["unread"],
        losses={name: tuple(losses) for name, losses in meta["losses"].items()},
        trained=under("trained/"),
        scatter=meta["scatter"],
        forms=meta["forms"],
        still=tuple(meta["still"]),
    )


def main(arguments: list[str]) -> None:
    """Draw, solve, write."""
    model, preset, batch, seed, attempt, phase, optimizer, gate, answers = arguments
    case = closing_case(draw_case(model, preset, int(seed), batch=int(batch), attempt=int(attempt)))
    gradients = read_answers(Path(gate)).gradients
    write_closing(solve(case, phase, optimizer, gradients), Path(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
