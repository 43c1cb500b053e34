"""The reference: definitions of models, their truth in NumPy, and the jitted form in JAX.

An oracle for other programs, from Python alone::

    import reference
    model = reference.get("lenet5")
    case = reference.draw_case("lenet5", "tiny", seed=1)
    reference.run_numpy(case).outputs[0]["logits"]     # float64
    reference.run_jax(case).gradients[0]["conv1/kernel"]  # float64 by default
"""

from reference.answers import Answers, run_jax, run_numpy
from reference.case import Case, draw_case
from reference.errors import BadDefinition, UnknownName
from reference.registry import add_models, add_preset, definitions, get
from reference.settled import settled_case
from reference.spec import Model
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
