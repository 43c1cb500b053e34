"""Who may import whom, read from the sources; and what an import must not bring along."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("harness", "adapters", "reference")
FRAMEWORKS = (
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "flax",
    "optax",
    "theano",
    "mxnet",
    "onnx",
    "onnxruntime",
    "openvino",
    "chainer",
    "paddle",
    "pytensor",
    "tinygrad",
    "cv2",
    "caffe",
    "cntk",
    "tensorrt",
)
# What an adapter may import besides adapters.base, numpy and the standard library: its framework.
OWN = {
    "torch": {"torch"},
    "tensorflow": {"tensorflow"},
    "keras": {"keras", "tensorflow", "jax", "torch"},
    "jax": {"jax", "optax"},
    "flax": {"flax", "jax", "optax"},
    "caffe": {"caffe", "cv2"},
    "chainer": {"chainer"},
    "cntk": {"cntk"},
    "keras2": {"keras"},  # its backends are started by their own adapters
    "mxnet": {"mxnet"},
    "paddle": {"paddle"},
    "pytensor": {"pytensor"},
    "tensorrt": {"tensorrt"},
    "theano": {"theano", "scipy"},
    "tinygrad": {"tinygrad"},
    "reference": {"reference", "jax"},
    # These run what the reference exports.
    "onnxruntime": {"reference", "onnxruntime", "onnx"},
    "openvino": {"reference", "openvino"},
}


CONTRACT = {
    "adapters.base.Adapter",
    "adapters.base.Unsupported",
}  # of which the selftest has its own


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def top(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("path", sources("reference"), ids=str)
def test_the_reference_imports_numpy_and_in_its_jitted_part_jax(path: Path) -> None:
    allowed = {"reference", "numpy", *sys.stdlib_module_names}
    if path.name in ("layers_jax.py", "programs.py", "case.py", "closing.py", "learning.py"):
        allowed |= {"jax"}
    if path.name in ("layers_onnx.py", "export.py"):
        allowed |= {"onnx"}
    if path.name == "layers_numpy.py":
        allowed |= {"scipy"}  # NumPy has no error function
    assert {top(name) for name in imports(path)} <= allowed


@pytest.mark.parametrize("path", sources("harness"), ids=str)
def test_the_harness_reaches_adapters_only_by_name(path: Path) -> None:
    found = set(imports(path))
    assert {top(name) for name in found}.isdisjoint(FRAMEWORKS)
    adapters = {name for name in found if top(name) == "adapters"}
    assert adapters <= {"adapters.base", "adapters.base.read_case", *CONTRACT}


@pytest.mark.parametrize("name", ["harness/worker.py", "harness/measure.py", "adapters/base.py"])
def test_what_runs_in_every_interpreter_needs_numpy_alone(name: str) -> None:
    allowed = {"numpy", "adapters", "harness", *sys.stdlib_module_names}
    found = set(imports(ROOT / name))
    assert {top(each) for each in found} <= allowed
    ours = {each for each in found if top(each) in OURS}
    within = {"adapters.base", "harness.measure"}
    assert all(each in within or each.rpartition(".")[0] in within for each in ours)


@pytest.mark.parametrize("path", sources("harness/selftest/misbehaving"), ids=str)
def test_what_the_harness_tests_itself_with_runs_everywhere_too(path: Path) -> None:
    found = set(imports(path))
    allowed = {"numpy", "adapters", "harness", *sys.stdlib_module_names}
    if path.name == "decoding.py":
        allowed |= {"reference"}  # when it decodes, and not before
    assert {top(each) for each in found} <= allowed
    ours = {each for each in found if top(each) == "harness"}
    assert all(each.startswith("harness.selftest.misbehaving") for each in ours)


def test_statistics_depend_on_nothing_of_ours() -> None:
    for name in ("statistics", "summaries"):
        found = set(imports(ROOT / "harness" / f"{name}.py"))
        ours = {each for each in found if top(each) in OURS}
        assert all(each.startswith("harness.statistics") for each in ours), name


@pytest.mark.parametrize("path", sources("adapters"), ids=str)
def test_an_adapter_imports_the_contract_numpy_and_its_framework(path: Path) -> None:
    relative = path.relative_to(ROOT / "adapters")
    allowed = {"numpy", "adapters", *sys.stdlib_module_names}
    framework = relative.parts[0] if len(relative.parts) > 1 else None
    if framework:
        allowed |= OWN[framework]
    found = set(imports(path))
    assert {top(name) for name in found} <= allowed
    own = ("adapters.base", f"adapters.{framework}")
    assert all(name.startswith(own) for name in found if top(name) == "adapters")


@pytest.mark.parametrize(
    "statement", ["import harness.cli", "from harness.cli.listing import _adapters; _adapters({})"]
)
def test_importing_the_harness_imports_no_framework(statement: str) -> None:
    program = f"import sys\n{statement}\nprint(sorted(set({FRAMEWORKS!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_tree_in_the_document_has_every_module() -> None:
    tree = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (path for name in ("harness", "reference") for path in (ROOT / name).glob("*.py")):
        defines_models = re.search(r"^MODELS\b", path.read_text(encoding="utf-8"), re.MULTILINE)
        if path.name != "__init__.py" and not defines_models:  # those are <model>.py
            assert re.search(rf"[ /]{path.name}\b", tree), f"ARCHITECTURE.md lacks {path.name}"


def test_every_framework_and_model_has_its_place() -> None:
    for folder in (ROOT / "adapters").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert (folder / "env.toml").is_file(), folder
            assert folder.name in OWN, "say in OWN what the new framework may import"
