"""The worker's end under the oldest Python that is here: 3.6 with NumPy 1.19 where there is one.

What else is written for such a Python, the adapters that CNTK and Caffe need, is read as one.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from levelfield.harness.analysis.summary import summary
from levelfield.harness.environments import sealed
from levelfield.harness.environments.interpreters import choose_interpreter
from levelfield.harness.errors import RunFailed
from levelfield.harness.plan.arms import EnvironmentSpec, frameworks
from levelfield.harness.records import frames
from tests.support.engine import RunModes

REQUIREMENTS = {"3.6": ("pip==21.3.1", "numpy==1.19.5")}


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> sealed.Environment:
    """NumPy under the oldest Python of this machine, which may be the running one."""
    for minor in range(6, sys.version_info.minor + 1):
        try:
            version = choose_interpreter(f"==3.{minor}.*").minor
        except RunFailed:
            continue
        break
    requirements = REQUIREMENTS.get(version, ("numpy",))
    spec = EnvironmentSpec("oldest", "default", f"=={version}.*", requirements, ("numpy",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEVELFIELD_CACHE", str(tmp_path_factory.mktemp("cache")))
        return sealed.build(spec, on_progress=lambda line: None)


@pytest.mark.real
def test_the_worker_runs_under_the_oldest_python(
    run_modes: RunModes, oldest: sealed.Environment
) -> None:
    """Gate, checks, memory and parked slots; a wrong answer is seen there as well."""
    python = oldest.interpreter
    path = run_modes("well", "weight-decay", phases=("inference", "training"), python=python)
    loaded = frames.load(path)
    assert set(loaded.processes["python"]) == {oldest.python}
    table = summary(loaded).set_index(["arm", "phase"])
    assert table.loc[("misbehaving:well", "training"), "status"] == "ok"
    assert table.loc[("misbehaving:well", "inference"), "status"] == "ok"
    assert table.loc[("misbehaving:weight-decay", "training"), "status"] == "wrong"
    trained = table.loc[("misbehaving:well", "training")]
    assert trained["step_seconds"] > 0 and trained["peak_bytes"] > 0


ADAPTERS = Path(__file__).parents[2] / "adapters"
OLD = sorted(
    path
    for framework in frameworks().values()
    if any("3.6.15" in SpecifierSet(mode.environment.python) for mode in framework.modes.values())
    for path in framework.folder.glob("*.py")
)
OLD.append(ADAPTERS.parent / "levelfield" / "__init__.py")  # every worker imports it
# What these share with others.
OLD += sorted(
    {
        ADAPTERS / f"{name}.py"
        for path in OLD
        for name in re.findall(
            r"^from levelfield\.adapters\.(\w+) import", path.read_text("utf-8"), re.MULTILINE
        )
        if (ADAPTERS / f"{name}.py").exists()
    }
)


@pytest.mark.parametrize("path", OLD, ids=lambda path: "/".join(path.parts[-2:]))
def test_adapters_of_old_pythons_are_in_their_language(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_there_are_adapters_of_old_pythons() -> None:
    assert {path.parent.name for path in OLD} >= {"caffe", "cntk"}
    assert {path.name for path in OLD if path.parent == ADAPTERS} == {
        "base.py",
        "layout.py",
        "on_keras.py",
    }
