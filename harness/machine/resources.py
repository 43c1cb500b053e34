"""Gives every arm the same resources: cores, thread variables, private folders, memory.

The affinity is set before a worker's first instruction, so no runtime can ignore it. The variables
are set before its interpreter starts, because thread pools read them when a library is loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from levelfield.harness.errors import BadInput
from levelfield.harness.machine import cgroups

# At least one library of the compared frameworks reads each; PJRT_NPROC and NPROC are XLA's.
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

# Settings, each for some framework, that make it behave as a measured program should.
FIXED_VARIABLES: Mapping[str, str] = {
    "OMP_DYNAMIC": "FALSE",  # otherwise OpenMP may use fewer threads than it was given
    "MKL_DYNAMIC": "FALSE",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compile workers would outgrow the affinity
    # Programs ask for the user's name, and fail for a user without an entry in passwd(5).
    "USER": "levelfield",
    "LOGNAME": "levelfield",
}

# Further variables for a device. On a GPU they switch off TF32, which a library might otherwise use
# unnoticed (one switch for cuBLAS and cuDNN in every framework). They also let frameworks take
# memory only as they use it, so that the used memory can be measured.
DEVICE_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "cuda": {
        "JAX_PLATFORMS": "cuda",
        "NVIDIA_TF32_OVERRIDE": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    },
}

# The folders in which frameworks keep compiled code. They are private to an arm of a run, so that
# whether a cache is cold is a fact and not a guess. JAX keeps nothing unless it is asked to. All
# other files that a program keeps lie below HOME, which is private to a process. docs/cold.md lists
# them.
CACHE_VARIABLES = (
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
    "CUDA_CACHE_PATH",
)

# Folders of one process alone, by the variable that names each to the process. Frameworks keep
# settings in HOME and compiled headers in TMPDIR, which would make a cold cache warm.
OWN_FOLDERS = {"HOME": "home", "TMPDIR": "tmp"}

# Variables that a program needs from the user's environment, for example to find its compiler.
INHERITED_VARIABLES = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CC", "CXX"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME"),  # which GPU, and its tools
)

# Variables of the user that a process of the reference gets. A cache of compiled programs changes
# no answer; any setting of a framework may.
_OF_REFERENCE = (
    *("HOME", "TMPDIR", "TZ", "JAX_COMPILATION_CACHE_DIR"),
    *("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"),
)

# Beginnings of the names of variables that frameworks and their libraries read.
_SETTINGS = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "GOTO_", "NUMEXPR_", "VECLIB_"),
    *("ONEDNN_", "DNNL_", "TBB_", "CUDA_LAUNCH_", "CUDA_MODULE_", "CUDA_CACHE_", "CUDNN_"),
    *("CUBLAS_", "NVIDIA_TF32_", "TRITON_"),
    *("XLA_", "JAX_", "LIBTPU_", "PJRT_", "TF_", "TF2_", "KERAS_", "TORCH", "PYTORCH_", "ATEN_"),
    *("ORT_", "OV_", "OPENVINO_", "FLAGS_", "MXNET_", "THEANO_", "PYTENSOR_", "NUMBA_", "CHAINER_"),
    *("CUPY_", "NPY_", "GLOG_", "MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES"),
)


def available_cores() -> list[int]:
    """Return the CPUs that this process may use; its workers may be given any of them."""
    return sorted(os.sched_getaffinity(0))


def most_threads() -> int:
    """Return how many threads can compute at the same time: bound by the cores and by a quota.

    A quota below one core still leaves one thread, which is held back again and again.
    """
    quota = cgroups.quota_cores()
    cores = len(available_cores())
    return cores if quota is None else min(cores, max(int(quota), 1))


def home_folder() -> Path | None:
    """Return the user's home; None for a user without HOME and without an entry in passwd(5)."""
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


def make_own_folders(own: Path) -> None:
    """Make the missing folders of one process below ``own``."""
    for folder in OWN_FOLDERS.values():
        make_folder(own / folder)


def make_folder(path: Path) -> None:
    """Make a folder if it is missing, and replace a file or link that a worker put in its place."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file, or a link to nowhere
        path.unlink()
        path.mkdir()


def worker_variables(
    *, threads: int, cache: Path, own: Path, hash_seed: int, device: str = "cpu"
) -> dict[str, str]:
    """Return the whole environment of a worker.

    ``cache`` is the arm's private folder. ``own`` is a folder of this process alone that
    :func:`make_own_folders` has prepared. The worker therefore finds no settings and caches that an
    earlier process or the user left in a home folder or among temporary files.
    """
    variables = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    variables.update(FIXED_VARIABLES)
    variables.update(DEVICE_VARIABLES[device])
    variables.update({name: str(threads) for name in THREAD_VARIABLES})
    variables.update({name: str(cache / name.lower()) for name in CACHE_VARIABLES})
    variables.update({name: str(own / folder) for name, folder in OWN_FOLDERS.items()})
    variables["PYTHONHASHSEED"] = str(hash_seed)
    return variables


def reference_variables() -> dict[str, str]:
    """Return the environment of a process of the reference, without settings of frameworks.

    Its Python is the host's own, so it gets the variables of Python.
    """
    names = {*INHERITED_VARIABLES, *_OF_REFERENCE}
    variables = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith("PYTHON")
    }
    return {**variables, "JAX_PLATFORMS": "cpu"}


def is_reserved(name: str) -> bool:
    """Whether no suite and no mode may set a variable of workers."""
    devices = {variable for variables in DEVICE_VARIABLES.values() for variable in variables}
    names = {*THREAD_VARIABLES, *FIXED_VARIABLES, *devices, *CACHE_VARIABLES, *OWN_FOLDERS}
    return name in {*names, *INHERITED_VARIABLES} or name.startswith(("PYTHON", "LEVELFIELD_"))


def dropped_variables(declared: Iterable[str] = ()) -> list[str]:
    """Return the names of settings of frameworks in the user's environment that workers do not get.

    ``declared``: the variables that the suite declares.
    """
    kept_names = {*INHERITED_VARIABLES, *_OF_REFERENCE, *declared}
    return sorted(
        name for name in os.environ if name.startswith(_SETTINGS) and name not in kept_names
    )


def cache_entries(cache: Path) -> int:
    """Return the number of files that the frameworks have put into a private cache."""
    return len(cache_state(cache))


def cache_state(cache: Path) -> set[tuple[Path, int, int]]:
    """Return (name, bytes, nanoseconds of the last change) of each file in a private cache."""
    files = set()
    for folder, _, names in os.walk(cache):  # os.walk skips a folder that is gone
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                files.add((path, status.st_size, status.st_mtime_ns))
    return files


def memory_limit_bytes(limit_gib: float) -> int:
    """Private memory that a worker may have; 0 GiB means three quarters of all memory.

    All memory is that of the machine, or what the control groups of this program may use of it.
    """
    if limit_gib:
        return int(limit_gib * 2**30)
    limit, total = cgroups.memory_limit_bytes(), total_memory_bytes()
    return (total if limit is None else min(total, limit)) * 3 // 4


def total_memory_bytes() -> int:
    """Return the memory of the machine."""
    try:
        return int(psutil.virtual_memory().total)
    except OSError:  # a host without /proc/meminfo
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_available_bytes() -> int:
    """Return the memory that programs can still get, within the limits of the control groups."""
    group_bytes = cgroups.memory_left_bytes()
    try:
        available = int(psutil.virtual_memory().available)
    except OSError:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return available if group_bytes is None else min(available, group_bytes)
