"""Gives each of several test processes a core of its own, and all of them the same answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from levelfield.harness.engine import session


def pytest_configure(config: pytest.Config) -> None:
    """Pin a process of pytest-xdist to a core, for runs of tests measure on the cores they may use.

    Runs on one core wait for each other, and one core more would make no run of a test faster.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The runs of tests and of this machine's user do not wait for each other."""
    folder = tmp_path_factory.mktemp("cores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "cores_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the reference answered, which all processes of a session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "answers"
    folder.mkdir(exist_ok=True)
    return folder
