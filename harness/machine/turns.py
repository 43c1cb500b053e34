"""Turns of the lanes of a run: work goes on side by side, and what is timed has the machine alone.

A lane is a thread of the host that serves one arm after another. Only one lane at a time runs code
of the host, so the lanes need no locks for what they share. A lane gives its turn away while a
worker or a process of the reference works for it. Lanes that wait for such processes are what runs
side by side.

A lane that times something keeps its turn and parks the process trees of the other lanes by
SIGSTOP, so that nothing of this run shares the machine with what is timed. Time limits of parked
processes stand still.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from levelfield.harness.machine import supervisor


class Stopped(Exception):
    """The run ends because of another lane, so this lane must end, too."""


class Turns:
    """The turns of one run. A thread that is no lane of it is never held up by it."""

    def __init__(self) -> None:
        self._turn = threading.Condition(threading.RLock())
        self._holder: int | None = None  # the thread that has the turn
        self._depth = 0  # calls of ``alone`` around the present code
        self._trees: set[int] = set()  # supervisors of the living process trees
        # Seconds for which trees were parked so far, and since when they are parked now.
        self._parked: tuple[float, float | None] = (0.0, None)
        self._stopper: int | None = None  # the thread that ended the run
        self._lane = threading.local()

    @contextmanager
    def lane(self, number: int = 0) -> Iterator[None]:
        """Make this thread lane ``number``, once it gets the turn. Raises Stopped."""
        self._lane.number = number
        try:
            self._take()
            yield
        finally:
            self._give()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Give the turn away while a process works for this lane. Raises Stopped at the end.

        A lane that is alone keeps it.
        """
        gives = self._has_turn() and not self._depth
        if gives:
            self._give()
        try:
            yield
        except Exception:
            if gives:
                self._take()
            self._refuse_stopped()
            raise
        # After a signal that ends the run there is nothing to wait for: the turn stays away.
        if gives:
            self._take()
        self._refuse_stopped()

    @contextmanager
    def alone(self, own: int = 0) -> Iterator[None]:
        """Keep the turn and park the other lanes' process trees; ``own``: the supervisor of ours.

        Trees that are made within are this lane's, and run.
        """
        others = self._trees - {own} if self._has_turn() and not self._depth else set()
        self._depth += 1
        before, _ = self._parked
        if others:
            self._parked = before, time.monotonic()
        try:
            for root in others:
                supervisor.stop(root)
            yield
        finally:
            for root in others & self._trees:
                supervisor.send(signal.SIGCONT, supervisor.living(root))
            self._depth -= 1
            _, since = self._parked
            if others and since is not None:
                self._parked = before + time.monotonic() - since, None

    @property
    def number(self) -> int:
        """The number of this thread's lane; 0 for a thread that is none."""
        return getattr(self._lane, "number", 0)

    def parked_seconds(self) -> float:
        """Return how long this lane's trees may have been parked so far; it ran when it was alone.

        The figure is only good for differences within a request.
        """
        before, since = self._parked
        if since is None or self._has_turn():
            return before
        return before + time.monotonic() - since

    def are_parked(self) -> bool:
        """Whether a lane is alone now, so that no other lane's threads may do anything."""
        return self._parked[1] is not None

    def add_tree(self, root: int) -> None:
        """Count a process tree among those that are parked; ``root``: its supervisor's id.

        Raises Stopped.
        """
        self._trees.add(root)
        self._refuse_stopped()

    def remove_tree(self, root: int) -> None:
        """Forget a process tree that has ended."""
        self._trees.discard(root)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Give the turn away until ``ready()``, which another lane makes true. Raises Stopped."""
        while not ready():
            assert self._has_turn() and not self._depth, "no other lane can act"
            self._holder = None
            try:
                self._turn.wait()
            finally:
                self._holder = threading.get_ident()
            self._refuse_stopped()

    def stop(self) -> None:
        """End the processes of all other lanes, whose threads then raise Stopped."""
        self._stopper = threading.get_ident()
        for root in list(self._trees):
            supervisor.send(signal.SIGKILL, supervisor.living(root))
        # A lane may wait for what this one would have done.
        if self._has_turn():
            self._give()
        else:
            with self._turn:
                self._turn.notify_all()

    def _has_turn(self) -> bool:
        return self._holder == threading.get_ident()

    def _take(self) -> None:
        self._turn.acquire()
        self._holder = threading.get_ident()
        self._refuse_stopped()

    def _give(self) -> None:
        if self._has_turn():
            self._holder = None
        with suppress(RuntimeError):  # a signal ended the wait for the turn
            self._turn.notify_all()
            self._turn.release()

    def _refuse_stopped(self) -> None:
        if self._stopper not in (None, threading.get_ident()):
            raise Stopped
