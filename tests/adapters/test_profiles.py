"""Time by operator from played traces: every instant counts once, and nothing is made up."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from levelfield.adapters import profiles
from levelfield.adapters.profiled_xla import Program, category_by_name
from levelfield.adapters.profiles import MARK, chrome_events, compressed, operators
from levelfield.harness.plan.vocabulary import OPERATOR_CATEGORIES
from levelfield.harness.proof.replies import MOST_OPERATORS


def event(name: str, begin: float, end: float, thread: int = 1, **more: Any) -> dict[str, Any]:
    """An event of a trace, in microseconds."""
    return {"name": name, "ts": begin, "dur": end - begin, "tid": thread, "ph": "X", **more}


def category(name: str, callers: tuple[str, ...]) -> str | None:
    if name == "wait":
        return None
    return "product" if name.startswith("mm") else "dispatch"


def microseconds(events: list[dict[str, Any]], **more: Any) -> dict[str, float]:
    rows = operators(events, category, **more)
    return {row["name"]: pytest.approx(row["seconds"] * 1e6) for row in rows}


def test_the_words_are_those_of_the_host() -> None:
    assert profiles.CATEGORIES == OPERATOR_CATEGORIES
    assert profiles.MOST_OPERATORS + len(profiles.CATEGORIES) <= MOST_OPERATORS


def test_a_caller_has_what_its_callees_leave() -> None:
    events = [event("linear", 0, 10), event("mm", 2, 8), event("view", 3, 4)]
    assert microseconds(events) == {"mm": 5, "linear": 4, "view": 1}


def test_time_beyond_the_mark_does_not_count() -> None:
    events = [event(MARK, 10, 20), event("mm", 0, 12), event("view", 18, 30), event("mm", 40, 50)]
    assert microseconds(events) == {"mm": 2, "view": 2}


def test_time_before_the_begin_does_not_count() -> None:
    assert microseconds([event("mm", 0, 10), event("mm", 10, 13)], begin=9.0) == {"mm": 4}


def test_a_kernel_outranks_what_other_threads_dispatch_at_that_moment() -> None:
    events = [event("call", 0, 10), event("mm", 4, 12, thread=2)]
    assert microseconds(events) == {"mm": 8, "call": 4}


def test_two_kernels_at_once_share_the_time() -> None:
    events = [event("mm1", 0, 10), event("mm2", 0, 10, thread=2), event("mm2", 10, 14, thread=2)]
    assert microseconds(events) == {"mm1": 5, "mm2": 9}


def test_waiting_takes_no_time() -> None:
    assert microseconds([event("wait", 0, 10), event("mm", 3, 5, thread=2)]) == {"mm": 2}


def test_overlapping_events_of_one_thread_count_once() -> None:
    """Profilers round their figures, so that a callee may end after its caller."""
    seconds = microseconds([event("linear", 0, 10), event("mm", 8, 12), event("view", 11, 13)])
    assert sum(value.expected for value in seconds.values()) <= 13


def test_a_row_names_the_caller_of_most_of_its_time() -> None:
    events = [event("forward", 0, 4), event("mm", 1, 2), event("backward", 5, 20)]
    events += [event("copy", 6, 10), event("mm", 7, 9), event("own", 21, 22, within="a.py")]
    rows = {row["name"]: row for row in operators(events, category)}
    assert rows["mm"]["within"] == "backward"
    assert rows["mm"]["calls"] == 2
    assert rows["own"]["within"] == "a.py"
    assert rows["backward"]["within"] == ""


def test_many_operators_become_one_of_each_category() -> None:
    count = profiles.MOST_OPERATORS + 50
    events = [event(f"{'mm' if n % 2 else 'f'}{n}", 10 * n, 10 * n + 5) for n in range(count)]
    rows = operators(events, category)
    assert len(rows) == profiles.MOST_OPERATORS + 2
    assert sum(row["seconds"] for row in rows) == pytest.approx(count * 5e-6)
    assert sum(row["calls"] for row in rows) == count
    assert {row["category"] for row in rows if row["name"] == "others"} == {"product", "dispatch"}


@pytest.mark.parametrize("content", [[event("mm", 0, 1)], {"traceEvents": [event("mm", 0, 1)]}])
def test_a_trace_is_a_list_or_an_object(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(content))
    name = compressed(str(path), str(tmp_path))
    with gzip.open(tmp_path / name) as file:
        assert json.load(file) == content
    for one in (path, tmp_path / name):
        assert [one["name"] for one in chrome_events(str(one))] == ["mm"]


HLO = """HloModule jit_update, is_scheduled=true

