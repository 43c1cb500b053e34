"""The reference: definitions of models, their truth in NumPy, and the jitted form in JAX.

An oracle for other programs, from Python alone::

    import reference
    model = reference.get("lenet5")
    case = reference.draw_case("lenet5", "tiny", seed=1)
    reference.run_numpy(case).outputs[0]["logits"]     # float64
    reference.run_jax(case).gradients[0]["conv1/kernel"]  # float64 by default
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reference.spec import (
    BadDefinition,
    Model,
    UnknownName,
    add_models,
    add_preset,
    definitions,
    get,
)
from reference.trace import summarize

if TYPE_CHECKING:
    from reference.case import Answers, Case, draw_case, run_jax, run_numpy, settled_case

__all__ = [
    "Answers",
    "BadDefinition",
    "Case",
    "Model",
    "UnknownName",
    "add_models",
    "add_preset",
    "definitions",
    "draw_case",
    "get",
    "run_jax",
    "run_numpy",
    "settled_case",
    "summarize",
]


def __getattr__(name: str) -> Any:
    """Import the cases with the first of their names that is used.

    They bring NumPy and SciPy, which take longer to load than a program that only asks for
    definitions takes to run.
    """
    if name not in __all__:
        raise AttributeError(f"module 'reference' has no attribute {name!r}")
    return getattr(importlib.import_module("reference.case"), name)
