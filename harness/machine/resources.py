"""Gives every arm the same resources: cores, thread variables, private folders, memory.

The affinity is set before a worker's first instruction, so no runtime can ignore it; the variables
are set before its interpreter starts, because thread pools read them when a library is loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

# Each is read by at least one library of the compared frameworks; PJRT_NPROC and NPROC are XLA's.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "PJRT_NPROC",
    "NPROC",
)

# Settings that frameworks need to behave as a measured program should, whoever they are for.
FIXED_VARIABLES: Mapping[str, str] = {
    "OMP_DYNAMIC": "FALSE",  # else OpenMP may use fewer threads than it was given
    "MKL_DYNAMIC": "FALSE",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compile workers would outgrow the affinity
}

# What a device asks for besides. On a GPU: no TF32 behind anybody's back (one switch for cuBLAS and
# cuDNN in every framework), and memory taken as it is used, so that what is used can be seen.
DEVICE_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "cuda": {
        "JAX_PLATFORMS": "cuda",
        "NVIDIA_TF32_OVERRIDE": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    },
}

# Where each framework keeps what it compiled; private to an arm of a run, so that whether a cache
# is cold is a fact and not a guess. JAX keeps nothing unless it is asked to. Everything else that a
# program keeps lies below HOME, which is private to a process: docs/cold.md lists what was found.
CACHE_VARIABLES = (
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
    "CUDA_CACHE_PATH",
)

# Folders of one process alone, by the variable that names them to it. Frameworks keep settings in
# the one and compiled headers in the other, which would make a cold cache warm.
OWN_FOLDERS = {"HOME": "home", "TMPDIR": "tmp"}

# What a program needs from the user's environment, to find its compiler for one.
INHERITED_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CC", "CXX"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME"),  # which GPU, and its tools
)


def available_cores() -> list[int]:
    """The CPUs that this process may use, which is also what its workers may be given."""
    return sorted(os.sched_getaffinity(0))


def make_own_folders(own: Path) -> None:
    """Make those folders of one process below ``own`` that are not there."""
    for folder in OWN_FOLDERS.values():
        make_folder(own / folder)


def make_folder(path: Path) -> None:
    """Make a folder if it is not there, in the place of what a worker may have put there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file, or a link to nowhere
        path.unlink()
        path.mkdir()


def worker_variables(
    *, threads: int, cache: Path, own: Path, hash_seed: int, device: str = "cpu"
) -> dict[str, str]:
    """The whole environment of a worker.

    ``cache`` is the arm's private folder, ``own`` one of this process alone that
    :func:`make_own_folders` has prepared: what an earlier process or the user left in a home folder
    or among temporary files, settings and caches, is not found.
    """
    variables = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    variables.update(FIXED_VARIABLES)
    variables.update(DEVICE_VARIABLES[device])
    variables.update({name: str(threads) for name in THREAD_VARIABLES})
    variables.update({name: str(cache / name.lower()) for name in CACHE_VARIABLES})
    variables.update({name: str(own / folder) for name, folder in OWN_FOLDERS.items()})
    variables["PYTHONHASHSEED"] = str(hash_seed)
    return variables


def cache_entries(cache: Path) -> int:
    """How many files the frameworks have put into a private cache."""
    return len(cache_state(cache))


def cache_state(cache: Path) -> set[tuple[Path, int, int]]:
    """(name, bytes, nanoseconds of the last change) of each file in a private cache."""
    found = set()
    for folder, _, names in os.walk(cache):  # os.walk skips a folder that is gone
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                found.add((path, status.st_size, status.st_mtime_ns))
    return found


def memory_limit_bytes(limit_gib: float) -> int:
    """The private memory a worker may have; 0 GiB means three quarters of the machine's."""
    if limit_gib:
        return int(limit_gib * 2**30)
    return int(psutil.virtual_memory().total * 3 // 4)
