"""A look at a large cell takes a moment beside the blocks that it judges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from levelfield.harness.statistics.decisions import comparison_verdicts
from levelfield.harness.statistics.estimates import Floats
from levelfield.harness.statistics.variances import variance_components

pytestmark = pytest.mark.alone

ARMS, BLOCKS, ROUNDS = 8, 30, 30
NAMES = [f"arm{index}" for index in range(ARMS)]


@pytest.fixture(scope="module")
def logs() -> Floats:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.01, (ARMS, BLOCKS, ROUNDS))
    return (
        noise
        + generator.normal(0, 0.01, (ARMS, BLOCKS, 1))
        + np.linspace(0, 0.2, ARMS)[:, None, None]
    )


def test_verdicts(benchmark: Any, logs: Floats) -> None:
    disturbed = np.zeros((BLOCKS, ROUNDS), bool)
    disturbed[:, ::7] = True
    result = benchmark(comparison_verdicts, logs, NAMES, level="thorough", disturbed=disturbed)
    assert len(result.pairs) == 28


def test_verdicts_with_bootstrap(benchmark: Any, logs: Floats) -> None:
    def look() -> Any:
        generator = np.random.default_rng(1)
        return comparison_verdicts(logs, NAMES, level="thorough", generator=generator)

    assert benchmark.pedantic(look, rounds=3, warmup_rounds=1).blocks == BLOCKS


def test_components(benchmark: Any, logs: Floats) -> None:
    assert len(benchmark(variance_components, logs[0])) == 2
