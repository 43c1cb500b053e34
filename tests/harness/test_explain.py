"""``levelfield explain``: its sentences follow from two profiles, and foreign files are checked."""

from __future__ import annotations

import gzip
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from levelfield import reference
from levelfield.harness.analysis.explanation import (
    FILE_SCHEMA,
    FOLDER,
    UnreadableExplanation,
    by_category,
    by_kind,
    explanations,
    section,
    sentences,
)
from levelfield.harness.cli.application import answer
from levelfield.harness.engine.profiling import chosen_steps, keep_trace
from levelfield.harness.engine.workers import UNTIMED
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.plan.arms import registered
from levelfield.harness.selftest.machinery import mutant_suite, run_suite
from levelfield.harness.selftest.probes import EFFORT, frameworks
from levelfield.reference.trace import layer_operations, summarize
from tests.support.explained import EXPLANATION, FAST, SLOW

Typed = Callable[..., int]
Capture = pytest.CaptureFixture[str]


# ---- sentences and tables ------------------------------------------------------------------------


def test_the_sentences_say_where_the_gap_is_with_figures() -> None:
    where, operators, unknown = sentences(EXPLANATION)
    assert "takes 40 ms longer" in where
    assert "30 ms more in other computation (75 % of the gap)" in where
    assert "12 ms more in dispatch (30 % of the gap)" in where
    assert "10 ms less in copies" in where
    assert "matrix products" not in where  # 2 of 40 ms
    assert "fill (in caller; 30 ms, 37 calls)" in operators
    assert "120 MFLOP a step, run at 10 (slow:eager) and 12 (fast:jit) GFLOP/s" in operators
    assert "the profiler of slow:eager attributes 90 % of the step" in unknown.lower()
    assert "makes it 50 % longer" in unknown
    assert "fast:jit attributes 100 % of the step to operators and does not make it" in unknown
    assert (
        "slow:eager reports graph breaks: 2 before the profiled steps and none in them" in unknown
    )


def test_the_order_of_the_arms_changes_no_sentence() -> None:
    assert sentences(replace(EXPLANATION, arms=(FAST, SLOW))) == sentences(EXPLANATION)


def test_the_slower_arm_is_that_of_the_run() -> None:
    """Its published time decides, not the profiled step."""
    turned = replace(FAST, published_seconds=0.9, plain_seconds=0.050)
    where = sentences(replace(EXPLANATION, arms=(SLOW, turned)))[0]
    assert "fast:jit, the slower arm, has the shorter step" in where
    assert "does not explain the gap" in where


def test_a_gap_that_is_turned_round_here_is_not_explained() -> None:
    """Another program may slow one of the two down while they are profiled."""
    turned = replace(FAST, published_seconds=0.9, profiled_seconds=0.9)
    where = sentences(replace(EXPLANATION, arms=(SLOW, turned)))[0]
    assert (
        "In the run fast:jit is the slower arm, and here its step without a profiler is the shorter"
        " one (20 ms; slow:eager: 40 ms)"
    ) in where
    assert "does not explain the gap" in where


def test_no_gap_is_explained_where_there_is_none() -> None:
    where = sentences(replace(EXPLANATION, arms=(FAST, replace(FAST, arm="other:jit"))))[0]
    assert "no gap to explain" in where


def test_an_arm_without_a_profiler_has_its_step_alone() -> None:
    bare = replace(SLOW, profiler=None, profiled_seconds=None, trace=None, operators=())
    where, operators, unknown = sentences(replace(EXPLANATION, arms=(bare, FAST)))
    assert "The adapter of slow:eager offers no profiler" in where
    assert "41 ms of slow:eager and 20 ms of fast:jit" in where
    assert "of slow:eager" not in operators
    assert "the profiler of slow:eager" not in unknown.lower()
    none = replace(EXPLANATION, arms=(bare, replace(bare, arm="b:c")))
    assert sentences(none)[1] == "No operator is known."


def test_a_step_that_differs_from_the_run_is_said_to() -> None:
    arms = replace(SLOW, plain_seconds=0.082), FAST
    unknown = sentences(replace(EXPLANATION, arms=arms))[2]
    assert "without a profiler slow:eager takes 2 times as long here as in the run" in unknown
    assert "here as in the run" not in sentences(EXPLANATION)[2]


