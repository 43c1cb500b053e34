"""Data for training to an accuracy, and how far an arm may be from the reference.

``digits``: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn (E. Alpaydin,
C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; the
test part of it). ``digit rows``: the same digits as sequences of eight tokens, one for each row of
pixels. ``interactions``: synthetic users and items of our own (:mod:`interactions`). ``features``:
users and items that are known by features alone; the accuracy is the share of test users who score
their own item above the others of its test batch.

The seed fixes the split, the order of the examples in every epoch and the initial parameters. Every
arm therefore learns from the same batches in the same order, and only arithmetic makes a
difference at the end.

The reference learns the same lesson (:mod:`levelfield.reference.learning`). A curve is the test
accuracy, test loss and training loss after each epoch. Every arm's curve is compared with the
reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from levelfield.harness.proof.interactions import (
    CANDIDATES,
    draw_interactions,
    draw_matches,
    hit_rate,
)
from levelfield.harness.proof.outcome import Check
from levelfield.reference.case import Arrays, Case, draw_case
from levelfield.reference.layers_numpy import NumpyLayers
from levelfield.reference.spec import ArraySpec

TEST_EXAMPLES = 360  # one fifth
MATCHES = 1_800  # users with their items; TEST_EXAMPLES of them are tested
SIDE = 8
HALF = 8  # of 16 grey levels: a pixel at or above it is a set bit of its row's token

# The columns of a curve: a share of the test examples, and mean losses in nats.
LESSON_CHECKS = ("test accuracy", "test loss", "training loss")
# An arm may differ from the reference by MARGIN times the reference's scatter or by the floors,
# whichever is more. The scatter is that of two runs and therefore uncertain, so the floors alone
# accept all correct arms that were measured: torch, TensorFlow, Keras, JAX and Flax, after each of
# eight epochs of Adam at batch 32. In the small mlp, lstm and neumf they were within 0.018, 0.012
# and 0.026 of the reference, in resnet18 within 0.011, 0.031 and 0.025. In mlp/small a program that
# stops learning after ten steps differs by 0.31, 1.4 and 1.5. A program that trains on a quarter of
# each batch differs by 0.047, 0.13 and 0.25. A program whose rate falls by 30 % differs by 0.022,
# 0.11 and 0.14.
MARGIN = 5.0
FLOORS = np.array([0.04, 0.05, 0.1])


@dataclass(frozen=True)
class Lesson:
    """A case with, for each epoch, ``train_sets`` training batches followed by the test batches.

    The last test set is filled up with the first test examples. ``labels`` holds the labels of the
    real test examples only, in order. ``measure`` (outputs, labels) -> (accuracy, loss).
    """

    case: Case
    epochs: int
    train_sets: int
    labels: NDArray[Any]
    measure: Callable[[NDArray[np.float64], NDArray[Any]], tuple[float, float]]

    @property
    def test_sets(self) -> int:
        """Number of test sets of an epoch."""
        return len(self.case.inputs) // self.epochs - self.train_sets

    def score(self, outputs: Mapping[str, NDArray[Any]], epoch: int) -> tuple[float, float]:
        """(accuracy, loss) on the test examples after an epoch, from an arm's answer arrays.

        Outputs that are not finite have the accuracy 0 and the loss NaN.
        """
        (objective,) = self.case.model.objectives
        logits = np.concatenate(
            [outputs[f"output/{epoch}/{n}/{objective.outputs[0]}"] for n in range(self.test_sets)]
        )
        tested = logits[: len(self.labels)].astype(np.float64)
        if not np.isfinite(tested).all():
            return 0.0, float("nan")
        return self.measure(tested, self.labels)

    def curve(
        self, train_losses: Sequence[float], outputs: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float64]:
        """Shape (epochs, ``LESSON_CHECKS``), from an arm's training losses and answer arrays."""
        rows = [(*self.score(outputs, n), loss) for n, loss in enumerate(train_losses)]
        return np.array(rows, np.float64)


