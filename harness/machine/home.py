"""The user's home folder, which a user of a container may not have."""

from __future__ import annotations

from pathlib import Path

from harness.errors import BadInput


def home() -> Path | None:
    """Return the home folder; None for a user without HOME whom the system does not know."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(path: Path) -> Path:
    """Return the path with the home folder in place of ~ or ~user. Raises BadInput."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise BadInput(f"{path}: no home folder is known for it; write the whole path") from error
