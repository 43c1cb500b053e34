"""The lesson as the reference learns it: ``python -m levelfield.reference.learning``.

Usage: ``python -m levelfield.reference.learning CASE OPTIMIZER EPOCHS TRAIN_SETS FOLDER``. CASE is
a case file with TRAIN_SETS training batches for each epoch, each time followed by the test batches.
It writes one file for each run of the lesson, ``learned-0.npz`` and on, by :func:`write_learned`.

The first run is the unchanged lesson in float32. Every further run is mathematically the same
lesson with other rounding. The initial parameters get relative noise of the size of float32's
rounding. The examples of every training batch have another order, so that every sum over a batch is
rounded differently. Noise on the start alone would be too little: it changed mlp/small by at most
1e-5, where correct frameworks differ by up to 5e-2. The further runs also infer with the unbiased
running variance, which some frameworks keep. Two correct frameworks may differ as far as the runs.

The host runs this in a separate process, so that it never imports a framework itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from levelfield.reference.answers import both_variances
from levelfield.reference.case import Arrays, Case, read_case, shaken
from levelfield.reference.settled import ROUNDING

RUNS = 2  # runs of the lesson: unchanged, and with other rounding


@dataclass(frozen=True)
class Learned:
    """The results of one run of a lesson.

    ``train_losses``: the loss of each epoch's last training step. ``outputs``: the outputs on the
    test batches after each epoch, by "output/EPOCH/SET/NAME", EPOCH and SET from 0.
    """

    train_losses: tuple[float, ...]
    outputs: Arrays


def learn(case: Case, optimizer: str, *, epochs: int, train_sets: int) -> Iterator[Learned]:
    """Run the lesson ``RUNS`` times, the first unchanged, by JAX under jit in float32.

    The model has one objective. ``case.inputs`` holds the sets of every epoch in their order.
    """
    import jax

    from levelfield.reference import programs

    step = jax.jit(
        programs.training_step(case.model, case.sizes, optimizer), donate_argnums=(0, 1, 2)
    )
    infer = jax.jit(programs.inference(case.model, case.sizes))
    for run in range(RUNS):
        with jax.default_matmul_precision("highest"):
            lesson, variance = case, "/variance"
            if run:
                lesson = rounded_differently(case, run, epochs=epochs, train_sets=train_sets)
                variance = "/unbiased_variance"
            yield _learned(
                lesson,
                optimizer,
                step,
                infer,
                epochs=epochs,
                train_sets=train_sets,
                variance=variance,
            )


def _learned(
    case: Case,
    optimizer: str,
    step: Callable[..., Any],
    infer: Callable[..., Any],
    *,
    epochs: int,
    train_sets: int,
    variance: str,
) -> Learned:
    """Run once; ``variance``: the suffix of the running variances that inference reads."""
    import jax

    from levelfield.reference.programs import initial_slots

    (objective,) = case.model.objectives
    parameters = {name: jax.numpy.array(value) for name, value in case.parameters.items()}
    state = {name: jax.numpy.array(v) for name, v in both_variances(case.state).items()}
    slots = initial_slots(case.model, optimizer, parameters)
    sets, used, number = iter(case.inputs), case.summary.used, 0
    tests = len(case.inputs) // epochs - train_sets
    losses, outputs = [], {}
    for epoch in range(epochs):
        for _ in range(train_sets):
            number += 1
            parameters, state, slots, loss = step(parameters, state, slots, next(sets), number)
        losses.append(float(loss[objective.name]))
        read = {n: state.get(n.replace("/variance", variance), v) for n, v in state.items()}
        for test in range(tests):
            inputs = next(sets)
            answers = infer(parameters, read, {name: inputs[name] for name in used})
            for name, value in answers.items():
                outputs[f"output/{epoch}/{test}/{name}"] = np.asarray(value)
    return Learned(tuple(losses), outputs)


def rounded_differently(case: Case, run: int, *, epochs: int, train_sets: int) -> Case:
    """Return the lesson with other rounding, see the module's docstring; ``run`` is the seed.

    The test batches keep their order, and so do the labels that their outputs are compared with.
    """
    generator = np.random.default_rng([case.seed, run])
    changed = shaken(case, ROUNDING, generator).parameters
    parameters = {n: changed[n].astype(value.dtype) for n, value in case.parameters.items()}
    size = len(case.inputs) // epochs
    inputs = []
    for number, arrays in enumerate(case.inputs):
        order = generator.permutation(case.batch)
        training = number % size < train_sets
        inputs.append({n: v[order] if training else v for n, v in arrays.items()})
    return replace(case, parameters=parameters, inputs=tuple(inputs))


def write_learned(learned: Learned, path: Path) -> None:
    """Write a run, without pickle."""
    np.savez(path, allow_pickle=False, train_losses=learned.train_losses, **learned.outputs)


def read_learned(path: Path) -> Learned:
    """Read what :func:`write_learned` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    losses = arrays.pop("train_losses")
    return Learned(tuple(float(loss) for loss in losses), arrays)


def main(arguments: list[str]) -> None:
    """Read the case, run the lesson and write the results."""
    path, optimizer, epochs, train_sets, folder = arguments
    case = read_case(Path(path))
    runs = learn(case, optimizer, epochs=int(epochs), train_sets=int(train_sets))
    for number, learned in enumerate(runs):
        write_learned(learned, Path(folder) / f"learned-{number}.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