@dataclass(frozen=True)
class Expected:
    """The reference's curve of a lesson, and an arm's largest accepted distance from it.

    Both have the shape of a curve.
    """

    curve: NDArray[np.float64]
    tolerance: NDArray[np.float64]


def expected_curve(curves: Sequence[NDArray[np.float64]]) -> Expected:
    """Return the expected curve from the reference's runs of one lesson.

    The first run is the lesson as it stands. The scatter at an epoch is the largest difference of
    any two runs at this epoch or before it. Earlier epochs count because a difference due to
    rounding does not vanish again.
    """
    runs = np.stack(curves)
    scatter = np.maximum.accumulate(runs.max(axis=0) - runs.min(axis=0), axis=0)
    return Expected(runs[0], np.maximum(FLOORS, MARGIN * scatter))


def judge_curve(curve: NDArray[np.float64], expected: Expected, *, seed: int) -> list[Check]:
    """Return a check for each of ``LESSON_CHECKS``, of the epoch with the worst error / tolerance.

    If the reference's own training diverges, nothing can be compared, and the note says so.
    """
    if not np.isfinite(expected.curve).all():
        note = f"the reference's own lesson of seed {seed} diverges"
        return [Check("lesson", 0.0, 0.0, note)]
    errors = np.abs(curve - expected.curve)
    errors[np.isnan(errors)] = np.inf
    checks = []
    for kind, name in enumerate(LESSON_CHECKS):
        epoch = int(np.argmax(errors[:, kind] / expected.tolerance[:, kind]))
        error, tolerance = float(errors[epoch, kind]), float(expected.tolerance[epoch, kind])
        shown = _percent if kind == 0 else _nats
        note = (
            f"{shown(curve[epoch, kind])} after {epoch + 1} epoch{'s' if epoch else ''} of seed"
            f" {seed}, the reference's {shown(expected.curve[epoch, kind])}, tolerance"
            f" {shown(tolerance)}"
        )
        check = Check(f"lesson {name}", error, tolerance)
        checks.append(check if check.passed else replace(check, note=note))
    return checks


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _nats(loss: float) -> str:
    return f"{loss:.3g}"


def classified(logits: NDArray[np.float64], labels: NDArray[Any]) -> tuple[float, float]:
    """(share of examples whose largest logit is the label's, mean cross-entropy)."""
    loss = NumpyLayers({}).softmax_cross_entropy(logits, labels)
    return float((logits.argmax(axis=1) == labels).mean()), float(loss)


def ranked(logits: NDArray[np.float64], labels: NDArray[Any]) -> tuple[float, float]:
    """(hit rate at 10, mean binary cross-entropy)."""
    loss = NumpyLayers({}).binary_cross_entropy(logits, labels)
    return hit_rate(logits[:, 0]), float(loss)


def draw_lesson(model: str, preset: str, *, batch: int, seed: int, epochs: int) -> Lesson | str:
    """Draw the lesson for a model, or return the reason why there is none."""
    case = draw_case(model, preset, seed, batch=batch, sets=1)
    stream = np.random.default_rng([seed, TEST_EXAMPLES])
    if case.model.data is None:
        return f"there is no data set for lessons of {model}"
    if case.model.data == "interactions":
        sizes = case.sizes
        if sizes["items"] < 2 * CANDIDATES:
            return f"{sizes['items']} items are too few to rank {CANDIDATES} of them"
        splits = draw_interactions(sizes["users"], sizes["items"], stream)
        train, test = (
            {"user": users, "item": items, "label": labels[:, None].astype(np.float32)}
            for users, items, labels in splits
        )
        return _lesson(
            case, train, test, test["label"], measure=ranked, stream=stream, epochs=epochs
        )
    if case.model.data == "features":
        return _matching(case, stream, epochs)
    # Imported here because it takes longer than all other imports of a command.
    from sklearn.datasets import load_digits

    digits = load_digits()
    if case.model.data == "digit rows":
        fitted = fit_rows(digits.images, case.sizes["vocabulary"], case.sizes["time"])
    else:
        name = case.summary.inputs[0].name
        images = fit_images(digits.images / 16.0, case.summary.inputs[0])
        fitted = images if isinstance(images, str) else {name: images}
    if isinstance(fitted, str):
        return fitted
    order = stream.permutation(len(digits.target))
    examples = {**fitted, "label": digits.target.astype(np.int32)}
    examples = {name: examples[name] for name in case.inputs[0]}  # padding says a length, too
    test, train = (
        {name: values[part] for name, values in examples.items()}
        for part in (order[:TEST_EXAMPLES], order[TEST_EXAMPLES:])
    )
    return _lesson(
        case,
        train,
        test,
        digits.target[order[:TEST_EXAMPLES]],
        measure=classified,
        stream=stream,
        epochs=epochs,
    )


