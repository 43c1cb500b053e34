"""`levelfield new` writes starting points that pass the check, in a copy of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from levelfield.harness.cli import new
from levelfield.harness.cli.application import app
from levelfield.harness.environments.sealed import environments_folder
from levelfield.harness.errors import BadInput

ROOT = Path(__file__).parents[2]
COMMAND = "from levelfield.harness.cli import main; main()"
LONG = "a_name_as_long_as_it_may_be_30"
# A framework's name sorts before or after that of the contract, which changes the imports.
OTHER_NAMES = ("zesty", LONG)
FOLDERS = ("harness", "adapters", "reference", "levelfield")


class Copy:
    """A copy of the repository, or of what a wheel installs, in which commands run."""

    def __init__(self, folder: Path, cache: Path, *, checkout: bool = True) -> None:
        self.folder, self.cache = folder, cache
        without = shutil.ignore_patterns("__pycache__")
        if not checkout:
            shutil.copytree(ROOT / "levelfield", folder / "levelfield", ignore=without)
            return
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=without)
        shutil.copy(ROOT / "pyproject.toml", folder)

    def __call__(self, *arguments: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
        return self.python(COMMAND, *arguments, path=path)

    def python(
        self, program: str, *arguments: str | Path, path: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that imports the copy."""
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": f"{self.folder}:{path}",
                "LEVELFIELD_CACHE": str(self.cache),
                "COLUMNS": "200",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def statuses(self, *arguments: str, path: str = "") -> dict[tuple[str, str], str]:
        """Run ``check`` -> (arm, phase) -> status."""
        done = self("check", *arguments, "--json", path=path)
        assert done.returncode == 0, done.stderr + done.stdout
        return {(row["arm"], row["phase"]): row["status"] for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy in which both commands have written."""
    copy = Copy(tmp_path_factory.mktemp("copy"), environments_folder().parent)
    done = copy("new", "framework", "aged")
    assert done.returncode == 0, done.stderr
    assert "levelfield check --arms 'aged:*' --models mlp" in done.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new, "CHECKOUT", copy.folder)
        for name in OTHER_NAMES:
            new.framework_command(name)
        for model in ("plain", f"m{LONG[1:]}"):
            new.model_command(model, frameworks=",".join(new.STARTED))
        yield copy


def test_what_is_written_passes_the_linter_of_the_project(written: Copy) -> None:
    for words in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", "adapters", "reference"]
        done = subprocess.run(ruff, cwd=written.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_written_is_listed(written: Copy) -> None:
    document = json.loads(written("list", "--json").stdout)
    arms = {row["arm"]: row for row in document["adapters"]}
    assert arms["aged:eager"]["models"] == ["mlp"]
    assert arms["aged:eager"]["phases"] == ["inference", "training"]
    for name in new.STARTED:
        assert all(
            "plain" in row["models"] for arm, row in arms.items() if arm.startswith(f"{name}:")
        )
    presets = next(row["presets"] for row in document["models"] if row["name"] == "plain")
    assert {name: facts["parameter_count"] for name, facts in presets.items()} == {
        "tiny": 33 * 10,
        "small": 257 * 10,
        "paper": 785 * 10,
    }


def test_a_new_framework_changes_no_file_outside_its_folder(written: Copy) -> None:
    before = {path.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.*")}
    after = {path.relative_to(written.folder) for path in written.folder.rglob("*.*")}
    added = {path for path in after - before if "__pycache__" not in path.parts}
    models = {path for path in added if path.stem in ("plain", f"m{LONG[1:]}")}
    assert {path.parts[:2] for path in added - models - {Path("pyproject.toml")}} == {
        ("adapters", name) for name in ("aged", *OTHER_NAMES)
    }
    kept = {path for path in before & after if (ROOT / path).is_file()}
    assert all((ROOT / path).read_bytes() == (written.folder / path).read_bytes() for path in kept)


def test_a_new_framework_has_a_colour_of_its_own(written: Copy) -> None:
    program = (
        "from levelfield.harness.plan.arms import frameworks;"
        "from levelfield.harness.report.colours import colour;"
        "print(*(colour(name) for name in frameworks()))"
    )
    words = written.python(program).stdout.split()
    assert len(set(words)) == len(words)
    folders = [path.parent.name for path in written.folder.glob("adapters/*/env.toml")]
    assert {"aged", *OTHER_NAMES} < set(folders)
    assert len(words) >= len(folders)


def test_every_template_is_used(written: Copy) -> None:
    templates = {str(path.relative_to(new.TEMPLATES)) for path in new.TEMPLATES.rglob("*.txt")}
    framework = {f"framework/{name}.txt" for name in new.FRAMEWORK_FILES.values()}
    models = {f"model/{name}.py.txt" for name in new.STARTED}
    assert templates == {
        *framework,
        "framework/pyproject.toml.txt",
        *models,
        "model/definition.py.txt",
    }
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "*.txt" in packaged["package-data"]["*"]


@pytest.mark.real
def test_a_new_framework_passes_the_check_at_once(written: Copy) -> None:
    outcomes = written.statuses("--arms", "aged:eager", "--models", "mlp")
    assert outcomes == {("aged:eager", "inference"): "ok", ("aged:eager", "training"): "ok"}


@pytest.mark.real
def test_a_new_model_passes_the_check_at_once(written: Copy) -> None:
    arms = "torch:eager,jax:jit,reference:numpy"
    outcomes = written.statuses(
        "--models", "plain", "--arms", arms, "--phases", "inference,training", "--optimizers", "sgd"
    )
    assert {key for key, status in outcomes.items() if status == "ok"} == {
        *((arm, "inference") for arm in arms.split(",")),
        ("torch:eager", "training"),
        ("jax:jit", "training"),
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The files that a wheel installs, without a checkout around them."""
    return Copy(tmp_path_factory.mktemp("wheel"), environments_folder().parent, checkout=False)


@pytest.mark.real
def test_a_package_of_its_own_is_found_by_its_entry_point(wheel: Copy, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    done = wheel("new", "framework", "lonely", "--folder", folder)
    assert done.returncode == 0, done.stderr
    assert f"pip install -e {folder}" in done.stdout
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"levelfield.adapters": {"lonely": "levelfield_lonely"}}
    # As an editable installation leaves it.
    information = folder / "levelfield_lonely-0.1.0.dist-info"
    information.mkdir()
    header = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(header)
    entry = "[levelfield.adapters]\nlonely = levelfield_lonely\n"
    (information / "entry_points.txt").write_text(entry)
    arguments = ("--arms", "lonely:*", "--models", "mlp", "--phases", "inference")
    outcomes = wheel.statuses(*arguments, path=str(folder))
    assert outcomes == {("lonely:eager", "inference"): "ok"}


def test_without_a_checkout_the_commands_say_what_to_do(wheel: Copy) -> None:
    for words, advice in (
        (("framework", "fresh"), "levelfield new framework fresh --folder DIR"),
        (("model", "fresh"), "clone Levelfield's repository"),
    ):
        done = wheel("new", *words)
        assert done.returncode == 2
        assert advice in done.stderr
        assert done.stderr.count("\n") == 1


REFUSED = {
    ("framework", "torch"): "there is a framework 'torch' already",
    ("framework", "aged"): "aged exists already; choose another name",
    ("framework", "base"): "base.py exists already; choose another name",
    ("framework", "Fresh"): "'Fresh' cannot name a framework",
    ("framework", "a:b"): "'a:b' cannot name a framework",
    ("framework", "../fresh"): "'../fresh' cannot name a framework",
    ("framework", "class"): "'class' cannot name a framework",
    ("framework", f"{LONG}1"): "use at most 30 small letters, digits and _",
    ("framework", "fresh", "--folder", "/"): "/ exists already; name a new folder",
    ("model", "mlp"): "there is a model 'mlp' already",
    ("model", "2d"): "'2d' cannot name a model",
    ("model", ""): "'' cannot name a model",
    ("model", "lenet"): "lenet.py exists already",
    ("model", "layers"): "adapters/jax/layers.py exists already",
    (
        "model",
        "fresh",
        "--frameworks",
        "torch,caffe",
    ): "no starting point for the framework 'caffe'",
    ("model", "fresh", "--frameworks", ""): "choose from torch, jax, flax, keras, tensorflow",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_wrong_request_is_refused_in_one_line_and_writes_nothing(
    written: Copy, words: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(app, ["new", *words])
    assert isinstance(done.exception, BadInput)
    assert REFUSED[words] in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not list(written.folder.rglob("fresh*"))
