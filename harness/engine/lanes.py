"""Lanes: the arms of a run are qualified side by side, on cores that nothing is timed on.

The first lane has the cores on which the run measures, and every other lane has as many spare ones.
A lane takes one arm after another. One more lane solves the cases that the arms will need, so that
no arm waits for the reference. :mod:`levelfield.harness.machine.turns` says what lanes share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from levelfield.harness.errors import WorkerFailure
from levelfield.harness.machine.turns import Stopped, Turns
from levelfield.harness.plan.arms import Arm
from levelfield.harness.plan.cells import Cell
from levelfield.harness.proof.cases import Cases

# A lane needs this much memory at least, for its worker and what the host keeps of its case.
LANE_BYTES = 4 << 30


@dataclass(frozen=True)
class Group:
    """Cells that one process qualifies: those of an arm with one number of threads.

    With a budget, they are also of one ``comparison``; without one it is "".
    """

    comparison: str
    arm: Arm
    interpreter: Path
    cells: Sequence[Cell]


@dataclass
class Queue:
    """Hands out groups to lanes, in their order.

    Two lanes never serve one interpreter at the same time. Processes of one framework share the
    pages of its libraries, so the memory of each would seem smaller. ``may_begin`` says whether
    there is time for a group; the first group that has none ends the queue.
    """

    groups: list[Group]
    turns: Turns
    may_begin: Callable[[Group], bool]
    handed_out: list[Group] = field(default_factory=list)
    _served: set[Path] = field(default_factory=set)

    @contextmanager
    def next(self) -> Iterator[Group | None]:
        """Yield the next group for this lane, or None at the end of the queue."""
        self.turns.wait_until(lambda: not self.groups or self._first() is not None)
        group = self._first()
        if group is None or not self.may_begin(group):
            self.groups.clear()
            yield None
            return
        self.groups.remove(group)
        self.handed_out.append(group)
        self._served.add(group.interpreter)
        try:
            yield group
        finally:
            self._served.discard(group.interpreter)

    def _first(self) -> Group | None:
        free = (group for group in self.groups if group.interpreter not in self._served)
        return next(free, None)


def run_side_by_side(turns: Turns, lanes: Sequence[Callable[[], None]]) -> None:
    """Run the first lane in this thread and each other one in a thread of its own, to their ends.

    An error of one of them ends the others, and is raised here.
    """
    errors: list[BaseException] = []

    def run(number: int, lane: Callable[[], None]) -> None:
        try:
            with turns.lane(number):
                lane()
        except Stopped:
            pass
        except BaseException as error:
            errors.append(error)
            turns.stop()

    threads = [
        threading.Thread(target=run, args=(number, lane), daemon=True)
        for number, lane in enumerate(lanes)
        if number
    ]
    try:
        with suppress(Stopped), turns.lane():
            for thread in threads:
                thread.start()
            lanes[0]()
        for thread in threads:
            thread.join()
    except BaseException:
        turns.stop()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]


def prepare(
    cases: Cases, cells: Sequence[Cell], seeds: Callable[[Cell], range], *, timed: bool
) -> Iterator[None]:
    """Solve what the cells need of the reference, a task for each step of this iterator.

    Closing cases are solved last, because no cell needs its own before it was timed. ``seeds``:
    those of a cell's lessons. ``timed``: whether the cells will need a closing case at all. A task
    that fails is the failure of the cell that needs it.
    """
    solved = []
    for cell in cells:
        with suppress(WorkerFailure):
            cases.solved(cell)
            solved.append(cell)
            yield
            for seed in seeds(cell):
                if not isinstance(cases.lesson(cell, seed), str):
                    cases.learned(cell, seed)
                    yield
    for cell in solved if timed else ():
        with suppress(WorkerFailure):
            cases.closing(cell)
            yield
