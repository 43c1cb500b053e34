"""``levelfield doctor``: says whether this machine can give a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Annotated

import typer

from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.plan.arms import PINS_LAST, EnvironmentSpec, arms, old_pins

STYLES = {"good": "green", "poor": "yellow", "unknown": "dim"}


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Watch this machine for some seconds; say which verdicts it can give and how to improve it."""
    from levelfield.harness.machine import doctor

    facts = doctor.examine()
    rows = list(doctor.rows(facts))
    old_specs = old_pins((arm.mode.environment for arm in arms().values()), date.today())
    if as_json:
        print_json(
            {
                "rows": [asdict(row) for row in rows],
                "old_pins": {spec.label: str(spec.pinned) for spec in old_specs},
                "conclusion": doctor.conclusion(facts),
            }
        )
        return
    console = terminal()
    kinds = {"what": "name", "found": "prose", "state": "status", "advice": "prose"}
    cells = [(row.what, row.found, row.state, row.advice) for row in rows]
    console.print(TextTable(kinds, cells, styles=[STYLES[row.state] for row in rows]))
    console.print(f"Expect {doctor.conclusion(facts)}.")
    if old_specs:
        console.print(_old_words(old_specs), soft_wrap=True)
    print_next(console, "measure: levelfield run quick")


def _old_words(specs: Sequence[EnvironmentSpec]) -> str:
    days = ", ".join(f"{spec.label} ({spec.pinned})" for spec in specs)
    return (
        f"Pinned more than {PINS_LAST.days} days ago, so newer releases may differ: {days};"
        " CONTRIBUTING.md says how pins are renewed."
    )
