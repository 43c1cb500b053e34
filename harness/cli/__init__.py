"""The command line: one file per command. This file starts it and ends it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # importing signal leaves time for Ctrl-C
import sys


def main() -> None:
    """The console script. Bad input exits with 2, a run that failed with 1, each in one line.

    A signal that asks for the end exits with 128 and its number. Output that could not be written
    exits with 1.
    """
    if _signal.getsignal(_signal.SIGINT) is not _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # ends in silence, not in a traceback
    from levelfield.harness.cli import screen, signals

    output = screen.protect()
    signals.end_at_once()
    # Imported here because a signal may come during the import of all commands.
    from levelfield.harness.cli.application import answer

    signals.end_politely()
    code = screen.flushed(output, answer())
    signals.end_with(code)
    sys.exit(code)
