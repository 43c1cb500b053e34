"""Many sessions: a change is found where it happened, and a new version is marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from levelfield.harness.analysis.history import history
from levelfield.harness.errors import BadInput
from levelfield.harness.report import draw_history
from levelfield.harness.report.curves import trend_chart
from levelfield.harness.report.series import trend_data
from tests.support.reports import texts
from tests.support.sessions import SAME, session


def dated(run: Path, created: str) -> Path:
    description = json.loads((run / "run.json").read_text())
    description["created"] = created
    (run / "run.json").write_text(json.dumps(description))
    return run


def with_version(run: Path, arm: str, version: str) -> Path:
    lines = []
    for line in (run / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("arm") == arm and "describe" in record:
            record["describe"] = {**(record["describe"] or {}), "version": version}
        lines.append(json.dumps(record))
    (run / "records.jsonl").write_text("\n".join(lines) + "\n")
    return run


def test_a_change_is_found_between_the_runs_where_it_happened(tmp_path: Path) -> None:
    slower = {**SAME, "jax:jit": 0.96}
    # Named against their order, which is that of their dates.
    for name, seed, speed, created in (
        ("c", 1, SAME, "2026-01-01T00:00:00+00:00"),
        ("a", 2, slower, "2026-01-02T00:00:00+00:00"),
        ("b", 3, slower, "2026-01-03T00:00:00+00:00"),
    ):
        run = dated(session(tmp_path, name, seed, speed=speed), created)
        with_version(run, "jax:jit", "1.0" if name == "c" else "1.1")
    changes = history([tmp_path])
    assert changes.apart == ()
    mine = [step for step in changes.steps if step.change.after == "jax:jit"]
    assert [step.run for step in mine] == ["a", "b"]
    assert mine[0].change.word == "slower" and mine[1].change.word != "slower"
    assert mine[0].change.low < 1.2 < mine[0].change.high
    assert [step.versions for step in mine] == [("1.0", "1.1"), ("1.1", "1.1")]
    others = [step for step in changes.steps if step.change.after == "flax:jit"]
    assert all(step.change.word not in ("slower", "faster") for step in others)


def test_the_chart_shows_every_arm_and_every_new_version(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        speed = SAME if number < 2 else {**SAME, "jax:jit": 0.96}
        run = session(tmp_path, name, number, speed=speed)
        dated(run, f"2026-01-0{number + 1}T00:00:00+00:00")
        with_version(run, "jax:jit", "1.0" if number < 2 else "1.1")
    changes = history([tmp_path])
    data = trend_data(changes)
    jax = data[data["arm"] == "jax:jit"]
    assert list(jax["run"]) == ["a", "b", "c"]
    assert list(jax["version"]) == ["", "", "1.0 → 1.1"]
    assert jax["level"].iloc[0] == 1
    assert jax["level"].iloc[2] == pytest.approx(1.2, rel=0.05)
    steps = [step.change.ratio for step in changes.steps if step.change.after == "jax:jit"]
    assert list(jax["level"]) == pytest.approx([1, steps[0], steps[0] * steps[1]])
    shown = [text.get_text() for text in texts(trend_chart(data))]
    assert {"jax:jit", "flax:jit", "a", "b", "c", "1.0 → 1.1"} <= set(shown)
    paths = draw_history(changes, tmp_path / "charts")
    assert [path.name for path in paths] == ["history.png", "history.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_suites_are_kept_apart_and_smoke_runs_left_out(tmp_path: Path) -> None:
    runs = [session(tmp_path, name, seed) for name, seed in (("a", 1), ("b", 2))]
    description = json.loads((runs[1] / "run.json").read_text())
    description["suite"]["name"] = "another"
    (runs[1] / "run.json").write_text(json.dumps(description))
    with pytest.raises(BadInput, match=r"two runs of one suite, not .* once, another once"):
        history(runs)
    smoke = [session(tmp_path, name, seed, level="smoke") for name, seed in (("s", 1), ("t", 2))]
    with pytest.raises(BadInput, match="no run with verdicts"):
        history(smoke)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere is not a run folder of levelfield"):
        history([tmp_path / "nowhere"])
