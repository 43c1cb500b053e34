"""The time that a run still takes, by a played clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from levelfield.harness.analysis.forecast import Cost
from levelfield.harness.cli.progress import in_words
from levelfield.harness.engine import session
from levelfield.harness.engine.time_left import ForecastTimeLeft, Left, TimeLeft
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite, validated
from levelfield.harness.records import store
from tests.support.engine import TINY_EFFORT

COSTS = {"mlp": 3.0, "resnet50": 60.0, "lstm": 12.0}  # of a proof, in seconds
TURNS = {"mlp": 1.0, "resnet50": 20.0, "lstm": 4.0}  # in a block


@dataclass
class Clock:
    """A clock that moves as it is told."""

    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def seconds_of(time_left: TimeLeft) -> float | None:
    left = time_left.left()
    return None if left is None else left.seconds


@dataclass
class Played:
    """A run of some arms on three models, whose work takes what the tables say."""

    arms: int
    blocks: int
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.time_left = TimeLeft(self.blocks, self.clock)
        self.cells = [
            cast(Cell, SimpleNamespace(id=f"{arm} {model}", comparison=model))
            for arm in range(self.arms)
            for model in COSTS
        ]

    def prove(self, *, side_by_side: int = 1) -> list[tuple[float, float | None]]:
        """Prove all cells; returns the clock and the seconds left at the end of each."""
        marks = []
        self.time_left.begin_proofs(self.cells)
        for cell in self.cells:
            cost = COSTS[cell.comparison]
            self.clock.seconds += cost / side_by_side
            self.time_left.proved(cell, cost, TURNS[cell.comparison] if self.blocks else None)
            marks.append((self.clock.seconds, seconds_of(self.time_left)))
        return marks

    def time(self, *, factor: float) -> list[tuple[float, float | None]]:
        """Run all blocks, each ``factor`` times as long as its turns; returns as ``prove``."""
        marks = []
        cells = [cast(Cell, _Hashable(cell.id, cell.comparison)) for cell in self.cells]
        for number in range(self.blocks):
            self.time_left.begin_blocks(dict.fromkeys(cells, self.blocks - number))
            marks.append((self.clock.seconds, seconds_of(self.time_left)))
            seconds = factor * sum(TURNS[cell.comparison] for cell in cells)
            self.clock.seconds += seconds
            self.time_left.timed(cells, seconds)
        return marks


@dataclass(frozen=True)
class _Hashable:
    id: str
    comparison: str


@pytest.mark.parametrize("side_by_side", [1, 2])
def test_once_an_arm_was_proved_the_time_of_all_proofs_is_known(side_by_side: int) -> None:
    played = Played(arms=6, blocks=0)
    marks = played.prove(side_by_side=side_by_side)
    end = played.clock.seconds
    known = marks[len(COSTS) - 1 :]
    assert [now + (seconds or 0) for now, seconds in known] == pytest.approx([end] * len(known))
    assert marks[-1][1] == 0


def test_the_time_of_blocks_is_known_once_an_arm_was_proved() -> None:
    played = Played(arms=6, blocks=7)
    proofs = played.prove()
    blocks = played.time(factor=1.0)
    end = played.clock.seconds
    known = [*proofs[len(COSTS) - 1 :], *blocks]
    assert [now + (seconds or 0) for now, seconds in known] == pytest.approx([end] * len(known))


def test_a_block_shows_how_long_further_ones_take() -> None:
    played = Played(arms=6, blocks=7)
    played.prove()
    blocks = played.time(factor=1.5)
    end = played.clock.seconds
    (first, expected), *further = blocks
    assert first + (expected or 0) < end
    assert [now + (seconds or 0) for now, seconds in further] == pytest.approx([end] * 6)


def test_cells_that_failed_take_no_time_in_blocks() -> None:
    played = Played(arms=2, blocks=4)
    played.time_left.begin_proofs(played.cells)
    for cell in played.cells:
        played.time_left.proved(cell, 1.0, None)
    assert seconds_of(played.time_left) == 0


def test_the_time_passes_between_two_estimates() -> None:
    played = Played(arms=6, blocks=2)
    marks = played.prove()
    seconds = marks[-1][1]
    assert seconds and played.time_left.done() == pytest.approx(
        (played.clock.seconds - 100) / (played.clock.seconds - 100 + seconds)
    )
    played.clock.seconds += seconds / 2
    assert seconds_of(played.time_left) == pytest.approx(seconds / 2)
    played.clock.seconds += seconds
    assert seconds_of(played.time_left) == 0
    assert played.time_left.done() == 1


def forecast_of(played: Played, speed: float = 1.0) -> Played:
    """The same run with a forecast; it is ``speed`` times as fast as that says."""
    costs = {
        cell.id: Cost(
            proof_seconds=speed * COSTS[cell.comparison],
            closing_seconds=0.0,
            block_seconds=speed * TURNS[cell.comparison],
            blocks=played.blocks,
        )
        for cell in played.cells
    }
    played.time_left = ForecastTimeLeft(played.blocks, played.clock, costs=costs)
    return played


def test_a_forecast_that_is_right_is_right_from_the_first_moment_on() -> None:
    played = forecast_of(Played(arms=6, blocks=7))
    played.time_left.begin_proofs(played.cells)
    first = (played.clock.seconds, seconds_of(played.time_left))
    marks = [first, *played.prove(), *played.time(factor=1.0)]
    end = played.clock.seconds
    assert [now + (left or 0) for now, left in marks] == pytest.approx([end] * len(marks))


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_a_forecast_is_corrected_by_what_the_run_took(speed: float) -> None:
    played = forecast_of(Played(arms=6, blocks=7), speed)
    proofs, blocks = played.prove(), played.time(factor=1.0)
    end = played.clock.seconds
    ends = [now + (left or 0) for now, left in (*proofs[-1:], *blocks[4:])]
    # What a whole phase showed outweighs the forecast; the blocks' own begins with the first one.
    assert ends[1:] == pytest.approx([end] * (len(ends) - 1), rel=0.05)
    assert abs(ends[0] - end) > abs(ends[1] - end)


def test_arms_leave_when_they_left_the_earlier_run() -> None:
    played = forecast_of(Played(arms=6, blocks=7))
    assert isinstance(played.time_left, ForecastTimeLeft)
    early = {cell.id for cell in played.cells if cell.comparison == "resnet50"}
    played.time_left.costs = {
        name: replace(cost, blocks=3) if name in early else cost
        for name, cost in played.time_left.costs.items()
    }
    played.time_left.begin_proofs(played.cells)
    proofs = sum(COSTS.values())
    expected = 6 * (proofs + 3 * TURNS["resnet50"] + 7 * (TURNS["mlp"] + TURNS["lstm"]))
    assert seconds_of(played.time_left) == pytest.approx(expected)
    # One that has not left yet has another block at least.
    cells = [cast(Cell, _Hashable(cell.id, cell.comparison)) for cell in played.cells]
    played.time_left.begin_blocks(dict.fromkeys(cells, 2))
    assert seconds_of(played.time_left) == pytest.approx(
        6 * (TURNS["resnet50"] + 2 * (TURNS["mlp"] + TURNS["lstm"]))
    )


def test_a_cell_that_fails_is_expected_no_longer() -> None:
    played = forecast_of(Played(arms=1, blocks=4))
    played.time_left.begin_proofs(played.cells)
    for cell in played.cells:
        played.time_left.proved(cell, 1.0, None)
    assert seconds_of(played.time_left) == 0


def test_nothing_is_said_of_a_time_that_is_unknown() -> None:
    played = Played(arms=1, blocks=3)
    assert seconds_of(played.time_left) is None
    assert played.time_left.done() == 0
    assert in_words(None) == ""
    times = [Left(seconds, at_most=True) for seconds in (0, 29, 89, 91, 3541, 3600, 7500)]
    assert [in_words(left) for left in times] == [
        *("at most 1 min", "at most 1 min", "at most 1 min", "at most 2 min"),
        *("at most 59 min", "at most 1 h 00 min", "at most 2 h 05 min"),
    ]
    assert in_words(Left(7500, at_most=False)) == "about 2 h 05 min"


class Listener:
    """Keeps what a run says of its time."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.seconds_left: list[float | None] = []

    def stage(self, text: str, done: float, left: Left | None) -> None:
        self.shares.append(done)
        self.seconds_left.append(None if left is None else left.seconds)

    def cell_done(self, cell: Cell) -> None:
        pass


@pytest.mark.alone
def test_a_real_run_says_how_long_it_takes(misbehaving: Any, tmp_path: Path) -> None:
    suite = validated(
        Suite(
            name="time",
            title="tests",
            models=("mlp",),
            arms=("misbehaving:well",),
            presets=("tiny",),
            phases=("inference", "training"),
            optimizers=("sgd",),
            batches=(8,),
            level="quick",
            twin="misbehaving:well",
            effort=TINY_EFFORT,
        )
    )
    cells, resolutions = session.planned(suite, session.resolve_arms(suite.arms, {}))
    description = session.describe_run(suite, cells, resolutions)
    listener = Listener()
    with store.create(tmp_path, "run", description) as run:
        session.measure(run, suite, cells, resolutions=resolutions, progress=listener)
    assert listener.seconds_left[0] is None
    known = [seconds for seconds in listener.seconds_left if seconds is not None]
    assert known[-1] < known[0]
    assert min(listener.shares) >= 0 and max(listener.shares) <= 1
    assert listener.shares[-1] > 0.5
