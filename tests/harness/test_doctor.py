"""The doctor: what is poor is said to be, with what to do about it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from levelfield.harness.cli import doctor as command
from levelfield.harness.cli.application import app
from levelfield.harness.machine import doctor
from levelfield.harness.machine.gpu import GpuFacts
from levelfield.harness.plan.arms import PINS_LAST, EnvironmentSpec, arms, old_pins

MACHINE = {
    "cores": 4,
    "physical_cores": 4,
    "frequency_governor": "performance",
    "memory_available_bytes": 2**35,
    "hypervisor": False,
}
GOOD = doctor.MachineFacts(
    machine=MACHINE,
    foreign_share=0.005,
    steal_share=0.0,
    load=0.1,
    spreads=(0.02,) * 20,
    swap_used_bytes=0,
    quota_cores=None,
    variables=(),
    huge_pages="always [madvise] never",
    turbo="on",
    l3_bytes=2**25,
    gpu=GpuFacts("Example GPU", None, None, None, None, None),
)
POOR: dict[str, dict[str, Any]] = {
    "other programs": {"foreign_share": 0.2},
    "speed of a fixed loop": {"spreads": (0.02,) * 10 + (0.4,) * 10},
    "stolen by the hypervisor": {"steal_share": 0.05},
    "cores": {"machine": {**MACHINE, "cores": 1}},
    "frequency control": {"machine": {**MACHINE, "frequency_governor": "powersave"}},
    "memory": {"machine": {**MACHINE, "memory_available_bytes": 2**30}},
    "quota": {"quota_cores": 1.5},
}


def test_a_good_machine_is_good() -> None:
    rows = list(doctor.rows(GOOD))
    assert {row.state for row in rows} == {"good"}
    assert not any(row.advice for row in rows)
    assert "2 % and more" in doctor.conclusion(GOOD)


@pytest.mark.parametrize("what", POOR)
def test_what_is_poor_is_said_with_advice(what: str) -> None:
    rows = {row.what: row for row in doctor.rows(replace(GOOD, **POOR[what]))}
    assert [name for name, row in rows.items() if row.state == "poor"] == [what]
    assert rows[what].advice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spreads": (0.02,) * 16 + (0.4,) * 4}, "5 % and more"),
        ({"spreads": (0.02,) * 10 + (0.4,) * 10}, "verdicts of large differences only"),
        ({"foreign_share": 0.05}, "5 % and more"),
        ({"foreign_share": 0.5}, "verdicts of large differences only"),
        ({"steal_share": 0.02}, "5 % and more"),
        ({"quota_cores": 0.5}, "no verdicts: the quota of 0.5 cores"),
        ({"quota_cores": 1.5}, "2 % and more"),
    ],
)
def test_the_conclusion_follows_from_the_noise(change: dict[str, Any], words: str) -> None:
    assert words in doctor.conclusion(replace(GOOD, **change))


def test_the_command_tells_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WATCH_SECONDS", 0.5)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert {row["what"] for row in document["rows"]} >= {*POOR, "GPU", "huge pages"}
    assert document["conclusion"]
    monkeypatch.setattr(doctor, "examine", lambda: GOOD)
    shown = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "always [madvise] never" in shown.output
    assert "Expect" in shown.output


TODAY = date(2027, 3, 1)


def pinned(framework: str, day: date | None) -> EnvironmentSpec:
    return EnvironmentSpec(framework, "default", ">=3.11", ("x==1",), ("x",), pinned=day)


def test_pins_are_old_after_ninety_days_and_the_oldest_come_first() -> None:
    last = TODAY - PINS_LAST
    specs = [
        pinned("young", last),
        pinned("old", last - timedelta(days=1)),
        pinned("older", last - timedelta(days=2)),
        pinned("old", last - timedelta(days=1)),  # of another mode
        pinned("undated", None),
    ]
    assert [spec.label for spec in old_pins(specs, TODAY)] == ["older", "old"]
    assert old_pins(specs, last) == []


def test_every_built_in_environment_with_pins_has_their_day() -> None:
    specs = {arm.mode.environment for arm in arms().values()}
    own = [spec for spec in specs if spec.requirements]
    assert own
    assert [spec.label for spec in own if spec.pinned is None] == []
    assert all(spec.at("9.9").pinned is None for spec in own)


def test_old_pins_are_one_line_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: GOOD)
    old = [pinned("older", date(2026, 1, 2)), pinned("old", date(2026, 1, 3))]
    for pins, words in ((old, "older (2026-01-02), old (2026-01-03); CONTRIBUTING.md"), ([], "")):
        monkeypatch.setattr(command, "old_pins", lambda specs, today, pins=pins: pins)
        shown = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "80"}).output
        lines = [line for line in shown.splitlines() if line.startswith("Pinned more than")]
        assert len(lines) == (1 if words else 0)
        assert words in shown
        reported = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
        assert reported["old_pins"] == {spec.label: str(spec.pinned) for spec in pins}
