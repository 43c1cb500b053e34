"""Folders for the temporary files of a host, which a later host sweeps if their own was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from levelfield.harness.errors import FULL_DISK, RunFailed, WorkerFailure

PREFIX = "levelfield-scratch-"
LEAST_ROOM_BYTES = 1 << 16  # a disk with less is full


class NoRoom(RunFailed):
    """There is no room for temporary files. No framework is to blame, so no cell fails."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for temporary files below TMPDIR and delete it at the end. Raises NoRoom.

    A host that is killed cannot delete its folder. The kernel frees the lock that it has on the
    folder, and the next host that needs a folder deletes those without a lock.
    """
    parent = _parent()
    try:
        _sweep(parent)
        folder, lock = _locked_folder(parent)
    except OSError as error:
        raise NoRoom(_words(f"{parent}: cannot write there: {error.strerror}")) from error
    try:
        yield folder
    finally:
        remove(folder)
        os.close(lock)


def _parent() -> Path:
    # Not gettempdir alone, which takes another folder in silence if the user's own is full.
    return Path(os.environ.get("TMPDIR") or tempfile.gettempdir())


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Until it is locked, another host may sweep it: before it is opened, or after.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Delete this user's folders whose host was killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is another user's, in use, or already gone
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.geteuid():
                    remove(folder)
            finally:
                os.close(lock)


def remove(folder: Path) -> None:
    """Delete a folder that a worker may have left in any state, or a file in its place."""
    for at, _, _ in os.walk(folder):
        with suppress(OSError):
            os.chmod(at, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.unlink()


@contextmanager
def roomy(folder: Path) -> Iterator[None]:
    """Raise NoRoom in place of errors that come from a full disk below ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise NoRoom(_words(f"{_parent()}: the disk is full")) from error
    except WorkerFailure as failure:
        refuse_full(folder, failure.reason)
        raise


def refuse_full(folder: Path, reason: str) -> None:
    """Raise NoRoom if a failure for this reason came from a full disk below ``folder``."""
    if is_full(folder, reason):
        raise NoRoom(_words(f"{_parent()}: the disk is full"))


def is_full(folder: Path, reason: str) -> bool:
    """Return whether a failure of another program for this reason came from a full disk."""
    if any(os.strerror(number) in reason for number in FULL_DISK):
        return True
    with suppress(OSError):
        room = os.statvfs(folder)
        blocks = room.f_bfree if os.geteuid() == 0 else room.f_bavail
        return blocks * room.f_frsize < LEAST_ROOM_BYTES or (room.f_files > 0 == room.f_ffree)
    return False


def _words(fact: str) -> str:
    return f"{fact}; make room, or choose another folder: export TMPDIR=FOLDER"
