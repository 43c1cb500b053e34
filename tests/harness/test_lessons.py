"""The digits as lessons: who sees which image when, how it is fitted, and what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from levelfield import reference
from levelfield.harness.proof.lessons import (
    FLOORS,
    MARGIN,
    TEST_EXAMPLES,
    Expected,
    Lesson,
    draw_lesson,
    expected_curve,
    fit_images,
    fit_rows,
    judge_curve,
)
from levelfield.reference.case import Arrays, read_case, write_case
from levelfield.reference.learning import (
    Learned,
    learn,
    read_learned,
    rounded_differently,
    write_learned,
)
from levelfield.reference.spec import ArraySpec, Model, dimension

IMAGES = load_digits().images / 16.0
TARGETS = load_digits().target
NUMBERS = {image.astype(np.float32).tobytes(): n for n, image in enumerate(IMAGES)}
BATCH = 50


def lesson(*, seed: int = 5, epochs: int = 2, batch: int = BATCH, preset: str = "small") -> Lesson:
    drawn_lesson = draw_lesson("mlp", preset, batch=batch, seed=seed, epochs=epochs)
    assert isinstance(drawn_lesson, Lesson)
    return drawn_lesson


def numbers(sets: Sequence[Arrays]) -> list[int]:
    """Which digit of scikit-learn every example is, in the order of the sets."""
    features = np.concatenate([inputs["features"] for inputs in sets])
    return [NUMBERS[row.tobytes()] for row in features]


def epochs_of(drawn_lesson: Lesson) -> list[tuple[Sequence[Arrays], Sequence[Arrays]]]:
    """Of every epoch the sets that are learned from and those of the test."""
    size = drawn_lesson.train_sets + drawn_lesson.test_sets
    assert len(drawn_lesson.case.inputs) == drawn_lesson.epochs * size
    wholes = [
        drawn_lesson.case.inputs[n * size : (n + 1) * size] for n in range(drawn_lesson.epochs)
    ]
    return [
        (whole[: drawn_lesson.train_sets], whole[drawn_lesson.train_sets :]) for whole in wholes
    ]


def parts(drawn_lesson: Lesson) -> tuple[list[int], list[int]]:
    learned = [number for train, _ in epochs_of(drawn_lesson) for number in numbers(train)]
    tested = [numbers(test)[:TEST_EXAMPLES] for _, test in epochs_of(drawn_lesson)]
    assert all(rows == tested[0] for rows in tested), "every epoch has the same test"
    return learned, tested[0]


def test_every_digit_can_be_told_from_every_other() -> None:
    assert len(NUMBERS) == len(IMAGES) == 1797


def test_what_is_tested_is_never_learned_and_every_other_example_is() -> None:
    train, test = parts(lesson(epochs=2))
    assert len(test) == len(set(test)) == TEST_EXAMPLES
    assert set(train).isdisjoint(test)
    # The rest of an epoch that does not fill a batch is left out, but not the same one each time.
    whole = (len(IMAGES) - TEST_EXAMPLES) // BATCH * BATCH
    for epoch in (train[:whole], train[whole:]):
        assert len(epoch) == len(set(epoch)) == whole
    many, _ = parts(lesson(epochs=6))
    assert set(many) == set(range(len(IMAGES))) - set(test)


def test_labels_stay_with_their_images() -> None:
    drawn_lesson = lesson()
    given = np.concatenate([inputs["label"] for inputs in drawn_lesson.case.inputs])
    np.testing.assert_array_equal(given, TARGETS[numbers(drawn_lesson.case.inputs)])
    np.testing.assert_array_equal(drawn_lesson.labels, TARGETS[parts(drawn_lesson)[1]])


def test_the_seed_alone_decides_split_and_order() -> None:
    first, again, other = lesson(seed=5), lesson(seed=5), lesson(seed=6)
    assert numbers(first.case.inputs) == numbers(again.case.inputs)
    assert parts(first)[0] != parts(other)[0]
    assert set(parts(first)[1]) != set(parts(other)[1])
    for name, value in first.case.parameters.items():
        np.testing.assert_array_equal(value, again.case.parameters[name])


def test_the_order_differs_between_epochs_and_more_epochs_do_not_change_the_first() -> None:
    train, test = parts(lesson(epochs=2))
    half = len(train) // 2
    assert train[:half] != train[half:]
    once, same_test = parts(lesson(epochs=1))
    assert once == train[:half]
    assert same_test == test


def image_spec(height: int, width: int, channels: int = 1) -> ArraySpec:
    sizes = {"batch": 1, "height": height, "width": width, "channel": channels}
    return ArraySpec("image", tuple(dimension(name, size) for name, size in sizes.items()))


def vector_spec(size: int) -> ArraySpec:
    return ArraySpec("features", (dimension("batch", 1), dimension("in", size)))


@pytest.mark.parametrize(
    ("height", "width", "factor", "top", "left"),
    [(28, 28, 3, 2, 2), (16, 20, 2, 0, 2), (8, 8, 1, 0, 0), (20, 9, 1, 6, 0), (33, 32, 4, 0, 0)],
)
def test_images_are_enlarged_by_whole_factors_and_centred(
    height: int, width: int, factor: int, top: int, left: int
) -> None:
    fitted = fit_images(IMAGES[:7], image_spec(height, width))
    assert not isinstance(fitted, str)
    assert fitted.shape == (7, height, width, 1)
    assert fitted.dtype == np.float32
    for row in range(height):
        for column in range(width):
            y, x = (row - top) // factor, (column - left) // factor
            inside = 0 <= y < 8 and 0 <= x < 8
            expected = IMAGES[:7, y, x].astype(np.float32) if inside else np.zeros(7)
            np.testing.assert_array_equal(fitted[:, row, column, 0], expected)


@pytest.mark.parametrize("side", [28, 8])
def test_a_vector_is_the_square_image_row_by_row(side: int) -> None:
    flat = fit_images(IMAGES[:5], vector_spec(side * side))
    square = fit_images(IMAGES[:5], image_spec(side, side))
    assert not isinstance(flat, str)
    assert not isinstance(square, str)
    np.testing.assert_array_equal(flat, square.reshape(5, side * side))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (vector_spec(32), "32 features are no square image of 8x8 or more"),
        (vector_spec(49), "49 features are no square image of 8x8 or more"),
        (image_spec(7, 28), "inputs of 7x28x1 cannot hold 8x8 digits"),
        (image_spec(28, 28, 3), "inputs of 28x28x3 cannot hold 8x8 digits"),
    ],
)
def test_what_does_not_fit_says_why(spec: ArraySpec, reason: str) -> None:
    assert fit_images(IMAGES, spec) == reason


def test_a_lesson_that_cannot_be_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"batch": 8, "seed": 0, "epochs": 1}
    assert draw_lesson("mlp", "tiny", **words) == "32 features are no square image of 8x8 or more"
    assert draw_lesson("mlp", "small", batch=1438, seed=0, epochs=1) == (
        "a batch of 1438 is more than the 1437 training examples"
    )
    mlp: Model = replace(reference.get("mlp"), data=None)
    monkeypatch.setattr("levelfield.reference.case.get", lambda name: mlp)
    assert draw_lesson("mlp", "small", **words) == ("there is no data set for lessons of mlp")


@pytest.mark.parametrize("batch", [1, 50, 360, 400, 1437])
def test_a_lesson_has_whole_batches_and_every_test_example(batch: int) -> None:
    drawn_lesson = lesson(batch=batch, epochs=1)
    assert drawn_lesson.train_sets == 1437 // batch
    assert drawn_lesson.test_sets == -(-TEST_EXAMPLES // batch)
    assert {len(inputs["label"]) for inputs in drawn_lesson.case.inputs} == {batch}


def perfect(drawn_lesson: Lesson) -> dict[str, NDArray[np.float32]]:
    """Answers with all the weight on the right class, filled-up examples included."""
    return {
        f"output/{epoch}/{n}/logits": 100 * np.eye(10, dtype=np.float32)[inputs["label"]]
        for epoch, (_, tests) in enumerate(epochs_of(drawn_lesson))
        for n, inputs in enumerate(tests)
    }


def test_perfect_answers_score_one() -> None:
    drawn_lesson = lesson(epochs=2)
    for epoch in range(2):
        accuracy, loss = drawn_lesson.score(perfect(drawn_lesson), epoch)
        assert accuracy == 1.0
        assert loss == pytest.approx(0, abs=1e-6)


def test_an_epoch_is_scored_by_its_own_answers() -> None:
    drawn_lesson = lesson(epochs=2)
    answers = perfect(drawn_lesson)
    first = {name: -value for name, value in answers.items() if name.startswith("output/0/")}
    assert drawn_lesson.score({**answers, **first}, 0)[0] == 0
    assert drawn_lesson.score({**answers, **first}, 1)[0] == 1


def test_each_test_example_counts_once_and_those_filled_up_do_not_count() -> None:
    drawn_lesson = lesson(epochs=1)
    answers = perfect(drawn_lesson)
    last = f"output/0/{len(answers) - 1}/logits"
    real = TEST_EXAMPLES % BATCH
    assert 0 < real < BATCH
    answers[last][real:] = -answers[last][real:]
    assert drawn_lesson.score(answers, 0)[0] == 1.0
    answers[last][real - 1] = -answers[last][real - 1]
    assert drawn_lesson.score(answers, 0)[0] == 1 - 1 / TEST_EXAMPLES
    answers["output/0/0/logits"][0] = -answers["output/0/0/logits"][0]
    assert drawn_lesson.score(answers, 0)[0] == 1 - 2 / TEST_EXAMPLES


def test_indifference_scores_the_entropy_of_ten_classes() -> None:
    drawn_lesson = lesson()
    zeros = {name: np.zeros_like(value) for name, value in perfect(drawn_lesson).items()}
    accuracy, loss = drawn_lesson.score(zeros, 0)
    assert accuracy == (drawn_lesson.labels == 0).mean()
    assert loss == pytest.approx(np.log(10))


def test_rows_of_a_digit_are_tokens_and_can_be_read_back() -> None:
    images = load_digits().images
    drawn_lesson = fit_rows(images, vocabulary=257, time=10)
    assert not isinstance(drawn_lesson, str)
    tokens = drawn_lesson["tokens"]
    assert (tokens[:, 8:] == 0).all()
    assert (tokens[:, :8] > 0).all()
    assert (drawn_lesson["length"] == 8).all()
    bits = (tokens[:, :8, None] - 1) >> np.arange(8) & 1
    np.testing.assert_array_equal(bits, images >= 8)


@pytest.mark.parametrize(("vocabulary", "time"), [(256, 8), (257, 7)])
def test_rows_that_do_not_fit_say_why(vocabulary: int, time: int) -> None:
    words = f"{time} tokens of {vocabulary} kinds cannot hold 8 rows of 8 pixels"
    assert fit_rows(IMAGES, vocabulary, time) == words


def test_a_sequence_model_has_a_lesson() -> None:
    drawn_lesson = draw_lesson("lstm", "small", batch=64, seed=0, epochs=1)
    assert isinstance(drawn_lesson, Lesson)
    assert set(drawn_lesson.case.inputs[0]) == {"tokens", "length", "label"}
    encoded = draw_lesson("encoder", "small", batch=64, seed=0, epochs=1)
    assert isinstance(encoded, Lesson)
    assert set(encoded.case.inputs[0]) == {"tokens", "label"}
    ours, theirs = (lesson.case.inputs[0]["tokens"] for lesson in (encoded, drawn_lesson))
    np.testing.assert_array_equal(ours, theirs)
    assert draw_lesson("transformer", "small", batch=64, seed=0, epochs=1) == (
        "there is no data set for lessons of transformer"
    )
    assert draw_lesson("lstm", "tiny", batch=8, seed=0, epochs=1) == (
        "6 tokens of 20 kinds cannot hold 8 rows of 8 pixels"
    )


def test_a_recommender_ranks_what_it_has_not_seen() -> None:
    drawn_lesson = draw_lesson("neumf", "small", batch=100, seed=1, epochs=1)
    assert isinstance(drawn_lesson, Lesson)
    learned, ranked = (
        {name: np.concatenate([s[name] for s in sets]) for name in ("user", "item", "label")}
        for sets in (
            drawn_lesson.case.inputs[: drawn_lesson.train_sets],
            drawn_lesson.case.inputs[drawn_lesson.train_sets :],
        )
    )
    users = drawn_lesson.case.sizes["users"]
    positive = learned["label"][:, 0] == 1
    pairs = set(zip(learned["user"][positive], learned["item"][positive], strict=True))
    # A hundred for each user, the held-out one first, none of them learned as met.
    np.testing.assert_array_equal(ranked["user"], np.repeat(np.arange(users), 100))
    np.testing.assert_array_equal(ranked["label"][:, 0], np.tile(np.arange(100) == 0, users))
    assert pairs.isdisjoint(zip(ranked["user"], ranked["item"], strict=True))
    assert 0.19 < positive.mean() < 0.21
    perfect_scores = {
        f"output/0/{n}/logits": s["label"]
        for n, s in enumerate(drawn_lesson.case.inputs[drawn_lesson.train_sets :])
    }
    assert drawn_lesson.score(perfect_scores, 0)[0] == 1
    nothing = {name: 0 * value for name, value in perfect_scores.items()}
    assert drawn_lesson.score(nothing, 0)[0] == 0
    stream = np.random.default_rng(0)
    chance = {name: stream.random(value.shape) for name, value in perfect_scores.items()}
    assert 0.05 < drawn_lesson.score(chance, 0)[0] < 0.15


def test_too_few_items_cannot_be_ranked() -> None:
    reason = draw_lesson("neumf", "tiny", batch=8, seed=0, epochs=1)
    assert reason == "13 items are too few to rank 100 of them"


def test_two_towers_are_tested_with_users_and_items_that_they_never_saw() -> None:
    drawn_lesson = draw_lesson("twotower", "small", batch=50, seed=1, epochs=2)
    assert isinstance(drawn_lesson, Lesson)
    ((learned, tested), _) = epochs_of(drawn_lesson)
    for tower in ("user", "item"):
        seen, new = (
            {row.tobytes() for s in sets for row in s[tower]} for sets in (learned, tested)
        )
        assert seen.isdisjoint(new) and len(new) == TEST_EXAMPLES
    own = {f"output/0/{n}/logits": np.eye(50) for n in range(drawn_lesson.test_sets)}
    assert drawn_lesson.score(own, 0)[0] == 1
    others = {name: 1 - value for name, value in own.items()}
    assert drawn_lesson.score(others, 0)[0] == 0
    flat = {name: 0 * value for name, value in own.items()}
    assert drawn_lesson.score(flat, 0)[1] == pytest.approx(np.log(50))


def test_two_towers_generalise_from_features() -> None:
    """Above chance by far: a test user has 31 other items to choose from."""
    drawn_lesson = draw_lesson("twotower", "small", batch=32, seed=1, epochs=1)
    assert isinstance(drawn_lesson, Lesson)
    learned = next(learn(drawn_lesson.case, "adam", epochs=1, train_sets=drawn_lesson.train_sets))
    curve = drawn_lesson.curve(learned.train_losses, learned.outputs)
    assert curve[-1, 0] > 6 / 32
    assert curve[-1, 1] < np.log(32) - 0.5


# -- the reference's own lesson ---------------------------------------------------------------

FLAT = np.array([[0.5, 1.0, 1.0], [0.9, 0.4, 0.3]])  # accuracy, test loss, training loss by epoch


def test_the_tolerance_is_the_scatter_so_far_and_never_below_its_floor() -> None:
    other = FLAT + np.array([[0.02, 0.0, 0.0], [0.0, 0.1, 0.001]])
    expected = expected_curve([FLAT, other])
    np.testing.assert_array_equal(expected.curve, FLAT)
    np.testing.assert_allclose(expected.tolerance[0], [MARGIN * 0.02, *FLOORS[1:]])
    np.testing.assert_allclose(expected.tolerance[1], [MARGIN * 0.02, MARGIN * 0.1, FLOORS[2]])


def test_a_curve_within_its_tolerance_passes_without_a_word() -> None:
    expected = Expected(FLAT, np.broadcast_to(FLOORS, FLAT.shape))
    checks = judge_curve(FLAT + 0.9 * FLOORS, expected, seed=7)
    assert [(check.passed, check.note) for check in checks] == [(True, "")] * 3


def test_a_lesson_not_learned_says_what_was_expected() -> None:
    expected = Expected(FLAT, np.broadcast_to(FLOORS, FLAT.shape))
    curve = FLAT + np.array([[0.0, 0.0, 0.0], [-0.778, 1.9, 0.0]])
    accuracy, loss, training = judge_curve(curve, expected, seed=7)
    assert accuracy.note == (
        "12.2% after 2 epochs of seed 7, the reference's 90.0%, tolerance 4.0%"
    )
    assert loss.note == "2.3 after 2 epochs of seed 7, the reference's 0.4, tolerance 0.05"
    assert [accuracy.passed, loss.passed, training.passed] == [False, False, True]


def test_losses_that_are_not_finite_never_pass() -> None:
    expected = Expected(FLAT, np.broadcast_to(FLOORS, FLAT.shape))
    curve = np.array([[0.5, 1.0, 1.0], [0.0, np.nan, np.inf]])
    assert [check.passed for check in judge_curve(curve, expected, seed=7)] == [False] * 3
    (check,) = judge_curve(FLAT, Expected(curve, expected.tolerance), seed=7)
    assert check.passed and check.note == "the reference's own lesson of seed 7 diverges"


def test_outputs_that_are_not_finite_are_scored_without_a_warning() -> None:
    drawn_lesson = lesson(epochs=1)
    logits = np.full((BATCH, 10), np.inf, np.float32)
    outputs = {f"output/0/{n}/logits": logits for n in range(drawn_lesson.test_sets)}
    accuracy, loss = drawn_lesson.score(outputs, 0)
    assert accuracy == 0 and np.isnan(loss)


def test_the_reference_learns_the_digits_and_rounding_changes_little() -> None:
    drawn_lesson = lesson(epochs=1)
    first, other = learn(drawn_lesson.case, "adam", epochs=1, train_sets=drawn_lesson.train_sets)
    curves = [
        drawn_lesson.curve(trained.train_losses, trained.outputs) for trained in (first, other)
    ]
    assert curves[0][0, 0] > 0.8
    assert 0 < np.abs(curves[0] - curves[1]).max() < 1e-3


def test_a_lesson_rounded_differently_has_the_same_examples_and_the_same_test() -> None:
    drawn_lesson = lesson(epochs=2)
    other = rounded_differently(drawn_lesson.case, 1, epochs=2, train_sets=drawn_lesson.train_sets)
    size = drawn_lesson.train_sets + drawn_lesson.test_sets
    for number, (sets, changed) in enumerate(
        zip(drawn_lesson.case.inputs, other.inputs, strict=True)
    ):
        same = numbers([sets]) == numbers([changed])
        assert same is (number % size >= drawn_lesson.train_sets)
        assert sorted(numbers([sets])) == sorted(numbers([changed]))
        np.testing.assert_array_equal(changed["label"], TARGETS[numbers([changed])])
    for name, value in drawn_lesson.case.parameters.items():
        np.testing.assert_allclose(other.parameters[name], value, rtol=5e-6)
        assert (other.parameters[name] != value).any()


def test_a_run_and_a_case_are_read_as_they_were_written(tmp_path: Path) -> None:
    drawn_lesson = lesson(epochs=1)
    write_case(drawn_lesson.case, tmp_path / "case.npz")
    case = read_case(tmp_path / "case.npz")
    assert (case.model, case.preset, case.batch) == (drawn_lesson.case.model, "small", BATCH)
    for ours, theirs in (
        (case.inputs, drawn_lesson.case.inputs),
        ([case.parameters], [drawn_lesson.case.parameters]),
    ):
        for got, expected in zip(ours, theirs, strict=True):
            assert set(got) == set(expected)
            assert all((got[name] == expected[name]).all() for name in got)
    learned = Learned((0.5, 0.25), {"output/0/0/logits": np.ones((2, 3), np.float32)})
    write_learned(learned, tmp_path / "learned.npz")
    again = read_learned(tmp_path / "learned.npz")
    assert again.train_losses == learned.train_losses
    np.testing.assert_array_equal(again.outputs["output/0/0/logits"], np.ones((2, 3)))
