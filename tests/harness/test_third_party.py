"""A third party's adapter: installed by pip in a package of its own, found by its entry point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.errors import BadInput
from levelfield.harness.plan import arms
from levelfield.harness.plan.arms import read_framework
from tests.support.terminal import Terminal, install, variables, write_project
from tests.support.third_party import ADAPTER, ENVIRONMENT, careless, project_of

# Its package writes down who imports it, and whether that process could import its neighbour.
TRACE = """
import json, os, sys
from importlib.util import find_spec

with open(os.path.join(os.path.dirname(__file__), "imported.jsonl"), "a") as trace:
    beside = find_spec("beside") is not None
    json.dump({"program": sys.argv[0], "path": sys.path, "neighbour": beside}, trace)
    trace.write("\\n")
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
    shell = Terminal(variables(tmp_path_factory, site), tmp_path_factory.mktemp("home"))
    yield shell
    shell.close()


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
    assert {Path(importer["program"]).name for importer in importers} == {"worker.py"}
    assert all(str(site) not in importer["path"] for importer in importers)
    assert not any(importer["neighbour"] for importer in importers)


BROKEN = {
    "no_toml": ENVIRONMENT.replace("[modes.plain]", "[modes.plain"),
    "colon": ENVIRONMENT.replace("[modes.plain]", '[modes."a:b"]'),
    "escape": ENVIRONMENT.replace('"Tidy"', '"\\u001b[2J"'),
    "no_python": ENVIRONMENT.replace('">=3.6"', '"three"'),
    "facts": ENVIRONMENT,
    "markup": ENVIRONMENT.replace('"Tidy"', '"[/x] :smile: [bold]"').replace(
        '"dense layers in NumPy"', '"[/] [red]x"'
    ),
}
USABLE = ("facts", "markup", "tidy")
# entry point -> how the reason begins for which it is left out
LEFT_OUT = {
    "no_toml": "",
    "colon": "",
    "escape": "",
    "no_python": "",
    "bare": "",
    "torch": "the name is that of another framework; ",
    "gone": "its entry point names the package 'gone.adapter', which is not there; ",
    "loose": "the package 'loose' needs an __init__.py",
    "code": "its entry point names 'os; import sys', which is no dotted package; ",
    "spaced name": "its entry point names the package 'os', which is not there; ",
}


