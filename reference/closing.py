"""The closing case: what a timed process must answer after its last slice.

The gate judges a process that is not timed. The closing case judges a timed process. It has the
same parameters, the input sets of the gate, and as many sets that the process has never seen. It
has many training steps, of which only the last are read. The reference decides how many steps can
be compared. It trains in float64 and a few times in float32, from parameters that differ by
float32's rounding. The steps end before these trainings differ by more than ``CLOSING_CLEAR``.
Where even the fewest steps differ by more than ``CLOSING_LOOSEST``, their answers cannot
distinguish a wrong arm from a right one, and they are not compared.

``python -m levelfield.reference.closing MODEL PRESET BATCH SEED ATTEMPT PHASE OPTIMIZER DRAW GATE
ANSWERS`` reads the gate's answers from the file GATE and writes the closing answers to ANSWERS. The
host runs it in a separate process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.reference.answers import both_variances, decoded, read_answers, run_numpy
from levelfield.reference.case import (
    SETS,
    Arrays,
    Case,
    below,
    draw_case,
    read_arrays,
    shaken,
    write_arrays,
)
from levelfield.reference.layers_numpy import NumpyLayers
from levelfield.reference.optimizers import EPSILON_HAT
from levelfield.reference.scales import null_names
from levelfield.reference.settled import CLEAR, NOISE
from levelfield.reference.trace import summarize

FURTHER = SETS  # input sets that a timed process has not seen
TRIED = 4 * FURTHER  # draws for these sets; draws near a tie of decoded tokens are skipped
READ = 4  # training steps whose losses are read, after the unread steps
# Training steps in total. Two hundred steps can show faults that ten do not: the warm-up and
# calibration of a short step take that many. For a long step, the operations of one training limit
# the number: OPERATIONS for more than USUAL_STEPS, MOST_OPERATIONS for more than FEWEST_STEPS. For
# small presets at batch 32, lstm took 10 CPU seconds in total for 48 steps, and dcgan 31 for 12
# steps: its float32 trainings differ too much after 24. With three trainings they took 9 and 27.
CLOSING_STEPS, USUAL_STEPS, FEWEST_STEPS = 200, 48, 12
OPERATIONS, MOST_OPERATIONS = 1e10, 1.6e11
# In float32, each but the first from parameters with noise of twice its rounding. Where a ReLU is
# near a tie, a training takes one of two ways. Every second training of resnet18/small took another
# way than float64. With two such trainings, neither did so once, and right arms were refused.
TRAININGS = 5
# How far these trainings may differ from float64, relative to the loss and to the movement of a
# parameter. A network with ReLUs is chaotic in the long run. Beyond these limits, fewer steps are
# compared.
CLOSING_CLEAR = {"losses": 2e-3, "trained": 2e-2}
# How far the fewest steps may differ, and Adam's other form in any number of steps. The closing
# gate allows ten times as much: 0.05 of a loss and half of the movement of a parameter. An arm that
# makes only every other step makes half of the movement. An arm that makes none has an error of 1.
CLOSING_LOOSEST = {"losses": 5e-3, "trained": 5e-2}
# Losses may also differ by this share of the distance of an arm that makes no step. The gate then
# allows a quarter of it. Twelve steps of resnet18/small under Adam move the losses by 3.4 times the
# losses that remain, and its trainings differ by up to 0.013 of these.
IDLE_SHARE = 0.025


@dataclass(frozen=True)
class Closing:
    """The expected answers to the closing case.

    ``outputs`` in inference and ``tokens`` in generation are those of every input set. In training,
    ``unread`` steps come first. ``losses`` are those of ``READ`` further steps, by objective.
    ``trained`` is how far all steps moved each parameter and statistic. ``scatter``: how far the
    reference's trainings in float32 differ at most, in "losses" and "trained". ``forms``: how far
    the two forms of Adam differ; it is 0 where the other form differs too much to be allowed.
    ``still``: parameters that only rounding moves, which are not compared. ``note``: the answers
    that are not compared, and why. ``trained`` is then empty, and a training that diverges keeps
    only its first loss.
    """

    outputs: tuple[Arrays, ...] = ()
    tokens: tuple[NDArray[np.int32], ...] = ()
    unread: int = 0
    losses: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    trained: Arrays = field(default_factory=dict)
    scatter: Mapping[str, float] = field(default_factory=dict)
    forms: Mapping[str, float] = field(default_factory=dict)
    still: tuple[str, ...] = ()
    note: str = ""


def closing_case(case: Case, draw: int = 0) -> Case:
    """Return the case with ``FURTHER`` more input sets, drawn after its own.

    ``draw`` numbers the choices of further sets, which share no set. Sets whose decoded tokens
    could change by rounding are skipped. Raises ``ValueError`` where too few sets are left.
    """
    drawn = draw_case(
        case.model.name,
        case.preset,
        case.seed,
        batch=case.batch,
        sets=SETS + TRIED * (draw + 1),
        attempt=case.attempt,
    )
    further = [
        inputs
        for inputs in drawn.inputs[SETS + TRIED * draw :]
        if case.model.generation is None or _decoded(case, inputs)[1] > CLEAR
    ]
    if len(further) < FURTHER:
        raise ValueError("too few further input sets decode without a near tie")
    return replace(case, inputs=(*case.inputs, *further[:FURTHER]))


def _decoded(case: Case, inputs: Arrays) -> tuple[NDArray[np.int32], float]:
    layers = NumpyLayers({n: value.astype(np.float64) for n, value in case.parameters.items()})
    return decoded(case, inputs, layers)


def solve(case: Case, phase: str, optimizer: str, gradients: Sequence[Arrays]) -> Closing:
    """Compute the answers of a closing case in a phase.

    Only training reads ``optimizer`` and ``gradients``. The latter are those of the gate's answers,
    by set.
    """
    if phase == "training":
        return _trainings(case, optimizer, tuple(sorted(null_names(gradients))))
    if phase == "generation":
        return Closing(tokens=tuple(_decoded(case, inputs)[0] for inputs in case.inputs))
    inference = replace(case, model=replace(case.model, generation=None))
    return Closing(outputs=run_numpy(inference).outputs)


def _trainings(case: Case, optimizer: str, still: tuple[str, ...]) -> Closing:
    """Find the longest training whose float32 runs stay close to float64, or its judgeable part."""
    operations = summarize(case.model, case.preset, case.batch).reference_operations
    least = np.clip(MOST_OPERATIONS / operations, FEWEST_STEPS, USUAL_STEPS)
    lengths = [int(np.clip(OPERATIONS / operations, least, CLOSING_STEPS))]
    while lengths[0] // 2 >= FEWEST_STEPS:
        lengths.insert(0, lengths[0] // 2)

    step = _compiled(case, optimizer)
    runs = [
        _train(_rounded(case, run), step, optimizer, "float32", lengths) for run in range(TRAININGS)
    ]
    # Float64 takes several times as long. It therefore trains only as long as two float32 trainings
    # stay together. Where both are close to float64, they differ by at most twice the limit.
    longest = max(
        (
            length
            for length in lengths[1:]
            if _within(_apart(runs[1][length], runs[0][length], still), CLOSING_CLEAR, times=2)
        ),
        default=lengths[0],
    )
    lengths = [length for length in lengths if length <= longest]
    truth = _train(case, _compiled(case, optimizer), optimizer, "float64", lengths)
    hat = truth
    if optimizer == "adam":
        # This form is trained in float32: the rounding is far less than the scatter allows.
        hat = _train(case, _compiled(case, EPSILON_HAT), EPSILON_HAT, "float32", lengths)
    accepted: Closing | None = None
    for length, closing in truth.items():
        apart = [_apart(run[length], closing, still) for run in runs]
        scatter = {kind: max(distances[kind] for distances in apart) for kind in CLOSING_CLEAR}
        forms = _apart(hat[length], closing, still)
        followed = _within(forms, CLOSING_LOOSEST)
        if accepted is not None and not (followed and _within(scatter, CLOSING_CLEAR)):
            break
        if not followed:  # the other form must not excuse a training that is wrong
            forms = dict.fromkeys(forms, 0.0)
        accepted = replace(closing, scatter=scatter, forms=forms, still=still)
    assert accepted is not None
    return _judgeable(case, optimizer, accepted)


def _within(apart: Mapping[str, float], limits: Mapping[str, float], times: float = 1) -> bool:
    return all(apart[kind] <= times * limits[kind] for kind in limits)


def _judgeable(case: Case, optimizer: str, closing: Closing) -> Closing:
    """Remove answers that scatter beyond ``LOOSEST``, and add a note that says so.

    Losses may scatter by ``IDLE_SHARE`` of the distance of an arm that makes no step, too. Where
    nothing else is left, the first loss is kept. It is the loss of the parameters as loaded, which
    can be compared wherever outputs can.
    """
    apart, nothing = closing.scatter, dict.fromkeys(CLOSING_LOOSEST, 0.0)
    if _within(apart, CLOSING_LOOSEST):
        return closing
    after = f"after {closing.unread + READ} steps"
    most = max(CLOSING_LOOSEST["losses"], IDLE_SHARE * _idle_distance(case, optimizer, closing))
    if np.isfinite(apart["losses"]) and apart["losses"] <= most:
        return replace(
            closing,
            trained={},
            scatter={**apart, "trained": 0.0},
            forms={**closing.forms, "trained": 0.0},
            note=f"closing trained not at all: the reference's own differ by {apart['trained']:.2g}"
            f" {after}",
        )
    start = _train(case, _compiled(case, optimizer), optimizer, "float64", [READ])[READ]
    first = case.model.objectives[0].name
    return Closing(
        losses={first: start.losses[first][:1]},
        scatter=nothing,
        forms=nothing,
        still=closing.still,
        note="closing losses and trained not at all: the reference's own trainings diverge, by"
        f" {apart['losses']:.2g} of a loss {after}",
    )


def _idle_distance(case: Case, optimizer: str, closing: Closing) -> float:
    """Return how far the losses of an arm that makes no step are from the true ones, at least."""
    step = _compiled(case, optimizer)
    last = range(closing.unread, closing.unread + READ)
    starts = [
        _train(replace(case, inputs=(inputs,)), step, optimizer, "float32", [1])[1]
        for inputs in (case.inputs[number % len(case.inputs)] for number in last)
    ]
    return min(
        _distance(np.array([start.losses[name][0] for start in starts]), np.array(losses))
        for name, losses in closing.losses.items()
    )


def _rounded(case: Case, run: int) -> Case:
    """From run 1 on, add relative noise of twice float32's rounding to the parameters."""
    if not run:
        return case
    return shaken(case, NOISE, np.random.default_rng([case.seed, run]))


