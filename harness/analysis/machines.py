"""The machines of runs: which runs share one, and in which facts the others differ."""

from __future__ import annotations

from typing import Any

from levelfield.harness.errors import clean
from levelfield.harness.machine.describe import difference, recorded
from levelfield.harness.records.frames import Frames


def machine_numbers(frames: Frames) -> dict[str, int]:
    """Run -> the number of its machine, from 1; runs on one machine share a number."""
    known: list[dict[str, Any]] = []
    numbers = {}
    for run, text in zip(frames.runs["run"], frames.runs["machine"], strict=True):
        machine = recorded(text)
        number = next((n for n, other in enumerate(known) if not difference(other, machine)), None)
        if number is None:
            number = len(known)
            known.append(machine)
        numbers[str(run)] = 1 + number
    return numbers


def unlike_machines(frames: Frames) -> list[str]:
    """Say how each machine but the first differs from the first, a text per machine.

    The list is empty if all runs were made on one machine.
    """
    facts = dict(zip(frames.runs["run"], map(recorded, frames.runs["machine"]), strict=True))
    first_runs: dict[int, str] = {}
    for run, number in machine_numbers(frames).items():
        first_runs.setdefault(number, run)
    base, *others = first_runs.values() if first_runs else [""]
    return [
        clean(f"{base} and {run}: {'; '.join(difference(facts[base], facts[run]))}")
        for run in others
    ]
