"""Who may import whom, read from the sources; and what an import must not bring along."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("harness", "adapters", "reference")
# What the code of each framework may import besides adapters.base, NumPy and the standard library.
PACKAGES = {
    path.parent.name: {
        name.removeprefix("levelfield.")
        for name in tomllib.loads(path.read_text(encoding="utf-8"))["packages"]
    }
    for path in sorted((ROOT / "adapters").glob("*/env.toml"))
}
# What the folders of several frameworks share, and the packages that it needs.
SHARED = {
    "base": set(),
    "layout": set(),
    "questions": set(),
    "on_exported": {"reference"},
    "on_functions": set(),
    "on_jax": {"jax"},
    "on_keras": set(),
    "on_tensorflow": {"tensorflow"},
    "on_torch": {"torch"},
    "profiled_jax": {"jax"},
    "profiled_tensorflow": {"tensorflow"},
    "profiled_torch": {"torch"},
    "profiled_xla": set(),
    "profiles": set(),
    "with_optax": {"jax", "optax"},
}
FRAMEWORKS = set().union(*PACKAGES.values()) - {"reference", "scipy"}
# The wings of the harness, from the ground up, and what each may import of ours. No wing stands
# below one that it imports.
WINGS = {
    "errors": set(),
    "statistics": set(),
    "worker": {"adapters"},
    "machine": {"errors", "reference"},
    "plan": {"errors", "statistics", "machine", "reference"},
    "records": {"errors", "machine", "plan"},
    "proof": {"errors", "machine", "plan", "reference"},
    "environments": {"errors", "machine", "plan"},
    "analysis": {"errors", "statistics", "machine", "plan", "records", "proof", "reference"},
    "engine": {
        *("errors", "statistics", "machine", "plan", "records", "proof", "environments"),
        *("analysis", "reference"),
    },
    "report": {"errors", "statistics", "machine", "plan", "records", "analysis", "reference"},
    "advice": {"errors", "statistics", "plan", "records", "analysis", "report", "reference"},
    "selftest": {
        *("errors", "statistics", "worker", "machine", "plan", "records", "analysis", "engine"),
        *("report", "adapters"),
    },
    "cli": {
        *("errors", "statistics", "machine", "plan", "records", "environments", "analysis"),
        *("engine", "report", "advice", "selftest", "reference"),
    },
}


CONTRACT = {
    "adapters.base.Adapter",
    "adapters.base.Unsupported",
}  # of which the selftest has its own


READING = {"adapters.questions", "adapters.questions.read_case"}


def imports(path: Path) -> Iterator[str]:
    """The names that a file imports. Those of ours stand without ``levelfield.`` in front."""
    for name in imported(path):
        assert top(name) not in OURS, f"{path}: another project's package may be named {top(name)}"
        if name != "levelfield":
            yield name.removeprefix("levelfield.")


def imported(path: Path) -> Iterator[str]:
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
    if path.name in ("layers_jax.py", "programs.py", "answers.py", "closing.py", "learning.py"):
        allowed |= {"jax"}
    if path.name in ("layers_onnx.py", "export.py"):
        allowed |= {"onnx"}
    if path.name == "layers_numpy.py":
        allowed |= {"scipy"}  # NumPy has no error function
    assert {top(name) for name in imports(path)} <= allowed


@pytest.mark.parametrize("path", sources("harness"), ids=str)
def test_the_harness_reaches_adapters_only_by_name(path: Path) -> None:
    imported = set(imports(path))
    assert {top(name) for name in imported}.isdisjoint(FRAMEWORKS)
    adapters = {name for name in imported if top(name) == "adapters"}
    assert adapters <= {"adapters.base", *READING, *CONTRACT}


@pytest.mark.parametrize(
    "name",
    [
        "harness/worker/worker.py",
        "harness/worker/measure.py",
        "adapters/base.py",
        "adapters/layout.py",
        "adapters/questions.py",
    ],
)
def test_what_runs_in_every_interpreter_needs_numpy_alone(name: str) -> None:
    allowed = {"numpy", "adapters", "harness", *sys.stdlib_module_names}
    imported = set(imports(ROOT / name))
    assert {top(name) for name in imported} <= allowed
    ours = {name for name in imported if top(name) in OURS}
    within = {"adapters.base", "adapters.layout", "adapters.questions", "harness.worker.measure"}
    assert all(name in within or name.rpartition(".")[0] in within for name in ours)


@pytest.mark.parametrize("path", sources("harness/selftest/misbehaving"), ids=str)
def test_what_the_harness_tests_itself_with_runs_everywhere_too(path: Path) -> None:
    imported = set(imports(path))
    allowed = {"numpy", "adapters", "harness", *sys.stdlib_module_names}
    if path.name == "decoding.py":
        allowed |= {"reference"}  # when it decodes, and not before
    assert {top(name) for name in imported} <= allowed
    ours = {name for name in imported if top(name) == "harness"}
    assert all(name.startswith("harness.selftest.misbehaving") for name in ours)


def wing(module: str) -> str:
    """``harness.plan.suite`` -> "plan"; "reference" and "adapters" are wings of their own."""
    parts = module.split(".")
    return parts[1] if parts[0] == "harness" and len(parts) > 1 else parts[0]


def reached(path: Path) -> set[str]:
    """The wings of ours that a file imports, without its own."""
    names = {name for name in imports(path) if top(name) in OURS and name != "harness"}
    return {wing(name) for name in names} - {path.relative_to(ROOT / "harness").parts[0]}


def test_every_folder_of_the_harness_is_a_wing() -> None:
    folders = {path.name for path in (ROOT / "harness").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(WINGS) - {"errors"}
    files = {path.stem for path in (ROOT / "harness").glob("*.py")}
    assert files == {"__init__", "errors"}


@pytest.mark.parametrize("name", WINGS)
def test_a_wing_imports_only_wings_below_it(name: str) -> None:
    below = [*WINGS][: [*WINGS].index(name)]
    assert WINGS[name] <= {*below, "reference", "adapters"}
    files = sources(f"harness/{name}") or [ROOT / "harness" / f"{name}.py"]
    own = [path for path in files if "misbehaving" not in path.parts and "sleepy" not in path.parts]
    assert own
    surplus = {path.name: reached(path) - WINGS[name] for path in own}
    assert {file: names for file, names in surplus.items() if names} == {}


def test_every_allowed_arrow_is_used() -> None:
    for name, allowed in WINGS.items():
        files = sources(f"harness/{name}") or [ROOT / "harness" / f"{name}.py"]
        used = {wing for path in files for wing in (reached(path) if name != "errors" else ())}
        assert allowed <= used, f"{name} imports none of {sorted(allowed - used)}"


@pytest.mark.parametrize("path", sources("adapters"), ids=str)
def test_an_adapter_imports_the_contract_numpy_and_its_framework(path: Path) -> None:
    relative = path.relative_to(ROOT / "adapters")
    own = relative.parts[0] if len(relative.parts) > 1 else None
    packages = PACKAGES[own] if own else SHARED.get(path.stem, set())
    shared = {f"adapters.{name}" for name, needed in SHARED.items() if needed <= packages}
    imported = set(imports(path))
    assert {top(name) for name in imported} <= {
        *("numpy", "adapters"),
        *packages,
        *sys.stdlib_module_names,
    }
    allowed = (*shared, f"adapters.{own}")
    ours = {name for name in imported if top(name) == "adapters"} - {"adapters"}
    assert all(name.startswith(allowed) for name in ours)


def reads_sizes(node: ast.AST) -> bool:
    """Whether an operand is one of the sizes, or an operation with one."""
    if isinstance(node, ast.BinOp):
        return reads_sizes(node.left) or reads_sizes(node.right)
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sizes"


def computed_from_sizes(source: str) -> list[str]:
    """The sizes that code computes from sizes, except the ends of a range."""
    tree = ast.parse(source)
    ranges = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "range"
    ]
    ends = {id(node) for call in ranges for node in ast.walk(call)}
    operations = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
    return [ast.unparse(node) for node in operations if reads_sizes(node) and id(node) not in ends]


@pytest.mark.parametrize("path", sources("adapters"), ids=str)
def test_an_adapter_reads_sizes_and_derives_none(path: Path) -> None:
    assert computed_from_sizes(path.read_text(encoding="utf-8")) == []


def test_a_size_that_is_derived_again_is_seen() -> None:
    assert computed_from_sizes("rows = (sizes[side] // 2 - 4) // 2") != []
    assert computed_from_sizes("for n in range(1, sizes['layers'] + 1): pass") == []


@pytest.mark.parametrize(
    "statement",
    [
        "import levelfield.harness.cli.application",
        "from levelfield.harness.cli.list import _adapters; _adapters({})",
        "import levelfield; levelfield.load, levelfield.reference",
    ],
)
def test_importing_the_harness_imports_no_framework(statement: str) -> None:
    program = f"import sys\n{statement}\nprint(sorted({FRAMEWORKS!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# What takes longer to load than a help text may take, and the commands that need none of it.
HEAVY = ("jax", "matplotlib", "numpy", "onnx", "pandas", "pyarrow", "scipy", "sklearn")


@pytest.mark.parametrize("words", ["--help", "--version", "run --help", "report --help"])
def test_a_command_that_only_says_something_imports_nothing_heavy(words: str) -> None:
    program = (
        "import sys\n"
        "from levelfield.harness.cli.application import answer\n"
        f"sys.argv = ['levelfield', *{words.split()!r}]\n"
        "code = answer()\n"
        f"print(sorted({set(HEAVY)!r} & set(sys.modules)), code, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[] 0\n"


@pytest.mark.parametrize("path", sources("tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_test_imports_from_no_other_test(path: Path) -> None:
    ours = {name for name in imports(path) if top(name) == "tests"}
    assert {name for name in ours if not f"{name}.".startswith("tests.support.")} == set()


# A framework is its folder. Files outside that name one all the same, each with its reason.
NAMING_FRAMEWORKS = {
    "harness/cli/new.py": "each of these has a template for a new model's file",
    "harness/selftest/mutations.py": "mistakes are seeded into copies of these",
    "harness/selftest/real.py": "verdicts are tested on these arms",
}


def test_nothing_outside_the_folder_of_a_framework_lists_it() -> None:
    naming = set()
    for path in [*sources("harness"), *sources("reference")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and text.partition(":")[0] in set(PACKAGES) - {"reference"}:
                naming.add(str(path.relative_to(ROOT)))
    assert naming == set(NAMING_FRAMEWORKS)


LONGEST = 50  # lines of a function, its docstring aside: about a screen
# Longer ones, each with its reason; a function that has become short enough must be removed here.
LONGER = {
    "harness/selftest/real.py planted_slowdowns": "one experiment from the suite to the result",
}


def test_functions_fit_on_a_screen() -> None:
    long = set()
    for path in [*sources("harness"), *sources("reference")]:
        if {"misbehaving", "sleepy"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and lines(node) > LONGEST:
                long.add(f"{path.relative_to(ROOT)} {node.name}")
    assert long == set(LONGER)


def lines(function: ast.FunctionDef) -> int:
    """The lines of a function without its docstring."""
    first, end = function.body[0], function.end_lineno or function.lineno
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return end - function.lineno + 1 - docstring


# One name may stand in several files only where it is the same part of a common form.
COMMON_FORMS = {
    "CELLS": "a layer namespace's recurrent cells",
    "EPSILON": "a model's layer norm",
    "MODELS": "the definitions of a file",
    "PART": "a part of the self-test",
    "SEED": "the seed of a part of the self-test",
}


def test_no_two_classes_or_constants_have_one_name() -> None:
    places: dict[str, set[str]] = {}
    for path in [*sources("harness"), *sources("reference")]:
        if {"misbehaving", "sleepy"} & set(path.parts):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in defined(node):
                if name[0].isupper():
                    places.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    doubled = {name for name, files in places.items() if len(files) > 1}
    assert {name: places[name] for name in doubled - set(COMMON_FORMS)} == {}
    assert set(COMMON_FORMS) <= doubled | {"SEED"}


def defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines, imports aside."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    for target in targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
