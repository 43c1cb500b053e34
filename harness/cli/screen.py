"""Standard output and standard error, which stop no command when they cannot be written.

A reader may go away (``levelfield report RUN | head -1``), a disk may be full, a terminal may lack
a character or be closed. Tables and progress are then dropped, and the work goes on.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO)  # the reader has left or wants no more


class Screen(io.FileIO):
    """A standard stream; ``lost`` is the first error of a write, after which all is dropped.

    ``missing``: whether the stream was closed when the command started.
    """

    lost: OSError | None = None
    missing = False

    def write(self, data: Any, /) -> int:
        """Write, or drop the data. Returns the number of bytes as if they were written."""
        if self.missing and self.lost is None:
            self.lost = OSError(errno.EBADF, "it is closed")
        if self.lost is not None:
            return memoryview(data).nbytes
        try:
            written = super().write(data)
            while written is None:  # another program made the stream non-blocking
                select.select([], [self], [])
                written = super().write(data)
            return written
        except OSError as error:
            self.lost = error
            return memoryview(data).nbytes


def protect() -> Screen:
    """Replace the standard streams by such that raise no OSError; return standard output's."""
    closed_streams = set()
    for number in (0, 1, 2):
        # Otherwise a file that is opened later would get the number of a closed stream.
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            closed_streams.add(number)
    output, errors = Screen(1, "w", closefd=False), Screen(2, "w", closefd=False)
    output.missing = 1 in closed_streams
    sys.stdout = _text(output, sys.stdout, by_lines=output.isatty())
    sys.stderr = _text(errors, sys.stderr, by_lines=True)
    return output


def _text(raw: Screen, former: TextIO | None, *, by_lines: bool) -> TextIO:
    # A stream that was closed when Python started is None. A character that the encoding lacks
    # becomes a question mark.
    encoding = former.encoding if former is not None else "utf-8"
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=encoding, errors="replace", line_buffering=by_lines)


def flushed(output: Screen, code: int) -> int:
    """Write the rest of both streams -> the exit code: 1 in place of 0 if output was lost.

    A reader who left has lost nothing.
    """
    sys.stdout.flush()
    if output.lost is not None and output.lost.errno not in GONE:
        reason = output.lost.strerror
        print(f"levelfield: cannot write to standard output: {reason}", file=sys.stderr)
        code = code or 1
    sys.stderr.flush()
    return code
