"""Verdicts from records: the truth that was planted is found, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from levelfield.harness.analysis import forecast, planning
from levelfield.harness.analysis.logs import Logs, block_times, measured
from levelfield.harness.analysis.summary import summary
from levelfield.harness.analysis.verdicts import (
    Judged,
    carry_over,
    judge,
    ordered,
    pair_of,
    settled,
    verdict_frame,
)
from levelfield.harness.plan.suite import load_suite
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.statistics.estimates import Estimate
from tests.support import reports

ARMS = ("torch:eager", "jax:jit", "flax:jit")
SPEED = {"torch:eager": 1.0, "jax:jit": 0.8, "flax:jit": 1.0}
frames_of = partial(reports.frames_of, arms=ARMS, phases=("training",), speed=SPEED)


def throughput(frames: Frames) -> Judged:
    return next(judged for judged in judge(frames) if judged.statistic == "throughput")


def test_the_faster_arm_is_found_and_the_twin_is_the_control(tmp_path: Path) -> None:
    judged = throughput(frames_of(tmp_path))
    assert judged.verdicts.fastest == ("jax:jit",)
    assert judged.control is not None
    assert judged.control.arm == "torch:eager"
    assert abs(judged.control.ratio - 1) < 0.02
    assert judged.verdicts.blocks == 6
    assert judged.audits == 1
    names = {name for pair in judged.verdicts.pairs for name in (pair.first, pair.second)}
    assert names == set(ARMS)


def test_without_a_control_there_is_no_verdict(tmp_path: Path) -> None:
    for judged in judge(frames_of(tmp_path, twin=False)):
        assert judged.verdicts.void == ("no A/A control: no arm ran twice",)
        assert judged.verdicts.fastest == ()
        assert {pair.verdict for pair in judged.verdicts.pairs} == {"void"}
        assert {pair.faster for pair in judged.verdicts.pairs} == {None}
        assert all(pair.ratio > 0 for pair in judged.verdicts.pairs)


def test_a_block_wholly_in_noise_counts_for_less(tmp_path: Path) -> None:
    noise = [(2, round) for round in range(6)]
    judged = throughput(frames_of(tmp_path, loud=noise))  # six resident blocks
    quiet = throughput(frames_of(tmp_path, name="quiet"))
    assert judged.verdicts.fastest == quiet.verdicts.fastest == ("jax:jit",)
    assert {pair.blocks for pair in judged.verdicts.pairs} == {6}
    assert [pair.ratio for pair in judged.verdicts.pairs] != [
        pair.ratio for pair in quiet.verdicts.pairs
    ]


def test_throughput_and_latency_are_judged_apart(tmp_path: Path) -> None:
    assert [judged.statistic for judged in judge(frames_of(tmp_path))] == ["throughput", "latency"]
    alone = judge(frames_of(tmp_path, latency_steps=0, name="alone"))
    assert [judged.statistic for judged in alone] == ["throughput"]


def test_smoke_runs_have_no_verdicts(tmp_path: Path) -> None:
    assert judge(frames_of(tmp_path, level="smoke")) == []


@pytest.mark.parametrize("blocks", [1, 2])
def test_before_the_first_look_there_is_no_verdict(tmp_path: Path, blocks: int) -> None:
    judged = throughput(frames_of(tmp_path, blocks=blocks))
    assert {pair.verdict for pair in judged.verdicts.pairs} <= {"inconclusive", "void"}


def test_loud_rounds_are_counted_by_their_rule(tmp_path: Path) -> None:
    judged = throughput(frames_of(tmp_path, loud=[(1, 0), (2, 5)]))
    assert judged.rules == {"foreign load": 2}
    assert judged.rounds == 36


def test_the_same_records_give_the_same_verdicts(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, blocks=12)
    first, second = (verdict_frame(judge(frames)) for _ in range(2))
    assert first.equals(second)


def names_of(arms: Sequence[str]) -> set[tuple[str, str]]:
    return {("k001", arm) for arm in arms}


EVERY_ARM = names_of((*ARMS, "torch:eager#2"))


def test_settled_arms_need_no_more_blocks(tmp_path: Path) -> None:
    apart = {"torch:eager": 1.0, "jax:jit": 0.5, "flax:jit": 2.0}
    assert settled(frames_of(tmp_path, speed=apart, level="standard")) == EVERY_ARM
    same = dict.fromkeys(ARMS, 1.0)
    assert settled(frames_of(tmp_path, speed=same, blocks=3, name="few")) == set()


def test_an_arm_that_is_settled_against_the_fastest_leaves_the_others_to_go_on(
    tmp_path: Path,
) -> None:
    speed = {"torch:eager": 1.0, "jax:jit": 1.0, "flax:jit": 3.0}
    frames = frames_of(tmp_path, speed=speed, blocks=4, level="standard")
    assert set(throughput(frames).verdicts.fastest) == {"torch:eager", "jax:jit"}
    assert settled(frames) == names_of(["flax:jit"])


def test_an_arm_that_ended_badly_after_some_blocks_has_no_part_in_verdicts(tmp_path: Path) -> None:
    speed = {"jax:jit": 1.0, "torch:eager": 2.0, "flax:jit": 3.0}
    place = ARMS.index("jax:jit") + 1  # after the twin of the first arm
    frames = frames_of(tmp_path, speed=speed, statuses={place: "timeout"})
    judged = throughput(frames)
    assert "jax:jit" in set(frames.slices["arm"])
    assert "jax:jit" not in judged.arms
    assert judged.verdicts.fastest == ("torch:eager",)


def test_the_time_of_an_arm_that_left_is_its_ratio_to_the_first(tmp_path: Path) -> None:
    """The machine becomes slower after flax has left; its time and its ratio stay one estimate."""
    speed = {"torch:eager": 1.0, "jax:jit": 1.2, "flax:jit": 3.0}
    frames = frames_of(tmp_path, speed=speed, blocks=11, level="standard")
    slices = frames.slices
    slices.loc[slices["block"] > 4, "step_seconds"] *= 1.5
    slices = slices[(slices["block"] <= 4) | (slices["arm"] != "flax:jit")]
    frames = replace(frames, slices=slices)
    table = summary(frames).set_index("arm")["step_seconds"]
    judged = throughput(frames)
    first = ordered(judged, ARMS)[0]
    pair = pair_of(judged, "flax:jit", first)
    assert pair is not None and first != "flax:jit"
    assert pair.blocks == 4
    assert table["flax:jit"] / table[first] == pytest.approx(pair.ratio, rel=1e-9)
    others = table.drop(["flax:jit", first])
    for arm, seconds in others.items():
        pair = pair_of(judged, str(arm), first)
        expected = pair.ratio if pair else 1.0  # the twin is in no pair
        assert seconds / table[first] == pytest.approx(expected, rel=1e-9 if pair else 0.3)


def test_a_small_difference_is_provisional_until_a_second_session_agrees(tmp_path: Path) -> None:
    speed = {"torch:eager": 1.04, "jax:jit": 1.0, "flax:jit": 1.5}
    options = {"speed": speed, "blocks": 25, "level": "standard", "rounds": 12}

    def provisional(*names: str) -> bool:
        judged = throughput(load([tmp_path / name for name in names]))
        (pair,) = (p for p in judged.verdicts.pairs if {p.first, p.second} == set(ARMS[:2]))
        assert pair.faster == "jax:jit"
        return pair.provisional

    frames_of(tmp_path, name="one", seed=1, **options)
    frames_of(tmp_path, name="two", seed=2, **options)
    frames_of(tmp_path, name="other", seed=3, **{**options, "speed": dict.fromkeys(ARMS, 1.0)})
    assert provisional("one")
    assert not provisional("one", "two")
    assert provisional("one", "other")


def logs(*ratios: float, blocks: int, sd: float = 0.002, seed: int = 0) -> Logs:
    generator = np.random.default_rng(seed)
    values = generator.normal(0, sd, (len(ratios), blocks, 6))
    values += np.log(ratios)[:, None, None]
    arms = ARMS[: len(ratios)]
    return Logs(arms, arms, tuple(range(blocks)), values, np.zeros((blocks, 6), bool))


def test_carry_over_is_found_with_two_audits_and_has_its_interval() -> None:
    resident = logs(1.0, 1.0, 1.0, blocks=10)
    shown, failed = carry_over(resident, logs(1.0, 1.2, 1.0, blocks=4, seed=1), 0.02)
    assert len(failed) == 2  # of both pairs with the arm in question
    assert all(why.startswith("carry-over: ") for why in failed)
    assert shown is not None
    assert shown.pair in ((ARMS[0], ARMS[1]), (ARMS[1], ARMS[2]))
    assert min(abs(shown.low), abs(shown.high)) > 0.15
    assert shown.low < shown.difference < shown.high
    shown, failed = carry_over(resident, logs(1.0, 1.0, 1.0, blocks=4, seed=1), 0.02)
    assert failed == []
    assert shown is not None
    assert shown.low < 0 < shown.high


def test_a_single_audit_has_no_interval_and_is_not_shown() -> None:
    resident = logs(1.0, 1.0, 1.0, blocks=10)
    assert carry_over(resident, logs(1.0, 1.2, 1.0, blocks=1, seed=1), 0.02) == (None, [])


def test_carry_over_voids_a_comparison(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, blocks=13, level="standard")
    late = (frames.slices["block"] > 9) | (frames.slices["block"] == 6)
    frames.slices.loc[late, "residency"] = "audit"
    mine = late & (frames.slices["arm"] == "jax:jit")
    frames.slices.loc[mine, "step_seconds"] *= 1.3
    judged = throughput(frames)
    assert judged.verdicts.void
    assert judged.verdicts.fastest == ()
    assert judged.verdicts.void[0].startswith("carry-over: ")


def test_a_step_beyond_the_roofline_voids_its_comparison(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    frames.ceilings["per_second"] /= 1000
    judged = throughput(frames)
    assert "of the roofline: measured wrongly" in judged.verdicts.void[0]
    assert {pair.verdict for pair in judged.verdicts.pairs} == {"void"}


def test_rounds_are_planned_from_the_variances(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    assert 6 <= planning.planned_rounds(frames, 6) <= 60
    noisy = frames.slices.copy()
    generator = np.random.default_rng(0)
    noisy["step_seconds"] *= np.exp(generator.normal(0, 0.2, len(noisy)))
    more = planning.planned_rounds(Frames(**{**vars(frames), "slices": noisy}), 6)
    assert more > planning.planned_rounds(frames, 6)
    assert planning.planned_rounds(load([]), 8) == 8


def test_a_comparison_that_noise_left_one_round_a_block_plans_nothing(tmp_path: Path) -> None:
    """Such a run ended in a traceback after three blocks."""
    loud = [(block, index) for block in range(1, 8) for index in range(6) if index != block % 6]
    frames = frames_of(tmp_path, loud=loud)
    assert planning.planned_rounds(frames, 7) == 7


def test_a_forecast_grows_with_what_is_asked(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    suite = load_suite("standard")
    whole = forecast.most_seconds(frames, suite)
    assert whole is not None
    assert whole > (forecast.most_seconds(frames, replace(suite, models=("mlp",))) or 0) > 0
    assert forecast.most_seconds(load([]), suite) is None


def test_estimates_without_blocks_are_no_numbers() -> None:
    empty = Estimate(np.array(np.nan), np.array(np.nan), np.array(0), np.array(0.0))
    assert np.isinf(empty.half_width())


def test_a_time_a_ratio_and_a_block_are_one_estimate(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, loud=[(1, 0), (2, 5), (3, 1)])
    table = summary(frames).set_index("arm")["step_seconds"]
    for pair in throughput(frames).verdicts.pairs:
        assert table[pair.first] / table[pair.second] == pytest.approx(pair.ratio, rel=1e-12)
    times = block_times(measured(frames), "throughput").set_index(["cell", "block"])
    assert len(times) == len(frames.cells) * 6


def test_a_clear_verdict_of_few_blocks_settles_once_its_size_is_known(tmp_path: Path) -> None:
    apart = {"torch:eager": 1.0, "jax:jit": 0.3, "flax:jit": 3.3}
    options = {"speed": apart, "blocks": 3, "level": "standard"}
    assert settled(frames_of(tmp_path, **options)) == EVERY_ARM
    noisy = frames_of(tmp_path, name="noisy", **options)
    generator = np.random.default_rng(0)
    size = np.exp(generator.normal(0, 0.15, 1 + int(noisy.slices["process"].max())))
    noisy.slices["step_seconds"] *= size[noisy.slices["process"]]
    judged = throughput(noisy)
    assert judged.verdicts.settled
    assert settled(noisy) == set()
