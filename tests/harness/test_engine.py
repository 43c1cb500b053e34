"""The engine with frameworks that misbehave: each costs its own cell and nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas
import pytest

from levelfield.harness.analysis import planning
from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.roofline import work
from levelfield.harness.analysis.summary import summary as summarised
from levelfield.harness.analysis.verdicts import judge
from levelfield.harness.engine import blocks, session, timing
from levelfield.harness.engine.blocks import Blocks, Stretch
from levelfield.harness.engine.qualification import Calibration, Qualification
from levelfield.harness.engine.requests import Worker
from levelfield.harness.engine.state import Budget, Done, Statuses
from levelfield.harness.engine.time_left import TimeLeft
from levelfield.harness.engine.timing import Timing
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine import disturbance, noise
from levelfield.harness.machine.ceilings import Ceiling
from levelfield.harness.machine.noise import OtherLoad
from levelfield.harness.machine.resources import available_cores
from levelfield.harness.machine.supervised import TreeUse
from levelfield.harness.plan.cells import Cell, plan
from levelfield.harness.plan.suite import Effort, Limits, load_suite, validated
from levelfield.harness.plan.vocabulary import MEMORY_STAGES
from levelfield.harness.proof.checks import (
    Slot,
    affinity_check,
    concurrency_check,
    doubled_check,
    fence_check,
    fence_steps,
    recompilation_check,
    tree_check,
)
from levelfield.harness.proof.replies import (
    CheckFenceReply,
    FirstStepsReply,
    Slice,
    SlotReply,
    WarmUpReply,
)
from levelfield.harness.records import frames, store
from levelfield.harness.records.store import Run
from levelfield.harness.report.tables import comparison_tables
from levelfield.harness.statistics.levels import LEVELS
from tests.support.engine import TINY_EFFORT, RunModes, Silent, statuses
from tests.support.synthetic import empty_run

OPTIMIZERS = ("sgd", "momentum", "adam")
FAULTS = (
    "wrong-activation",
    "transposed-kernel",
    "missing-bias",
    "sum-for-mean",
    "momentum-for-sgd",
    "dropout",
    "half-precision",
    "tf32",
    "stale-parameter",
    "nan",
    "weight-decay",
    "extra-step",
    "wrong-shape",
    "wrong-name",
)
MISFORTUNES = {
    "raises-at-import": ("failed", "RuntimeError: this framework needs a moon phase"),
    "unsupported": ("unsupported", "only works on Sundays"),
    "homeless": ("no-environment", "type: levelfield env build misbehaving/missing"),
    "raises-in-step": ("failed", "ValueError: shapes (3,4)"),
    "exits": ("failed", "exit code 7"),
    "segfaults": ("failed", "SIGSEGV"),
    "allocates": ("out-of-memory", "Memory"),
    "killed": ("failed", "killed by SIGKILL"),
    "inference-only": ("unsupported", "offers inference only"),
    "fails-when-timed": ("failed", "no more steps today"),
}


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [r for r in store.read_records(store.open_run(folder)) if r["record"] == kind]


@pytest.fixture(scope="module")
def well(run_modes: RunModes) -> Path:
    return run_modes("well", optimizers=OPTIMIZERS, phases=("inference", "training"))


def test_a_right_framework_is_measured_in_every_way(well: Path) -> None:
    summary = summarised(frames.load(well))
    assert list(summary["status"]) == ["ok"] * 4
    assert (summary["step_seconds"] > 0).all()
    assert (summary["latency_p50_seconds"][1:] > 0).all()
    assert (summary["first_step_seconds"] > 0).all()
    assert (summary["peak_bytes"] > 5e6).all()
    assert (summary["output_error"] < 1e-6).all()


def test_a_right_framework_has_slices_under_every_optimizer(well: Path) -> None:
    cells = [
        (cell["phase"], cell["optimizer"]) for cell in store.open_run(well).description["cells"]
    ]
    assert cells == [("inference", None), *(("training", optimizer) for optimizer in OPTIMIZERS)]
    rounds = {(r["cell"], r["round"]) for r in records(well, "slice")}
    assert {cell for cell, _ in rounds} == {"c0001", "c0002", "c0003", "c0004"}
    assert len(rounds) >= 4 * 2


def test_memory_is_measured_in_several_processes_and_one_that_fails_costs_its_own_figures(
    run_modes: RunModes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_steps, calls = Worker.first_steps, []

    def fails_once(worker: Worker, cell: Cell) -> FirstStepsReply:
        calls.append(worker.number)
        if len(calls) == 3:
            raise WorkerFailure("timeout", "too slow")
        return first_steps(worker, cell)

    monkeypatch.setattr(Worker, "first_steps", fails_once)
    effort = replace(TINY_EFFORT, memory_processes=3)
    loaded = frames.load(run_modes("well", phases=("inference",), effort=effort))
    started = loaded.processes.loc[loaded.processes["purpose"] == "memory", "process"].tolist()
    assert len(set(started)) == 3
    assert loaded.memory["process"].drop_duplicates().tolist() == started
    assert (loaded.memory.groupby("process")["stage"].nunique() == len(MEMORY_STAGES)).all()
    failed = loaded.memory.loc[loaded.memory["reason"] != "", "process"].unique().tolist()
    assert failed == [calls[2]]
    fine = loaded.memory[~loaded.memory["process"].isin(failed)]
    medians = fine.groupby("stage")["peak_bytes"].median()
    (row,) = summarised(loaded).to_dict("records")
    assert row["peak_bytes"] == round(medians.max())
    (table,) = comparison_tables(loaded, comparisons_of(loaded))
    assert "peak: 1 of 3 processes: timeout: too slow" in table.notes


def test_an_older_run_goes_on_with_one_process_of_memory() -> None:
    run = store.open_run(Path(__file__).parents[2] / "results" / "families")
    assert "memory_processes" not in run.description["suite"]["effort"]
    suite, _ = session.recorded(run)
    assert suite.effort.memory_processes == 1
    assert Effort().memory_processes == 2


@pytest.fixture(scope="module")
def faulty(run_modes: RunModes) -> Path:
    return run_modes(*FAULTS, "well")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_gate_catches_every_fault(faulty: Path, fault: str) -> None:
    status, reason = statuses(faulty)[fault]
    assert status == "wrong"
    assert reason


def test_no_number_of_a_wrong_arm_leaves(faulty: Path) -> None:
    right = [c["id"] for c in store.open_run(faulty).description["cells"] if c["mode"] == "well"]
    for kind in ("slice", "startup", "memory", "accuracy"):
        assert {record["cell"] for record in records(faulty, kind)} == set(right)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_faults_of_the_update_are_caught_under_every_optimizer(
    run_modes: RunModes, optimizer: str
) -> None:
    faults = ("stale-parameter", "weight-decay", "extra-step")
    outcomes = statuses(run_modes(*faults, "well", optimizers=(optimizer,)))
    assert {mode: status for mode, (status, _) in outcomes.items()} == {
        **dict.fromkeys(faults, "wrong"),
        "well": "ok",
    }


@pytest.fixture(scope="module")
def unfortunate(run_modes: RunModes) -> Path:
    return run_modes(*MISFORTUNES, "well", limits=Limits(memory_gib=0.5))


@pytest.mark.parametrize("mode", MISFORTUNES)
def test_every_misfortune_has_its_status_and_reason(unfortunate: Path, mode: str) -> None:
    status, reason = statuses(unfortunate)[mode]
    expected, words = MISFORTUNES[mode]
    assert status == expected
    assert words in reason
    assert "\n" not in reason


def test_no_misfortune_harms_another_cell(unfortunate: Path) -> None:
    assert statuses(unfortunate)["well"][0] == "ok"


def test_what_hangs_is_ended_at_its_time_limit(run_modes: RunModes) -> None:
    outcomes = statuses(run_modes("hangs", "well", limits=Limits(compile_seconds=5)))
    assert outcomes["hangs"] == ("timeout", "'first_steps' took longer than 5 s")
    assert outcomes["well"][0] == "ok"


def test_output_without_end_is_kept_within_bounds_and_harms_nothing(run_modes: RunModes) -> None:
    folder = run_modes("floods", phases=("inference",))
    assert statuses(folder)["floods"][0] == "ok"
    sizes = [log.stat().st_size for log in (folder / "logs").iterdir()]
    assert max(sizes) > 1_000_000
    assert max(sizes) < 1_200_000


def test_what_a_framework_prints_is_never_taken_for_a_reply(run_modes: RunModes) -> None:
    folder = run_modes("forges", phases=("inference",))
    assert statuses(folder)["forges"][0] == "ok"
    assert all(record["seconds"] > 0 for record in records(folder, "slice"))


def test_a_crash_costs_one_cell_of_an_arm_not_the_next(run_modes: RunModes) -> None:
    folder = run_modes("fails-when-timed", phases=("training", "inference"))
    cells = frames.load(folder).cells
    assert list(cells["status"]) == ["failed", "ok"]


def test_a_mode_with_its_own_loop_has_no_latency(run_modes: RunModes) -> None:
    folder = run_modes("own-loop", phases=("inference",))
    assert {record["statistic"] for record in records(folder, "slice")} == {"throughput"}


def test_first_and_further_tokens_are_told_apart(run_modes: RunModes) -> None:
    """Of a real framework `make test-long` compares them with whole generations."""
    loaded = frames.load(run_modes("well", model="gpt2", phases=("generation",)))
    (row,) = summarised(loaded).to_dict("records")
    assert row["first_token_seconds"] > 0
    assert row["further_token_seconds"] > 0
    assert row["step_seconds"] > row["first_token_seconds"]
    assert pandas.isna(row["latency_p50_seconds"])
    assert set(loaded.slices["statistic"]) == {"throughput", "first_token", "further_token"}
    (table,) = comparison_tables(loaded, comparisons_of(loaded))
    assert {"first token (ms)", "per further token (ms)"} < set(table.cells)


# -- learning ---------------------------------------------------------------------------------

BAD_LEARNERS = ("idle-later", "quarter-training-later", "slower-rate-later", "diverges-later")


@pytest.fixture(scope="module")
def learned(run_modes: RunModes) -> Path:
    """The small preset, since no digits fit the tiny one."""
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False, "accuracy_epochs": 4})
    modes = (*BAD_LEARNERS, "well")
    return run_modes(*modes, preset="small", batch=32, optimizers=("momentum",), effort=effort)


@pytest.mark.parametrize("mode", BAD_LEARNERS)
def test_an_arm_that_learns_otherwise_than_the_reference_is_wrong(learned: Path, mode: str) -> None:
    """All of them compute right for as many steps as the gate compares."""
    status, reason = statuses(learned)[mode]
    assert status == "wrong"
    assert reason.startswith("lesson ")
    assert "the reference's" in reason and "tolerance" in reason


def test_no_number_of_an_arm_that_learned_badly_leaves(learned: Path) -> None:
    assert statuses(learned)["well"] == ("ok", "")
    loaded = frames.load(learned)
    for frame in (loaded.accuracy, loaded.epochs, loaded.startup, loaded.slices):
        assert set(frame["mode"]) == {"well"}
    checks = loaded.checks[loaded.checks["name"].str.startswith("lesson")]
    assert checks.groupby("mode")["passed"].all().to_dict() == {
        **dict.fromkeys(BAD_LEARNERS, False),
        "well": True,
    }


# -- checks of the measurement ----------------------------------------------------------------

UNBELIEVABLE = {
    "no-fence": "fence read",
    "partial-fence": "fence",  # read, and beside a neighbour the sum as well
    "recompiles": "recompilation",
    "oversubscribes": "affinity",
    "child-computes": "affinity",
    "child-spins": "affinity",
    "late-child": "affinity",
}


@pytest.fixture(scope="module")
def unbelievable(run_modes: RunModes) -> Path:
    return run_modes(*UNBELIEVABLE, "well")


@pytest.mark.alone
@pytest.mark.parametrize("mode", UNBELIEVABLE)
def test_what_cannot_be_believed_on_the_clock_fails(unbelievable: Path, mode: str) -> None:
    status, reason = statuses(unbelievable)[mode]
    assert status == "failed"
    assert reason.startswith(UNBELIEVABLE[mode])


@pytest.mark.alone
def test_a_second_core_is_noticed_after_the_qualification(unbelievable: Path) -> None:
    (cell,) = [
        cell_of_run["id"]
        for cell_of_run in store.open_run(unbelievable).description["cells"]
        if cell_of_run["mode"] == "late-child"
    ]
    checks = [
        record["passed"] for record in records(unbelievable, "check") if record["cell"] == cell
    ]
    assert checks == [True, False]


@pytest.mark.alone
def test_no_number_of_an_unbelievable_arm_leaves(unbelievable: Path) -> None:
    loaded = frames.load(unbelievable)
    for frame in (loaded.slices, loaded.startup, loaded.memory, loaded.calibrations):
        assert set(frame["mode"]) == {"well"}


SOUND = CheckFenceReply(fenced=1e-3, after=1e-4, later=1e-4)


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({}, True),
        ({"after": 5e-4}, False),
        ({"after": 1.15e-4}, True),  # a cold cache line, not work
    ],
)
def test_fences_are_judged(change: dict[str, float], passed: bool) -> None:
    assert fence_check(replace(SOUND, **change), 1).passed is passed


@pytest.mark.parametrize(
    ("read_seconds", "steps"),
    [
        (0.0, 1),  # nothing to read
        (1e-4, 1),  # a tenth of a step
        (1e-3, 10),
        (1.0, 50),  # those of a slice, and no more
    ],
)
def test_a_fence_is_checked_with_steps_that_outlast_the_noise_of_reading(
    read_seconds: float, steps: int
) -> None:
    assert fence_steps(1e-3, 50, read_seconds) == steps


@pytest.mark.parametrize(
    ("left", "passed", "attempts"),
    # Of a step of a millisecond, behind the fence: none, some, and more than noise explains.
    [(0.0, True, 2), (0.2e-3, False, 10), (3e-3, False, 1)],
)
def test_noise_is_told_from_work_behind_a_fence(left: float, passed: bool, attempts: int) -> None:
    """On a machine on which the first attempt, taken alone, would not pass."""
    draw = random.Random(1)
    asked = []

    class Noisy:
        def check_fence(self, cell: Cell, **given: float) -> CheckFenceReply:
            asked.append(cell)
            fenced, after, later = (
                seconds * draw.choice((1, 1.5, 2)) for seconds in (1e-3, 1e-4 + left, 1e-4)
            )
            return CheckFenceReply(fenced, after, later)

    suite = load_suite("tiny")
    proof = Qualification(None, suite, None, [], print, {}, [0])  # type: ignore[arg-type]
    check = proof._fence(Noisy(), plan(suite)[0], 1)  # type: ignore[arg-type]
    assert check.passed is passed
    assert len(asked) == attempts
    assert (f"the least of {attempts} attempts" in check.note) is (attempts > 1)


def ceilings_for(operations_per_second: float, threads: int = 1) -> list[Ceiling]:
    """Of a machine that copies at no cost."""
    return [
        Ceiling(threads, "matrix product", 1, operations_per_second),
        Ceiling(threads, "copy", 1, 1e18),
    ]


@pytest.mark.parametrize(
    ("device", "threads", "again", "passed", "measured"),
    [
        ("cpu", 1, 1.0, False, 2),  # as often as it is measured again, the arm is beyond it
        ("cpu", 1, 10.0, True, 1),  # the machine was busy when it was measured first
        ("cpu", 2, 1.0, True, 0),  # nothing was measured of two cores
        ("cuda", 1, 1.0, True, 0),  # nor of a GPU, which is faster than the cores beside it
    ],
)
def test_an_arm_is_held_against_the_ceilings_of_its_own_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    threads: int,
    again: float,
    passed: bool,
    measured: int,
) -> None:
    """An arm at twice the first ceiling; ``again``: what a new reading shows over the first."""
    suite = load_suite("tiny")
    cell = replace(plan(suite)[0], device=device, threads=threads)
    operations, _ = work(
        cell.model, cell.preset, cell.batch, phase=cell.phase, optimizer=cell.optimizer
    )
    known = ceilings_for(operations)
    remeasured = ceilings_for(again * operations, threads)
    monkeypatch.setattr(
        "levelfield.harness.machine.ceilings.measured", lambda threads, cores: remeasured
    )
    reply = SlotReply({"throughput": Slice(0.5, 0.5)}, 0, 0.5, 0.5)
    slots = [Slot(reply, 0.5, TreeUse())]  # of one step
    with empty_run(tmp_path) as run:
        proof = Qualification(run, suite, None, known, lambda text: None, {}, [0])  # type: ignore[arg-type]
        check = proof._roofline(cell, slots, 1)
    assert check.passed is passed
    recorded = [row for row in store.read_records(run) if row["record"] == "ceiling"]
    assert len(recorded) == measured * len(remeasured), "the report knows what the check knew"


@pytest.mark.parametrize(
    ("costs", "speed", "passed", "attempts"),
    [
        (2.0, 1.0, True, 1),
        (2.0, 0.5, True, 2),  # the machine was slow when the batch was timed first
        (1.0, 0.5, False, 5),  # and a batch that costs nothing stays one
        (1.0, 1.0, False, 5),
    ],
)
def test_a_machine_that_becomes_faster_is_told_from_a_batch_that_costs_nothing(
    tmp_path: Path, costs: float, speed: float, passed: bool, attempts: int
) -> None:
    """``speed``: seconds that a step takes after the calibration, over those in it."""
    suite = load_suite("tiny")
    cell = plan(suite)[0]
    operations, _ = work(
        cell.model, cell.preset, cell.batch, phase=cell.phase, optimizer=cell.optimizer
    )
    ceilings = ceilings_for(2.0 * operations)  # half of a step of one second
    timed = []

    class Jumping:
        def load(self, cell: Cell, path: Path) -> None:
            timed.append(path)

        def compile(self, cell: Cell) -> None: ...

        def warm_up(self, cell: Cell, effort: Effort) -> WarmUpReply:
            seconds = speed * (costs if timed[-1].name == "doubled" else 1.0)
            return WarmUpReply(1, seconds, capped=False, step_seconds=seconds)

    cases = SimpleNamespace(
        doubled=lambda cell: tmp_path / "doubled", solved=lambda cell: (tmp_path / "once", 0, 0)
    )
    proof = Qualification(None, suite, cases, ceilings, print, {}, [0])  # type: ignore[arg-type]
    calibration = Calibration(step_seconds=1.0, slice_steps=1, fence_seconds=0.0)
    (check,) = proof._doubled(Jumping(), cell, calibration)  # type: ignore[arg-type]
    assert check.passed is passed
    assert len(timed) == 2 * attempts - 1
    assert (f"the least of {attempts} attempts" in check.note) is (attempts > 1)


def test_threads_that_left_their_cores_are_noticed() -> None:
    assert affinity_check([0, 1], [0, 1]).passed
    assert not affinity_check([0, 1, 2], [0, 1]).passed


def test_cores_beyond_those_given_are_noticed() -> None:
    def slices(*cpu_seconds: float) -> list[Slice]:
        return [Slice(1.0, seconds) for seconds in cpu_seconds]

    assert concurrency_check(slices(1.0, 0.9, 1.04), 1).passed
    assert not concurrency_check(slices(1.0, 1.9, 1.0), 1).passed
    assert concurrency_check(slices(1.0, 1.9, 1.0), 2).passed


def test_cores_that_child_processes_use_are_noticed() -> None:
    alone, helped = TreeUse(cpu_seconds=0.9, seconds=1.0), TreeUse(cpu_seconds=1.9, seconds=1.0)
    assert tree_check([alone, alone], 1).passed
    assert not tree_check([alone, helped], 1).passed
    assert tree_check([alone, helped], 2).passed
    assert "child processes used 1.40 cores, was given 1" in tree_check([alone, helped], 1).note


def test_a_batch_that_costs_nothing_and_a_late_compilation_are_noticed() -> None:
    assert doubled_check(1.0, 1.8).passed
    assert not doubled_check(1.0, 1.1).passed
    assert recompilation_check(0).passed
    assert not recompilation_check(1).passed


# -- blocks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(run_modes: RunModes) -> Path:
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False, "rounds_extra": 0.0})
    return run_modes(
        "well", "own-loop", phases=("training",), effort=effort, level="quick", twin="auto"
    )


def test_a_quick_run_has_up_to_six_resident_blocks(judged: Path) -> None:
    blocks = frames.load(judged).blocks
    # It ends at a look, where everything is settled; at six blocks it ends in any case.
    assert len(blocks) in LEVELS["quick"]
    assert set(blocks["residency"]) == {"resident"}
    assert blocks["block"].tolist() == list(range(1, 1 + len(blocks)))
    assert blocks["seed"].nunique() == len(blocks)


@dataclass
class PlayedBlocks:
    """Blocks that measure nothing and note what they were asked for."""

    residencies: list[str] = field(default_factory=list)
    closing_seconds: float = 0.0

    def run_block(self, number: int, cells: Any, *, residency: str, rounds: int) -> None:
        self.residencies.append(residency)


TEN_BLOCKS = [*["resident"] * 10, "audit", "audit"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("quick", ["resident"] * 6),
        ("standard", [*TEN_BLOCKS, *["resident"] * 5, "audit", *["resident"] * 5]),
        ("thorough", [*TEN_BLOCKS, *[*["resident"] * 5, "audit"] * 3, *["resident"] * 5]),
    ],
)
def test_no_audit_comes_before_two_can_because_one_has_no_interval(
    level: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "look", lambda run, *, rounds: (rounds, frozenset()))
    suite = validated(replace(load_suite("quick"), level=level, models=("mlp",)))
    cells = plan(suite, suite.arms)
    played, time_left = PlayedBlocks(), TimeLeft(planning.most_blocks(suite.residency, suite.level))
    run = cast(Run, SimpleNamespace(path=Path(), append=lambda record: None))
    timing = Timing(
        run,
        suite,
        cast(Blocks, played),
        Done(closed={cell.id for cell in cells}),
        Statuses(run, Silent(), set(), time_left),
        Budget(0.0),
    )
    assert timing.time(cells)
    assert played.residencies == expected
    assert planning.most_blocks(suite.residency, suite.level) == len(expected)


class Neighbour:
    """Another program that uses the machine throughout the numbered blocks, and no other time."""

    def __init__(self, patch: pytest.MonkeyPatch, *blocks: int) -> None:
        self.number = 0
        run_block, difference = Blocks.run_block, noise.difference

        def noted(this: Blocks, number: int, *arguments: Any, **options: Any) -> None:
            self.number = number
            run_block(this, number, *arguments, **options)

        def read(*arguments: Any) -> OtherLoad:
            other = difference(*arguments)
            loud = 1 + other.wall_seconds if self.number in blocks else 0.0
            return replace(other, foreign_seconds=loud, steal_seconds=0.0)

        patch.setattr(Blocks, "run_block", noted)
        patch.setattr(noise, "difference", read)
        patch.setattr(noise, "canary", lambda cores: [0.0002] * len(cores))


def test_a_block_wholly_in_noise_counts_for_less_and_voids_nothing(
    run_modes: RunModes, monkeypatch: pytest.MonkeyPatch
) -> None:
    Neighbour(monkeypatch, 2)
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False, "accuracy": False})
    effort = replace(effort, rounds_extra=0.0, latency=False)
    loaded = frames.load(run_modes("well", "own-loop", effort=effort, level="quick", twin="auto"))
    assert set(loaded.rounds.loc[loaded.rounds["disturbed"], "block"]) == {2}
    assert loaded.blocks["residency"].tolist().count("resident") <= 6
    (judged,) = judge(loaded)
    assert {pair.blocks for pair in judged.verdicts.pairs} == {judged.verdicts.blocks}
    assert not any("blocks" in reason for reason in judged.verdicts.void)


@pytest.mark.alone
def test_a_program_on_the_measured_core_is_foreign_load_however_many_cores_there_are(
    run_modes: RunModes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False, "accuracy": False})
    effort = replace(effort, slice_seconds=0.1, rounds=4, rounds_extra=0.0)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        try:
            os.sched_setaffinity(burner.pid, available_cores()[:1])
            loaded = frames.load(run_modes("well", "own-loop", effort=effort))
        finally:
            burner.kill()
    assert set(loaded.rounds["rule"]) == {"foreign load"}
    watched = noise.watched_cores(available_cores()[:1])
    assert set(loaded.rounds["watched_cores"]) == {noise.core_count(watched)}


def test_every_block_has_a_fresh_process_of_every_arm(judged: Path) -> None:
    processes = frames.load(judged).processes
    served = processes[processes["block"].notna()].groupby("block")["arm"].apply(sorted)
    arms = ["misbehaving:own-loop", "misbehaving:well", "misbehaving:well#2"]
    assert all(names == arms for names in served)
    assert processes["process"].is_unique
    seeds = processes["asked"].nunique()
    assert seeds == len(processes), "hash seed and padding differ from process to process"


def test_every_arm_comes_to_every_place_of_a_round(run_modes: RunModes) -> None:
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False, "rounds": 6, "rounds_extra": 0.0})
    folder = run_modes("well", "own-loop", "forges", phases=("training",), effort=effort)
    orders = [record["order"] for record in records(folder, "round")]
    assert len(orders) == 6
    for place in range(3):
        assert {order[place] for order in orders} == {"c0001", "c0002", "c0003"}


def test_rounds_carry_their_noise(judged: Path) -> None:
    rounds = frames.load(judged).rounds
    assert (rounds["wall_seconds"] > 0).all()
    assert (rounds["canary_seconds"] > 0).all()
    assert rounds["foreign_share"].between(0, 1).all()
    resident = [r for r in records(judged, "round") if r["block"] == 1]
    assert all(len(r["canaries"]) == len(r["order"]) + 1 for r in resident)


def test_the_same_program_is_not_told_apart_and_has_its_error_bar(judged: Path) -> None:
    (throughput, _) = judge(frames.load(judged))
    assert throughput.control is not None
    assert throughput.control.arm == "misbehaving:well"
    assert throughput.audits == 0
    assert throughput.verdicts.blocks in LEVELS["quick"]
    assert [(p.first, p.second) for p in throughput.verdicts.pairs] == [
        ("misbehaving:well", "misbehaving:own-loop")
    ]


def go_on(folder: Path, budget_seconds: float | None = None) -> None:
    """Resume a run."""
    with store.open_run(folder) as run:
        suite, cells, resolutions = session.reopened(run, {})
        session.measure(
            *(run, suite, cells),
            resolutions=resolutions,
            progress=Silent(),
            budget_seconds=budget_seconds,
        )


def test_a_budget_times_one_comparison_and_leaves_the_rest_to_a_resumed_run(
    run_modes: RunModes, solved_once: None
) -> None:
    effort = replace(TINY_EFFORT, memory=False, accuracy=False, latency=False)
    options = {"effort": effort, "level": "quick", "twin": "auto", "optimizers": ("sgd", "adam")}
    folder = run_modes("well", "own-loop", budget_seconds=0.001, **options)
    loaded = frames.load(folder)
    by_comparison = loaded.cells.groupby("comparison", sort=False)["status"].agg(set).tolist()
    assert by_comparison == [{"ok"}, {"unfinished"}]
    assert len(loaded.blocks) == 1
    with store.open_run(folder) as run:
        assert store.paused(run)
    go_on(folder, budget_seconds=0.001)
    loaded = frames.load(folder)
    assert set(loaded.cells["status"]) == {"ok"}
    assert len(loaded.blocks) == 2, "a block fits once"
    go_on(folder)
    loaded = frames.load(folder)
    with store.open_run(folder) as run:
        assert not store.paused(run)
        assert session.unfinished(run, session.reopened(run, {})[1]) == []
    resident = loaded.slices[loaded.slices["residency"] == "resident"]
    blocks = resident.groupby("comparison")["block"].nunique()
    assert set(blocks) <= set(LEVELS["quick"]), "blocks end at a look, whenever they began"
    judged = {one.comparison for one in judge(loaded)}
    assert judged == set(loaded.cells["comparison"])


def test_a_run_within_its_budget_is_not_paused(run_modes: RunModes) -> None:
    effort = replace(TINY_EFFORT, memory=False, accuracy=False, latency=False)
    folder = run_modes("well", "own-loop", budget_seconds=600.0, effort=effort)
    with store.open_run(folder) as run:
        assert not store.paused(run)
        assert len(store.finished(run)) == len(run.description["cells"])


def test_arms_that_do_not_fit_together_run_one_after_the_other(
    run_modes: RunModes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "memory_available_bytes", lambda: 1 << 20)
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False})
    folder = run_modes("well", "own-loop", phases=("training",), effort=effort)
    assert frames.load(folder).blocks["residency"].tolist() == ["sequential"]


@pytest.mark.alone
def test_a_planted_slowdown_takes_longer(run_modes: RunModes) -> None:
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False, "latency": False, "rounds": 12})
    folder = run_modes("well", "well#+50%", phases=("training",), effort=effort)
    slices = frames.load(folder).slices
    # CPU seconds, because a long slice waits for a core that others use, and a short one does not.
    seconds = (slices["cpu_seconds"] / slices["steps"]).groupby(slices["arm"]).median()
    assert 1.2 < seconds["misbehaving:well#+50%"] / seconds["misbehaving:well"] < 2.0


def test_a_sequential_run_keeps_one_worker_at_a_time(run_modes: RunModes) -> None:
    effort = Effort(**{**vars(TINY_EFFORT), "memory": False})
    folder = run_modes(
        "well", "own-loop", phases=("training",), effort=effort, residency="sequential"
    )
    loaded = frames.load(folder)
    assert set(loaded.slices["residency"]) == {"sequential"}
    assert loaded.blocks["residency"].tolist() == ["sequential"]
    slices = [r for r in records(folder, "slice") if r["statistic"] == "throughput"]
    cells = [r["cell"] for r in slices]
    assert cells == sorted(cells) or cells == sorted(cells, reverse=True)


def test_stretches_at_unlike_times_are_not_held_against_each_other() -> None:
    def stretch(*canaries: float) -> Stretch:
        other = OtherLoad(1.0, 0.1, 0.2, None, 0.3, 0.5, None)
        return Stretch([[seconds] for seconds in canaries], (0,), other)

    whole = blocks._together([stretch(1.0, 1.02), stretch(2.0, 2.02)])
    assert whole.other == OtherLoad(2.0, 0.2, 0.4, 0.0, 0.6, 0.5, None)
    assert whole.watched_cores == (0,)
    assert disturbance.canary_spread(whole.canaries) == pytest.approx(0.02)
    whole = blocks._together([stretch(1.0, 1.02), stretch(2.0, 2.6)])
    assert disturbance.canary_spread(whole.canaries) == pytest.approx(0.3)
