"""What is generated is fresh, and what README tells to type exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from harness import store
from harness.report import write_report
from harness.selftest import page, proof, real

ROOT = Path(__file__).parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", generator().GENERATED)
def test_generated_documents_are_fresh(name: str) -> None:
    expected = generator().GENERATED[name]()
    assert (ROOT / name).read_text(encoding="utf-8") == expected, "type: make docs"


def test_the_published_report_is_recomputed_to_the_letter(tmp_path: Path) -> None:
    example = ROOT / "results" / "example"
    write_report(example, tmp_path, formats=("markdown", "charts"))
    # The pictures depend on the version of the drawing library; the text does not.
    published = (example / "report" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == published
    for picture in ("ratio.png", "step-time.png", "memory.png", "startup.png"):
        assert (example / "report" / picture).stat().st_size > 10_000


def published() -> list[Path]:
    """Every run in the repository."""
    return sorted(path.parent for path in (ROOT / "results").rglob("run.json"))


def test_the_published_runs_carry_no_path_of_a_machine() -> None:
    assert len(published()) >= 5
    for run in published():
        text = (run / "run.json").read_text() + (run / "records.jsonl").read_text()
        assert not re.search(r"/(root|home|work|tmp)/", text), run


def test_the_published_proof_follows_from_its_records() -> None:
    """What the sessions on real frameworks show is judged again from their raw records."""
    kept, _ = page.read(ROOT / "results" / "selftest")
    again = list(proof.judged(ROOT / "results" / "selftest"))
    assert again == [finding for finding in kept if finding.part == real.PART]


def test_the_published_run_is_whole() -> None:
    run = store.open_run(ROOT / "results" / "example")
    assert store.finished(run) == {cell["id"] for cell in run.description["cells"]}


def test_every_file_that_documents_link_to_exists() -> None:
    for document in (ROOT / "README.md", ROOT / "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{document.name} links to {target}"
