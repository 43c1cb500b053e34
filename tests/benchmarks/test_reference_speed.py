"""How fast the NumPy reference is: the truth must not be what one waits for."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import reference
from reference.case import run_numpy

TINY_SECONDS, RESNET_SECONDS = 1.0, 10.0


@pytest.mark.parametrize("name", list(reference.models()))
def test_a_tiny_case_takes_less_than_a_second(benchmark: BenchmarkFixture, name: str) -> None:
    case = reference.draw_case(name, "tiny", seed=1)
    benchmark.pedantic(run_numpy, (case,), rounds=3)
    assert benchmark.stats["min"] < TINY_SECONDS


def test_resnet50_on_one_large_image_takes_less_than_ten_seconds(
    benchmark: BenchmarkFixture,
) -> None:
    case = reference.draw_case("resnet50", "paper", seed=1, batch=1, sets=1)
    benchmark.pedantic(run_numpy, (case,), rounds=1)
    assert benchmark.stats["min"] < RESNET_SECONDS
