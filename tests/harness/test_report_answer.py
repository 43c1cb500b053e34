"""The answer of a run: sentences, scope and table say what verdicts and statuses say."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from levelfield.harness.analysis.comparisons import Comparison, comparisons_of
from levelfield.harness.records.frames import load
from levelfield.harness.report.answer import Answer, anchors, answers, table
from tests.support.reports import ARMS
from tests.support.synthetic import write_run


def answered(run: Path) -> tuple[Answer, list[Comparison]]:
    frames = load(run)
    comparisons = comparisons_of(frames)
    (answer,) = answers(frames, comparisons)
    return answer, comparisons


def leaders_of(comparisons: list[Comparison], phase: str) -> tuple[set[str], int]:
    """The arms that are in the most fastest sets of a phase, and in how many they are."""
    counts = Counter(
        arm
        for one in comparisons
        if one.rows["phase"].iloc[0] == phase
        for arm in one.judged["throughput"].verdicts.fastest
    )
    most = max(counts.values())
    return {arm for arm, count in counts.items() if count == most}, most


def test_the_first_sentence_names_the_arm_of_most_fastest_sets() -> None:
    answer, comparisons = answered(Path("results/families"))
    for phase in ("inference", "training"):
        leaders, most = leaders_of(comparisons, phase)
        assert len(leaders) == 1
        assert f"{leaders.pop()} in {most} of 8 comparisons of {phase}" in answer.sentences[0]


def test_no_arm_is_called_leader_where_others_are_in_as_many_fastest_sets() -> None:
    answer, comparisons = answered(Path("results/example"))
    leaders, most = leaders_of(comparisons, "inference")
    assert len(leaders) > 1
    ((named, lone),) = re.findall(
        rf"no arm leads more often than the others: ([^;]*) each in {most} of 2 comparisons of"
        r" inference \(([^)]*)\)",
        answer.sentences[0],
    )
    assert set(named.split(", ")) == leaders
    sets = [one.judged["throughput"].verdicts.fastest for one in comparisons]
    alone = [fastest[0] for fastest in sets[::2] if len(fastest) == 1]
    assert lone.split(", ") == [f"{arm} alone in 1" for arm in alone]


def test_the_sentence_on_certainty_counts_pairs_and_statuses(tmp_path: Path) -> None:
    answer, comparisons = answered(
        write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={2: "wrong", 9: "timeout"})
    )
    pairs = [pair for one in comparisons for pair in one.judged["throughput"].verdicts.pairs]
    undecided = sum(pair.verdict == "inconclusive" for pair in pairs)
    assert (
        f"{len(pairs) - undecided} of {len(pairs)} pairs of arms are decided"
        in answer.sentences[-1]
    )
    cells = sum(len(one.rows) for one in comparisons)
    assert f"{cells - 2} of {cells} cells are proved" in answer.sentences[-1]
    assert "; 1 wrong" in answer.sentences[-1] and "; 1 timeout" in answer.sentences[-1]


def test_the_table_marks_fastest_sets_and_shows_statuses(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={2: "wrong"})
    answer, comparisons = answered(run)
    texts = table(answer).set_index("comparison")
    for one in comparisons:
        marked = {arm for arm in answer.arms if texts.loc[one.title, arm].endswith("*")}
        assert marked == set(one.judged["throughput"].verdicts.fastest)
    assert (texts == "wrong").to_numpy().sum() == 1


def test_a_void_comparison_ranks_nothing(tmp_path: Path) -> None:
    answer, _ = answered(write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={}, twin=False))
    assert "every comparison is void" in answer.sentences[0]
    assert {row.fastest for row in answer.rows} == {"void"}
    assert all(time.marked.startswith("(") for row in answer.rows for time in row.times)


@pytest.mark.parametrize(
    ("statuses", "level", "words"),
    [
        ({}, "smoke", "a smoke run takes no verdicts"),
        ({0: "failed", 2: "failed"}, "quick", "no arm but a twin was timed to its end"),
        (
            {0: "failed", 1: "failed", 2: "failed"},
            "quick",
            "faster: no arm was measured. How sure: 0",
        ),
    ],
)
def test_without_a_leader_the_reason_is_said(
    tmp_path: Path, statuses: dict[int, str], level: str, words: str
) -> None:
    arms = ("torch:eager", "jax:jit")
    options = {"models": ("mlp",), "phases": ("inference",), "blocks": 3, "rounds": 2}
    answer, _ = answered(write_run(tmp_path, arms=arms, statuses=statuses, level=level, **options))
    assert words in " ".join(answer.sentences)
    assert "Fastest" not in answer.sentences[0]


def test_a_run_that_was_cut_off_before_its_first_block_is_no_smoke_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={}, blocks=3, rounds=2)
    (folder / "records.jsonl").write_text("")
    answer, _ = answered(folder)
    assert answer.sentences[0] == "No arm is called faster: no arm was measured."


def test_many_arms_are_the_rows_of_the_table(tmp_path: Path) -> None:
    arms = tuple(f"framework{number}:mode" for number in range(12))
    answer, comparisons = answered(
        write_run(tmp_path, arms=arms, models=("mlp",), statuses={}, blocks=3, rounds=2)
    )
    texts = table(answer)
    assert sorted(texts["arm"]) == sorted(arms)
    assert list(texts.columns[1:]) == [one.title for one in comparisons]
    assert all(row.fastest.count(",") <= 3 for row in answer.rows)


def test_each_run_has_its_own_answer_and_its_own_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={}, name=name, blocks=3)
    frames = load(tmp_path)
    comparisons = comparisons_of(frames)
    assert [answer.run for answer in answers(frames, comparisons)] == ["one", "two"]
    places = anchors(comparisons)
    assert len(set(places)) == len(comparisons) == 4
    assert sorted(place.rpartition("-")[2] for place in places) == ["one", "one", "two", "two"]


def test_the_scope_names_machine_sizes_date_and_versions(tmp_path: Path) -> None:
    answer, _ = answered(write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={}))
    for words in ("Example 9000", "2 cores", "preset small", "batch 32", "float32", "torch 1.2.3"):
        assert words in answer.scope