def test_categories_and_the_rest_add_up_to_the_step() -> None:
    *rows, step = by_category(EXPLANATION)
    assert step.slower == SLOW.profiled_seconds
    assert sum(row.slower or 0 for row in rows) == pytest.approx(step.slower)
    assert sum(row.faster or 0 for row in rows) == pytest.approx(step.faster)
    kinds = {row.name: (row.operations, row.slower, row.faster) for row in by_kind(EXPLANATION)}
    assert kinds == {
        "matrix products": (90_000_000, 0.012, 0.010),
        "convolutions": (30_000_000, None, None),
    }


def test_a_section_of_a_report_has_the_sentences_and_the_table() -> None:
    shown = section(EXPLANATION)
    assert shown.title == "Why slow:eager is slower than fast:jit: mlp/tiny training"
    assert shown.sentences == sentences(EXPLANATION)
    assert shown.columns == ("time goes to", "slow:eager (ms)", "fast:jit (ms)", "gap (ms)")
    assert shown.rows[0] == ("matrix products", "12", "10", "2")
    assert shown.rows[-1] == ("profiled step", "60", "20", "40")
    bare = replace(SLOW, profiler=None, profiled_seconds=None, trace=None, operators=())
    assert section(replace(EXPLANATION, arms=(bare, FAST))).rows[-1][1:] == ("-", "20", "-")


@pytest.mark.parametrize("model", reference.definitions())
def test_the_operations_of_layers_add_up_to_those_of_a_step(model: str) -> None:
    definition = reference.get(model)
    counts = summarize(definition, "tiny", 4)
    sums = {
        "inference": counts.inference_operations,
        "training": counts.training_operations,
        **({"generation": counts.generation_operations} if definition.generation else {}),
    }
    for phase, expected in sums.items():
        layers = layer_operations(definition, "tiny", 4, phase)
        assert sum(layer.operations for layer in layers) == expected
        assert len({layer.name for layer in layers}) == len(layers)


# ---- files ---------------------------------------------------------------------------------------


def written(folder: Path, content: Any, name: str = "explanation-k001-a-b.json") -> Path:
    path = folder / FOLDER / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_explanation_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert explanations(tmp_path) == []
    written(tmp_path, EXPLANATION.to_json())
    (read,) = explanations(tmp_path)
    assert read.sentences == sentences(EXPLANATION)
    assert replace(read, sentences=()) == EXPLANATION


