"""The profilers of real frameworks: rows, counts and a trace, from processes that are never timed.

An arm whose environment is not built is skipped, saying which command builds it.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from levelfield.harness.analysis.explanation import ExplainedArm
from levelfield.harness.engine import profiling, session
from levelfield.harness.engine.profiling import Profiling, Published
from levelfield.harness.environments import sealed
from levelfield.harness.plan.arms import arms
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import load_suite, validated
from tests.support.long import long_unless

pytestmark = pytest.mark.alone

QUICK = ("torch:eager", "jax:jit")
COUNTED = {
    "torch:compile": "graphs",
    "jax:jit": "compilations by XLA",
    "flax:jit": "compilations by XLA",
    "keras:jax": "compilations by XLA",
    "tensorflow:function": "traces of tf.function",
    "keras:tensorflow": "traces of the step",
}
OTHERS = ("torch:eager", "keras:torch", "onnxruntime:cpu", "openvino:cpu")
PROFILED = [long_unless(arm in QUICK, arm) for arm in (*COUNTED, *OTHERS)]


def profiled(arm: str, model: str, folder: Path) -> ExplainedArm:
    """Profile the tiny preset of a model: its training, where the arm trains."""
    resolution = sealed.resolve(arms()[arm].mode.environment, {})
    if resolution.how not in ("sealed", "found"):
        pytest.skip(f"neither sealed nor found: {resolution.reason}")
    phase = "training" if "training" in arms()[arm].mode.phases else "inference"
    suite = validated(
        replace(
            load_suite("tiny"),
            arms=(arm,),
            models=(model,),
            phases=(phase,),
            optimizers=("adam",),
            twin="none",
        )
    )
    cells = plan(suite)
    asked = Profiling(suite, cells, session.resolve_arms((arm,), {}), 5, folder)
    (one,) = profiling.profiled_arms(asked, {arm: Published()})
    return one


@pytest.mark.parametrize("arm", PROFILED)
def test_a_profile_has_operators_counts_and_a_trace(arm: str, tmp_path: Path) -> None:
    one = profiled(arm, "mlp", tmp_path)
    assert one.version
    assert one.plain_seconds > 0
    if arm == "openvino:cpu":
        assert (one.profiler, one.trace, one.operators) == (None, None, ())
        return
    assert one.trace is not None
    with gzip.open(tmp_path / one.trace) as file:
        trace = json.load(file)
    assert trace["traceEvents"] if isinstance(trace, dict) else trace
    assert one.seconds_of("product") > 0
    assert one.profiled_seconds is not None
    assert 0 < one.attributed_seconds <= 1.06 * one.profiled_seconds  # replies.TWO_CLOCKS_SHARE
    assert all(row.calls > 0 for row in one.operators)
    counted = COUNTED.get(arm)
    assert counted is None or one.counts[counted] > 0
    assert not any(one.new_counts.values())


@pytest.mark.parametrize("arm", [long_unless(False, arm) for arm in ("jax:jit", "torch:eager")])
def test_convolutions_are_told_from_products(arm: str, tmp_path: Path) -> None:
    one = profiled(arm, "lenet5", tmp_path)
    assert one.seconds_of("convolution") > 0
    assert one.seconds_of("product") > 0
