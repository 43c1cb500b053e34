"""Errors that the reference raises for what a user wrote: an unknown name, a bad definition."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

_NUMBER = re.compile(r"\[Errno -?\d+\] ")


def without_number(text: str) -> str:
    """Return the text of an error, such as one of the system, without the system's number."""
    return _NUMBER.sub("", text)


class UnknownName(ValueError):
    """An unknown name; the message lists the nearest valid names."""

    def __init__(
        self, what: str, name: str, known: Sequence[str] | Mapping[str, Any], where: str = ""
    ) -> None:
        near = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5) or sorted(known)
        self.what, self.name, self.near = what, name, tuple(near)
        place = f" in {where}" if where else ""
        super().__init__(f"unknown {what} '{name}'{place}; did you mean {', '.join(near)}?")


class BadDefinition(ValueError):
    """A folder of models that cannot be used; the message says why in one line."""


@contextmanager
def by_definition(of: str) -> Iterator[None]:
    """Raise BadDefinition, which begins with ``of``, for what the code of a definition raises.

    The code of somebody else may raise anything, and leave the program. Ctrl-C goes on, and so does
    a signal to a host, which is of a class below SystemExit. The prints of that code go to standard
    error, because they are no part of a command's output.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (UnknownName, BadDefinition, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, SystemExit) and type(error) is not SystemExit:
            raise
        words = " ".join(f"{type(error).__name__}: {_text_of(error)}".split())
        raise BadDefinition(f"{of}: {words}") from error


def _text_of(error: BaseException) -> str:
    try:
        return without_number(str(error))
    except Exception as fault:  # its __str__ is the code of somebody else, too
        return f"its text cannot be shown ({type(fault).__name__})"
