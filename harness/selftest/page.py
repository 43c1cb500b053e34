"""Writes ``docs/measurement.md`` and the table of goals and results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from levelfield.harness.errors import BadInput, cause_of
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
            f"{folder} holds no proof ({cause_of(error)}); make one: levelfield selftest --full"
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
    if sentences := plain_words(findings):
        items = "\n".join(f"* {sentence}" for sentence in sentences)
        parts.append(f"## The meaning for a reader\n\n{items}")
    for part, title in PARTS.items():
        rows = [finding for finding in findings if finding.part == part]
        if rows:
            table = as_table(rows).drop(columns="part")
            parts += [f"## {title}", markdown_table(table, left=tuple(table.columns))]
    return "\n\n".join(parts) + "\n"


def plain_words(findings: Sequence[Finding]) -> list[str]:
    """Return what the findings mean for a reader of a report: a sentence or two on each matter."""
    by_name = {finding.what: finding for finding in findings}
    matters = (_false_verdicts, _power, _refused, _other_tools)
    return [sentence for matter in matters if (sentence := matter(by_name))]


def _false_verdicts(by_name: Mapping[str, Finding]) -> str:
    rates = [finding.value for what, finding in by_name.items() if "in the worst of" in what]
    of_arms = "comparisons in which identical arms were"
    real = [escape(finding.figure) for what, finding in by_name.items() if of_arms in what]
    if not rates or not real:
        return ""
    return (
        "**How often a verdict is false.** Where no arm differs from another, a comparison still"
        f" calls some arm faster in {min(rates):.1%} to {max(rates):.1%} of the simulated sessions:"
        " with two to thirty arms, each in the worst of the machines and processes simulated."
        f" On this machine it did so in {' and in '.join(real)} comparisons of identical arms."
    )


def _power(by_name: Mapping[str, Finding]) -> str:
    powers = []
    for share, blocks in ((5, 6), (3, 10), (2, 20)):
        name = f"planted {share} %, 6 rounds a block: found by {blocks} blocks"
        if name in by_name:
            powers.append(f"{share} % in {by_name[name].value:.0%} ({blocks} blocks)")
    if not powers:
        return ""
    return (
        "**How small a difference is found.** An arm that is slower is called slower in so many of"
        f" the simulated sessions: {', '.join(powers)}. `inconclusive` does not say that arms are"
        " equally fast: it says that more blocks are needed."
    )


def _refused(by_name: Mapping[str, Finding]) -> str:
    faults = [f for what, f in by_name.items() if what.startswith("seeded fault: ")]
    mistakes = [f for what, f in by_name.items() if "adapter that are caught" in what]
    if not faults:
        return ""
    refused = sum(finding.met for finding in faults)
    copies = escape("; ".join(f"{finding.what}: {finding.figure}" for finding in mistakes))
    return (
        f"**Whether a wrong program gets a number.** {refused} of {len(faults)} arms with a"
        " fault that was planted in them were refused" + (f" ({copies})." if copies else ".")
    )


def _other_tools(by_name: Mapping[str, Finding]) -> str:
    begin = "the same slices by the rule of "
    rules = [
        escape(f"{what.removeprefix(begin)}: {finding.figure.partition(';')[0]}")
        for what, finding in by_name.items()
        if what.startswith(begin)
    ]
    if not rules:
        return ""
    return (
        "**Why not a usual test?** Two processes of one program differ, and the usual tests do not"
        f" know it. By the rules of other tools, the same slices say: {'; '.join(rules)}."
    )