@pytest.fixture(scope="module")
def crowd(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Everything that is wrong at once, and a tidy framework between."""
    folder = tmp_path_factory.mktemp("crowd")
    for entry, text in BROKEN.items():
        files = {f"{entry}_package/__init__.py": ADAPTER, f"{entry}_package/env.toml": text}
        if entry == "facts":
            files["facts_package/facts.toml"] = "licence = 5\n"
        if entry == "markup":
            files["markup_package/mlp.py"] = "this is no Python"
        careless(folder, entry=entry, package=f"{entry}_package", files=files)
    files = {"loose/tidy/__init__.py": ADAPTER, "loose/tidy/env.toml": ENVIRONMENT}
    careless(folder, entry="loose", package="loose.tidy", files=files)
    careless(folder, entry="bare", package="bare", files={"bare/__init__.py": ADAPTER})
    careless(folder, entry="torch", package="facts_package", files={})
    careless(folder, entry="gone", package="gone.adapter", files={})
    careless(folder, entry="spaced name", package="os", files={})
    careless(folder, entry="code", package="os; import sys", files={})
    environment = variables(tmp_path_factory, site)
    environment["PYTHONPATH"] += f":{folder}"
    shell = Terminal(environment, tmp_path_factory.mktemp("home"))
    yield shell
    shell.close()


@pytest.fixture(scope="module")
def adapters(crowd: Terminal) -> dict[str, dict[str, Any]]:
    done = crowd("list", "adapters", "--json")
    assert done.code == 0, done
    return {row["arm"]: row for row in json.loads(done.output)}


@pytest.mark.parametrize(
    "command", ["list adapters", "env list", "check tiny --models mlp --arms tidy:*"]
)
def test_no_third_party_keeps_a_command_from_its_work(crowd: Terminal, command: str) -> None:
    done = crowd(*command.split())
    assert done.code == 0, done
    left_out = [line for line in done.errors.splitlines() if "is left out: " in line]
    assert len(left_out) == len(LEFT_OUT)
    assert all(line.startswith("levelfield: the framework '") for line in left_out)
    assert "tidy:plain" in done.output
    assert "\x1b" not in done.output + done.errors
    assert "Traceback" not in done.errors
    shown = " ".join(done.output.split())
    assert ("[/x] :smile: [bold]: [/] [red]x" in shown) is (command == "list adapters")


@pytest.mark.parametrize("entry", LEFT_OUT)
def test_a_framework_that_is_left_out_has_its_row_and_its_reason(
    adapters: dict[str, dict[str, Any]], entry: str
) -> None:
    row = adapters[entry]
    assert not row["runs here"]
    assert row["adapter"] is None
    assert row["why"].startswith(LEFT_OUT[entry])
    assert row["why"].endswith(f"; mend, update or uninstall {project_of(entry)}")
    assert row["why"].isprintable()
    assert "[Errno" not in row["why"]


def test_a_missing_environment_file_is_named_with_the_next_step(
    adapters: dict[str, dict[str, Any]],
) -> None:
    words = "/bare/env.toml: No such file or directory; mend, update or uninstall careless_bare"
    assert adapters["bare"]["why"].endswith(words)


def test_each_adapter_that_is_listed_says_which_one_it_is(
    adapters: dict[str, dict[str, Any]],
) -> None:
    assert {adapters[f"{name}:plain"]["adapter"]["version"] for name in USABLE} == {"1.0"}
    own, other = adapters["tidy:plain"]["adapter"], adapters["facts:plain"]["adapter"]
    assert own["distribution"] == "tidy_distribution"
    assert own["package"] == PACKAGE
    assert own["hash"] != other["hash"]
    assert adapters["torch:eager"]["adapter"]["package"] == "levelfield.adapters.torch"


def test_the_hash_of_an_adapter_is_that_of_its_own_and_the_shared_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    root = tmp_path / "tidy_company"
    framework = read_framework("tidy", PACKAGE, root)
    folder = root / "frameworks" / "tidy"
    before = framework.identity()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "mlp.pyc").write_bytes(b"x")
    (root / "other.py").write_text("x")
    for left in ("kernel.so", "tidy.log", ".mlp.py.swp"):  # by a compiler, the arm, an editor
        (folder / left).write_bytes(b"x")
    assert framework.identity() == before
    (folder / "mlp.py").rename(folder / "mlq.py")
    renamed = framework.identity()
    (folder / "mlq.py").write_text(MODEL + "\n")
    changed = framework.identity()
    shared = tmp_path / "levelfield" / "adapters"
    shared.mkdir(parents=True)
    (shared / "base.py").write_text("# the contract\n")
    monkeypatch.setattr(arms, "PACKAGE_FOLDER", shared.parent)
    moved = framework.identity()
    (shared / "base.py").write_text("# another contract\n")
    other_contract = framework.identity()
    identities = (before, renamed, changed, moved, other_contract)
    assert len({identity["hash"] for identity in identities}) == 5


# Files of an installed package that are damaged, and how the package then counts.
POINTS = "[levelfield.adapters]\ndamaged = damaged\n"
METADATA = "Metadata-Version: 2.1\nName: damaged\nVersion: 1.0\n"
DAMAGED = {
    "points that are no UTF-8": ({"entry_points.txt": POINTS.encode() + b"\xff"}, None),
    "points without an equals sign": ({"entry_points.txt": POINTS.encode() + b"odd\n"}, None),
    "metadata that is no UTF-8": ({"METADATA": METADATA.encode() + b"\xff"}, "unknown"),
    "metadata without a name": ({"METADATA": b"Version: 1.0\n"}, "1.0"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_package_costs_a_line_and_no_other_framework(
    site: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, fault: str
) -> None:
    files = {"damaged/__init__.py": ADAPTER, "damaged/env.toml": ENVIRONMENT}
    careless(tmp_path, entry="damaged", package="damaged", files=files)
    contents, version = DAMAGED[fault]
    for name, content in contents.items():
        (tmp_path / "careless_damaged-1.0.dist-info" / name).write_bytes(content)
    environment = variables(tmp_path_factory, site)
    environment["PYTHONPATH"] += f":{tmp_path}"
    with closing(Terminal(environment, tmp_path)) as shell:
        done = shell("list", "adapters", "--json")
    assert done.code == 0, done
    rows = {row["arm"]: row for row in json.loads(done.output)}
    assert rows["tidy:plain"]["runs here"]
    assert ("damaged:plain" in rows) is (version is not None)
    if version is None:
        (line,) = done.errors.splitlines()
        assert line.startswith("levelfield: the entry points of careless_damaged are left out: ")
        assert line.endswith("; mend, update or uninstall careless_damaged")
    else:
        adapter = rows["damaged:plain"]["adapter"]
        assert adapter["distribution"] == f"a package in {tmp_path}"
        assert adapter["version"] == version


NOTE = 'notes = [{{models = ["{}"], text = "slow"}}]\n'
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
    "note of an unknown model": ("phases =", NOTE.format("lstn") + "phases =", "mean lstm?"),
    "note without a text": ("phases =", 'notes = [{models = ["mlp"]}]\nphases =', "key 'text'"),
    "list for a table": ("[modes.plain]", "[[modes]]", "has no attribute 'items'"),
    "steering title": ('"Tidy"', '"\\u001b[2J"', "should be a text of one line"),
    "endless title": ('"Tidy"', '"' + "x" * 501 + '"', "should be a text of one line"),
    "number for a title": ('"Tidy"', "5", "5 should be a text"),
    "text for a truth": ("documentation", 'generic = "no"\ndocumentation', "be true or false"),
    "no specifier": ('">=3.6"', '"three"', "Invalid specifier"),
    "a colour in words": (
        "[environments",
        'colour = "red"\n[environments',
        "'red' should be a colour",
    ),
    "a colour of numbers": ("[environments", "colour = [1]\n[environments", "should be a colour"),
    "a day in words": ("imports =", 'pinned = "today"\nimports =', "'today' should be a day"),
    "a day without quotes": ("imports =", "pinned = 2026-11-21\nimports =", "in quotes"),
    "a day that is none": ("imports =", 'pinned = "2026-02-30"\nimports =', "day is out of range"),
    "no phase": ('["inference"]', "[]", "an empty list where at least one of"),
    "no throughput": ("phases = [", 'statistics = ["latency"]\nphases = [', "throughput"),
    "no mode": ("[modes.plain]", "[modes]\n[other]", "it has no mode"),
    **{
        f"a mode called {name!r}": ("[modes.plain]", f'[modes."{name}"]', "cannot name a mode")
        for name in ("a:b", "a@1", "a#2", "a b", "", "a*", "a,b", "a\\u202e", "-a", "[/x]")
    },
    "an environment called a/b": (
        "environments.default",
        'environments."a/b"',
        "cannot name an environment",
    ),
    "nested too deep": ("[modes.plain]", "x = " + "[" * 5000 + "\n[modes.plain]", "too deeply"),
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
    with pytest.raises(BadInput, match=r"env\.toml: No such file or directory$"):
        read_framework("tidy", "tidy", tmp_path)
    (tmp_path / "env.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"env\.toml: "):
        read_framework("tidy", "tidy", tmp_path)


@pytest.mark.parametrize("name", ["a:b", "a@1", "a#2", "a b", "a/b", "", "a\x1b[2J", "[/x]"])
def test_a_framework_of_a_name_that_arms_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "env.toml").write_text(ENVIRONMENT)
    with pytest.raises(BadInput, match="cannot name a framework"):
        read_framework(name, "tidy", tmp_path)


def test_the_good_environment_file_reads_as_written(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(ENVIRONMENT)
    framework = read_framework("tidy", "tidy", tmp_path)
    assert framework.modes["plain"].phases == ("inference",)
    assert framework.modes["plain"].statistics == ("throughput", "latency")
    assert framework.modes["plain"].environment.requirements == ("numpy",)
    assert framework.modes["plain"].environment.pinned is None
    dated = ENVIRONMENT.replace("imports =", 'pinned = "2026-11-21"\nimports =')
    (tmp_path / "env.toml").write_text(dated)
    framework = read_framework("tidy", "tidy", tmp_path)
    assert framework.modes["plain"].environment.pinned == date(2026, 11, 21)
