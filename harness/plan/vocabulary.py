"""The words of a plan that several parts of the harness use."""

from levelfield.reference.spec import PHASES

__all__ = [
    "DEVICES",
    "FENCED",
    "MEMORY_STAGES",
    "NUMERICS",
    "OPERATOR_CATEGORIES",
    "PHASES",
    "PRESETS",
    "PROFILES",
    "RESIDENCIES",
    "STATISTICS",
    "TWIN",
]

STATISTICS = ("throughput", "latency")
FENCED = ("latency", "first_token")  # kinds of slices with a fence after every step
MEMORY_STAGES = ("interpreter", "import", "build", "compile", "first_step", "steady")
# The categories of operators; levelfield.adapters.profiles has the same words. The first three are
# kernels.
OPERATOR_CATEGORIES = (
    *("product", "convolution", "computation", "layout", "copy", "dispatch", "compilation"),
)
PROFILES = ("default", "tuned")
NUMERICS = ("float32", "int8")  # levelfield.harness.proof.tolerances has a row for each
DEVICES = ("cpu", "cuda")
PRESETS = ("tiny", "small", "paper")
RESIDENCIES = ("resident", "sequential")
TWIN = "#2"  # the suffix of an arm's A/A twin
