"""How long a run still takes, judged by what its own work took so far, or by an earlier run.

Without an earlier run, work that was not done yet is expected to take as long as the same work of
other arms. Blocks are counted up to the level's last look, although settled arms leave them. So a
run takes at most about as long as this says. An earlier run also shows when arms leave.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from levelfield.harness.analysis.forecast import Cost
from levelfield.harness.plan.cells import Cell

FORECAST_WEIGHT = 0.1  # of a phase: a forecast counts as much as this share of the phase, measured


@dataclass(frozen=True)
class Left:
    """The seconds that are left, or the most that can be."""

    seconds: float
    at_most: bool


@dataclass
class Means:
    """Mean seconds by the work that they were for; work without any has the mean of all."""

    _seconds: dict[Hashable, list[float]] = field(default_factory=dict)

    def add(self, work: Hashable, seconds: float) -> None:
        """Add the seconds that some work took."""
        self._seconds.setdefault(work, []).append(seconds)

    def of(self, work: Hashable) -> float:
        """Return the expected seconds of some work; 0 if nothing was added."""
        known = self._seconds.get(work) or [s for many in self._seconds.values() for s in many]
        return fmean(known) if known else 0.0

    def __bool__(self) -> bool:
        """Whether anything was added."""
        return bool(self._seconds)


@dataclass
class TimeLeft:
    """The time that is left: for the proofs of cells, then for their blocks.

    ``blocks``: the number of blocks that a cell has at most; 0 if nothing is timed.
    """

    blocks: int
    clock: Callable[[], float] = time.monotonic
    _unproved: dict[str, Cell] = field(default_factory=dict)
    _blocks_left: dict[str, tuple[Cell, int]] = field(default_factory=dict)
    # Seconds of proofs in their lanes and of turns in blocks, by what the cells compute.
    _proofs: Means = field(default_factory=Means)
    _turns: Means = field(default_factory=Means)
    # How long lanes took together, and how long blocks took for each second of turns.
    _lane_seconds: float = 0.0
    _block_factor: float = 1.0
    _began: float = 0.0
    _proofs_began: float = 0.0
    _estimate: tuple[float, float] | None = None  # when it was made, and the seconds left then

    def __post_init__(self) -> None:
        """Begin to count."""
        self._began = self._proofs_began = self.clock()

    def begin_proofs(self, cells: Iterable[Cell]) -> None:
        """Note that the cells are about to be proved."""
        self._proofs_began = self.clock()
        self._unproved = {cell.id: cell for cell in cells}

    def proved(self, cell: Cell, seconds: float, turn_seconds: float | None) -> None:
        """Note that a cell was proved by a lane in so many seconds.

        ``turn_seconds``: what it will take in a block, as far as is known; None if it is not timed.
        """
        self._unproved.pop(cell.id, None)
        self._proofs.add(_work(cell), seconds)
        self._lane_seconds += seconds
        if turn_seconds is not None:
            self._turns.add(_work(cell), turn_seconds)
            self._blocks_left[cell.id] = cell, self.blocks
        self._estimate_anew()

    def begin_blocks(self, blocks_left: Mapping[Cell, int]) -> None:
        """Note how many blocks the cells have at most, and that all proofs are over."""
        self._unproved = {}
        self._blocks_left = {cell.id: (cell, number) for cell, number in blocks_left.items()}
        self._estimate_anew()

    def timed(self, cells: Iterable[Cell], seconds: float) -> None:
        """Note that a block of these cells took so many seconds."""
        expected = sum(self._turns.of(_work(cell)) for cell in cells)
        if expected and seconds:
            self._block_factor = seconds / expected

    def left(self) -> Left | None:
        """Return the time that is left; None while nothing is known."""
        if self._estimate is None:
            return None
        made, seconds = self._estimate
        return Left(max(seconds - (self.clock() - made), 0.0), at_most=True)

    def done(self) -> float:
        """Return the share of the run's time that has passed, 0 to 1."""
        left, passed = self.left(), self.clock() - self._began
        return 0.0 if left is None else passed / max(passed + left.seconds, 1e-9)

    def _estimate_anew(self) -> None:
        proofs = sum(self._proofs.of(_work(cell)) for cell in self._unproved.values())
        # Lanes that work side by side take less time than the sum of theirs.
        lanes = (self.clock() - self._proofs_began) / self._lane_seconds if self._proofs else 0.0
        turns = sum(
            number * self._turns.of(_work(cell)) for cell, number in self._blocks_left.values()
        )
        turns += sum(self.blocks * self._turns.of(_work(cell)) for cell in self._unproved.values())
        self._estimate = self.clock(), min(lanes, 1.0) * proofs + self._block_factor * turns


