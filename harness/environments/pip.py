"""Runs ``venv`` and ``pip`` of another Python and reports their progress and errors."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from levelfield.harness.environments.interpreters import clean_variables

BUILD_TOOLS = {"pip", "setuptools", "wheel"}
INTERRUPT_GRACE_SECONDS = 5.0


# This program runs a module as `-m` does. It dies with all its children when standard input closes,
# because a killed builder must not leave a pip that writes into a folder which another build
# resumes.
_RUN_MODULE = """
import os, runpy, signal, sys, threading
def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
watcher = threading.Thread(target=watch)
watcher.daemon = True
watcher.start()
sys.path[:] = [place for place in sys.path if place]
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def pip_steps(requirements: Sequence[str]) -> list[list[str]]:
    """Return the arguments of each ``pip install``, in order."""
    # The tools come first. An old pip cannot read newer wheels, and old packages build only with
    # the setuptools that their specification names.
    options = [text for text in requirements if text.startswith("-")]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() for text in requirements]
    tools = [text for text, name in zip(requirements, names, strict=True) if name in BUILD_TOOLS]
    first = [[*options, *tools]] if tools else []
    return [*first, list(requirements)] if len(requirements) > len(options) else []


def failure(command: Sequence[str], log: TextIO, on_progress: Callable[[str], None]) -> str | None:
    """Run ``python -m module arguments...``; None, or the reason why it failed."""
    python, *arguments = command
    print("$", shlex.join([python, "-m", *arguments]), file=log)
    lines = []
    with subprocess.Popen(
        [python, "-s", "-c", _RUN_MODULE, *arguments],
        env=clean_variables(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or ():
                log.write(line)
                lines.append(line.strip())
                if short := condensed(line):
                    on_progress(short)
            process.wait()
        finally:
            if process.poll() is None:
                _stop(process)
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"ended by signal {-process.returncode}"
    return reason_of(lines)


def _stop(process: subprocess.Popen[str]) -> None:
    # An interrupted pip removes its temporary folders, which can hold gigabytes. A process that
    # does not end after that is killed; a second Ctrl-C also kills it.
    try:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(INTERRUPT_GRACE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def condensed(line: str) -> str | None:
    """Shorten a line of pip's output for progress; None for a line that is of no use to a user."""
    if line.startswith("Installing collected packages: "):
        count = line.count(",") + 1
        return f"installing {count} package{'s' if count > 1 else ''}"
    match = re.match(
        r"\s*(Collecting|Processing|Downloading|Using cached|Building wheel for) ([^\s#]+)"
        r"\S*(?: (\([\d.]+ ?\w?B\)))?(.*)",
        line,
    )
    if match is None or match[2].endswith(".metadata") or "status" in match[4]:
        return None
    package = match[2].rpartition("/")[2]
    return " ".join(filter(None, (match[1].lower(), package, match[3])))


def reason_of(lines: Sequence[str]) -> str:
    """pip's own reason: its last error, except the one that only points to a web page."""
    errors = [match[1] for line in lines if (match := re.match(r"(?:ERROR|error): (.*)", line))]
    reasons = [text for text in errors if not text.startswith("ResolutionImpossible")]
    filled_lines = [line for line in lines if line]
    return (reasons or filled_lines or ["no output"])[-1].rstrip(".")
