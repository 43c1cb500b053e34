"""Two sessions: a change is found, a machine that changed is not taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from levelfield.harness.analysis.sessions import Change, compare, welch
from levelfield.harness.cli.compare import compare_command
from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.statistics.estimates import estimate
from tests.support.sessions import SAME, session


def words(changes: list[Change]) -> dict[str, str]:
    return {change.after: change.word for change in changes}


def test_a_change_of_one_arm_is_found(tmp_path: Path) -> None:
    before = session(tmp_path, "before", 1)
    after = session(tmp_path, "after", 2, speed={**SAME, "jax:jit": 0.96})
    compared = compare(before, after)
    changes, agreements = compared.changes, compared.agreements
    by_arm = {change.after: change for change in changes}
    assert set(by_arm) == {"jax:jit", "flax:jit"}
    assert {change.anchor for change in changes} == {"torch:eager"}
    assert by_arm["jax:jit"].word == "slower"
    assert by_arm["jax:jit"].low < 1.2 < by_arm["jax:jit"].high
    assert by_arm["flax:jit"].word != "slower"
    assert all(agreement.word != "contradict" for agreement in agreements)


@pytest.mark.parametrize("without", ["before", "after"])
def test_without_a_control_no_change_is_told(tmp_path: Path, without: str) -> None:
    """A session in which no arm ran twice does not show what it can tell apart."""
    before = session(tmp_path, "before", 1, twin=without != "before")
    speed = {**SAME, "jax:jit": 0.96}
    after = session(tmp_path, "after", 2, speed=speed, twin=without != "after")
    changes = compare(before, after).changes
    assert {change.word for change in changes} == {"no A/A control: no arm ran twice"}


def test_a_slower_machine_is_no_change(tmp_path: Path) -> None:
    """Everything takes half as long again: the unprotected ratio says 1.5, the verdict does not."""
    before = session(tmp_path, "before", 1)
    after = session(tmp_path, "after", 2, speed={arm: 1.5 * s for arm, s in SAME.items()})
    compared = compare(before, after)
    changes, agreements = compared.changes, compared.agreements
    assert all(change.raw == pytest.approx(1.5, rel=0.05) for change in changes)
    assert {change.word for change in changes} <= {"no change beyond the margin", "open"}
    assert {agreement.word for agreement in agreements} == {"agree"}


def test_sessions_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    before = session(tmp_path, "before", 1)
    after = session(tmp_path, "after", 2, speed={**SAME, "jax:jit": 1.8})
    agreements = compare(before, after).agreements
    words = {(agreement.first, agreement.second): agreement.word for agreement in agreements}
    assert words["torch:eager", "jax:jit"] == "contradict"
    assert words["torch:eager", "flax:jit"] == "agree"


def test_versions_are_matched(tmp_path: Path) -> None:
    before = session(tmp_path, "before", 1, arms=("torch:eager", "jax@0.9.2:jit"))
    after = session(tmp_path, "after", 2, arms=("torch:eager", "jax@0.10.2:jit"))
    (change,) = compare(before, after).changes
    assert (change.before, change.after) == ("jax@0.9.2:jit", "jax@0.10.2:jit")


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    one = session(tmp_path, "one", 1)
    other = session(tmp_path, "other", 2, models=("lenet",))
    alone = session(tmp_path, "alone", 3, arms=("torch:eager",))
    changed = session(tmp_path, "changed", 4)
    text = json.loads((changed / "run.json").read_text())
    for lock in text["locks"].values():
        lock["hash"] += "x"
    (changed / "run.json").write_text(json.dumps(text))
    for pair, why in (
        ((one, other), "no comparison in common"),
        ((one, alone), "share only an anchor"),
        ((one, changed), "share only an anchor"),
        ((tmp_path, one), "name two run folders"),
    ):
        with pytest.raises(BadInput, match=why) as caught:
            compare(*pair)
        assert "\n" not in str(caught.value)


def test_welch_against_scipy() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.normal(0, 1, 7), generator.normal(0.5, 2, 12)
    ours = welch(estimate(a), estimate(b))
    theirs = stats.ttest_ind(b, a, equal_var=False)
    assert float(ours.log_ratio) == pytest.approx(b.mean() - a.mean())
    assert float(ours.p_value()) == pytest.approx(theirs.pvalue)


def test_arms_that_are_unknown_here_do_not_hide_the_others(tmp_path: Path) -> None:
    """Of a third party whose package is not installed: matched by name and version as well."""
    known = ("torch:eager", "jax:jit")
    before = session(tmp_path, "before", 1, arms=(*known, "novel@1:fast", "gone:fast"))
    after = session(tmp_path, "after", 2, arms=(*known, "novel@2:fast"))
    compared = compare(before, after)
    assert [(change.before, change.after) for change in compared.changes] == [
        ("jax:jit", "jax:jit"),
        ("novel@1:fast", "novel@2:fast"),
    ]
    assert compared.left_out == ("gone:fast (only in the first run)",)


def test_json_has_null_where_nothing_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block has no interval: no NaN, which is no JSON, and no warning of NumPy."""
    runs = [session(tmp_path, name, seed, blocks=1) for seed, name in enumerate(("one", "two"))]
    compare_command(*runs, as_json=True)
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {change["high"] for change in document["changes"]} == {None}


