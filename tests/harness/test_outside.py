"""What the author of an adapter or of a model outside this repository needs."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas
import pytest
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from levelfield import reference
from levelfield.harness.cli.application import app
from levelfield.harness.engine import session
from levelfield.harness.environments import sealed
from levelfield.harness.errors import BadInput
from levelfield.harness.plan.arms import arms, frameworks, models_identity
from levelfield.harness.plan.suite import add_folders, load_suite, validated
from levelfield.harness.records import store
from levelfield.harness.report.code import model_sources, module_of
from levelfield.reference import registry
from levelfield.reference.errors import UnknownName
from levelfield.reference.presets import OWN_PRESETS
from tests.support.engine import TINY_EFFORT, Silent
from tests.support.synthetic import write_run
from tests.support.terminal import Done, variables
from tests.support.third_party import ADAPTER, ENVIRONMENT, careless

ROOT = Path(__file__).parents[2]
DEFINITION = """
from levelfield.reference.spec import ArraySpec, Model, Objective, dimension


def inputs(sizes, batch):
    rows = dimension("batch", batch)
    return (
        ArraySpec("features", (rows, dimension("in", sizes["features"]))),
        ArraySpec("label", (rows,), classes=sizes["classes"]),
    )


def forward(nn, sizes, inputs):
    x = inputs["features"]
    deep = nn.relu(nn.dense(x, "hidden", sizes["width"]))
    logits = nn.add(nn.dense(x, "wide", sizes["classes"]), nn.dense(deep, "deep", sizes["classes"]))
    return {"logits": logits}


