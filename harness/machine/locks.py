"""Keeps two runs from measuring on the same cores: a lock file for each hardware thread.

A lock (flock(2)) ends with its holder, however the holder dies. A run locks whole physical cores.
The lock files are in the user's cache folder, so the runs of other users are not seen; they appear
as foreign load.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shlex
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from levelfield.harness.errors import RunFailed, clean
from levelfield.harness.machine import topology
from levelfield.harness.machine.resources import available_cores

BOOT = Path("/proc/sys/kernel/random/boot_id")
RETRY_SECONDS = 2.0  # how often a waiting run tries again, which takes less than a millisecond
OLD_SECONDS = 30 * 86400.0  # locks of a boot that nothing has used since then are deleted
HOLDER_BYTES = 4096


class CoresInUse(UserWarning):
    """Another run measures on cores that this run would have taken."""


@dataclass
class _Taken:
    """The locks of one attempt: core -> descriptor; ``holders``: core -> who has it instead."""

    own: dict[int, int] = field(default_factory=dict)
    holders: dict[int, str] = field(default_factory=dict)

    def release(self, *, keep: Sequence[int] | set[int] = ()) -> None:
        for core in [core for core in self.own if core not in keep]:
            os.close(self.own.pop(core))

    def sign(self, run: str) -> None:
        """Write into the files which run has them."""
        for descriptor in self.own.values():
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{run} (process {os.getpid()})".encode(), 0)


@contextlib.contextmanager
def held_cores(
    folder: Path,
    threads: int,
    *,
    run: str,
    busy: Literal["wait", "refuse", "share"] = "wait",
    before: Sequence[int] = (),
    patience_seconds: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[int, ...]]:
    """Yield ``threads`` cores that no other run of this user measures on, and keep them locked.

    ``run``: the path of the run, which other runs show. ``busy``: what to do if too few cores are
    free: wait, refuse (raise RunFailed), or share them without a lock. ``before``: the cores that
    an earlier part of the same run had; if they are available, the run goes on there.
    ``patience_seconds``: the longest wait, after which RunFailed is raised.
    """
    available = available_cores()
    earlier_cores = tuple(before) if len(before) >= threads and {*before} <= {*available} else ()
    best = earlier_cores or topology.choose(available, threads)
    try:
        locks, cores = _attempt(folder, best, bool(earlier_cores), run)
        later = f"after its end, type: levelfield run --resume {shlex.quote(run)}"
        if not cores and busy == "refuse":
            raise RunFailed(f"{_words(locks, best)}; {later}")
        if not cores and busy == "wait":
            warnings.warn(f"waiting: {_words(locks, best)}", CoresInUse, stacklevel=3)
            waited = 0.0
            while not cores:
                if patience_seconds is not None and waited >= patience_seconds:
                    raise RunFailed(f"{_words(locks, best)} for as long as the budget; {later}")
                sleep(RETRY_SECONDS)
                waited += RETRY_SECONDS
                locks, cores = _attempt(folder, best, bool(earlier_cores), run)
        elif cores and cores != best:
            words = f"{_words(locks, best)}; this run takes {named(cores)}"
            warnings.warn(words, CoresInUse, stacklevel=3)
    except OSError as error:
        words = (
            f"cannot lock cores in {folder} ({error.strerror}), so another run may take them too"
        )
        warnings.warn(words, CoresInUse, stacklevel=3)
        locks, cores = _Taken(), best
    try:
        yield cores or best
    finally:
        locks.release()


@contextlib.contextmanager
def spare_cores(
    folder: Path, cores: Sequence[int], *, most: int, run: str, lock: bool = True
) -> Iterator[tuple[int, ...]]:
    """Yield at most ``most`` further cores that no other run measures on, and keep them locked.

    They are whole physical cores as long as there are some. ``cores``: those that the run has.
    ``lock``: whether to lock them, which a run that times nothing need not do.
    """
    own = topology.with_siblings(cores)
    candidates = [core for core in available_cores() if core not in own]
    locks = _Taken()
    try:
        if lock:
            with contextlib.suppress(OSError):  # a warning has said that the folder has no locks
                place = folder / _boot()
                with _file(place / "choosing") as choosing:
                    fcntl.flock(choosing, fcntl.LOCK_EX)
                    locks = _lock(place, {*candidates})
                    busy = topology.with_siblings(locks.holders)
                    candidates = [core for core in candidates if core not in busy]
        spare = topology.choose(candidates, min(most, len(candidates)))
        locks.release(keep=topology.with_siblings(spare))
        locks.sign(run)
        yield spare
    finally:
        locks.release()


def _attempt(
    folder: Path, best: tuple[int, ...], fixed: bool, run: str
) -> tuple[_Taken, tuple[int, ...]]:
    """Lock ``best``, or as many other cores unless ``fixed``; the cores are () if too few are free.

    Raises OSError if the folder has no locks.
    """
    place = folder / _boot()
    place.mkdir(parents=True, exist_ok=True)
    os.utime(place)  # it is in use, whatever the age of its files
    _sweep(folder, place)
    candidates = best if fixed else available_cores()
    with _file(place / "choosing") as choosing:
        fcntl.flock(choosing, fcntl.LOCK_EX)  # for milliseconds, while a run chooses its cores
        locks = _lock(place, topology.with_siblings(candidates))
        free = [core for core in candidates if not topology.siblings(core) & {*locks.holders}]
        cores: tuple[int, ...] = ()
        if {*best} <= {*free}:
            cores = best
        elif len(free) >= len(best) and not fixed:
            cores = topology.choose(free, len(best))
        locks.release(keep=topology.with_siblings(cores))
        locks.sign(run)
    return locks, cores


def _lock(place: Path, threads: set[int]) -> _Taken:
    locks = _Taken()
    try:
        for core in sorted(threads):
            descriptor = os.open(place / f"core-{core}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locks.own[core] = descriptor
            except BlockingIOError:
                locks.holders[core] = os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace")
                os.close(descriptor)
    except OSError:
        locks.release()
        raise
    return locks


@contextlib.contextmanager
def _file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _words(locks: _Taken, best: Sequence[int]) -> str:
    """Say which of the cores are in use, and by whom."""
    threads = topology.with_siblings(best)
    holders = dict.fromkeys(
        clean(holder) or "another run" for core, holder in locks.holders.items() if core in threads
    )
    return f"{' and '.join(holders)} measures on {named(best)}"


def named(cores: Sequence[int]) -> str:
    """Name cores for people, such as \"cores 0, 1\"."""
    return f"{'core' if len(cores) == 1 else 'cores'} {', '.join(map(str, cores))}"


def _boot() -> str:
    """Return a name of this machine since it was started, which its containers share.

    A cache folder may be shared by several machines.
    """
    try:
        return BOOT.read_text().strip()
    except OSError:
        return platform.node() or "machine"


def _sweep(folder: Path, boot_folder: Path) -> None:
    """Delete the locks of boots that are long past."""
    for place in folder.iterdir():
        with contextlib.suppress(OSError):
            if place != boot_folder and time.time() - place.stat().st_mtime > OLD_SECONDS:
                shutil.rmtree(place)
