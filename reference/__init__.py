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

from reference.errors import BadDefinition, UnknownName
from reference.registry import add_models, add_preset, definitions, get
from reference.spec import Model

if TYPE_CHECKING:
    from reference.answers import Answers, run_jax, run_numpy
    from reference.case import Case, draw_case
    from reference.settled import settled_case
    from reference.trace import summarize

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


# Modules that bring NumPy and SciPy, which take longer to load than a program that only asks for
# definitions takes to run. They are imported with the first of their names that is used.
_LATER = {
    "Answers": "reference.answers",
    "Case": "reference.case",
    "draw_case": "reference.case",
    "run_jax": "reference.answers",
    "run_numpy": "reference.answers",
    "settled_case": "reference.settled",
    "summarize": "reference.trace",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'reference' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
