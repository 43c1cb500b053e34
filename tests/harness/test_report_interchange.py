"""What LaTeX and pytest-benchmark get: read back by pytest-benchmark itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.summary import counted, summary
from levelfield.harness.report import write_report
from levelfield.harness.report.interchange import benchmark_json, latex
from levelfield.harness.report.tables import comparison_tables
from tests.support.reports import ARMS, frames_of
from tests.support.synthetic import write_run


def test_pytest_benchmark_compares_what_we_write(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), blocks=2)
    (path,) = write_report([run], tmp_path / "report", formats=("benchmark",))
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(path), "--columns=min,median"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for arm in ARMS:
        assert len(re.findall(rf"^{arm} ", done.stdout, re.MULTILINE)) == 2


def test_a_benchmark_has_every_undisturbed_slice(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong"}, loud=[(1, 0)])
    benchmarks = json.loads(benchmark_json(frames, comparisons_of(frames)))["benchmarks"]
    slices = counted(frames.slices, "throughput", "arm", "phase", "step_seconds", "disturbed")
    slices = slices[~slices["arm"].str.endswith("#2") & ~slices["disturbed"]]
    table = summary(frames)
    fine = table[(table["status"] == "ok") & ~table["arm"].str.endswith("#2")]
    assert len(benchmarks) == len(fine)
    for benchmark in benchmarks:
        phase = "inference" if "inference" in benchmark["group"] else "training"
        mine = slices[(slices["arm"] == benchmark["name"]) & (slices["phase"] == phase)]
        assert benchmark["stats"]["data"] == mine["step_seconds"].tolist()
        assert benchmark["stats"]["rounds"] == len(mine)
        assert benchmark["stats"]["median"] == pytest.approx(mine["step_seconds"].median())
        assert benchmark["stats"]["min"] <= benchmark["stats"]["q1"] <= benchmark["stats"]["q3"]


def test_latex_has_every_arm_and_no_character_of_its_own(tmp_path: Path) -> None:
    arms = (*ARMS, "third_party:100%_mode")
    frames = frames_of(tmp_path, arms=arms, statuses={3: "no-environment"})
    text = latex(comparison_tables(frames, comparisons_of(frames)))
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 2
    assert text.count(r"third\_party:100\%\_mode &") == 2
    for table in text.split(r"\begin{tabular}")[1:]:
        rows = [line for line in table.splitlines() if line.endswith(r" \\")]
        widths = {len(re.findall(r"(?<!\\)&", line)) for line in rows}
        assert len(rows) == len(arms) + 1 and len(widths) == 1
    assert not re.search(r"(?<!\\)[#$]", text.replace(r"$\infty$", "").replace(r"$\pm$", ""))
