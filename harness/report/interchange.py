"""Reports for other programs: LaTeX tables, and JSON that pytest-benchmark compares.

Formats: https://ctan.org/pkg/booktabs and
https://pytest-benchmark.readthedocs.io/en/stable/comparing.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import pandas

from levelfield.harness.analysis.comparisons import Comparison
from levelfield.harness.analysis.summary import counted
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.tables import ComparisonTable

# The columns for which a page of paper has room.
LATEX_COLUMNS = (
    *("arm", "status", "ratio to first", "verdict", "step (ms)", "start-up (s)", "peak (MiB)"),
    *("output error", "test accuracy (%)"),
)
_LATEX = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "[": "{[}",  # after a row's end LaTeX reads a bracket as an option
        "∞": r"$\infty$",
        "±": r"$\pm$",
    }
)


def latex(tables: Iterable[ComparisonTable]) -> str:
    r"""Every comparison as a ``table`` of booktabs; needs ``\usepackage{booktabs}``."""
    parts = ["% \\usepackage{booktabs}"]
    for number, table in enumerate(tables, start=1):
        cells = table.cells[[name for name in LATEX_COLUMNS if name in table.cells]]
        sides = "".join("l" if name in ("arm", "status", "verdict") else "r" for name in cells)
        lines = [
            " & ".join(_escaped(text) for text in row) + r" \\"
            for row in ([*cells.columns], *cells.to_numpy().tolist())
        ]
        below = [*table.below, *(f"({at}) {note}" for at, note in enumerate(table.notes, start=1))]
        parts += [
            "\\begin{table}\n\\centering\\small",
            f"\\caption{{{_escaped(table.title)}}}\n\\label{{tab:levelfield-{number}}}",
            f"\\begin{{tabular}}{{{sides}}}\n\\toprule\n{lines[0]}\n\\midrule",
            "\n".join(lines[1:]),
            "\\bottomrule\n\\end{tabular}",
            "\n".join(f"\\par\\footnotesize {_escaped(line)}" for line in below),
            "\\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return str(text).translate(_LATEX)


def benchmark_json(frames: Frames, comparisons: Sequence[Comparison]) -> str:
    """Seconds per step of every throughput slice, as ``pytest-benchmark compare`` reads them.

    A slice is a round with one iteration per step. Slices of disturbed rounds are left out where a
    cell has others, because pytest-benchmark knows no weights. It shows summaries of slices and no
    verdicts.
    """
    slices = counted(frames.slices, "throughput", "steps", "seconds", "step_seconds", "disturbed")
    calm = ~slices["disturbed"]
    slices = slices[calm | ~calm.groupby([slices["run"], slices["cell"]]).transform("any")]
    mine = {key: part for key, part in slices.groupby(["run", "cell"], sort=False)}
    benchmarks = []
    for comparison in comparisons:
        for cell in comparison.rows.to_dict("records"):
            part = mine.get((cell["run"], cell["cell"]))
            if cell["status"] == "ok" and part is not None:
                title = f"{comparison.title}, {comparison.details}"
                benchmarks.append(_benchmark(title, cell, part))
    runs = frames.runs.to_dict("records")
    machine = json.loads(runs[0]["machine"]) if runs and runs[0]["machine"] else {}
    document = {
        "machine_info": {
            "node": "",
            "processor": str(machine.get("processor") or ""),
            "machine": str(machine.get("architecture") or ""),
            "system": str(machine.get("system") or ""),
            "cpu": {"brand_raw": str(machine.get("processor") or "")},
        },
        "commit_info": {"id": "", "time": None, "dirty": False, "branch": ""},
        "benchmarks": benchmarks,
        "datetime": str(runs[0]["created"]) if runs else "",
        "version": "5.0.0",
    }
    return json.dumps(document, indent=1) + "\n"


def _benchmark(title: str, cell: dict[Any, Any], slices: pandas.DataFrame) -> dict[str, Any]:
    seconds = slices["step_seconds"].to_numpy(float)
    quarters = [float(quarter) for quarter in numpy.percentile(seconds, [25, 50, 75])]
    middle, spread = float(seconds.mean()), quarters[2] - quarters[0]
    deviation = float(seconds.std(ddof=1)) if len(seconds) > 1 else 0.0
    inner = seconds[
        (seconds >= quarters[0] - 1.5 * spread) & (seconds <= quarters[2] + 1.5 * spread)
    ]
    far = int((abs(seconds - middle) > deviation).sum())
    stats = {
        "min": float(seconds.min()),
        "max": float(seconds.max()),
        "mean": middle,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": quarters[1],
        "iqr": spread,
        "q1": quarters[0],
        "q3": quarters[2],
        "iqr_outliers": len(seconds) - len(inner),
        "stddev_outliers": far,
        "outliers": f"{far};{len(seconds) - len(inner)}",
        "ld15iqr": float(inner.min()),
        "hd15iqr": float(inner.max()),
        "ops": 1 / middle,
        "total": float(seconds.sum()),
        "iterations": int(slices["steps"].median()),
        "data": seconds.tolist(),
    }
    return {
        "group": title,
        "name": cell["arm"],
        "fullname": f"{cell['comparison']}::{cell['arm']}",
        "params": None,
        "param": None,
        "extra_info": {"batch": int(cell["batch"]), "blocks": int(cell["blocks"])},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": len(seconds),
            "max_time": float(slices["seconds"].sum()),
            "min_time": float(slices["seconds"].min()),
            "warmup": True,
        },
        "stats": stats,
    }
