"""Ctrl-C, SIGTERM and SIGHUP end a command politely: workers stop, files are whole.

This module imports next to nothing, because it acts before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.01  # until an exception that Python dropped is raised again


class Interrupted(SystemExit):
    """A signal asks this program to end; ``code`` is 128 and its number, as shells have it.

    It is a SystemExit, because libraries that catch KeyboardInterrupt end a program their own way.
    """

    code: int


def end_at_once() -> None:
    """Let a signal end the program at once, because imports leave nothing to finish."""

    def end(number: int, frame: FrameType | None) -> None:
        _say("levelfield: interrupted")
        os._exit(128 + number)

    _answer_with(end)


def end_politely() -> None:
    """Let a signal raise Interrupted."""
    first = 0  # the signal that asked, for when SIGALRM asks again

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal first
        first = first or number
        # Programs like timeout send SIGCONT after it, although nothing was stopped. SIG_IGN would
        # not do: if the signal is already pending, Python prints a traceback.
        signal.signal(signal.SIGCONT, lambda *_: None)
        raise Interrupted(128 + first)

    def ask_again(dropped: sys.UnraisableHookArgs) -> None:
        # Python drops exceptions within finalizers and some callbacks.
        if isinstance(dropped.exc_value, Interrupted):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(dropped)

    signal.signal(signal.SIGALRM, interrupt)
    signal.signal(signal.SIGCONT, _continued)
    sys.unraisablehook = ask_again
    _answer_with(interrupt)


def end_with(code: int) -> None:
    """Let a signal end a program that has finished its work, with the exit code of the work."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _answer_with(lambda *_: os._exit(code))


def _answer_with(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs set it
            signal.signal(number, handler)


def _continued(number: int, frame: FrameType | None) -> None:
    _say("levelfield: was stopped by a signal (Ctrl-Z, or a program) and goes on")


def _say(line: str) -> None:
    """Write a line to standard error; not by print, which the signal may have interrupted."""
    with suppress(OSError):  # no reader is left
        os.write(2, f"{line}\n".encode())
