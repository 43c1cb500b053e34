"""Times the cells that were proved: blocks until the last look, or until all is settled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from levelfield.harness.analysis import planning
from levelfield.harness.engine.blocks import Blocks
from levelfield.harness.engine.state import Budget, Done, Statuses
from levelfield.harness.machine.resources import memory_available_bytes
from levelfield.harness.plan.cells import Cell
from levelfield.harness.plan.suite import Suite
from levelfield.harness.records.store import Run
from levelfield.harness.statistics.levels import LEVELS

MEMORY_SHARE = 0.70  # of the available memory that the resident arms of a block may take


@dataclass(frozen=True)
class Timing:
    """Times the cells that passed, in blocks."""

    run: Run
    suite: Suite
    blocks: Blocks
    done: Done
    statuses: Statuses
    budget: Budget

    def time(self, cells: Sequence[Cell]) -> bool:
        """Run the blocks, then give every cell its status; return whether the budget sufficed.

        If it did not, cells that were timed are ok for now, and others get no status.
        """
        complete = self._run_blocks(cells)
        for cell in self.done.left(cells):
            if cell.id in self.done.closed:
                self.statuses.finish(cell, "ok", "")
            elif complete:
                self.statuses.finish(cell, *self._never_timed())
        return complete

    def _run_blocks(self, cells: Sequence[Cell]) -> bool:
        """Run blocks until the level's last look, or until nothing is left to settle.

        Return False if the budget ended before. A block begins if it fits, judged by the longest
        one so far; the first one begins in any case.
        """
        residency = self.suite.residency if self._fits(cells) else "sequential"
        looks = LEVELS[self.suite.level]
        last = planning.last_block(self.suite.level)
        rounds, longest_seconds = self.suite.effort.rounds, 0.0
        settled: frozenset[tuple[str, str]] = frozenset()
        if looks and self.done.blocks:
            rounds, settled = self._look(rounds, quick=self.suite.level == "quick")
        while True:
            cells_left = [
                cell
                for cell in self.done.left(cells)
                if self.done.blocks[residency, cell.comparison] < last
                and (cell.comparison, cell.arm) not in settled
            ]
            if not cells_left or self._out_of_time():
                return True
            if longest_seconds and not self.budget.fits(longest_seconds):
                return False
            audited = [cell for cell in cells_left if self._audit_due(residency, cell.comparison)]
            self.statuses.time_left.begin_blocks(
                {cell: self._blocks_left(cell, residency) for cell in cells_left}
            )
            kind = "audit" if audited else residency
            seconds = self._run_block(audited or cells_left, kind, rounds)
            longest_seconds = max(longest_seconds, seconds)
            counts = {self.done.blocks[residency, cell.comparison] for cell in cells_left}
            if not audited and counts & set(looks):
                rounds, settled = self._look(rounds, quick=self.suite.level == "quick")

    def _blocks_left(self, cell: Cell, residency: str) -> int:
        """Return how many blocks a cell still has at most, audits among them."""
        blocks, key = self.done.blocks, cell.comparison
        most = planning.most_blocks(residency, self.suite.level)
        return most - blocks[residency, key] - blocks["audit", key]

    def _audit_due(self, residency: str, comparison: str) -> bool:
        audits, blocks = (self.done.blocks[kind, comparison] for kind in ("audit", residency))
        return planning.audits_due(residency, blocks) > audits

    def _look(self, rounds: int, *, quick: bool) -> tuple[int, frozenset[tuple[str, str]]]:
        """Return (rounds of the next blocks, settled arms)."""
        planned_rounds, settled = planning.look(self.run.path, rounds=rounds)
        # A quick run must stay quick, even if more rounds would improve it.
        most_rounds = 2 * self.suite.effort.rounds if quick else planned_rounds
        return min(planned_rounds, most_rounds), settled

    def _run_block(self, cells: Sequence[Cell], residency: str, rounds: int) -> float:
        """Run a block; return the seconds that it took."""
        began, closing_seconds = time.monotonic(), self.blocks.closing_seconds
        self.done.last_block += 1
        self.blocks.run_block(self.done.last_block, cells, residency=residency, rounds=rounds)
        comparisons = {cell.comparison for cell in cells}
        self.done.blocks.update((residency, comparison) for comparison in comparisons)
        seconds = time.monotonic() - began
        # No later block closes these cells again.
        closed_seconds = self.blocks.closing_seconds - closing_seconds
        self.statuses.time_left.timed(cells, seconds - closed_seconds)
        return seconds

    def _fits(self, cells: Sequence[Cell]) -> bool:
        """Return whether the processes of all arms fit into this machine's memory together."""
        needed_bytes = sum(self.done.peaks.get(arm, 0) for arm in {cell.arm for cell in cells})
        return needed_bytes <= MEMORY_SHARE * memory_available_bytes()

    def _never_timed(self) -> tuple[str, str]:
        """Status and reason of a cell that passed its gate but was measured in no block."""
        if self._out_of_time():
            cap = self.suite.effort.time_cap_minutes
            return "timeout", f"the run's cap of {cap:g} minutes ended before it was timed"
        return "failed", "no process of this arm lived until the cell was timed"

    def _out_of_time(self) -> bool:
        cap = self.suite.effort.time_cap_minutes
        return bool(cap) and time.monotonic() - self.budget.began > 60 * cap
