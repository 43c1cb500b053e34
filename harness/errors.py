"""The tree of errors, and how their messages are cleaned.

LevelfieldError
├── BadInput          the user asked for something impossible: exit 2
├── RunFailed         the work could not be finished: exit 1
└── WorkerFailure     a framework failed, or the reference on one case: costs the cells
                      concerned, never leaves the engine
"""

from __future__ import annotations

import errno

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # errors of a write that has no room


class LevelfieldError(Exception):
    """The base of all errors.

    Its message is one line for people: what happened, what was expected, what to type next.
    """

    exit_code = 1


class BadInput(LevelfieldError):
    """Something in the command, a suite or a file is wrong."""

    exit_code = 2


class RunFailed(LevelfieldError):
    """The request was valid, but the work could not be finished."""


class WorkerFailure(LevelfieldError):
    """A worker or the reference did not do what it was asked; ``status`` is that of the cell.

    ``log`` is the name of the file with the worker's output, if there is one.
    """

    def __init__(self, status: str, reason: str, log: str | None = None) -> None:
        self.status, self.reason, self.log = status, reason, log
        super().__init__(f"{status}: {reason}")


def cause_of(error: BaseException) -> str:
    """Say why something failed, for a message that names the file itself.

    An error of the system gives its reason alone, without its number and its path.
    """
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def clean(text: str) -> str:
    """Return one line without characters that steer a terminal or the direction of writing."""
    return " ".join(printable(str(text)).split())


def printable(text: str) -> str:
    """Return lines in which spaces replace what steers a terminal or the direction of writing."""
    return "".join(mark if mark.isprintable() or mark == "\n" else " " for mark in text)
