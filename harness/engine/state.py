"""The state of a run: what is done, the statuses of its cells, and the time that it may take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from levelfield.harness.engine.qualification import Calibration
from levelfield.harness.engine.time_left import Left, TimeLeft
from levelfield.harness.errors import WorkerFailure
from levelfield.harness.plan.cells import Cell
from levelfield.harness.records.kinds import StatusRecord
from levelfield.harness.records.store import Run, finished_cells, read_records


class Progress(Protocol):
    """Receives the progress of a run.

    ``done``: the share of the run's time that has passed, 0 to 1. ``left``: how long the run still
    takes; None while nothing is known of it.
    """

    def stage(self, text: str, done: float, left: Left | None) -> None:
        """Receive a description of the present stage."""

    def cell_done(self, cell: Cell) -> None:
        """Receive a cell that has got its status."""


@dataclass
class Done:
    """The state of a run so far, in earlier processes of the host, and in this one.

    ``calibrations``: cell id -> its frozen slice. ``closed``: ids of the cells that passed the
    closing gate. ``over``: ids of the cells that have their status. ``peaks``: arm name -> peak
    bytes of its qualification. ``blocks``: (residency, comparison) -> number of blocks that ended.
    ``died``: whether the host died once.
    """

    calibrations: dict[str, Calibration] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    peaks: dict[str, int] = field(default_factory=dict)
    blocks: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_block: int = 0
    processes: int = 0
    died: bool = False

    @classmethod
    def read(cls, run: Run) -> Done:
        """Read the records of what was done.

        A number of a block or process is taken as soon as any record has it. A run that was killed
        in the middle of a block has its start-ups and slices, but no ``block`` record.
        """
        work_done = cls()
        for record in read_records(run):
            work_done.processes = max(work_done.processes, record.get("process") or 0)
            work_done.last_block = max(work_done.last_block, record.get("block") or 0)
            match record["record"]:
                case "calibration":
                    values = {key: record[key] for key in Calibration.__dataclass_fields__}
                    work_done.calibrations[record["cell"]] = Calibration(**values)
                case "closing" if record["passed"]:
                    work_done.closed.add(record["cell"])
                case "death":
                    work_done.died = True
                case "block":
                    work_done.blocks.update(
                        (record["residency"], comparison) for comparison in record["comparisons"]
                    )
        work_done.over = finished_cells(read_records(run))
        return work_done

    def left(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that have no status yet."""
        return [cell for cell in cells if cell.id not in self.over]


@dataclass
class Statuses:
    """Gives the cells their statuses and reports the progress of the run."""

    run: Run
    progress: Progress
    over: set[str]  # ids of the cells that have their status
    time_left: TimeLeft

    def finish(self, cell: Cell, status: str, reason: str, log: str | None = None) -> None:
        """Record the status of a cell. ``log``: the name of its file in the folder of logs."""
        self.over.add(cell.id)
        self.run.append(StatusRecord(cell=cell.id, status=status, reason=reason, log=log))
        self.progress.cell_done(cell)

    def failed(self, cell: Cell, failure: WorkerFailure) -> None:
        """Record the status that the failure of a worker gives to a cell."""
        self.finish(cell, failure.status, failure.reason, failure.log)

    def stage(self, text: str) -> None:
        """Report what the run does now."""
        self.progress.stage(text, self.time_left.done(), self.time_left.left())


@dataclass(frozen=True)
class Budget:
    """The time that a run may take, from ``began`` (monotonic seconds) on; None: as it needs.

    At most half of it goes into proofs, so that the other half is left to time what was proved.
    """

    began: float
    seconds: float | None = None

    def proofs_over(self) -> bool:
        """Whether no further cell may be qualified."""
        return self.seconds is not None and self._used() > self.seconds / 2

    def fits(self, seconds: float) -> bool:
        """Whether so many more seconds are left."""
        return self.seconds is None or self._used() + seconds <= self.seconds

    def _used(self) -> float:
        return time.monotonic() - self.began