GOOD = EXPLANATION.to_json()
HOSTILE = {
    "no JSON": "hello",
    "nested too deep": "[" * 100_000,
    "a list": [],
    "another kind": {**GOOD, "kind": "levelfield-run"},
    "a later schema": {**GOOD, "schema": FILE_SCHEMA + 1},
    "one arm": {**GOOD, "arms": GOOD["arms"][:1]},
    "no arms": {name: value for name, value in GOOD.items() if name != "arms"},
    "a trace elsewhere": {
        **GOOD,
        "arms": [{**GOOD["arms"][0], "trace": "../../secret"}, GOOD["arms"][1]],
    },
    "seconds below zero": {
        **GOOD,
        "arms": [{**GOOD["arms"][0], "plain_seconds": -1}, GOOD["arms"][1]],
    },
    "too many layers": {**GOOD, "layers": GOOD["layers"] * 5000},
    "too many bytes": json.dumps(GOOD) + " " * (5 << 20),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_foreign_explanation_is_left_out_with_a_warning(content: Any, tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    written(tmp_path, content, "explanation-k002-a-b.json")
    with pytest.warns(UnreadableExplanation, match="left out: .*k002") as warned:
        assert len(explanations(tmp_path)) == 1
    assert "\n" not in str(warned[0].message)


def test_texts_of_an_explanation_cannot_steer_a_terminal(tmp_path: Path) -> None:
    written(tmp_path, {**GOOD, "title": "\x1b[2Jmlp\nx", "notes": ["\u202eevil"]})
    (read,) = explanations(tmp_path)
    assert read.title == "[2Jmlp x"
    assert read.notes == ("evil",)


def test_a_trace_is_kept_only_if_it_is_a_plain_file_of_json(tmp_path: Path) -> None:
    trace, target = tmp_path / "trace.json.gz", tmp_path / "kept"
    trace.write_bytes(gzip.compress(b"{}"))
    keep_trace(trace, target)
    assert target.read_bytes() == trace.read_bytes()
    link, pipe, text = tmp_path / "link", tmp_path / "pipe", tmp_path / "text"
    link.symlink_to(trace)
    os.mkfifo(pipe)
    text.write_text("secret")
    for path in (link, pipe, text, tmp_path / "missing", tmp_path):
        with pytest.raises(WorkerFailure, match="its trace"):
            keep_trace(path, target)


@pytest.mark.parametrize(
    ("seconds", "steps"), [(1e-4, 20), (0.1, 10), (0.5, 5), (20.0, 3), (100.0, 1)]
)
def test_the_number_of_steps_follows_from_their_time(seconds: float, steps: int) -> None:
    assert chosen_steps(seconds) == steps


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Return what types a command -> its exit code."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which answer() replaces

    def type_words(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["levelfield", *words])
        return answer()

    return type_words


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A proof of three arms of which one is wrong; none of them has a profiler."""
    arms = ["misbehaving:well", "misbehaving:slow-device", "misbehaving:weight-decay"]
    suite = mutant_suite(
        "explained", arms, effort=EFFORT, phases=("inference", "training"), optimizers=("momentum",)
    )
    with ExitStack() as stack:
        for framework in frameworks():
            stack.enter_context(registered(framework))
        yield run_suite(tmp_path_factory.mktemp("runs"), suite, lambda line: None, only_gate=True)


WELL, SLOW_ARM = "misbehaving:well", "misbehaving:slow-device"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("mpl", WELL, SLOW_ARM), "unknown model 'mpl' in this run; did you mean mlp"),
        (("mlp", "misbehaving:wel", SLOW_ARM), "unknown arm 'misbehaving:wel' in the comparisons"),
        (("mlp", WELL, WELL), "an arm cannot be slower than itself"),
        (("mlp", WELL, SLOW_ARM), "2 comparisons match: k001 (mlp/tiny inference"),
        (("mlp", WELL, SLOW_ARM, "--batch", "7"), "no comparison of mlp matches --batch 7"),
        (("mlp", WELL, SLOW_ARM, "--phase", ""), "the argument after --phase is empty"),
        (("mlp", WELL, SLOW_ARM, "--steps", "0"), "--steps"),
        (
            ("mlp", WELL, "misbehaving:weight-decay", "--phase", "training"),
            "misbehaving:weight-decay is wrong in this run",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(
    run: Path, typed: Typed, words: tuple[str, ...], expected: str, capfd: Capture
) -> None:
    assert typed("explain", str(run), *words) == 2
    printed = capfd.readouterr()
    assert expected in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")
    assert not (run / FOLDER).exists()


def test_arms_without_a_profiler_are_explained_by_their_steps(
    run: Path, typed: Typed, tmp_path: Path, capfd: Capture
) -> None:
    """The processes are not timed ones, and the run's own records stay as they are."""
    before = (run / "records.jsonl").read_bytes()
    words = (
        "explain",
        str(run),
        "mlp/tiny",
        WELL,
        SLOW_ARM,
        "--comparison",
        "k002",
        "--steps",
        "3",
    )
    assert typed(*words, "--output", str(tmp_path / FOLDER), "--json") == 0
    printed = json.loads(capfd.readouterr().out)
    (read,) = explanations(tmp_path)
    assert printed["sentences"] == list(read.sentences)
    assert "offer no profiler" in read.sentences[0]
    assert [one.arm for one in read.arms] == [WELL, SLOW_ARM]
    assert {one.steps for one in read.arms} == {3}
    assert all(one.plain_seconds > 0 and one.published_seconds is None for one in read.arms)
    assert [layer.name for layer in read.layers] == ["hidden1", "logits"]
    assert (run / "records.jsonl").read_bytes() == before
    assert [*tmp_path.rglob("*.json")] == [tmp_path / FOLDER / read_name("k002")]
    assert typed(*words, "--output", str(tmp_path / FOLDER)) == 0
    assert "offer no profiler" in " ".join(capfd.readouterr().out.split())


def read_name(comparison: str) -> str:
    return f"explanation-{comparison}-misbehaving_well-misbehaving_slow-device.json"


def test_a_folder_that_cannot_be_written_is_refused(
    run: Path, typed: Typed, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "file").touch()
    words = ("explain", str(run), "mlp", WELL, SLOW_ARM, "--phase", "training")
    assert typed(*words, "--output", str(tmp_path / "file" / "folder")) == 2
    assert "choose --output DIR" in capfd.readouterr().err


def test_no_process_that_is_profiled_is_timed() -> None:
    assert "profile" in UNTIMED