MODELS = (
    Model(
        name="wide_and_deep",
        title="Wide and deep",
        family="dense",
        source="Cheng et al. 2016",
        presets={
            "tiny": {"features": 12, "width": 16, "classes": 5},
            "small": {"features": 64, "width": 128, "classes": 10},
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
    ),
)
"""
TORCH_FILE = """
from torch import nn
from torch.nn import functional as F


class WideAndDeep(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.wide = nn.Linear(sizes["features"], sizes["classes"])
        self.hidden = nn.Linear(sizes["features"], sizes["width"])
        self.deep = nn.Linear(sizes["width"], sizes["classes"])

    def forward(self, features):
        return self.wide(features) + self.deep(F.relu(self.hidden(features)))


def build(sizes):
    return WideAndDeep(sizes)
"""
TIDY_FILE = """
import numpy


def build(sizes):
    def predict(parameters, x):
        def dense(x, name):
            return x @ parameters[name + "/kernel"] + parameters[name + "/bias"]

        return dense(x, "wide") + dense(numpy.maximum(dense(x, "hidden"), 0), "deep")

    return predict
"""
FILES = {
    "wide_and_deep.py": DEFINITION,
    "torch/wide_and_deep.py": TORCH_FILE,
    "tidy/wide_and_deep.py": TIDY_FILE,
}
SUITE = """
title = "A model of one's own"
models = ["wide_and_deep"]
models_from = ["mine"]
arms = ["tidy:plain", "reference:numpy"]
presets = ["tiny"]
phases = ["inference"]
batches = [4]
level = "smoke"
twin = "none"

[effort]
rounds = 2
slice_seconds = 0.002
rewarm_seconds = 0.001
warm_up_seconds = 0.001
quiet_seconds = 0.0
ceilings = false
memory = false
accuracy = false
"""


def write(folder: Path, **changed: str) -> Path:
    """Write the folder of outside models, with some files changed; keys are names of folders."""
    for name, text in {**FILES, **{f"{k}.py": v for k, v in changed.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def forgotten() -> None:
    """Remove outside models and own presets from this process."""
    registry._OUTSIDE.clear()
    OWN_PRESETS.clear()
    for name in [name for name in sys.modules if name.startswith(registry.OUTSIDE_PACKAGE)]:
        del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A folder with a model; this process forgets it after the test."""
    yield write(tmp_path / "mine")
    forgotten()


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of commands in which a third party's framework is installed."""
    site = tmp_path_factory.mktemp("site")
    files = {
        "tidy_company/__init__.py": "unit = 1\n",
        "tidy_company/tidy/__init__.py": ADAPTER,
        "tidy_company/tidy/env.toml": ENVIRONMENT,
    }
    careless(site, entry="tidy", package="tidy_company.tidy", files=files)
    return variables(tmp_path_factory, site, PYTHONPATH=f"{site}:{ROOT}")


def command(folder: Path, environment: dict[str, str], *words: str) -> Done:
    """Type a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from levelfield.harness.cli import main; main()", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def typed(*words: str) -> str:
    """Run a command in this process -> what it prints."""
    done = CliRunner().invoke(
        app, words, prog_name="levelfield", env={"COLUMNS": "160"}, catch_exceptions=False
    )
    assert done.exit_code == 0, done
    return done.output


@pytest.mark.parametrize("name", reference.definitions())
def test_a_model_is_listed_with_its_sizes_names_shapes_and_axes(name: str) -> None:
    document = json.loads(
        typed("list", "models", name, "--preset", "tiny", "--json", "--batch", "3")
    )
    model = reference.get(name)
    assert document["sizes"] == json.loads(json.dumps(dict(model.sizes("tiny"))))
    assert document["file"] == f"{model.file}.py"
    summary = reference.summarize(model, "tiny", 3)
    for kind in ("inputs", "parameters", "state", "outputs"):
        assert {n: a["shape"] for n, a in document[kind].items()} == {
            spec.name: list(spec.shape) for spec in getattr(summary, kind)
        }
    for array in document["parameters"].values():
        for axis, factors in array["flattened"].items():
            size = array["shape"][array["axes"].index(axis)]
            assert math.prod(factors.values()) == size
    trained = [name for objective in document["objectives"] for name in objective["trains"]]
    assert sorted(trained) == sorted(document["parameters"])
    assert (document["generation"] is not None) is (model.generation is not None)
    shown = typed("list", "models", name, "--preset", "tiny")
    assert all(word in shown for word in (*document["parameters"], *document["sizes"]))
    assert f"{document['parameter_count']:,} parameters" in shown


def test_a_flattened_axis_is_listed_with_the_axes_that_it_has_come_from() -> None:
    shown = typed("list", "models", "lenet5")
    assert "in (height x width x channel), out" in shown
    assert "shown: small" in shown


def test_only_a_known_model_has_details() -> None:
    with pytest.raises(UnknownName, match="unknown model 'lenett'; did you mean lenet5"):
        typed("list", "models", "lenett")
    with pytest.raises(UnknownName, match="unknown preset 'smal' in model mlp; did you mean small"):
        typed("list", "models", "mlp", "--preset", "smal")
    for words in (("suites", "quick"), ("models", "--preset", "tiny")):
        with pytest.raises(BadInput, match="levelfield list models mlp"):
            typed("list", *words)


def test_a_model_from_a_folder_is_known_like_a_built_in_one(mine: Path) -> None:
    assert add_folders([mine, mine]) == (str(mine),)
    assert "wide_and_deep" in reference.definitions()
    assert add_folders([mine / ".." / "mine"]) == (str(mine),)
    torch = frameworks()["torch"]
    assert torch.model_file("wide_and_deep") == mine / "torch" / "wide_and_deep.py"
    assert torch.model_file("mlp") == torch.folder / "mlp.py"
    assert torch.model_module("mlp") == "levelfield.adapters.torch.mlp"
    case = reference.draw_case("wide_and_deep", "tiny", seed=1, batch=2)
    assert reference.run_numpy(case).outputs[0]["logits"].shape == (2, 5)
    assert module_of("wide_and_deep") == "mine/wide_and_deep"
    assert model_sources("wide_and_deep")["torch"][1] == TORCH_FILE
    shown = typed("list", "models", "wide_and_deep")
    assert "mine/<framework>/wide_and_deep.py" in shown
    rows = {row["arm"]: row for row in json.loads(typed("list", "adapters", "--json"))}
    assert "wide_and_deep" in rows["torch:eager"]["models"]
    assert "wide_and_deep" not in rows["jax:jit"]["models"]


def test_advice_knows_the_models_of_a_folder(mine: Path, tmp_path: Path) -> None:
    arms = ("torch:eager", "reference:jax")
    run = write_run(tmp_path, arms=arms, models=("wide_and_deep",), statuses={})
    words = ("advise", str(run), "--task", "wide_and_deep", "--json")
    with pytest.raises(UnknownName, match="unknown task 'wide_and_deep'"):
        typed(*words)
    document = json.loads(typed(*words, "--models-from", str(mine)))
    assert document["need"]["task"] == "wide_and_deep"
    assert [evidence.partition(" ")[0] for evidence in document["evidence"]] == [
        "wide_and_deep/small"
    ]


def test_a_report_knows_the_operations_of_a_model_of_a_folder(mine: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", arms=("torch:eager",), models=("wide_and_deep",), statuses={})

    def operations(*words: str) -> pandas.Series:
        typed("report", str(run), "--output", str(tmp_path / "report"), "--format", "csv", *words)
        return pandas.read_csv(tmp_path / "report" / "csv" / "summary.csv")["flops"]

    assert operations().isna().all()
    assert (operations("--models-from", str(mine)) > 0).all()
    forgotten()
    for_one = "assert inputs['features'].dimensions[0].size == 1\n    x = inputs"
    write(mine, wide_and_deep=DEFINITION.replace("x = inputs", for_one))
    assert operations("--models-from", str(mine)).isna().all()
    forgotten()
    add_folders([write(mine, wide_and_deep=DEFINITION)])
    words = ("plot", "roofline", str(run), "--output", str(tmp_path), "--models-from", str(mine))
    assert "roofline.svg" in typed(*words)


def test_a_model_of_a_folder_can_be_exported(mine: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    words = ("export", "wide_and_deep", "--onnx", str(path), "--preset", "tiny")
    with pytest.raises(UnknownName, match="unknown model 'wide_and_deep'"):
        typed(*words)
    assert "features -> logits" in typed(*words, "--models-from", str(mine))
    case = reference.draw_case("wide_and_deep", "tiny", batch=2)
    features = {"features": case.inputs[0]["features"]}
    (logits,) = ReferenceEvaluator(onnx.load(path)).run(["logits"], features)
    expected = reference.run_numpy(case).outputs[0]["logits"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


WRONG = {
    "a built-in name": (DEFINITION.replace('"wide_and_deep"', '"mlp"'), "has the name 'mlp'"),
    "a bad name": (DEFINITION.replace('"wide_and_deep"', '"a b"'), "'a b' cannot name a model"),
    "a bad preset": (DEFINITION.replace('"tiny"', '"tiny+time=3"'), "cannot name a model, its fi"),
    "no Python": ("def", "SyntaxError"),
    "a missing file": (
        "open('/absent')",
        "FileNotFoundError: No such file or directory: '/absent'",
    ),
    "a missing file of a forward": (
        DEFINITION.replace("x = inputs", "open('/absent')\n    x = inputs"),
        "cannot be traced: FileNotFoundError: No such file or directory: '/absent'",
    ),
    "an end": ("raise SystemExit(3)", "SystemExit: 3"),
    "an end of a forward": (
        DEFINITION.replace("x = inputs", "raise SystemExit(3)\n    x = inputs"),
        "cannot be traced: SystemExit: 3",
    ),
    "an end of a generator": ("raise GeneratorExit", "GeneratorExit:"),
    "a panic": (
        "class Panic(BaseException): pass\nraise Panic('\\x1b[2J\\nx')",
        "Panic: ",
    ),
    "an error without a text": (
        "class Mute(Exception):\n    def __str__(self): return 5\nraise Mute",
        "Mute: its text cannot be shown (TypeError)",
    ),
    "an error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "escapes": ("raise ValueError('\\x1b[2J\\nx')", "ValueError"),
    "a framework": (
        "import torch",
        "imports torch; a definition may import numpy and levelfield.ref",
    ),
    "no model": ("x = 1", "MODELS is not a tuple of levelfield.reference.spec.Model"),
    "other models": ("MODELS = (1,)", "MODELS is not a tuple of levelfield.reference.spec.Model"),
    "no presets": (
        DEFINITION.replace("presets={", "presets={} or {} and {"),
        "the model 'wide_and_deep' has no presets",
    ),
    "presets of no kind": (
        DEFINITION.replace("presets={", "presets=None and {"),
        "TypeError: Value after * must be an iterable",
    ),
    "no shapes": (DEFINITION.replace("add(", "added("), "wide_and_deep/tiny cannot be traced"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_definition_is_refused_in_one_line(mine: Path, fault: str) -> None:
    text, words = WRONG[fault]
    write(mine, wide_and_deep=text)
    with pytest.raises(BadInput) as caught:
        add_folders([mine])
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    forgotten()
    write(mine)  # a mended folder can be used
    add_folders([mine])
    assert "wide_and_deep" in reference.definitions()


def test_a_pipe_among_the_definitions_is_refused(mine: Path) -> None:
    os.mkfifo(mine / "pipe.py")
    with pytest.raises(BadInput, match="it is no regular file"):
        add_folders([mine])


def test_folders_that_are_missing_empty_or_clash_are_refused(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent: not a folder of models \(No such file"):
        add_folders([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty: no file at its top defines a model"):
        add_folders([tmp_path / "empty"])
    with pytest.raises(BadInput, match=r"other/wide_and_deep\.py: another model has the name"):
        add_folders([mine, write(tmp_path / "other")])


def test_a_suite_finds_its_folder_next_to_its_file(mine: Path) -> None:
    path = mine.parent / "own.toml"
    path.write_text(SUITE.replace('"tidy:plain", ', ""))
    suite = load_suite(str(path))
    assert suite.models_from == (str(mine),)
    path.write_text(path.read_text().replace('["mine"]', '["yours"]'))
    with pytest.raises(BadInput, match=r"own\.toml:4: .*yours: not a folder of models"):
        load_suite(str(path))


def test_a_cell_fails_where_the_files_of_its_model_changed_since_the_run_began(mine: Path) -> None:
    path = mine.parent / "own.toml"
    path.write_text(SUITE.replace('"tidy:plain", ', ""))
    suite = replace(validated(load_suite(str(path))), effort=TINY_EFFORT)
    cells, resolutions = session.planned(suite, session.resolve_arms(suite.arms, {}))
    description = session.describe_run(suite, cells, resolutions)
    assert description["models"] == models_identity(["wide_and_deep", "mlp"])
    (mine / "torch" / "wide_and_deep.py").write_text("changed")
    with store.create(mine.parent, "run", description) as run:
        session.measure(run, suite, cells, resolutions=resolutions, progress=Silent())
    (status,) = (r for r in store.read_records(run) if r["record"] == "status")
    assert status["status"] == "failed"
    assert "the files of its models changed since the run began" in status["reason"]


@pytest.mark.real
def test_a_model_from_a_folder_passes_the_gate_in_a_real_framework(
    mine: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    resolution = sealed.resolve(arms()["torch:eager"].mode.environment, {})
    if resolution.how not in ("sealed", "found"):
        pytest.skip(f"neither sealed nor found: {resolution.reason}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = "check --models-from mine --arms reference:numpy,torch:eager,jax:jit --batch 4 --json"
    done = command(mine.parent, environment, *words.split(), "--optimizers", "adam")
    assert done.code == 0, done
    rows = {(row["arm"], row["phase"]): row for row in json.loads(done.output)}
    assert {row["model"] for row in rows.values()} == {"wide_and_deep"}
    for phase in ("inference", "training"):
        assert rows["torch:eager", phase]["status"] == "ok"
        assert rows["jax:jit", phase]["reason"] == "mine/jax: wide_and_deep.py is missing"
    assert rows["reference:numpy", "inference"]["status"] == "ok"


def test_a_third_partys_framework_runs_a_model_from_a_folder_and_a_run_knows_it_again(
    tmp_path: Path, third: dict[str, str]
) -> None:
    write(tmp_path / "mine")
    (tmp_path / "own.toml").write_text(SUITE)
    done = command(tmp_path, third, "run", "own.toml")
    assert done.code == 0, done
    (run,) = (tmp_path / "results").iterdir()
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    statuses = [record["status"] for record in records if record["record"] == "status"]
    assert statuses == ["ok", "ok"], done
    description: dict[str, Any] = json.loads((run / "run.json").read_text())
    assert description["models"]["wide_and_deep"]["folder"] == "mine"
    file = tmp_path / "mine" / "wide_and_deep.py"
    file.write_text("raise SystemExit('imported')")
    done = command(tmp_path, third, "run", "--resume", str(run))
    assert (done.code, done.output) == (2, "")
    assert "the models wide_and_deep are not those that" in done.errors
    assert done.errors.count("\n") == 1
    file.write_text(DEFINITION)
    assert command(tmp_path, third, "run", "--resume", str(run)).code == 0
    # A report needs no folder.
    file.unlink()
    assert command(tmp_path, third, "report", str(run), "--output", "again").code == 0


def test_what_a_definition_prints_is_no_answer(tmp_path: Path, third: dict[str, str]) -> None:
    text = DEFINITION.replace("x = inputs", "print('seen')\n    x = inputs")
    write(tmp_path / "mine", wide_and_deep=text)
    (tmp_path / "own.toml").write_text(SUITE)
    done = command(tmp_path, third, "check", "own.toml", "--arms", "reference:numpy")
    assert done.code == 0, done


def test_what_a_definition_prints_on_loading_is_no_output(
    tmp_path: Path, third: dict[str, str]
) -> None:
    write(tmp_path / "mine", wide_and_deep=f"print('loaded')\n{DEFINITION}")
    done = command(tmp_path, third, "list", "models", "--models-from", "mine", "--json")
    assert done.code == 0, done
    assert "wide_and_deep" in {row["name"] for row in json.loads(done.output)}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("sizes['depth']", "KeyError: 'depth'"),
        ("open('/absent')", "FileNotFoundError: No such file or directory: '/absent'"),
    ],
)
def test_an_error_in_a_file_of_a_model_names_its_place(
    tmp_path: Path, third: dict[str, str], expression: str, words: str
) -> None:
    mine = write(tmp_path / "mine")
    (tmp_path / "own.toml").write_text(SUITE)
    (mine / "tidy" / "wide_and_deep.py").write_text(f"def build(sizes):\n    return {expression}\n")
    done = command(tmp_path, third, "check", "own.toml", "--json", "--arms", "tidy:plain")
    assert done.code == 1, done
    (row,) = json.loads(done.output)
    assert row["reason"] == f"{words} (mine/tidy/wide_and_deep.py:2)"


def test_models_of_an_installed_package_need_no_option(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path / "site"
    packages = {
        "good": {f"good/models/{name}": text for name, text in FILES.items()},
        "twice": {"twice/models/x.py": DEFINITION.replace('"wide_and_deep"', '"mlp"')},
        "untraced": {
            "untraced/models/x.py": DEFINITION.replace('"wide_', '"u_').replace("add(", "a(")
        },
    }
    for name, files in packages.items():
        careless(
            site, entry=name, package=f"{name}.models", files={**files, f"{name}/__init__.py": ""}
        )
        points = site / f"careless_{name}-1.0.dist-info" / "entry_points.txt"
        points.write_text(points.read_text().replace("levelfield.adapters", "levelfield.models"))
    environment = variables(tmp_path_factory, site, PYTHONPATH=f"{site}:{ROOT}")
    done = command(tmp_path, environment, "list", "models", "--json")
    assert done.code == 0, done
    names = {row["name"] for row in json.loads(done.output)}
    assert "wide_and_deep" in names
    assert "u_and_deep" not in names
    lines = sorted(done.errors.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith("levelfield: the models 'twice' are left out: ")
    assert lines[0].endswith("uninstall careless_twice")
    assert "u_and_deep/tiny cannot be traced" in lines[1]
    shown = command(tmp_path, environment, "list", "models", "wide_and_deep")
    assert "models/<framework>/wide_and_deep.py" in shown.output
    words = "check --models wide_and_deep --arms reference:numpy --phases inference --batch 4"
    done = command(tmp_path, environment, *words.split(), "--json")
    assert [row["status"] for row in json.loads(done.output)] == ["ok"], done


OWN = """
title = "Sizes of one's own"
models = ["mlp"]
arms = ["reference:numpy"]
phases = ["inference"]
batches = [4]
level = "smoke"
twin = "none"

[presets.mine]
base = "tiny"
hidden = [48, 24]
features = 20

[presets.tiny]
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A suite with a preset of its own; this process forgets it after the test."""
    (tmp_path / "own.toml").write_text(OWN)
    yield tmp_path / "own.toml"
    forgotten()


def test_a_preset_of_ones_own_has_the_sizes_of_its_base_with_its_changes(own: Path) -> None:
    suite = load_suite(str(own))
    assert suite.presets == ("mine", "tiny")
    sizes = reference.get("mlp").sizes("mine")
    assert sizes == {"features": 20, "hidden": (48, 24), "classes": 10}
    assert reference.get("mlp").sizes("tiny")["features"] == 32
    document = json.loads(typed("list", "models", "mlp", "--preset", "mine", "--json"))
    assert document["parameters"]["hidden2/kernel"]["shape"] == [48, 24]
    with pytest.raises(UnknownName, match="unknown size 'hidden' in preset mine for model gru"):
        validated(replace(suite, models=("gru",)))
    own.write_text(OWN.replace('base = "tiny"\n', "").replace("features = 20", ""))
    load_suite(str(own))
    assert reference.get("mlp").sizes("mine")["features"] == 64  # of small


@pytest.mark.parametrize("name", reference.definitions())
def test_a_derived_size_is_listed_as_such_and_no_preset_states_it(name: str) -> None:
    model = reference.get(name)
    for preset, stated in model.presets.items():
        sizes, derived = model.sizes(preset), model.derive(stated)
        assert sizes == {**stated, **derived}
        assert stated.keys().isdisjoint(derived)
        document = json.loads(typed("list", "models", name, "--preset", preset, "--json"))
        assert document["derived"] == list(derived)
        shown = typed("list", "models", name, "--preset", preset)
        origins = dict(re.findall(r"^(\w+) .* (derived|the preset) *$", shown, re.MULTILINE))
        assert origins == {
            **dict.fromkeys(stated, "the preset"),
            **dict.fromkeys(derived, "derived"),
        }


def test_derived_sizes_follow_those_of_ones_own(own: Path) -> None:
    own.write_text(OF_LENET)
    load_suite(str(own))
    assert reference.get("lenet5").sizes("mine")["flattened"] == 5 * ((36 // 2 - 4) // 2) * 3


OF_LENET = """
title = "A larger image"
models = ["lenet5"]
arms = ["reference:numpy"]

[presets.mine]
base = "tiny"
height = 36
filters = [2, 5]
"""
# Sizes that cannot be set, or that do not fit together: the model, the line, the message.
UNFIT = {
    "a derived size": (
        "lenet5",
        "flattened = 9",
        "flattened in preset mine for model lenet5 follows from its other sizes; set one of height,"
        " width, channels, filters, hidden, classes",
    ),
    "too few filters": ("lenet5", "filters = [3]", "lenet5/mine cannot be traced: ValueError: not"),
    "too many parameters": (
        "neumf",
        "users = 1000000000000",
        "parameters, 298,023.2 GiB in the float64 of the reference, and this machine has ",
    ),
    "too many layers": (
        "gpt2",
        "layers = 1000000000",
        "gpt2/mine cannot be traced: ValueError: its layers make more than 100,000 arrays",
    ),
    "an empty list": ("neumf", "tower = []", "neumf/mine cannot be traced: IndexError: tuple ind"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_sizes_that_do_not_fit_are_refused_in_one_line(own: Path, fault: str) -> None:
    model, line, words = UNFIT[fault]
    head, _, _ = OF_LENET.partition("[presets.mine]")
    own.write_text(f"{head.replace('lenet5', model)}[presets.mine]\n{line}\n")
    with pytest.raises(BadInput) as caught:
        load_suite(str(own))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{own}:")
    assert str(caught.value).isprintable()


WRONG_PRESETS = {
    "unknown key": (
        "features =",
        "feature =",
        ":13: unknown size 'feature' in preset mine for mod",
    ),
    "unknown base": ('"tiny"', '"tinny"', ":11: unknown base 'tinny' in preset mine for model mlp"),
    "base of no text": ('"tiny"', "3", ":11: 'base' is text, not a whole number"),
    "text for a number": ("= 20", '= "x"', 'features = "x" in preset mine for model mlp; write it'),
    "number for a list": (
        "[48, 24]",
        "48",
        "hidden = 48 in preset mine for model mlp; write it as",
    ),
    "list of texts": ("[48, 24]", '["a"]', 'hidden = ["a"] in preset mine'),
    "truth for a number": ("= 20", "= true", "features = true in preset mine"),
    "a size of zero": ("= 20", "= 0", "features = 0 in preset mine for model mlp"),
    "a built-in name": ("[presets.mine]", "[presets.small]", "'small' cannot name a preset of one"),
    "a bad name": ("[presets.mine]", '[presets."a+b"]', "'a+b' cannot name a preset of one's own"),
    "no table": ("[presets.mine]", "[presets]\nx = 3\n[presets.mine]", "write [presets.x] above"),
    "an unknown empty one": (
        "[presets.tiny]",
        "[presets.tinny]",
        "unknown preset 'tinny' in model",
    ),
}


@pytest.mark.parametrize("fault", WRONG_PRESETS)
def test_a_wrong_preset_is_refused_in_one_line_with_its_place(own: Path, fault: str) -> None:
    good, wrong, words = WRONG_PRESETS[fault]
    assert OWN.count(good) == 1
    own.write_text(OWN.replace(good, wrong))
    with pytest.raises(BadInput) as caught:
        load_suite(str(own))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{own}:")
    assert str(caught.value).isprintable()


def test_the_sizes_of_ones_own_reach_the_reference_and_a_resumed_run(
    own: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    suite = replace(load_suite(str(own)), effort=TINY_EFFORT)
    cells, resolutions = session.planned(suite, session.resolve_arms(suite.arms, {}))
    description = session.describe_run(suite, cells, resolutions)
    with store.create(own.parent, "run", description) as run:
        session.measure(
            run, suite, cells, resolutions=resolutions, progress=Silent(), only_gate=True
        )
    statuses = [r["status"] for r in store.read_records(run) if r["record"] == "status"]
    assert statuses == ["ok", "ok"]
    forgotten()
    with pytest.raises(UnknownName):
        reference.get("mlp").sizes("mine")
    with store.open_run(run.path) as again:
        resumed, same, _ = session.reopened(again, {})
    assert same == cells
    assert resumed.own_presets["mine"]["base"] == "tiny"
    assert reference.get("mlp").sizes("mine")["hidden"] == (48, 24)
