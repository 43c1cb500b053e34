"""Writes what the published runs say, in full digits: a summary and a table of verdicts per run.

It also judges the published proof again. ``make published`` rewrites ``tests/published``;
``tests/test_docs.py`` fails where a run in the repository gives another table. Rewrite them only
where a run was made again or a result is meant to change, and say in CHANGELOG.md which verdicts
changed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from levelfield.harness.analysis.summary import summary
from levelfield.harness.analysis.verdicts import judge, verdict_frame
from levelfield.harness.records import frames
from levelfield.harness.selftest import proof

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "tests" / "published"


def runs() -> list[Path]:
    """The folders of all runs in the repository; runs made next to them are ignored by git."""
    kept = re.findall(r"^!(results/\w+)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
    paths = (path for folder in kept for path in (ROOT / folder).rglob("run.json"))
    return sorted(path.parent for path in paths if "reports" not in path.parts)


def expected(run: Path) -> Path:
    """The folder with the expected tables of a run."""
    return EXPECTED / run.relative_to(ROOT / "results")


def tables(run: Path) -> dict[str, str]:
    """File name -> CSV with a header and one row per cell or per pair of arms.

    Floats have the fewest digits that give the same float64 again (``repr``).
    """
    loaded = frames.load(run)
    cells = summary(loaded)
    verdicts = verdict_frame(judge(loaded, cells))
    return {
        "summary.csv": cells.to_csv(index=False, lineterminator="\n"),
        "verdicts.csv": verdicts.to_csv(index=False, lineterminator="\n"),
    }


def main() -> None:
    """Rewrite the expected tables of every run."""
    shutil.rmtree(EXPECTED, ignore_errors=True)  # of a run that is gone, nothing stays
    for run in runs():
        folder = expected(run)
        folder.mkdir(parents=True)
        for name, text in tables(run).items():
            (folder / name).write_text(text, encoding="utf-8")
    proof.judge_again(ROOT / "results" / "selftest")


if __name__ == "__main__":
    main()
