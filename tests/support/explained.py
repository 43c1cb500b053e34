"""An explanation of two arms, as ``levelfield explain`` writes it."""

from __future__ import annotations

from dataclasses import replace

from levelfield.harness.analysis.explanation import (
    FILE_KIND,
    FILE_SCHEMA,
    ExplainedArm,
    ExplainedLayer,
    Explanation,
)
from levelfield.harness.proof.replies import Operator


def operator(name: str, category: str, milliseconds: float, calls: float = 1.0) -> Operator:
    return Operator(name, "caller" if calls > 1 else "", category, calls, milliseconds / 1000)


SLOW = ExplainedArm(
    arm="slow:eager",
    version="1.0",
    steps=5,
    plain_seconds=0.040,
    profiled_seconds=0.060,
    published_seconds=0.041,
    published_low=0.039,
    published_high=0.043,
    profiler="a profiler",
    trace="trace-k001-slow.json.gz",
    counts={"graph breaks": 2},
    new_counts={"graph breaks": 0},
    operators=(
        operator("fill", "computation", 30, 37),
        operator("mm", "product", 12),
        operator("step", "dispatch", 12),
    ),
)
FAST = replace(
    SLOW,
    arm="fast:jit",
    plain_seconds=0.020,
    profiled_seconds=0.020,
    published_seconds=0.020,
    trace=None,
    counts={},
    new_counts={},
    operators=(operator("dot", "product", 10), operator("copy.1", "copy", 10)),
)
EXPLANATION = Explanation(
    kind=FILE_KIND,
    schema=FILE_SCHEMA,
    created="2026-11-28T12:00:00+00:00",
    run="a" * 32,
    comparison="k001",
    title="mlp/tiny training",
    details="batch 8",
    product_per_second=1e11,
    notes=(),
    sentences=(),
    arms=(SLOW, FAST),
    layers=(
        ExplainedLayer("hidden1", "product", 90_000_000),
        ExplainedLayer("conv1", "convolution", 30_000_000),
    ),
)
