"""Cases: arrays that all arms get, drawn from a seed.

A case has parameters and input sets by canonical name, in float32. Every framework thus receives
exactly the same numbers, and the float64 truth starts from them too. The case file holds the
questions, and a worker sees nothing else. ``levelfield.reference.answers`` has the answers, which
stay with the host. Arrays are stored as ``.npz`` without pickle, everything else as JSON inside it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.reference.optimizers import OPTIMIZERS
from levelfield.reference.registry import get
from levelfield.reference.spec import ArraySpec, Model, Sizes
from levelfield.reference.trace import Summary, summarize

Arrays = dict[str, NDArray[Any]]

SETS = 4  # input sets that the steps cycle over, so that no step repeats its predecessor
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
            return {
                spec.name: [dimension.to_json() for dimension in spec.dimensions] for spec in specs
            }

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
                    "name": objective.name,
                    "loss": objective.loss,
                    "outputs": list(objective.outputs),
                    "targets": list(objective.targets),
                    "trains": objective.trains,
                }
                for objective in self.model.objectives
            ],
            "generation": generation
            and {"prompt": generation.prompt, "count": generation.count(self.sizes)},
            "optimizers": {name: dict(constants) for name, constants in OPTIMIZERS.items()},
        }


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
    seed. Raises :class:`levelfield.reference.errors.UnknownName`, and ``ValueError`` for a batch
    below 1 or for lengths that the definition does not state.
    """
    definition = get(model)
    summary = summarize(definition, preset, positive_batch(batch))
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


def positive_batch(batch: int) -> int:
    """Return the batch. Raises ``ValueError`` if it is below 1."""
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
    lengths = sorted((values if values.ndim == 1 else np.count_nonzero(values, 1)).tolist())
    if lengths != sorted(spec.lengths or ()):
        raise ValueError(
            f"{model.name}: a draw of '{spec.name}' has the lengths {lengths}, its ArraySpec states"
            f" {sorted(spec.lengths or ())}; draw those, or leave out lengths="
        )


def _draw_input(spec: ArraySpec, stream: np.random.Generator) -> NDArray[Any]:
    if spec.classes is not None:
        return stream.integers(0, spec.classes, spec.shape, dtype=np.int32)
    return stream.standard_normal(spec.shape).astype(np.float32)


def write_case(case: Case, path: Path) -> None:
    """Write the questions; a worker reads them with ``levelfield.adapters.questions.read_case``.

    All sets of an input are one array with the sets as its first axis: a lesson has thousands.
    """
    arrays = {f"parameter/{name}": value for name, value in case.parameters.items()}
    arrays.update({f"state/{name}": value for name, value in case.state.items()})
    for name in case.inputs[0]:
        arrays[f"input/{name}"] = np.stack([inputs[name] for inputs in case.inputs])
    write_arrays(path, case.meta(), arrays)


def read_case(path: Path) -> Case:
    """Read what :func:`write_case` wrote."""
    meta, arrays = read_arrays(path)
    under = partial(below, arrays)
    inputs = under("input/")
    return Case(
        model=get(meta["model"]),
        preset=meta["preset"],
        batch=meta["batch"],
        seed=meta["seed"],
        attempt=meta["attempt"],
        parameters=under("parameter/"),
        state=under("state/"),
        inputs=tuple(
            {name: value[number] for name, value in inputs.items()}
            for number in range(meta["sets"])
        ),
    )


def shaken(case: Case, noise: float, generator: np.random.Generator) -> Case:
    """Return the case with relative noise on its parameters, which become float64."""
    start = {
        name: value * (1 + noise * generator.standard_normal(value.shape))
        for name, value in case.parameters.items()
    }
    return replace(case, parameters=start)


def write_arrays(path: Path, meta: Mapping[str, Any], arrays: Arrays) -> None:
    """Write arrays as ``.npz`` without pickle, and ``meta`` as JSON in an array of bytes."""
    text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(path, allow_pickle=False, meta=text, **arrays)


def read_arrays(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Read what :func:`write_arrays` wrote -> (``meta``, arrays)."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(stored["meta"].tobytes())
        return meta, {name: stored[name] for name in stored.files if name != "meta"}


def below(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays whose names begin with ``prefix``, by the rest of their names."""
    return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
