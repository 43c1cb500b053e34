"""Suite files: what is wrong in one is said in one line, with its place and what was meant."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from levelfield.harness.cli.env import _spec_of, specs_by_label
from levelfield.harness.cli.options import Selection, narrowed
from levelfield.harness.cli.run import _say_what_controls
from levelfield.harness.engine.session import planned
from levelfield.harness.environments.sealed import Resolution
from levelfield.harness.errors import BadInput
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.plan import suite as suites
from levelfield.harness.plan.arms import arms, get_arm
from levelfield.harness.plan.cells import Cell, plan, with_twin
from levelfield.harness.plan.suite import Effort, Limits, Suite, load_suite, suite_names, validated
from levelfield.reference.errors import UnknownName

GOOD = """\
title = "Any words: mpl, tinny, adma, trainig, gpu, float23"
models = ["mlp"]
arms = ["reference:numpy"]
presets = ["tiny"]  # a remark: modles, sede
phases = ["training"]
optimizers = ["adam"]
batches = [8]
threads = [1]
numeric = "float32"
device = "cpu"
seed = 3

[effort]
rounds = 2
slice_seconds = 0.5
memory = true

[limits]
step_seconds = 10
memory_gib = 0

[variables]
XLA_FLAGS = "--xla_cpu_enable_fast_math=false"
"""

# what is replaced, by what, the line where it stands, what the message must name
WRONG = {
    "unknown key": ("seed = 3", "sede = 3", 11, "unknown key 'sede'", "seed"),
    "unknown key like a title": ("seed = 3", "titles = 3", 11, "unknown key 'titles'", "title"),
    "unknown key of effort": ("rounds = 2", "ruonds = 2", 14, "unknown key 'ruonds'", "rounds"),
    "key of the other table": (
        "rounds = 2",
        "step_seconds = 2",
        14,
        "'step_seconds'",
        "did you mean",
    ),
    "unknown key of limits": ("memory_gib", "memory_gb", 20, "unknown key 'memory_gb'", "_gib"),
    "unknown model": ('["mlp"]', '["mpl"]', 2, "unknown model 'mpl'", "mlp"),
    "model on a line of its own": ('["mlp"]', '[\n"mlp",\n"lenet"]', 4, "'lenet'", "lenet5"),
    "unknown arm": ("reference:numpy", "reference:nunpy", 3, "arm 'reference:nunpy'", ":numpy"),
    "pattern without match": ("reference:numpy", "torhc:*", 3, "unknown arm 'torhc:*'", "torch:"),
    "unknown preset": ('["tiny"]', '["tinny"]', 4, "unknown preset 'tinny'", "tiny"),
    "unknown phase": ('["training"]', '["trainig"]', 5, "unknown phase 'trainig'", "training"),
    "unknown optimizer": ('["adam"]', '["adma"]', 6, "unknown optimizer 'adma'", "adam"),
    "unknown numeric": ('"float32"', '"float23"', 9, "numeric mode 'float23'", "float32"),
    "unknown device": ('"cpu"', '"gpu"', 10, "unknown device 'gpu'", "cpu"),
    "text for a list": ('["mlp"]', '"mlp"', 2, "'models' is a list", "at least one"),
    "empty list": ("[8]", "[]", 7, "'batches' is a list", "at least one"),
    "text for a whole number": ("seed = 3", 'seed = "3"', 11, "'seed'", "a whole number, not text"),
    "number for text": ('"cpu"', "1", 10, "'device' is text", "not a whole number"),
    "date for text": ('"cpu"', "2026-11-28", 10, "'device' is text", "not a date"),
    "table for a whole number": ("seed = 3", "seed = {a=1}", 11, "'seed'", "not a table"),
    "fraction for a whole number": ("rounds = 2", "rounds = 2.5", 14, "'rounds'", "whole number"),
    "text for a number": ("seconds = 0.5", 'seconds = "0.5"', 15, "'slice_seconds'", "a number"),
    "bool for a whole number": ("rounds = 2", "rounds = true", 14, "'rounds'", "not true or false"),
    "bool for a number": ("seconds = 10", "seconds = true", 19, "'step_seconds'", "a number"),
    "number for a bool": ("memory = true", "memory = 1", 16, "'memory' is true or false", "whole"),
    "bool for a seed": ("seed = 3", "seed = false", 11, "'seed'", "not true or false"),
    "date for a seed": ("seed = 3", "seed = 2026-11-20", 11, "'seed'", "a whole number"),
    "bool in a list": ("[8]", "[8, true]", 7, "'batches' cannot hold True", ""),
    "text for a batch": ("[8]", '["8"]', 7, "'batches' cannot hold '8'", ""),
    "fraction for a batch": ("[8]", "[8.0]", 7, "'batches' cannot hold 8.0", ""),
    "number for a model": ('["mlp"]', "[1]", 2, "'models' cannot hold 1", ""),
    "list in a list": ('["mlp"]', '[["mlp"]]', 2, "'models' cannot hold ['mlp']", ""),
    "batch of none": ("[8]", "[8, 0]", 7, "batches[1] is 0, not a whole number from 1", ""),
    "negative batch": ("[8]", "[-8]", 7, "batches[0] is -8, not a whole number from 1", ""),
    "endless batch": ("[8]", f"[{10**20}]", 7, f"batches[0] is {10**20}, not a", "to 1,048,576"),
    "negative seed": ("seed = 3", "seed = -3", 11, "seed is -3, not a whole number", "from 0"),
    "endless seed": ("seed = 3", f"seed = {10**23}", 11, f"seed is {10**23}, not", "to 1e+15"),
    "endless rounds": ("rounds = 2", f"rounds = {10**20}", 14, f"rounds is {10**20}", "to 1e+15"),
    "threads beyond the machine": ("[1]", "[1, 9999]", 8, "available cores, not 9999", ""),
    "no threads": ("[1]", "[0]", 8, "threads must be from 1", "not 0"),
    "misspelt all": ("[1]", '["al"]', 8, "number of threads 'al'", "all"),
    "zero rounds": ("rounds = 2", "rounds = 0", 14, "rounds is 0, not a whole number from 1", ""),
    "no process of memory": (
        "memory = true",
        "memory_processes = 0",
        16,
        "memory_processes is 0, not a whole number from 1",
        "",
    ),
    "zero seconds": ("seconds = 0.5", "seconds = 0.0", 15, "slice_seconds is 0.0, not", "above 0"),
    "negative limit": ("seconds = 10", "seconds = -1", 19, "step_seconds is -1, not", "above 0"),
    "negative memory": ("memory_gib = 0", "memory_gib = -1", 20, "memory_gib is -1, not", "from 0"),
    "no number": ("seconds = 0.5", "seconds = nan", 15, "slice_seconds is nan, not", "above 0"),
    "negative wait": (
        "memory_gib = 0",
        "memory_gib = -0.5",
        20,
        "memory_gib is -0.5, not",
        "from 0",
    ),
    "endless": ("seconds = 0.5", "seconds = inf", 15, "slice_seconds is inf, not", "above 0"),
    "reserved variable": ("XLA_FLAGS", "OMP_NUM_THREADS", 23, "Levelfield decides", "leave it out"),
    "variable of Python": ("XLA_FLAGS", "PYTHONPATH", 23, "workers get as PYTHONPATH", "leave"),
    "variable of no name": ("XLA_FLAGS", '"A B"', 23, "cannot be an environment variable", ""),
    "number for a variable": (
        '"--xla_cpu_enable_fast_math=false"',
        "1",
        23,
        "'XLA_FLAGS'",
        "text",
    ),
}


def message_of(path: Path | str) -> str:
    with pytest.raises((BadInput, UnknownName)) as caught:
        load_suite(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def message_of_text(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    message = message_of(path)
    assert message.startswith(str(path))
    return message


def test_the_suite_that_the_faults_are_seeded_into_is_good(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_suite(str(path)) == Suite(
        name="mine",
        title="Any words: mpl, tinny, adma, trainig, gpu, float23",
        models=("mlp",),
        arms=("reference:numpy",),
        presets=("tiny",),
        phases=("training",),
        optimizers=("adam",),
        batches=(8,),
        threads=(1,),
        seed=3,
        effort=Effort(rounds=2, slice_seconds=0.5, memory=True),
        limits=Limits(step_seconds=10, memory_gib=0),
        variables={"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"},
    )


@pytest.mark.parametrize("fault", WRONG)
def test_a_fault_is_named_with_its_line_and_what_was_meant(tmp_path: Path, fault: str) -> None:
    good, wrong, line, named, meant = WRONG[fault]
    assert GOOD.count(good) == 1
    message = message_of_text(tmp_path, GOOD.replace(good, wrong))
    assert re.match(rf"{re.escape(str(tmp_path))}/mine\.toml:{line}: ", message), message
    assert named in message
    assert meant in message.split(named)[1]


@pytest.mark.parametrize("key", ["title", "models", "arms"])
def test_a_key_that_every_suite_needs_is_missed(tmp_path: Path, key: str) -> None:
    text = re.sub(rf"^{key} = .*\n", "", GOOD, flags=re.MULTILINE)
    assert f"the key '{key}' is missing" in message_of_text(tmp_path, text)


@pytest.mark.parametrize("key", ["effort", "limits", "variables"])
def test_a_table_that_is_none_says_how_to_write_one(tmp_path: Path, key: str) -> None:
    text = f"{key} = 3\n" + GOOD.split("[effort]")[0]
    message = message_of_text(tmp_path, text)
    assert f":1: '{key}' is a table: write [{key}]" in message


def test_a_quota_bounds_the_threads_of_a_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("threads = [1]", 'threads = ["all"]'))
    monkeypatch.setattr(suites, "most_threads", lambda: 2)
    monkeypatch.setattr(suites, "available_cores", lambda: [0, 1, 2, 3])
    assert load_suite(str(path)).threads == (2,)
    message = message_of_text(tmp_path, GOOD.replace("threads = [1]", "threads = [3]"))
    words = "from 1 to the 2 available cores within the quota of this control group, not 3"
    assert words in message


def test_a_mistake_of_syntax_is_located(tmp_path: Path) -> None:
    message = message_of_text(tmp_path, GOOD.replace("[8]", "[8"))
    assert "is not TOML" in message
    assert "line 8" in message


def test_what_cannot_be_read_as_text_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(bytes(range(128, 256)))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    for path in (binary, folder, loop, tmp_path / "missing.toml"):
        message = message_of(path)
        assert message.startswith(f"cannot read the suite {path}: ")
        assert "levelfield list suites" in message


@pytest.mark.parametrize("name", ["suite.toml", "suite.txt", "suite"])
def test_a_file_is_a_suite_whatever_its_name_and_first_mark(tmp_path: Path, name: str) -> None:
    """Editors may begin a file with a byte-order mark."""
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_suite(str(path)).seed == 3
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("seed", "sede").encode())
    assert f"{path}:11: unknown key 'sede'" in message_of(path)


def test_a_suite_without_a_cell_is_refused() -> None:
    suite = replace(load_suite("tiny"), models=("mlp", "lenet5"), phases=("generation",))
    words = "none of these models generates: mlp, lenet5; name another phase"
    with pytest.raises(BadInput, match=words):
        plan(suite)


def test_an_unknown_suite_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    assert message_of("quik") == "unknown suite 'quik' in the command line; did you mean quick?"
    assert "unknown suite" in message_of(tmp_path)


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_loads_and_has_cells(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert plan(suite)


def suite_of(*patterns: str) -> Suite:
    return Suite(name="s", title="t", models=("mlp",), arms=patterns)


def test_patterns_expand_in_order_and_once() -> None:
    numpy, jax, eager = "reference:numpy", "reference:jax", "torch:eager"
    expanded = validated(suite_of(eager, "reference:*", "*:numpy", "torch:eag??", numpy)).arms
    assert expanded == (eager, numpy, jax)
    assert validated(suite_of("*")).arms == tuple(arms())
    assert validated(suite_of(jax, "*")).arms[0] == jax


def test_nothing_is_measured_twice_because_it_was_named_twice() -> None:
    cores = len(available_cores())
    twice = Suite(
        name="s",
        title="t",
        models=("mlp", "lenet5", "mlp"),
        arms=("reference:jax",),
        presets=("tiny", "tiny"),
        phases=("training", "training"),
        optimizers=("adam", "sgd", "adam"),
        batches=(8, 8),
        threads=("all", cores),  # type: ignore[arg-type]
    )
    suite = validated(replace(twice, twin="none"))
    assert suite.models == ("mlp", "lenet5")
    assert suite.optimizers == ("adam", "sgd")
    assert suite.threads == (cores,)
    assert len(plan(suite)) == 4


def test_a_plan_gives_every_combination_one_cell_with_an_id_of_its_own() -> None:
    suite = replace(
        validated(suite_of("reference:*", "torch:eager")),
        twin="none",
        models=("mlp", "lenet5"),
        presets=("tiny", "small"),
        optimizers=("sgd", "adam"),
        batches=(4, 8),
        threads=(1, 2),
    )
    cells = plan(suite)
    # inference once and training per optimizer
    assert len(cells) == 3 * 2 * 2 * 2 * 2 * (1 + 2)
    assert len({cell.id for cell in cells}) == len(cells)
    assert len({replace(cell, id="") for cell in cells}) == len(cells)
    for cell in cells:
        assert (cell.optimizer is None) == (cell.phase == "inference")
        assert cell.arm == f"{cell.framework}:{cell.mode}"


def test_a_sweep_of_lengths_takes_the_place_of_the_presets_own() -> None:
    suite = replace(
        validated(suite_of("reference:numpy")),
        twin="none",
        models=("mlp", "lstm", "gpt2"),
        presets=("tiny",),
        phases=("inference", "generation"),
        times=(3, 6),
    )
    planned = [(cell.model, cell.preset, cell.phase) for cell in plan(validated(suite))]
    assert planned == [
        ("mlp", "tiny", "inference"),
        ("lstm", "tiny+time=3", "inference"),
        ("lstm", "tiny+time=6", "inference"),
        ("gpt2", "tiny+time=3", "inference"),
        ("gpt2", "tiny+time=6", "inference"),
        ("gpt2", "tiny", "generation"),
    ]
    with pytest.raises(UnknownName, match=r"'tiny\+time=99' in model gpt2; did you mean"):
        validated(replace(suite, times=(99,)))
    with pytest.raises(UnknownName, match="unknown preset"):
        validated(replace(suite, presets=("tiny+time=3",)))


def test_cells_that_share_a_process_lie_side_by_side() -> None:
    suite = replace(
        validated(suite_of("reference:*", "torch:*")),
        models=("mlp", "lenet5"),
        threads=(1, 2),
        batches=(4, 8),
    )
    shared = [(cell.arm, cell.threads) for cell in plan(suite)]
    changes = sum(a != b for a, b in pairwise(shared))
    assert changes == len(set(shared)) - 1


def test_the_command_line_speaks_in_place_of_the_file() -> None:
    suite = load_suite("tiny")
    chosen = narrowed(
        suite, Selection(arms=" torch:* ,reference:jax", models="mlp", batch=3, threads=1)
    )
    assert chosen.arms == ("torch:eager", "torch:compile", "torch:tuned", "reference:jax")
    assert (chosen.models, chosen.batches, chosen.threads) == (("mlp",), (3,), (1,))
    assert chosen.presets == suite.presets
    with pytest.raises(UnknownName, match="unknown model ''"):
        narrowed(
            suite, Selection(models="")
        )  # an empty variable of a script means nothing, not everything


MORE = {
    "unknown level": ('level = "quik"', "unknown level 'quik'", "quick"),
    "unknown residency": ('residency = "parked"', "unknown residency 'parked'", "resident"),
    "margin of everything": ("margin = 1.5", "margin is 1.5, not a number", "above 0, at most 1"),
    "margin of nothing": ("margin = 0.0", "margin is 0.0, not a number", "above 0, at most 1"),
    "twin that is no arm of the suite": (
        'twin = "torch:eager"',
        "torch:eager is not among the arms (reference:numpy)",
        '"auto" or "none"',
    ),
    "sequence of nothing": ("times = [-5]", "a sequence has at least 1 element", "-5"),
    "unknown twin": ('twin = "torch:eagr"', "unknown arm 'torch:eagr'", "torch:eager"),
}


@pytest.mark.parametrize("fault", MORE)
def test_what_verdicts_depend_on_is_checked(tmp_path: Path, fault: str) -> None:
    wrong, named, meant = MORE[fault]
    message = message_of_text(tmp_path, GOOD.replace("seed = 3", wrong))
    assert message.startswith(f"{tmp_path}/mine.toml:11: ")
    assert named in message
    assert meant in message


def test_every_comparison_has_a_twin() -> None:
    suite = validated(suite_of("reference:numpy", "torch:eager", "jax:jit"))
    cells = plan(suite)  # reference:numpy does not train, so it cannot be the control of all
    for comparison in {cell.comparison for cell in cells}:
        arms_of = [cell.arm for cell in cells if cell.comparison == comparison]
        assert arms_of.count("torch:eager#2") == 1
    assert with_twin(suite) == ("reference:numpy", "torch:eager", "torch:eager#2", "jax:jit")
    assert with_twin(replace(suite, twin="jax:jit"))[-1] == "jax:jit#2"
    assert with_twin(replace(suite, twin="none")) == suite.arms


def test_cells_of_a_comparison_differ_in_the_arm_alone() -> None:
    suite = replace(
        validated(suite_of("reference:*", "torch:eager")), batches=(4, 8), threads=(1, 2)
    )
    rest: dict[str, set[Cell]] = {}
    for cell in plan(suite):
        same = replace(cell, id="", arm="", framework="", mode="")
        rest.setdefault(cell.comparison, set()).add(same)
    assert all(len(cells) == 1 for cells in rest.values())
    assert len(rest) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("name", "version", "suffix", "planted"),
    [
        ("jax:jit", None, "", 0.0),
        ("jax@0.9.2:jit", "0.9.2", "", 0.0),
        ("torch:eager#2", None, "2", 0.0),
        ("torch:eager#+2.5%", None, "+2.5%", 0.025),
        ("keras@3.14.0:jax-fit#12", "3.14.0", "12", 0.0),
    ],
)
def test_names_of_arms(name: str, version: str | None, suffix: str, planted: float) -> None:
    arm = get_arm(name)
    assert (arm.name, arm.version, arm.suffix) == (name, version, suffix)
    assert arm.planted == pytest.approx(planted)
    assert validated(suite_of(name)).arms == (name,)


@pytest.mark.parametrize(
    "name", ["torch:eager#1", "torch:eager#", "torch:eager#x", "torch:eager#+5", "torch@:eager"]
)
def test_names_that_no_arm_has(name: str) -> None:
    with pytest.raises(UnknownName, match="unknown arm"):
        validated(suite_of(name))


def test_a_version_pins_the_framework_and_what_follows_it() -> None:
    environment = get_arm("jax@0.9.2:jit").mode.environment
    assert environment.label == "jax@0.9.2"
    assert environment.requirements[:2] == ("jax==0.9.2", "jaxlib==0.9.2")
    assert environment.requirements[2:] == get_arm("jax:jit").mode.environment.requirements[2:]
    known = specs_by_label()
    assert _spec_of("jax@0.9.2", known) == environment
    assert _spec_of("keras@3.14.0/jax", known).requirements[0] == "keras==3.14.0"
    for wrong in ("jax@", "jaxx@0.9.2", "keras@3.14.0/jx"):
        with pytest.raises(UnknownName, match="unknown environment"):
            _spec_of(wrong, known)
    assert get_arm("keras@3.14.0:jax").mode.environment.label == "keras@3.14.0/jax"


def resolved(*running: str, absent: tuple[str, ...] = ()) -> dict[str, Resolution]:
    """What serves each arm: this Python, or nothing for those ``absent``."""
    here = {name: Resolution(Path("python"), "given", "", None, ()) for name in running}
    return here | {name: Resolution(None, "none", "not built", None, ()) for name in absent}


def twins_in(cells: list[Cell]) -> set[str]:
    return {cell.arm for cell in cells if cell.arm.endswith("#2")}


def test_the_twin_is_the_first_arm_that_runs_and_offers_the_most() -> None:
    suite = validated(suite_of("torch:eager", "onnxruntime:cpu", "jax:jit", "flax:jit"))
    absent = resolved("onnxruntime:cpu", "jax:jit", "flax:jit", absent=("torch:eager",))
    cells, resolutions = planned(suite, absent)
    assert twins_in(cells) == {"jax:jit#2"}
    assert resolutions["jax:jit#2"] == resolutions["jax:jit"]
    assert [*resolutions] == [*with_twin(suite, ["onnxruntime:cpu", "jax:jit", "flax:jit"])]


def test_arms_that_infer_alone_are_controlled_where_they_are_compared() -> None:
    suite = validated(suite_of("onnxruntime:cpu", "openvino:cpu"))
    assert with_twin(suite) == ("onnxruntime:cpu", "onnxruntime:cpu#2", "openvino:cpu")


def test_every_profile_has_its_own_twin_and_a_copy_is_none() -> None:
    suite = suite_of("torch:eager#+5%", "torch:eager#3", "torch:tuned", "jax:jit", "flax:tuned")
    assert {name for name in with_twin(validated(suite)) if name.endswith("#2")} == {
        "torch:tuned#2",
        "jax:jit#2",
    }


def test_a_named_twin_that_cannot_run_is_refused() -> None:
    suite = validated(replace(suite_of("torch:eager", "jax:jit"), twin="torch:eager"))
    with pytest.raises(BadInput, match=r"twin torch:eager cannot run: not built; .* --twin auto"):
        planned(suite, resolved("jax:jit", absent=("torch:eager",)))
    assert twins_in(planned(suite, resolved("jax:jit", "torch:eager"))[0]) == {"torch:eager#2"}


def test_arms_of_the_command_line_without_the_suites_twin_choose_their_own() -> None:
    suite = validated(replace(suite_of("torch:eager", "jax:jit"), twin="torch:eager"))
    assert narrowed(suite, Selection(arms="jax:jit, torch:eager")).twin == "torch:eager"
    assert narrowed(suite, Selection(arms="jax:jit")).twin == "auto"
    assert narrowed(replace(suite, twin="none"), Selection(arms="jax:jit")).twin == "none"
    with pytest.raises(BadInput, match=r"twin torch:eager is not among the arms \(jax:jit\): name"):
        narrowed(suite, Selection(arms="jax:jit"), twin="torch:eager")


@pytest.mark.parametrize(
    ("arms", "twin", "words"),
    [
        ("torch:eager,jax:jit", None, ""),
        ("jax:jit", None, "twin torch:eager is not among the arms asked for; instead, .* jax:jit"),
        ("caffe:opencv", None, "no arm runs twice, so this run has no control"),
        ("torch:eager", "none", "^no arm runs twice, so this run has no control"),
        ("jax:jit", "jax:jit", ""),
    ],
)
def test_a_run_says_once_which_arm_is_its_control_if_not_the_suites_own(
    capsys: pytest.CaptureFixture[str], arms: str, twin: str | None, words: str
) -> None:
    suite = replace(suite_of("torch:eager", "jax:jit"), twin="torch:eager", models=("lstm",))
    chosen = narrowed(suite, Selection(arms=arms), twin=twin)
    cells, _ = planned(chosen, resolved(*chosen.arms))
    _say_what_controls(suite.twin if twin is None else chosen.twin, chosen, cells)
    output = capsys.readouterr().err
    assert output.count("\n") == bool(words)
    assert re.search(words, output)
