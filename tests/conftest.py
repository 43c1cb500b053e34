"""Gives each of several test processes a core of its own."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Pin a process of pytest-xdist to a core, for runs of tests measure on the cores they may use.

    Runs on one core wait for each other, and one core more would make no run of a test faster.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