def _compiled(case: Case, optimizer: str) -> Any:
    """Jit a training step: its compilation takes longer than many steps of a small model."""
    import jax

    from levelfield.reference import programs

    step = programs.training_step(case.model, case.sizes, optimizer)
    return jax.jit(step, donate_argnums=(0, 1, 2))


def _train(
    case: Case, step: Any, optimizer: str, dtype: str, lengths: Sequence[int]
) -> dict[int, Closing]:
    """Train once -> the expected answers after each number of steps in ``lengths``."""
    import jax

    from levelfield.reference import programs

    answers: dict[int, Closing] = {}
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):

        def placed(arrays: Arrays) -> dict[str, Any]:
            return {
                name: jax.numpy.array(value, None if value.dtype.kind == "i" else dtype)
                for name, value in arrays.items()
            }

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
                answers[number] = Closing(
                    unread=number - READ,
                    losses={
                        name: tuple(float(step_loss[name]) for step_loss in last) for name in loss
                    },
                    trained={
                        name: np.asarray(value, np.float64) - start[name]
                        for arrays in moved
                        for name, value in arrays.items()
                    },
                )
    return answers


def _apart(got: Closing, truth: Closing, still: tuple[str, ...]) -> dict[str, float]:
    """Distance of a training from the true one: relative norms, the largest of all arrays."""
    names = truth.trained.keys() - set(still)
    return {
        "losses": max(
            _distance(np.array(got.losses[name]), np.array(losses))
            for name, losses in truth.losses.items()
        ),
        "trained": max(_distance(got.trained[name], truth.trained[name]) for name in names),
    }


