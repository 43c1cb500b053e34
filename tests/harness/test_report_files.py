"""Report files: the same bytes from the same records, links that lead somewhere, clear errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from levelfield.harness.errors import BadInput
from levelfield.harness.report import CHARTS, FORMATS, write_report
from tests.support.reports import ARMS
from tests.support.synthetic import write_mlp_run


def run(folder: Path, **options: object) -> Path:
    return write_mlp_run(folder, **{"arms": ARMS, **options})


@dataclass(frozen=True)
class Twice:
    """A run, and its report by this process and by another one, whose ``output`` is kept."""

    run: Path
    here: Path
    there: Path
    output: str


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """The other process has settings of its own for its charts."""
    folder = tmp_path_factory.mktemp("twice")
    path, one, two = (
        run(folder, statuses={2: "wrong", 10: "failed"}),
        folder / "one",
        folder / "two",
    )
    write_report([path], one, formats=FORMATS)
    code = (
        "import sys, matplotlib; matplotlib.rcParams['font.size'] = 31;"
        "from levelfield.harness.report import FORMATS, write_report;"
        "write_report([sys.argv[1]], sys.argv[2], formats=FORMATS);"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['font.size'])"
    )
    command = [sys.executable, "-c", code, path, two]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Twice(path, one, two, done.stdout)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "not a backend"])
def test_charts_are_drawn_whatever_backend_is_set(tmp_path: Path, backend: str) -> None:
    """A notebook's kernel sets one that other programs cannot load, and wants it back."""
    code = (
        "import os, sys; from pathlib import Path; from levelfield.harness.report import plot;"
        "plot('ratio', [Path(sys.argv[1])], Path(sys.argv[2])); print(os.environ['MPLBACKEND'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run(tmp_path), tmp_path],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{backend}\n", "")
    assert (tmp_path / "ratio.png").is_file()


@pytest.mark.parametrize("first", ["matplotlib", "levelfield.harness.report"])
def test_a_program_that_draws_by_itself_keeps_its_backend(first: str) -> None:
    code = (
        f"import {first}; import levelfield.harness.report, matplotlib;"
        "print(matplotlib.get_backend())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "svg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "svg\n"


def bytes_of(paths: Iterable[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths}


def test_the_same_records_give_the_same_bytes_in_another_process(twice: Twice) -> None:
    here, there = (bytes_of(folder.rglob("*.*")) for folder in (twice.here, twice.there))
    assert here.keys() == there.keys() and len(here) > 20
    assert [name for name in here if here[name] != there[name]] == []
    for name, content in here.items():
        assert str(twice.run.parent).encode() not in content, name
    assert bytes_of(write_report([twice.run], twice.here, formats=FORMATS)) == here


def test_the_charts_leave_pyplot_and_the_callers_settings_alone(twice: Twice) -> None:
    assert twice.output.split() == ["False", "31.0"]
    for name in ("step-time.svg", "memory.png"):  # neither is drawn by the caller's settings
        assert (twice.here / name).read_bytes() == (twice.there / name).read_bytes()


def test_a_report_shows_its_charts_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    write_report(
        run(tmp_path), tmp_path / "report", formats=("markdown", "charts", "csv", "parquet")
    )
    text = (tmp_path / "report" / "report.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    charts_named = [name for name in CHARTS if name != "scaling"]
    assert len(links) == len(charts_named) + 2
    assert all((tmp_path / "report" / link).exists() for link in links)
    assert all(f"({name}.svg)" in text for name in charts_named)


@pytest.mark.parametrize("chosen", FORMATS)
def test_each_format_alone(tmp_path: Path, chosen: str) -> None:
    written = write_report(run(tmp_path), tmp_path / "report", formats=(chosen,))
    assert written and all(path.exists() for path in written)
    assert {path for path in (tmp_path / "report").rglob("*.*")} == set(written)
    if chosen == "markdown":
        assert "](" not in written[0].read_text()


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown format 'pdf'.*markdown"):
        write_report(run(tmp_path), tmp_path / "report", formats=("pdf",))
    assert not (tmp_path / "report").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="choose a folder"):
        write_report(run(tmp_path), tmp_path / "file" / "report")


@pytest.mark.parametrize("status", ["wrong", "failed", "no-environment", "unfinished"])
def test_a_run_of_nothing_but_failures_gives_a_report(tmp_path: Path, status: str) -> None:
    path = run(tmp_path, statuses=dict.fromkeys(range(14), status))
    text = write_report([path], tmp_path / "report")[0].read_text()
    assert text.count("0 of 6 arms ok") == 2
    for arm in ARMS:
        assert len(re.findall(rf"^\d\. {arm} {status}: ", text, re.MULTILINE)) == 2


def test_a_run_without_cells_gives_a_report(tmp_path: Path) -> None:
    path = run(tmp_path, arms=())
    written = write_report([path], tmp_path / "report")
    assert "Runs and versions" in written[0].read_text()
