"""The catalogue of silent differences against the frameworks themselves.

Each framework's probe runs in its sealed environment and says which side it takes; one that changes
sides with a new version fails here.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from levelfield import reference
from levelfield.harness.environments import sealed
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.plan.arms import arms
from levelfield.harness.plan.suite import load_suite
from tests.support.long import long_unless

ROOT = Path(__file__).resolve().parent.parent.parent
PROBES = Path(__file__).parent / "probes"
ARMS = {
    "torch": "torch:eager",
    "tensorflow": "tensorflow:eager",
    "jax": "jax:jit",
    "flax": "flax:jit",
    "keras/tensorflow": "keras:tensorflow",
    "keras/jax": "keras:jax",
    "onnxruntime": "onnxruntime:cpu",
    "openvino": "openvino:cpu",
    "theano": "theano:c",
    "mxnet": "mxnet:imperative",
    "chainer": "chainer:eager",
    "caffe/opencv": "caffe:opencv",
    "keras2/theano": "keras2:theano",
}


def catalogue() -> list[dict[str, Any]]:
    text = (ROOT / "adapters" / "differences.toml").read_text(encoding="utf-8")
    differences: list[dict[str, Any]] = tomllib.loads(text)["differences"]
    return differences


def stated() -> dict[str, dict[str, str]]:
    """Framework -> difference -> side."""
    sides: dict[str, dict[str, str]] = {}
    for difference in catalogue():
        for framework, side in difference["sides"].items():
            sides.setdefault(framework, {})[difference["name"]] = side
    return sides


def probe(label: str) -> subprocess.CompletedProcess[str] | None:
    """None where there is no sealed environment."""
    resolution = sealed.find(arms()[ARMS[label]].mode.environment)
    if resolution is None:
        return None
    name, _, backend = label.partition("/")
    return subprocess.run(
        [
            str(resolution.interpreter),
            "-P",
            str(PROBES / f"{name}.py"),
        ],  # -P: not the probes' folder
        env={**os.environ, "KERAS_BACKEND": backend or "jax", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )


Probes = dict[str, Future[subprocess.CompletedProcess[str] | None]]


@pytest.fixture(scope="module")
def probes(request: pytest.FixtureRequest) -> Iterator[Probes]:
    """All that are asked for, one to a core: each takes seconds, most of them an import."""
    wanted = [
        item.callspec.params["label"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "probes" in item.fixturenames
    ]
    with ThreadPoolExecutor(len(available_cores())) as pool:
        yield {label: pool.submit(probe, label) for label in wanted}


@pytest.mark.real
@pytest.mark.parametrize(
    "label", [long_unless(arm in load_suite("tiny").arms, label) for label, arm in ARMS.items()]
)
def test_every_framework_takes_the_side_that_the_catalogue_says(label: str, probes: Probes) -> None:
    done = probes[label].result()
    if done is None:
        pytest.skip(f"no sealed environment; type: levelfield env build {label}")
    assert done.returncode == 0, done.stderr[-2000:]
    sides: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    expected = {framework: stated()[framework] for framework in sides}
    assert sides == expected


def test_every_side_has_a_probe() -> None:
    statements = set(stated())
    within = {"keras on tensorflow", "keras on jax", "tensorflow.compat.v1"}
    assert statements == {label.partition("/")[0] for label in ARMS} | within
    for difference in catalogue():
        assert set(difference) - {"explains"} == {"name", "what", "handled", "sides"}
        assert len(difference["sides"]) > 1
        assert len(set(difference["sides"].values())) > 1, "where all agree nothing differs"


def test_what_explains_a_wrong_cell_names_arms_and_models_that_exist() -> None:
    explaining = [entry["explains"] for entry in catalogue() if "explains" in entry]
    assert explaining
    for entry in explaining:
        assert any(fnmatchcase(arm, entry["arms"]) for arm in arms())
        assert set(entry["models"]) <= set(reference.definitions())
        assert set(entry["optimizers"]) <= {"sgd", "momentum", "adam"}