def _matching(case: Case, stream: np.random.Generator, epochs: int) -> Lesson | str:
    """Return the lesson of users and items that are known by features alone."""
    widths = (case.sizes["user_features"], case.sizes["item_features"])
    matches = draw_matches(*widths, MATCHES, stream)
    test = {name: values[:TEST_EXAMPLES] for name, values in matches.items()}
    train = {name: values[TEST_EXAMPLES:] for name, values in matches.items()}
    own = np.arange(TEST_EXAMPLES) % case.batch
    return _lesson(case, train, test, own, measure=classified, stream=stream, epochs=epochs)


def _lesson(
    case: Case,
    train: Arrays,
    test: Arrays,
    labels: NDArray[Any],
    *,
    measure: Callable[[NDArray[np.float64], NDArray[Any]], tuple[float, float]],
    stream: np.random.Generator,
    epochs: int,
) -> Lesson | str:
    """Return a lesson with, in every epoch, training batches in a new order, then test batches."""
    batch, count, tests = case.batch, *(len(next(iter(part.values()))) for part in (train, test))
    if batch > count:
        return f"a batch of {batch} is more than the {count} training examples"
    filled = np.resize(np.arange(tests), -(-tests // batch) * batch)
    tested = [{name: v[b] for name, v in test.items()} for b in _whole_batches(filled, batch)]
    sets: list[Arrays] = []
    for _ in range(epochs):
        order = _whole_batches(stream.permutation(count), batch)
        sets += [{name: v[b] for name, v in train.items()} for b in order]
        sets += tested
    return Lesson(replace(case, inputs=tuple(sets)), epochs, count // batch, labels, measure)


def _whole_batches(order: NDArray[Any], batch: int) -> Sequence[NDArray[Any]]:
    whole = len(order) // batch * batch
    return np.split(order[:whole], whole // batch)


def fit_rows(images: NDArray[Any], vocabulary: int, time: int) -> Arrays | str:
    """Encode (n, 8, 8) images as one token per row: its dark pixels as bits of a number, plus 1.

    Zeros follow the eighth token. Returns the reason if the images do not fit.
    """
    if time < SIDE or vocabulary < 2**SIDE + 1:
        return f"{time} tokens of {vocabulary} kinds cannot hold {SIDE} rows of {SIDE} pixels"
    rows = ((images >= HALF) * 2 ** np.arange(SIDE)).sum(axis=2) + 1
    tokens = np.zeros((len(images), time), np.int32)
    tokens[:, :SIDE] = rows
    return {"tokens": tokens, "length": np.full(len(images), SIDE, np.int32)}


def fit_images(images: NDArray[Any], spec: ArraySpec) -> NDArray[Any] | str:
    """Enlarge (n, 8, 8) by whole factors and centre it with zeros in the model's input shape.

    A vector is taken as a square image, row by row. Returns the reason if the images do not fit.
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
