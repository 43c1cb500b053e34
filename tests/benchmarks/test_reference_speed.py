"""How fast the references are: the truth is not what one waits for, the mark no straw man."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import reference
from harness.engine import session
from harness.engine.workers import Worker, Workers
from harness.environments import sealed
from harness.plan.arms import get_arm
from harness.plan.cells import plan
from harness.plan.suite import Suite, load_suite, validated
from harness.proof.cases import CaseFile
from harness.records import store
from reference.case import run_numpy
from tests.support.long import NETS, long_unless

pytestmark = pytest.mark.alone

TINY_SECONDS, RESNET_SECONDS = 1.0, 10.0


@pytest.mark.parametrize("name", list(reference.definitions()))
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


ARMS = ("reference:jax", "flax:jit")
SLICE_SECONDS, ROUNDS, BEHIND = 0.1, 9, 1.10


@contextmanager
def beside(suite: Suite, folder: Path) -> Iterator[list[Worker]]:
    """A fresh process of the reference and one of Flax on the same core."""
    cells, resolutions = plan(suite), session.resolve_arms(suite.arms, {})
    with ExitStack() as stack:
        run = stack.enter_context(
            store.create(folder, "beside", session.describe_run(suite, cells, resolutions))
        )
        workers = Workers(run, suite.limits, resolutions, folder, random.Random(0))
        yield [
            stack.enter_context(workers.start(get_arm(cell.arm), cell, purpose="resident"))
            for cell in cells
        ]


def ratio(suite: Suite, case: CaseFile, folder: Path) -> float:
    """Seconds of the reference over those of Flax: slices of both in turn, so that what the
    machine does meanwhile hits both alike."""
    cell, ratios = plan(suite)[0], []
    with beside(suite, folder) as pair:
        steps = []
        for worker in pair:
            worker.load(cell, case)
            warm = worker.warm_up(cell, suite.effort)
            steps.append(max(1, round(SLICE_SECONDS / warm["step_seconds"])))
        for _ in range(ROUNDS):
            seconds = []
            for worker, count in zip(pair, steps, strict=True):
                reply = worker.slot(cell, count, extra=0, kinds=["throughput"], rewarm_seconds=0.02)
                seconds.append(reply["slices"]["throughput"]["seconds"] / count)
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "phase"),
    [
        long_unless(name in NETS and phase == "training", name, phase)
        for name in reference.definitions()
        for phase in ("inference", "training")
    ],
)
def test_the_jitted_reference_is_within_a_tenth_of_flax(
    name: str, phase: str, tmp_path: Path
) -> None:
    """Processes of one program differ by more than slices do: one pair that says no is not
    believed before two more."""
    for arm in ARMS:
        spec = get_arm(arm).mode.environment
        if sealed.find(spec) is None:
            pytest.skip(f"no sealed environment; type: levelfield env build {spec.label}")
    suite = validated(
        replace(
            load_suite("tiny"),
            arms=ARMS,
            twin="none",
            models=(name,),
            phases=(phase,),
            presets=("small",),
            optimizers=("adam",),
            batches=(32,),
        )
    )
    path = tmp_path / "case" / "case.npz"
    case = CaseFile(path, lambda: reference.draw_case(name, "small", seed=1, batch=32))
    found = [ratio(suite, case, tmp_path / "1")]
    if found[0] >= BEHIND:
        found += [ratio(suite, case, tmp_path / folder) for folder in ("2", "3")]
    print(f"{name} {phase}: {found} of flax:jit")
    assert statistics.median(found) < BEHIND
