"""Sessions of one suite, to be compared with each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.synthetic import write_mlp_run

ARMS = ("torch:eager", "jax:jit", "flax:jit")
SAME = {"torch:eager": 1.0, "jax:jit": 0.8, "flax:jit": 1.3}


def session(folder: Path, name: str, seed: int, **options: Any) -> Path:
    """A run of three arms that train; their speeds are ``SAME`` unless stated."""
    chosen = {"arms": ARMS, "phases": ("training",), "speed": SAME}
    return write_mlp_run(folder, **{**chosen, "name": name, "seed": seed, **options})
