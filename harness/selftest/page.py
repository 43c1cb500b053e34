"""Writes ``docs/measurement.md`` and the table of goals and results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.records.store import write_atomically
from harness.report.text import escape, markdown_table
from harness.selftest.goals import Finding, as_table

FILE = "selftest.json"
PARTS = {
    "simulation": "By simulation, where the truth is known",
    "probe": "Seeded faults and known quantities",
    "mutation": "Mistakes seeded into copies of real adapters",
    "machine": "Real frameworks on this machine",
}


def write(folder: Path, findings: Sequence[Finding], facts: dict[str, Any]) -> Path:
    """Write the proof next to its runs."""
    path = folder / FILE
    content = {**facts, "findings": [each.to_json() for each in findings]}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def read(folder: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Read a proof that ``write`` kept. Raises BadInput."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return [Finding(**each) for each in content.pop("findings")], content
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{folder} holds no proof ({error}); make one: levelfield selftest --full"
        ) from error


def markdown(findings: Sequence[Finding], facts: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    missed = [each for each in findings if not each.met]
    parts = [
        "# Does the measurement hold?",
        "Written by the program from the records of a run of `levelfield selftest --full`"
        f" ({escape(str(facts.get('created', '')))}, {escape(str(facts.get('processor', '')))},"
        f" {facts.get('cores', '?')} cores). How it measures: ARCHITECTURE.md.",
        f"{len(findings) - len(missed)} of {len(findings)} goals are met."
        + ("" if not missed else f" Missed: {escape('; '.join(each.what for each in missed))}."),
    ]
    for part, title in PARTS.items():
        rows = [each for each in findings if each.part == part]
        if rows:
            table = as_table(rows).drop(columns="part")
            parts += [f"## {title}", markdown_table(table, left=tuple(table.columns))]
    return "\n\n".join(parts) + "\n"
