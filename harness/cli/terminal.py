"""The terminal that all commands print to."""

from __future__ import annotations

from rich.console import Console


def terminal(*, stderr: bool = False) -> Console:
    """A console that shows every text as it is.

    Titles, names and reasons come from files of third parties: brackets in them are no markup and
    colons no emoji.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
