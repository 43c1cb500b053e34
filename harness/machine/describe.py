"""Describes the machine of a run, and says in which facts two machines differ."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil

from levelfield.harness.errors import clean
from levelfield.harness.machine import cgroups, gpu
from levelfield.harness.machine.resources import (
    available_cores,
    home_folder,
    memory_available_bytes,
    total_memory_bytes,
)

_Fact = TypeVar("_Fact")

# The facts that identify a machine, and their names for people. The other facts (load, free
# memory, frequency governor) change on one machine from one boot to the next.
_IDENTITY = {
    "processor": "processor",
    "architecture": "architecture",
    "processor_flags": "instruction sets",
    "cores": "available cores",
    "quota_cores": "cores by quota",
    "logical_cores": "logical cores",
    "physical_cores": "physical cores",
    "memory_bytes": "memory",
    "gpus": "GPUs",
    "system": "system",
}
# Each version of a kernel reserves a different part of the same memory.
MEMORY_DIFFERENCE = 0.02
NO_LIMIT = "none"  # known to be absent; None stands for unknown


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory and operating system; None for unknown values."""
    return {
        "processor": _cpu_field("model name") or platform.processor() or None,
        "processor_flags": sorted(
            flag
            for flag in (_cpu_field("flags") or "").split()
            if flag.startswith(("avx", "amx", "fma"))
        ),
        "architecture": platform.machine(),
        "cores": len(available_cores()),
        "quota_cores": cgroups.quota_cores() or NO_LIMIT,
        "logical_cores": os.cpu_count(),
        "physical_cores": _known(lambda: psutil.cpu_count(logical=False)),
        "memory_bytes": total_memory_bytes(),
        "memory_limit_bytes": cgroups.memory_limit_bytes() or NO_LIMIT,
        "memory_available_bytes": memory_available_bytes(),
        "gpus": gpu.names(),
        "load_average": _known(lambda: list(os.getloadavg())),
        "frequency_governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "hypervisor": "hypervisor" in (_cpu_field("flags") or "").split(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def recorded(text: str | None) -> dict[str, Any]:
    """Return the facts in a run's column "machine"; none if run.json lacks them."""
    facts = json.loads(text or "{}")
    return facts if isinstance(facts, dict) else {}


def difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the differences of two machines recorded by ``describe_machine``, one text per fact.

    The list is empty for one and the same machine. A fact that is unknown for either is not
    compared. Memory may differ by ``MEMORY_DIFFERENCE``, and the system's release from its third
    number on.
    """
    differences = []
    for fact, name in _IDENTITY.items():
        before, now = first.get(fact), second.get(fact)
        if before is None or now is None or _same(fact, before, now):
            continue
        if isinstance(before, list) and isinstance(now, list) and fact == "processor_flags":
            differences.append(clean(f"{name} {_of_one(before, now)} only on one of them"))
        else:
            differences.append(clean(f"{name} {_words(fact, before)}, now {_words(fact, now)}"))
    return differences


def _same(fact: str, before: Any, now: Any) -> bool:
    match before, now:
        case int() | float(), int() | float() if fact == "memory_bytes":
            return abs(before - now) <= MEMORY_DIFFERENCE * max(before, now)
        case str(), str() if fact == "system":
            return _release(before) == _release(now)
    return bool(before == now)


def _release(system: str) -> str:
    """Return the system's name and first two numbers of its release, such as "Linux 6.18"."""
    start = re.match(r"\S+ \d+\.\d+", system)
    return start.group() if start else system


def _of_one(before: list[Any], now: list[Any]) -> str:
    flags = sorted(set(map(str, before)) ^ set(map(str, now)))
    more = f" and {len(flags) - 3} more" if len(flags) > 3 else ""
    return ", ".join(flags[:3]) + more


def _words(fact: str, value: Any) -> str:
    if fact == "memory_bytes" and isinstance(value, int | float):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)[:60]


def shown(path: Path) -> str:
    """Return a path as results show it, without the name of the user's home."""
    home = home_folder()
    return f"~/{path.relative_to(home)}" if home and path.is_relative_to(home) else str(path)


def code_version() -> dict[str, Any]:
    """Return Levelfield's version, and its commit if it runs from a checkout."""
    folder = Path(__file__).resolve().parents[1]
    commit = None
    if (folder.parent / ".git").exists():
        commit = _git(folder, "rev-parse", "HEAD")
    changed = bool(_git(folder, "status", "--porcelain")) if commit else None
    return {"version": version("levelfield"), "commit": commit, "changed": changed}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def _cpu_field(name: str) -> str | None:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _text(path: Path) -> str | None:
    return _known(lambda: path.read_text().strip())


def _known(read: Callable[[], _Fact]) -> _Fact | None:
    """Return a fact, or None on a host without the file that holds it."""
    try:
        return read()
    except OSError:
        return None
