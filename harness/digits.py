"""Real data: the handwritten digits that scikit-learn carries, as a case like any other.

1,797 images of 8x8 pixels (E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998; the test part of it). Split, order of the examples in every epoch
and initial parameters are fixed by the seed, so every arm learns from the same batches in the same
order, and what differs at the end is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.case import Arrays, Case, draw_case
from reference.layers_numpy import NumpyLayers
from reference.spec import ArraySpec

TEST_EXAMPLES = 360  # one fifth
SIDE = 8


@dataclass(frozen=True)
class Lesson:
    """A case whose first ``train_sets`` sets are learned from and whose rest is the test.

    The last test set is filled up with the first test examples; ``labels`` holds those of the real
    test examples only, in order.
    """

    case: Case
    train_sets: int
    labels: NDArray[np.int64]

    def score(self, outputs: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
        """(accuracy, mean cross-entropy) on the test examples, from an arm's answer arrays."""
        (objective,) = self.case.model.objectives
        tests = range(len(self.case.inputs) - self.train_sets)
        logits = np.concatenate([outputs[f"output/{n}/{objective.outputs[0]}"] for n in tests])
        logits = logits[: len(self.labels)].astype(np.float64)
        loss = NumpyLayers({}).softmax_cross_entropy(logits, self.labels)
        return float((logits.argmax(axis=1) == self.labels).mean()), float(loss)


def draw_lesson(model: str, preset: str, *, batch: int, seed: int, epochs: int) -> Lesson | str:
    """The lesson for a model, or the reason why these digits do not fit it."""
    drawn = draw_case(model, preset, seed, batch=batch, sets=1)
    if drawn.model.data != "digits":
        return f"{model} does not classify images"
    # Imported here because it takes longer than all else that a command imports.
    from sklearn.datasets import load_digits

    image, label = drawn.summary.inputs
    digits = load_digits()
    fitted = fit_images(digits.images / 16.0, image)
    if isinstance(fitted, str):
        return fitted
    stream = np.random.default_rng([seed, TEST_EXAMPLES])
    order = stream.permutation(len(fitted))
    test, train = order[:TEST_EXAMPLES], order[TEST_EXAMPLES:]
    if batch > len(train):
        return f"a batch of {batch} is more than the {len(train)} training examples"
    batches = [
        chosen for _ in range(epochs) for chosen in _whole_batches(stream.permutation(train), batch)
    ]
    train_sets = len(batches)
    filled = np.resize(test, -(-len(test) // batch) * batch)
    batches.extend(_whole_batches(filled, batch))
    labels = digits.target.astype(np.int32)
    sets: list[Arrays] = [{image.name: fitted[b], label.name: labels[b]} for b in batches]
    return Lesson(replace(drawn, inputs=tuple(sets)), train_sets, digits.target[test])


def _whole_batches(order: NDArray[Any], batch: int) -> Sequence[NDArray[Any]]:
    whole = len(order) // batch * batch
    return np.split(order[:whole], whole // batch)


def fit_images(images: NDArray[Any], spec: ArraySpec) -> NDArray[Any] | str:
    """Enlarge (n, 8, 8) by whole factors and centre it with zeros in the model's input shape.

    A vector is taken as a square image, row by row. Returns the reason where it does not fit.
    """
    shape = spec.shape[1:]
    if len(shape) == 1:
        side = int(np.sqrt(shape[0]))
        if side * side != shape[0] or side < SIDE:
            return f"{shape[0]} features are no square image of {SIDE}x{SIDE} or more"
        height = width = side
    else:
        height, width, channels = shape
        if min(height, width) < SIDE or channels != 1:
            return f"inputs of {height}x{width}x{channels} cannot hold {SIDE}x{SIDE} digits"
    factor = min(height, width) // SIDE
    enlarged = np.kron(images, np.ones((1, factor, factor)))
    top, left = (height - SIDE * factor) // 2, (width - SIDE * factor) // 2
    canvas = np.zeros((len(images), height, width), np.float32)
    canvas[:, top : top + SIDE * factor, left : left + SIDE * factor] = enlarged
    return canvas.reshape((len(images), *shape))
