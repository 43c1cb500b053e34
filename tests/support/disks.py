"""Small disks, which are soon full."""

from __future__ import annotations

import os
from pathlib import Path


def fill(disk: Path, room: int) -> None:
    """Leave so many bytes on a disk."""
    free = os.statvfs(disk)
    (disk / "fill").write_bytes(bytes(free.f_bavail * free.f_frsize - room))
