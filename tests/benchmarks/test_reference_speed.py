"""How fast the references are: the truth is not what one waits for, the mark no straw man."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from levelfield import reference
from levelfield.harness.engine import session
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.workers import Workers
from levelfield.harness.environments import sealed
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import Suite, load_suite, validated
from levelfield.harness.proof.cases import CaseFile
from levelfield.harness.records import store
from levelfield.reference.answers import run_numpy
from tests.support.long import long_unless

pytestmark = pytest.mark.alone

# How many small products (8x8, float64) take as long as a tiny case: medians on a server's core,
# while other work ran. A tiny case costs calls of NumPy, and so does a small product.
SMALL_PRODUCTS = {
    "alexnet": 42_000,
    "bert": 2000,
    "dcgan": 2100,
    "encoder": 1200,
    "googlenet": 33_000,
    "gpt2": 9000,
    "gru": 1000,
    "lenet5": 2000,
    "lstm": 800,
    "mlp": 52,
    "neumf": 116,
    "resnet101": 5900,
    "resnet152": 5800,
    "resnet18": 7900,
    "resnet50": 8200,
    "rnn": 265,
    "transformer": 11_000,
    "twotower": 130,
    "vae": 96,
    "vgg11": 5000,
    "vgg16": 7600,
}
# How many times as long as one product of matrices with as many multiply-adds ResNet-50 takes on
# one image of 224x224: the rest is unfolding windows, norms and ReLUs. Measured in the same place.
OVER_ONE_PRODUCT = 2.4
SLACK = 2.5  # how many times longer it may take; a reference three times slower fails
TRIES, SMALL_ROUNDS, RESNET_ROUNDS = 3, 31, 3


def small_products(count: int) -> None:
    matrix = np.ones((8, 8))
    for _ in range(count):
        matrix @ matrix


def cpu_ratio(work: Callable[[], Any], other: Callable[[], Any], rounds: int) -> float:
    """CPU seconds of ``work`` over those of ``other``, on one core, in turn; the median."""

    def seconds(timed: Callable[[], Any]) -> float:
        begin = time.process_time()
        timed()
        return time.process_time() - begin

    with threadpool_limits(1):
        return statistics.median(seconds(work) / seconds(other) for _ in range(rounds))


def least_ratio(
    work: Callable[[], Any], other: Callable[[], Any], rounds: int, *, most: float
) -> float:
    """The ratio, measured again before it is believed to be ``most`` or more."""
    ratios: list[float] = []
    while len(ratios) < TRIES and min(ratios, default=most) >= most:
        ratios.append(cpu_ratio(work, other, rounds))
    return min(ratios)


@pytest.mark.parametrize("name", list(reference.definitions()))
def test_a_tiny_case_takes_as_long_as_its_number_of_small_products(
    benchmark: BenchmarkFixture, name: str
) -> None:
    case = reference.draw_case(name, "tiny", seed=1)
    benchmark.pedantic(run_numpy, (case,), rounds=3, warmup_rounds=1)
    work, other = partial(run_numpy, case), partial(small_products, SMALL_PRODUCTS[name])
    assert least_ratio(work, other, SMALL_ROUNDS, most=SLACK) < SLACK


def test_resnet50_on_one_large_image_takes_little_longer_than_its_products(
    benchmark: BenchmarkFixture,
) -> None:
    case = reference.draw_case("resnet50", "paper", seed=1, batch=1, sets=1)
    operations = reference.summarize(case.model, "paper", 1).inference_operations
    stream, rows = np.random.default_rng(0), 1024
    left = stream.random((operations // (2 * rows**2), rows))
    right = stream.random((rows, rows))
    benchmark.pedantic(run_numpy, (case,), rounds=1)
    work, most = partial(run_numpy, case), SLACK * OVER_ONE_PRODUCT
    assert least_ratio(work, lambda: left @ right, RESNET_ROUNDS, most=most) < most


ARMS = ("reference:jax", "flax:jit")
IN_SECONDS = ("mlp", "lstm")  # a convolution takes as long as both: in `make test-long`
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
            steps.append(max(1, round(SLICE_SECONDS / warm.step_seconds)))
        for _ in range(ROUNDS):
            seconds = []
            for worker, count in zip(pair, steps, strict=True):
                slot = worker.slot(cell, count, extra=0, kinds=["throughput"], rewarm_seconds=0.02)
                seconds.append(slot.reply.slices["throughput"].seconds / count)
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "phase"),
    [
        long_unless(name in IN_SECONDS and phase == "training", name, phase)
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
    ratios = [ratio(suite, case, tmp_path / "1")]
    if ratios[0] >= BEHIND:
        ratios += [ratio(suite, case, tmp_path / folder) for folder in ("2", "3")]
    print(f"{name} {phase}: {ratios} of flax:jit")
    assert statistics.median(ratios) < BEHIND