@dataclass
class ForecastTimeLeft(TimeLeft):
    """The time that is left by the costs of an earlier run.

    They are corrected by the ratio of what this run took so far to what was expected of it.
    """

    costs: Mapping[str, Cost] = field(default_factory=dict)  # by cell id, of all cells
    _proved: set[str] = field(default_factory=set)
    _timed: set[str] = field(default_factory=set)
    _block_seconds: float = 0.0
    _expected_seconds: float = 0.0  # of the same blocks

    def begin_proofs(self, cells: Iterable[Cell]) -> None:
        """Note that the cells are about to be proved."""
        super().begin_proofs(cells)
        self._blocks_left = {cell.id: (cell, self.blocks) for cell in self._unproved.values()}
        self._estimate_anew()

    def proved(self, cell: Cell, seconds: float, turn_seconds: float | None) -> None:
        """Note that a cell was proved; see ``TimeLeft.proved``."""
        self._proved.add(cell.id)
        if turn_seconds is None:
            self._blocks_left.pop(cell.id, None)
        super().proved(cell, seconds, turn_seconds)

    def timed(self, cells: Iterable[Cell], seconds: float) -> None:
        """Note that a block of these cells took so many seconds."""
        self._timed |= {cell.id for cell in cells}
        self._block_seconds += seconds
        self._expected_seconds += sum(self.costs[cell.id].block_seconds for cell in cells)

    def left(self) -> Left | None:
        """Return the time that is left; None before the proofs begin."""
        left = super().left()
        return left and Left(left.seconds, at_most=False)

    def _estimate_anew(self) -> None:
        done = sum(self.costs[cell].proof_seconds for cell in self._proved)
        proofs = sum(self.costs[cell].proof_seconds for cell in self._unproved)
        took = self.clock() - self._proofs_began
        closings = sum(self.costs[cell].closing_seconds for cell in self._unclosed())
        blocks = sum(
            self._blocks_expected(cell, most) * self.costs[cell].block_seconds
            for cell, (_, most) in self._blocks_left.items()
        )
        timed = self._expected_seconds
        self._estimate = (
            self.clock(),
            proofs * _ratio(took, done, done + proofs)
            + closings
            + blocks * _ratio(self._block_seconds, timed, timed + blocks),
        )

    def _unclosed(self) -> set[str]:
        return self._blocks_left.keys() - self._timed

    def _blocks_expected(self, cell: str, most: int) -> float:
        """Blocks that a cell still has: one at least, since it did not leave."""
        return min(max(self.costs[cell].blocks - (self.blocks - most), 1.0), most)


def _ratio(seconds: float, expected: float, phase: float) -> float:
    """Seconds that some work took, over what was expected of it; 1 before anything was done.

    ``phase``: the expected seconds of all work of its kind. Little of it says little.
    """
    weight = FORECAST_WEIGHT * phase
    return (seconds + weight) / (expected + weight) if expected and weight else 1.0


def _work(cell: Cell) -> Hashable:
    """Return a key of the work of a cell, which is the same for all arms."""
    return cell.comparison
