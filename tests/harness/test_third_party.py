"""A third party's adapter: installed by pip in a package of its own, found by its entry point."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.arms import read_framework
from harness.errors import BadInput
from tests.harness.test_cli import Terminal, assert_one_line, install, variables, write_project

ENVIRONMENT = """
title = "Tidy"
documentation = "https://example.org/tidy"

[environments.default]
python = ">=3.6"
requirements = ["numpy"]
imports = ["numpy"]

[modes.plain]
summary = "dense layers in NumPy"
phases = ["inference"]
"""
# Its package writes down who imports it, and whether that process could import its neighbour.
TRACE = """
import json, os, sys
from importlib.util import find_spec

with open(os.path.join(os.path.dirname(__file__), "imported.jsonl"), "a") as trace:
    beside = find_spec("beside") is not None
    json.dump({"program": sys.argv[0], "path": sys.path, "neighbour": beside}, trace)
    trace.write("\\n")
"""
ADAPTER = """
import numpy

from adapters.base import Adapter as Base
from tidy_company import unit


class Adapter(Base):
    def __init__(self, device, mode, threads, precision):
        assert (device, mode, precision, unit) == ("cpu", "plain", "float32", 1)

    def describe(self):
        return {"version": "1.0", "threads": None}

    def load(self, module, case):
        self.case, self.cursor, self.predict = case, 0, module.build(case.sizes)

    def infer(self):
        inputs = self.case.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.case.sets)
        return {"logits": self.predict(self.case.parameters, inputs["features"])}

    def parameters(self):
        return {"parameter/" + name: value for name, value in self.case.parameters.items()}

    def wait(self, handle):
        pass

    def read(self, handle):
        return handle
"""
MODEL = """
import numpy


def build(sizes):
    names = ["hidden%d" % (number + 1) for number in range(len(sizes["hidden"]))]

    def predict(parameters, x):
        for name in names:
            x = numpy.maximum(x @ parameters[name + "/kernel"] + parameters[name + "/bias"], 0)
        return x @ parameters["logits/kernel"] + parameters["logits/bias"]

    return predict
"""
FILES = {
    "tidy_company/__init__.py": TRACE + "unit = 1\n",
    "tidy_company/frameworks/__init__.py": "",
    "tidy_company/frameworks/tidy/__init__.py": ADAPTER,
    "tidy_company/frameworks/tidy/mlp.py": MODEL,
    "tidy_company/frameworks/tidy/env.toml": ENVIRONMENT,
    "beside.py": "",
}
PACKAGE = "tidy_company.frameworks.tidy"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "tidy_distribution"
    target = tmp_path_factory.mktemp("tidy")
    install(target, write_project(folder, entry="tidy", package=PACKAGE, files=FILES))
    return target


@pytest.fixture(scope="module")
def terminal(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    found = Terminal(variables(tmp_path_factory, site), tmp_path_factory.mktemp("home"))
    yield found
    found.close()


def test_it_is_listed_with_the_models_that_it_has(terminal: Terminal) -> None:
    rows = {row["arm"]: row for row in json.loads(terminal("list", "adapters", "--json").output)}
    assert rows["tidy:plain"]["title"] == "Tidy"
    assert rows["tidy:plain"]["phases"] == ["inference"]
    assert rows["tidy:plain"]["models"] == ["mlp"]


def test_it_passes_the_gate_in_a_worker_and_the_host_never_imports_it(
    terminal: Terminal, site: Path
) -> None:
    done = terminal("check", "tiny", "--arms", "tidy:*", "--json")
    assert done.code == 0, done
    statuses = {(row["model"], row["phase"]): row["status"] for row in json.loads(done.output)}
    assert statuses[("mlp", "inference")] == "ok"
    assert statuses[("mlp", "training")] == "unsupported"
    assert statuses[("lenet5", "inference")] == "unwritten"
    trace = (site / "tidy_company" / "imported.jsonl").read_text().splitlines()
    importers = [json.loads(line) for line in trace]
    assert importers
    assert {Path(each["program"]).name for each in importers} == {"worker.py"}
    assert all(str(site) not in each["path"] for each in importers)
    assert not any(each["neighbour"] for each in importers)


def typed(
    tmp_path: Path,
    factory: pytest.TempPathFactory,
    *,
    entry: str,
    package: str,
    files: Mapping[str, str],
) -> str:
    """What every command says with such a distribution about; as good as pip left it there."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    information = tmp_path / "careless-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: careless\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[levelfield.adapters]\n{entry} = {package}\n")
    terminal = Terminal(variables(factory, tmp_path), tmp_path)
    try:
        return assert_one_line(terminal("list", "adapters"), 2)
    finally:
        terminal.close()


