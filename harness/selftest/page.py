"""Writes ``docs/measurement.md`` and the table of goals and results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from levelfield.harness.errors import BadInput
from levelfield.harness.records.store import write_atomically
from levelfield.harness.report.text import escape, markdown_table
from levelfield.harness.selftest.goals import Finding, as_table

FILE = "selftest.json"
PARTS = {
    "simulation": "By simulation, where the truth is known",
    "probe": "Seeded faults and known quantities",
    "mutation": "Mistakes seeded into copies of real adapters",
    "machine": "Real frameworks on this machine",
}


@dataclass(frozen=True)
class ProofFacts:
    """When, by what and where a proof was made. ``code_version`` is as in run.json.

    ``judged``: when the recorded runs were last judged again and the simulations repeated.
    """

    created: str
    level: str
    code_version: Mapping[str, Any]
    processor: str | None
    cores: int
    judged: str = ""


def write(folder: Path, findings: Sequence[Finding], facts: ProofFacts) -> Path:
    """Write the proof next to its runs."""
    path = folder / FILE
    content = {**asdict(facts), "findings": [asdict(finding) for finding in findings]}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def read(folder: Path) -> tuple[list[Finding], ProofFacts]:
    """Read a proof that ``write`` kept. Raises BadInput."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        findings = [Finding(**fields) for fields in content.pop("findings")]
        return findings, ProofFacts(**content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{folder} holds no proof ({error}); make one: levelfield selftest --full"
        ) from error


def markdown(findings: Sequence[Finding], facts: ProofFacts) -> str:
    """Return the page as Markdown."""
    missed = [finding for finding in findings if not finding.met]
    parts = [
        "# Does the measurement hold?",
        "Written by the program from the records of a run of `levelfield selftest --full`"
        f" ({escape(facts.created)}, {escape(str(facts.processor))},"
        f" {facts.cores} cores). How it measures: ARCHITECTURE.md."
        + (
            f" The simulations were repeated, and the recorded runs judged again, {facts.judged}."
            if facts.judged
            else ""
        ),
        f"{len(findings) - len(missed)} of {len(findings)} goals are met."
        + (
            ""
            if not missed
            else f" Missed: {escape('; '.join(finding.what for finding in missed))}."
        ),
    ]
    for part, title in PARTS.items():
        rows = [finding for finding in findings if finding.part == part]
        if rows:
            table = as_table(rows).drop(columns="part")
            parts += [f"## {title}", markdown_table(table, left=tuple(table.columns))]
    return "\n\n".join(parts) + "\n"
