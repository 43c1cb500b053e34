"""Waiting for processes of a test, and whether they still live."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

PATIENCE_SECONDS = 120.0  # after which something hangs
POLL_SECONDS = 0.005


def wait_until(condition: Callable[[], bool], what: str = "a condition holds") -> None:
    """Wait, and fail if it is in vain."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}"
        time.sleep(POLL_SECONDS)


def alive(number: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