def _distance(array: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the norm of the difference over that of the truth; infinite where it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        distance = float(np.linalg.norm(array - truth) / (np.linalg.norm(truth) or 1.0))
    return distance if np.isfinite(distance) else np.inf


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
        "note": closing.note,
    }
    write_arrays(path, meta, arrays)


def read_closing(path: Path) -> Closing:
    """Read what :func:`write_closing` wrote."""
    meta, arrays = read_arrays(path)
    under = partial(below, arrays)
    return Closing(
        outputs=tuple(under(f"output/{number}/") for number in range(meta["outputs"])),
        tokens=tuple(arrays[f"tokens/{number}"] for number in range(meta["tokens"])),
        unread=meta["unread"],
        losses={name: tuple(losses) for name, losses in meta["losses"].items()},
        trained=under("trained/"),
        scatter=meta["scatter"],
        forms=meta["forms"],
        still=tuple(meta["still"]),
        note=meta["note"],
    )


def main(arguments: list[str]) -> None:
    """Draw the case, solve it and write the files."""
    model, preset, batch, seed, attempt, phase, optimizer, draw, gate, answers = arguments
    case = draw_case(model, preset, int(seed), batch=int(batch), attempt=int(attempt))
    case = closing_case(case, int(draw))
    gradients = read_answers(Path(gate)).gradients
    write_closing(solve(case, phase, optimizer, gradients), Path(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
