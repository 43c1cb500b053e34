"""The catalogue of silent differences against the frameworks themselves.

Each framework's probe runs in its sealed environment and says which side it takes; one that changes
sides with a new version fails here.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness import environments
from harness.arms import arms

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
}


def catalogue() -> list[dict[str, Any]]:
    text = (ROOT / "adapters" / "differences.toml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = tomllib.loads(text)["differences"]
    return found


def stated() -> dict[str, dict[str, str]]:
    """Framework -> difference -> side."""
    sides: dict[str, dict[str, str]] = {}
    for difference in catalogue():
        for framework, side in difference["sides"].items():
            sides.setdefault(framework, {})[difference["name"]] = side
    return sides


def probed(label: str) -> dict[str, dict[str, str]]:
    spec = arms()[ARMS[label]].mode.environment
    found = environments.find(spec)
    if found is None:
        pytest.skip(f"no sealed environment; type: levelfield env build {spec.label}")
    name, _, backend = label.partition("/")
    done = subprocess.run(
        [str(found.interpreter), "-P", str(PROBES / f"{name}.py")],  # -P: not the probes' folder
        env={**os.environ, "KERAS_BACKEND": backend or "jax", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sides: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return sides


@pytest.mark.real
@pytest.mark.parametrize("label", ARMS)
def test_every_framework_takes_the_side_that_the_catalogue_says(label: str) -> None:
    sides = probed(label)
    expected = {framework: stated()[framework] for framework in sides}
    assert sides == expected


def test_every_side_has_a_probe() -> None:
    said = set(stated())
    backends = {"keras on tensorflow", "keras on jax"}
    assert said == {label.partition("/")[0] for label in ARMS} | backends
    for difference in catalogue():
        assert set(difference) == {"name", "what", "handled", "sides"}
        assert len(difference["sides"]) > 1
        assert len(set(difference["sides"].values())) > 1, "where all agree nothing differs"