%fused_computation (p0: f32[2,3], p1: f32[3,4]) -> f32[2,4] {
  %p0 = f32[2,3]{1,0} parameter(0)
  %p1 = f32[3,4]{1,0} parameter(1)
  ROOT %dot.7 = f32[2,4]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}
}

%fused_computation.1 (p0: f32[2,4]) -> f32[4,2] {
  %p0.1 = f32[2,4]{1,0} parameter(0)
  %index = s32[] constant(1)
  %add.9 = s32[] add(%index, %index)
  ROOT %transpose.1 = f32[4,2]{1,0} transpose(%p0.1), dimensions={1,0}
}

%fused_computation.2 (p0: f32[2,4]) -> f32[2,4] {
  %p0.2 = f32[2,4]{1,0} parameter(0)
  ROOT %tanh.1 = f32[2,4]{1,0} tanh(%p0.2)
}

ENTRY %main.1 (a: f32[2,3], b: f32[3,4]) -> (f32[4,2]) {
  %a = f32[2,3]{1,0} parameter(0)
  %b = f32[3,4]{1,0} parameter(1)
  %copy.1 = f32[3,4]{1,0} copy(%b)
  %copy.2 = f32[3,4]{0,1} copy(%b)
  %ynn_fusion = f32[2,4]{1,0} fusion(%a, %copy.1), kind=kCustom, calls=%fused_computation, \
metadata={op_name="jit(update)/jvp()/dot_general" stack_frame_id=8}
  %tanh_fusion = f32[2,4]{1,0} fusion(%ynn_fusion), kind=kLoop, calls=%fused_computation.2
  %transpose_add_fusion = f32[4,2]{1,0} fusion(%tanh_fusion), calls=%fused_computation.1
  %transpose_fusion = f32[4,2]{1,0} fusion(%tanh_fusion), calls=%fused_computation.1
  %while.3 = (s32[], f32[4,2]{1,0}) while(%tuple.2), condition=%c, body=%d
  %convolution = f32[2,4]{1,0} convolution(%a, %b), window={size=1}
  %broadcast.2 = f32[2,4]{1,0} broadcast(%a), dimensions={}
  ROOT %tuple = (f32[4,2]{1,0}) tuple(%transpose_fusion)
}
"""


def test_instructions_of_xla_have_categories_by_the_text_of_their_program() -> None:
    program = Program(HLO)
    expected = {
        "copy.1": "copy",
        "copy.2": "layout",
        "ynn_fusion": "product",
        "tanh_fusion": "computation",
        "transpose_add_fusion": "computation",
        "transpose_fusion": "layout",
        "while.3": "dispatch",
        "convolution": "convolution",
        "broadcast.2": "computation",
        "elsewhere": None,
    }
    assert {name: program.category(name) for name in expected} == expected
    assert program.source("ynn_fusion") == "jvp()/dot_general"
    assert program.source("tanh_fusion") == program.source("elsewhere") == ""


def test_instructions_of_xla_have_categories_by_their_names() -> None:
    expected = {
        "dot.12": "product",
        "wrapped_transpose.3": "layout",
        "bitcast_copy_fusion": "copy",
        "multiply_add_fusion.1": "computation",
        "while.28": "dispatch",
        "ThunkExecutor::Execute": None,
    }
    assert {name: category_by_name(name) for name in expected} == expected
