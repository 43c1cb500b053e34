"""The reference against models of torch.nn in float64, which know nothing of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from levelfield import reference
from levelfield.harness.environments import sealed
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.proof.answer_file import relative_error
from levelfield.reference.answers import run_jax, run_numpy
from levelfield.reference.case import write_case
from tests.support.long import long_unless

ROOT = Path(__file__).parent.parent.parent
MODELS = ("twotower", "encoder", "transformer")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "preset"),
    [
        long_unless(preset == "tiny", name, preset)
        for name in MODELS
        for preset in ("tiny", "small")
    ],
)
def test_outputs_loss_gradients_and_tokens_are_those_of_torch_nn(
    name: str, preset: str, tmp_path: Path
) -> None:
    environment = sealed.find(get_arm("torch:eager").mode.environment)
    if environment is None:
        pytest.skip("no sealed environment; type: levelfield env build torch")
    case = reference.draw_case(name, preset, seed=11, batch=5)
    write_case(case, tmp_path / "case.npz")
    script = str(ROOT / "tests/support/oracle_torch.py")
    paths = [str(tmp_path / "case.npz"), str(tmp_path / "answers.npz")]
    done = subprocess.run(
        [str(environment.interpreter), "-P", script, *paths],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(paths[1]) as stored:
        oracle = {key: stored[key] for key in stored.files}
    ours = run_jax(case, steps=0, graded=[0])
    assert relative_error(ours.outputs[0]["logits"], oracle["output"]) < 1e-13
    assert abs(ours.losses[0]["loss"] / float(oracle["loss"]) - 1) < 1e-13
    assert {f"gradient/{key}" for key in ours.gradients[0]} <= set(oracle)
    # A gradient that is zero by mathematics, such as a key's bias, is compared with the largest.
    largest = max(float(np.abs(value).max()) for value in ours.gradients[0].values())
    for key, gradient in ours.gradients[0].items():
        expected = oracle[f"gradient/{key}"]
        norm = max(float(np.linalg.norm(expected)), 1e-3 * largest)
        assert float(np.linalg.norm(gradient - expected)) < 1e-12 * norm, key
    tokens = [] if case.model.generation is None else [run_numpy(case).tokens[0]]
    assert ("tokens" in oracle) == bool(tokens)
    for decoded in tokens:
        np.testing.assert_array_equal(decoded, oracle["tokens"])
