"""What is generated is fresh, and what README tells to type exists."""

from __future__ import annotations

import csv
import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType

import pytest

from levelfield.harness.records import store
from levelfield.harness.report import write_report
from levelfield.harness.selftest import page, proof, real

ROOT = Path(__file__).parent.parent


def generator(name: str = "generate") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
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


PUBLISHED = generator("published")
SHOWN_DIFFERENCES = 5  # of a table that differs, in the message
# Relative. NumPy's logarithm and exponential differ in the last bit between vector instructions:
# with AVX-512 the numbers of all published runs are within 2.3e-16 of those with AVX2.
ROUNDING = 1e-14


def same(old: str, new: str) -> bool:
    """Whether two cells of a CSV have one text, or numbers that differ by rounding alone."""
    try:
        return old == new or math.isclose(float(old), float(new), rel_tol=ROUNDING)
    except ValueError:
        return False


def differences(expected: str, table: str) -> list[str]:
    """What differs between two CSVs, cell by cell, the first few."""
    (names, *kept), (new_names, *rows) = (
        list(csv.reader(text.splitlines())) for text in (expected, table)
    )
    if names != new_names or len(kept) != len(rows):
        columns = sorted(set(names) ^ set(new_names))
        return [f"columns that only one has: {columns}; rows: {len(kept)}, now {len(rows)}"]
    lines = [
        f"{' '.join(row[1:4])}, {name}: {old!r}, now {new!r}"
        for row, new_row in zip(kept, rows, strict=True)
        for name, old, new in zip(names, row, new_row, strict=True)
        if not same(old, new)
    ]
    return lines[:SHOWN_DIFFERENCES]


@pytest.mark.parametrize("run", PUBLISHED.runs(), ids=lambda run: run.name)
def test_a_published_run_gives_its_tables_again(run: Path) -> None:
    """Numbers of the summary and of the verdicts are those of the day when they were published."""
    lines = [
        f"{name}: {words}"
        for name, table in PUBLISHED.tables(run).items()
        for words in differences((PUBLISHED.expected(run) / name).read_text("utf-8"), table)
    ]
    assert lines == [], "if results are meant to change, type: make published"


def test_every_expected_table_belongs_to_a_published_run() -> None:
    folders = {path.parent for path in PUBLISHED.EXPECTED.rglob("*.csv")}
    assert folders == {PUBLISHED.expected(run) for run in PUBLISHED.runs()}


def test_one_number_that_differs_by_more_than_rounding_is_a_difference() -> None:
    text = (PUBLISHED.expected(ROOT / "results" / "example") / "summary.csv").read_text("utf-8")
    number = re.search(r"\b0\.\d{15,}\b", text)
    assert number is not None
    value = float(number[0])
    rounded, other = repr(math.nextafter(value, 1.0)), repr(value * (1 + 1e-12))
    assert differences(text, text.replace(number[0], rounded, 1)) == []
    (words,) = differences(text, text.replace(number[0], other, 1))
    assert words.endswith(f"'{number[0]}', now '{other}'")
    assert differences(text, text + text.splitlines()[1] + "\n")
    assert differences(text, text.replace("step_seconds", "seconds", 1))
    assert differences(text, text.replace(",ok,", ",wrong,", 1))


def test_the_published_runs_carry_no_path_of_a_machine() -> None:
    assert len(PUBLISHED.runs()) >= 5
    for run in PUBLISHED.runs():
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


def test_facts_of_the_package_index_are_read_from_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What docs/facts.py makes of an answer of the index, without asking it."""
    facts = generator("facts")

    def file(name: str, day: str) -> dict[str, str | None]:
        return {"filename": name, "upload_time": f"{day}T00:00:00", "requires_python": ">=3.10"}

    recent, old = facts.TODAY - facts.YEAR / 2, facts.TODAY - 2 * facts.YEAR
    index = {
        "info": {"license_expression": None, "license": "MIT License", "classifiers": []},
        "releases": {
            "1.0": [file("a-1.0-py3-none-any.whl", str(old))],
            "2.0rc1": [file("a-2.0rc1-py3-none-any.whl", str(recent))],
            "2.0": [
                file("a-2.0-cp311-cp311-manylinux_2_28_x86_64.whl", str(recent)),
                file("a-2.0-cp314-cp314-macosx_11_0_arm64.whl", str(recent)),
                file("a-2.0-cp311-cp311-win_amd64.whl", str(recent)),
                file("a-2.0.tar.gz", str(recent)),
            ],
        },
    }
    monkeypatch.setattr(facts, "asked", lambda name: index)
    facts_of_arm = {key: value for key, (value, _) in facts.told("a==2.0", None).items()}
    assert facts_of_arm == {
        "licence": "MIT",
        "platforms": ["linux-x86_64", "macos-arm64", "windows-x86_64"],
        "pythons": ["3.11", "3.14"],
        "released": recent,
        "releases": 1,  # the pre-release is none
        "maintenance": "active",
    }
    pure = {key: value for key, (value, _) in facts.told("a==1.0", facts.Version("2")).items()}
    assert pure["platforms"] == ["any"] and pure["pythons"] == [">=3.10"]
    assert pure["releases"] == 0 and "maintenance" not in pure and "licence" not in pure
