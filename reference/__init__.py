"""The reference: definitions of models, their truth in NumPy, and the jitted form in JAX.

An oracle for other programs, from Python alone::

    from levelfield import reference
    model = reference.get("lenet5")
    case = reference.draw_case("lenet5", "tiny", seed=1)
    reference.run_numpy(case).outputs[0]["logits"]     # float64
    reference.run_jax(case).gradients[0]["conv1/kernel"]  # float64 by default
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from levelfield.reference.errors import BadDefinition, UnknownName
from levelfield.reference.registry import add_models, add_preset, definitions, get
from levelfield.reference.spec import Model

if TYPE_CHECKING:
    from levelfield.reference.answers import Answers, run_jax, run_numpy
    from levelfield.reference.case import Case, draw_case
    from levelfield.reference.settled import settled_case
    from levelfield.reference.trace import summarize

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
    "Answers": "levelfield.reference.answers",
    "Case": "levelfield.reference.case",
    "draw_case": "levelfield.reference.case",
    "run_jax": "levelfield.reference.answers",
    "run_numpy": "levelfield.reference.answers",
    "settled_case": "levelfield.reference.settled",
    "summarize": "levelfield.reference.trace",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'levelfield.reference' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
