"""What a run ran on: facts recorded once per run, none of them interpreted here."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from harness.resources import available_cores


def describe_machine() -> dict[str, Any]:
    """Processor, memory, operating system; None where the machine does not tell."""
    memory = psutil.virtual_memory()
    return {
        "processor": _cpu_field("model name") or platform.processor() or None,
        "processor_flags": sorted(
            flag
            for flag in (_cpu_field("flags") or "").split()
            if flag.startswith(("avx", "amx", "fma"))
        ),
        "architecture": platform.machine(),
        "cores": len(available_cores()),
        "logical_cores": os.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "load_average": list(os.getloadavg()),
        "frequency_governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "hypervisor": "hypervisor" in (_cpu_field("flags") or "").split(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def shown(path: Path) -> str:
    """A path as results carry it: the name of the user's home stays at home."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def code_version() -> dict[str, Any]:
    """Levelfield's version, and the commit where it runs from a checkout."""
    folder = Path(__file__).resolve().parent
    commit = None
    if (folder.parent / ".git").exists():
        commit = _git(folder, "rev-parse", "HEAD")
    changed = bool(_git(folder, "status", "--porcelain")) if commit else None
    return {"version": version("levelfield"), "commit": commit, "changed": changed}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_field(name: str) -> str | None:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