def test_the_name_of_a_built_in_framework_is_taken(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    message = typed(tmp_path, tmp_path_factory, entry="torch", package=PACKAGE, files=FILES)
    assert message == (
        "entry point 'torch' of careless takes the name of another framework; rename it there or "
        "uninstall that package"
    )


def test_a_package_that_is_gone_names_its_distribution(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    message = typed(tmp_path, tmp_path_factory, entry="gone", package="gone.adapter", files={})
    assert "'gone' names the package 'gone.adapter', which is not there" in message
    assert "uninstall careless" in message


def test_a_package_that_workers_could_not_find_is_refused(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = {"loose/tidy/__init__.py": ADAPTER, "loose/tidy/env.toml": ENVIRONMENT}
    message = typed(tmp_path, tmp_path_factory, entry="loose", package="loose.tidy", files=files)
    assert "'loose' of careless: the package 'loose' needs an __init__.py" in message


WRONG = {
    "no title": ('title = "Tidy"', "", "the key 'title' is missing"),
    "no documentation": ("documentation", "documents", "the key 'documentation' is missing"),
    "no environments": ("[environments.default]", "[environment.default]", "'environments' is"),
    "no python": ("python =", "pyton =", "the key 'python' is missing"),
    "no requirements": ("requirements =", "requires =", "the key 'requirements' is missing"),
    "no imports": ("imports =", "import =", "the key 'imports' is missing"),
    "no modes": ("[modes.plain]", "[mode.plain]", "the key 'modes' is missing"),
    "no summary": ("summary =", "summry =", "the key 'summary' is missing"),
    "unknown environment": ("phases =", 'environment = "gpu"\nphases =', "the key 'gpu' is miss"),
    "unknown phase": ('["inference"]', '["inferenc"]', "'inferenc'; did you mean inference?"),
    "unknown statistic": ("phases = [", 'statistics = ["latncy"]\nphases = [', "latency?"),
    "text for a list": ('requirements = ["numpy"]', 'requirements = "numpy"', "a list of texts"),
    "list for a table": ("[modes.plain]", "[[modes]]", "has no attribute 'items'"),
    "no TOML": ("[modes.plain]", "[modes.plain", "line 10"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_an_environment_file_with_a_fault_is_refused_with_its_place(
    tmp_path: Path, fault: str
) -> None:
    good, wrong, words = WRONG[fault]
    assert ENVIRONMENT.count(good) == 1
    (tmp_path / "env.toml").write_text(ENVIRONMENT.replace(good, wrong))
    with pytest.raises(BadInput) as caught:
        read_framework("tidy", "tidy", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'env.toml'}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_environment_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"env\.toml: .*No such file"):
        read_framework("tidy", "tidy", tmp_path)
    (tmp_path / "env.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"env\.toml: "):
        read_framework("tidy", "tidy", tmp_path)


def test_the_good_environment_file_reads_as_written(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(ENVIRONMENT)
    found = read_framework("tidy", "tidy", tmp_path)
    assert found.modes["plain"].phases == ("inference",)
    assert found.modes["plain"].statistics == ("throughput", "latency")
    assert found.modes["plain"].environment.requirements == ("numpy",)
