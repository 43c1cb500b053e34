"""Keeps on disk which cell a run is working on, so that a resumed run knows which one failed.

A framework that kills the measuring process would end every resumption in the same way. So each
request to a worker is noted in a file before it is sent. The note is taken back when the request
is answered. No arm is to blame for the work that the run does by itself, above all solving cases.
The file is deleted when the run ends in any way that Python can see: finished, interrupted or with
an error. A note that is still there when the run is resumed names the arm that was at work when
the process died. It becomes a ``death`` record. After two deaths in a row at the same point the
cell is not tried again. Every lane has a note of its own. A run in which the process died once goes
on without lanes, so that the second death names one arm.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from levelfield.harness.plan.cells import Cell
from levelfield.harness.records.kinds import DeathRecord
from levelfield.harness.records.store import Run

NOTE_BYTES = 512
REASON = "the process that measures died twice while this cell was in hand"
# Records that show progress of a cell: gate and checks before its calibration, slices after it.
_PROVED, _TIMED = ("gate", "check"), ("slice",)


class InHand:
    """The note of a lane of one run: two small writes into a file, without waiting for the disk."""

    def __init__(self, folder: Path, lane: int = 0) -> None:
        self._path = folder / f"in-hand-{lane}"

    @contextlib.contextmanager
    def held(self, arm: str, cell: str | None) -> Iterator[None]:
        """Keep the note during a request; ``cell`` is None if it concerns none, such as a start."""
        self._write(json.dumps({"arm": arm, "cell": cell}))
        try:
            yield
        finally:
            self._write("")

    def _write(self, text: str) -> None:
        # All notes have the same length, so that a later note covers an earlier one completely.
        with contextlib.suppress(OSError):  # a full disk costs the note, not the measurement
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.pwrite(descriptor, text.ljust(NOTE_BYTES).encode(), 0)
            finally:
                os.close(descriptor)

    def clear(self) -> None:
        """Delete the note."""
        self._path.unlink(missing_ok=True)

    def left(self) -> DeathRecord | None:
        """Return the note that was neither taken back nor cleared, or None."""
        try:
            note = json.loads(self._path.read_text())
            return DeathRecord(arm=str(note["arm"]), cell=note["cell"] and str(note["cell"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def record_deaths(run: Run) -> None:
    """Turn the notes that an earlier process left into ``death`` records."""
    for in_hand in _notes(run.path):
        death = in_hand.left()
        if death is not None:
            run.append(death)
        in_hand.clear()


def clear(folder: Path) -> None:
    """Delete the notes, because the run ends in a way that it knows of."""
    for in_hand in _notes(folder):
        in_hand.clear()


def _notes(folder: Path) -> list[InHand]:
    lanes = (path.name.removeprefix("in-hand-") for path in folder.glob("in-hand-*"))
    return [InHand(folder, int(lane)) for lane in sorted(lanes) if lane.isdecimal()]


def condemned(records: Sequence[dict[str, Any]], cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that were in hand at two deaths in a row, without progress in between.

    A death during the start of a worker, or during a request without a cell, counts for all cells
    of its arm. The progress of any of these cells then counts for the arm. Death records in a row
    that name different arms are of one death. ``records`` are as decoded from the file.
    """
    arm_of = {cell.id: cell.arm for cell in cells}
    last: set[tuple[Any, ...]] = set()  # the points at the last death
    death: set[tuple[Any, ...]] = set()  # those of the death whose records are being read
    blamed: set[tuple[str, str]] = set()
    progress: dict[str, int] = {}
    calibrated: set[str] = set()
    for record in records:
        kind, cell = record["record"], str(record.get("cell") or "")
        another = kind == "death" and record["arm"] in {arm for arm, *_ in death}
        if death and (kind != "death" or another):
            last, death, progress = death, set(), {}
        if kind == "calibration":
            calibrated.add(cell)
            progress[cell] = 0
        elif kind in (_TIMED if cell in calibrated else _PROVED):
            for key in (cell, arm_of.get(cell, "")):
                progress[key] = progress.get(key, 0) + 1
        elif kind == "death":
            further = progress.get(cell or record["arm"], 0)
            point = record["arm"], cell, cell in calibrated, further
            # The same start of a worker failed again, or the cell came exactly as far as before.
            if point in last and (cell or not further):
                blamed.add((record["arm"], cell))
            death.add(point)
    return [cell for cell in cells if {(cell.arm, cell.id), (cell.arm, "")} & blamed]