def test_default_and_tuned_arms_are_compared_apart(tmp_path: Path) -> None:
    """Their comparisons differ in the profile alone."""
    phases = ("inference", "training")
    runs = [session(tmp_path, name, seed, phases=phases) for seed, name in enumerate(("a", "b"))]
    for run in runs:
        content = json.loads((run / "run.json").read_text())
        for cell in content["cells"]:
            if cell["phase"] == "inference":
                cell |= {"phase": "training", "optimizer": "adam", "profile": "tuned"}
        (run / "run.json").write_text(json.dumps(content))
    names = {change.comparison for change in compare(*runs).changes}
    task = "mlp, small, training, 32, adam, float32, cpu, 2"
    assert names == {task, f"{task}, tuned"}


def gate(*runs: Path, **options: Any) -> str:
    """What a gate says that fails; "" for one that passes."""
    try:
        compare_command(*runs, **options)
    except RunFailed as failure:
        return str(failure)
    return ""


def test_a_gate_fails_where_an_arm_became_slower_by_more_than_its_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = session(tmp_path, "before", 1)
    slower = session(tmp_path, "after", 2, speed={**SAME, "jax:jit": 0.96})  # of 0.8: 1.2
    says = gate(before, slower, fail_above="5%")
    assert says.startswith("slower by more than 5 %: jax:jit in ")
    assert "\n" not in says and "flax" not in says
    assert gate(before, slower, fail_above="0.05") == says
    assert gate(before, slower, fail_above="50%") == ""
    assert gate(slower, before, fail_above="5%") == "", "faster is no fault"
    assert gate(before, slower) == ""
    capsys.readouterr()


def test_a_gate_without_a_verdict_fails(tmp_path: Path) -> None:
    before, after = session(tmp_path, "before", 1), session(tmp_path, "after", 2, twin=False)
    assert gate(before, after, fail_above="5%").startswith("these runs give no verdict (no A/A ")


@pytest.mark.parametrize("share", ["5 percent", "-1%", "nan", "inf", "", "%", "1e400"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(BadInput, match=r"is no share of 0 or more; write 5% or 0\.05"):
        compare_command(Path("a"), Path("b"), fail_above=share)
    with pytest.raises(BadInput, match="choose one of them"):
        compare_command(Path("a"), Path("b"), as_json=True, as_markdown=True)


def test_a_comment_for_a_pull_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = session(tmp_path, "before", 1)
    after = session(tmp_path, "after", 2, speed={**SAME, "jax:jit": 0.96})
    compare_command(before, after, as_markdown=True)
    heading, _, caption, _, names, rule, *rows = capsys.readouterr().out.splitlines()
    assert heading.startswith("### Levelfield: ") and "1 slower" in heading
    assert caption == "Seconds of the second run over those of the first."
    assert names.startswith("| comparison | arm | against anchor | 95 % interval |")
    assert rule.startswith("| :--- | :--- | ---: |")
    assert [row.split(" | ")[1] for row in rows] == ["jax:jit", "flax:jit"]
    assert rows[0].endswith("| slower |")
