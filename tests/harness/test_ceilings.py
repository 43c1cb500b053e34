"""Work and ceilings: closed forms, and shares that mean what they say."""

from __future__ import annotations

import math

import pytest

from levelfield import reference
from levelfield.harness.analysis.roofline import roofline_share, work
from levelfield.harness.machine import ceilings
from levelfield.harness.machine.ceilings import COPY, PRODUCT, Ceiling
from levelfield.reference.errors import UnknownName
from levelfield.reference.trace import summarize

ROWS = [
    Ceiling(1, PRODUCT, 1, 1e9),
    Ceiling(1, PRODUCT, 2, 2e9),
    Ceiling(1, COPY, 1 << 16, 8e9),
    Ceiling(1, COPY, 1 << 24, 4e9),
    Ceiling(1, COPY, 1 << 28, 1e9),
]


def test_work_of_the_multilayer_perceptron_is_its_closed_form() -> None:
    layers, batch = ((784, 512), (512, 512), (512, 10)), 64
    products = [2 * batch * i * o for i, o in layers]
    count = sum(i * o + o for i, o in layers)
    operations, least = work("mlp", "paper", batch, phase="inference", optimizer=None)
    assert operations == sum(products)
    assert least == 4 * (count + batch * 784 + batch * 10)
    operations, least = work("mlp", "paper", batch, phase="training", optimizer="adam")
    # Nothing needs the gradient of the first layer's input.
    assert operations == 3 * sum(products) - products[0]
    # Parameters read and written; two state arrays read and written. Gradients need no memory.
    assert least == 4 * (2 * count + batch * 784 + batch) + 4 * 4 * count
    _, without = work("mlp", "paper", batch, phase="training", optimizer="sgd")
    assert least - without == 4 * 4 * count


def test_a_table_that_is_looked_up_costs_the_rows_of_its_ids() -> None:
    users, items, width, batch = 6_040, 3_706, 8 + 32, 1
    dense = 64 * 32 + 32 + 32 * 16 + 16 + 16 * 8 + 8 + 16 + 1
    count, touched = (users + items) * width + dense, 2 * batch * width + dense
    _, least = work("neumf", "paper", batch, phase="inference", optimizer=None)
    assert least == 4 * (touched + 2 * batch + batch)  # user and item, and the logit
    _, least = work("neumf", "paper", batch, phase="training", optimizer="sgd")
    assert least == 4 * (2 * touched + 3 * batch)  # rows read and written
    _, adam = work("neumf", "paper", batch, phase="training", optimizer="adam")
    _, momentum = work("neumf", "paper", batch, phase="training", optimizer="momentum")
    assert adam - least == 2 * 4 * (count - touched) + 2 * 2 * 4 * count
    assert momentum - least == 2 * 4 * (count - touched) + 2 * 4 * count


def test_no_more_rows_are_read_than_a_table_has() -> None:
    _, least = work("neumf", "tiny", 1000, phase="inference", optimizer=None)
    tables, dense = (11 + 13) * (3 + 4), 8 * 6 + 6 + 6 * 4 + 4 + 7 + 1
    assert least == 4 * (tables + dense + 3 * 1000)


def test_positions_beyond_a_length_read_nothing() -> None:
    sizes, batch = reference.get("rnn").sizes("paper"), 2
    width, units, classes = sizes["width"], sizes["units"], sizes["classes"]
    dense = (width + units + 1) * units + (units + 1) * classes
    tokens = 100 + 25  # the longest and the shortest sequence
    _, least = work("rnn", "paper", batch, phase="inference", optimizer=None)
    # Rows of the table, the rest of the parameters, tokens and lengths; logits.
    assert least == 4 * (tokens * width + dense + tokens + batch + batch * classes)


def test_a_step_does_not_move_parameters_that_no_loss_depends_on() -> None:
    """BERT's loss does not depend on its pooler."""
    sizes = reference.get("bert").sizes("paper")
    summary = summarize(reference.get("bert"), "paper", 4)
    pooler = sizes["width"] ** 2 + sizes["width"]
    assert summary.moved_count == summary.parameter_count - pooler
    _, sgd = work("bert", "paper", 4, phase="training", optimizer="sgd")
    _, momentum = work("bert", "paper", 4, phase="training", optimizer="momentum")
    untouched = summary.moved_count - summary.touched_count
    assert momentum - sgd == 2 * 4 * (untouched + summary.moved_count)


def test_training_reads_no_input_of_another_phase() -> None:
    """A training step of GPT-2 reads tokens and labels, and not the prompt of generation."""
    sizes, batch = reference.get("gpt2").sizes("tiny"), 4
    summary = summarize(reference.get("gpt2"), "tiny", batch)
    assert summary.training_bytes == 4 * (2 * summary.touched_count + 2 * batch * sizes["time"])


def test_a_tied_table_is_read_whole_and_positions_as_far_as_the_sequence() -> None:
    """GPT-2's token table is its output layer as well."""
    sizes = reference.get("gpt2").sizes("paper")
    summary = summarize(reference.get("gpt2"), "paper", 1)
    left_out = (sizes["positions"] - sizes["time"]) * sizes["width"]
    assert summary.touched_count == summary.parameter_count - left_out
    tokens = reference.get("gpt2").generation.count(sizes)  # type: ignore[union-attr]
    one_position = summary.parameter_count - (sizes["positions"] - 1) * sizes["width"]
    _, least = work("gpt2", "paper", 1, phase="generation", optimizer=None)
    assert least == tokens * 4 * one_position


def test_the_share_is_that_of_the_nearer_roof() -> None:
    assert roofline_share(2e9, 0, 2.0, ROWS) == pytest.approx(0.5)
    assert roofline_share(0, 1 << 28, 1.0, ROWS) == pytest.approx((1 << 28) / 1e9)
    assert roofline_share(2e9, 1000, 4.0, ROWS) == pytest.approx(0.25)


def test_what_fits_a_cache_is_held_against_the_cache() -> None:
    assert roofline_share(0, 1 << 16, 1.0, ROWS) == pytest.approx((1 << 16) / 8e9)
    assert roofline_share(0, 1 << 24, 1.0, ROWS) == pytest.approx((1 << 24) / 4e9)
    assert roofline_share(0, 1 << 40, 1.0, ROWS) == pytest.approx((1 << 40) / 1e9)


def test_without_ceilings_there_is_no_share() -> None:
    assert math.isnan(roofline_share(1.0, 1.0, 1.0, []))


def test_this_machine_has_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "PRODUCT_SIZES", (256,))
    monkeypatch.setattr(ceilings, "COPY_BYTES", (1 << 18,))
    monkeypatch.setattr(ceilings, "PRODUCT_SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "COPY_SECONDS", 0.01)
    rows = list(ceilings.measure(2))
    assert [row.what for row in rows] == [PRODUCT, COPY]
    assert all(row.per_second > 1e6 for row in rows)


def test_a_phase_that_a_model_does_not_have_has_no_work() -> None:
    """Records outlive definitions: what once generated may not do so any more."""
    with pytest.raises(UnknownName, match="unknown phase 'generation' in model 'mlp'"):
        work("mlp", "tiny", 8, phase="generation", optimizer=None)
