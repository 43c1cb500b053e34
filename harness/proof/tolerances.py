"""How far an arm's answers may differ from those of the reference, and which gates were loose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from levelfield.reference.answers import Answers
from levelfield.reference.settled import SETTLED


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted relative error of each kind of answer."""

    outputs: float
    loss: float
    gradients: float
    gradient_scale: float
    step_losses: float
    stepped: float
    stepped_scale: float
    stepped_statistics: float
    trained: float
    trained_scale: float
    trained_statistics: float


# One row per numeric mode. float32: the design sets outputs, gradients and losses as its goals. The
# reference in float32 stays ten times below these (five times below ``trained``) for the cells of
# every suite that comes with Levelfield; a test in tests/harness/test_gate.py measures it.
#
# ``trained`` is wider than rounding needs. In ten steps a ReLU or a maximum of the larger models
# can come within rounding of a tie, after which correct programs differ by up to 2e-2 of a
# parameter's way. Draws that do so under noise are skipped if other draws are possible
# (levelfield.reference.settled.settled_case). Only this check detects a parameter that is never
# updated or a wrong update after the first; their errors are 1e-1 and more.
#
# The first step, scales and running statistics do not need that width. Running statistics depend on
# the forward pass alone: float32 was at 3e-6 after the first step of resnet50/small, TF32 would be
# at 5e-4. Seven frameworks that trained tiny models were at most at 6e-6 after the first step and
# at 1e-5 in the scale: computing 1 - 0.999 in float32 costs 1.3e-5 of it. When a tie
# changed an array of dcgan/tiny by 2e-3, the scale of all changed by 6e-5.
#
# Two mistakes of the mutation suite are the smallest above these entries. An epsilon of 1e-7
# instead of 1e-8 is at 9e-5 after the first step of mlp/tiny. A beta2 of 0.99 is at 4e-4 in the
# scale of gpt2/tiny. If gradients are not far above epsilon, correct programs differ by more than
# these entries allow (gpt2/small after the first step: by 8e-4). Then the case's own scatter
# decides.
#
# int8, dynamic quantisation of weights and activations, is for inference only. In the tiny and
# small presets the worst of three draws was at 1e-1 (bert/tiny), most at 1e-2; an exchanged axis
# or gate is at 1.
TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(
        outputs=1e-5,
        loss=1e-5,
        gradients=1e-4,
        gradient_scale=1e-3,
        step_losses=1e-3,
        stepped=5e-5,
        stepped_scale=1e-4,
        stepped_statistics=1e-4,
        trained=5e-2,
        trained_scale=3e-4,
        trained_statistics=1e-3,
    ),
    "int8": Tolerance(1.5e-1, *[0] * 10),
}

# Deep networks have so many units that some are close to a tie in every draw. Rounding flips a
# share of them as large as itself, and gradients then differ by about its square root. Noise of
# rounding's size changes the float64 reference's answers by a distance that the case records
# (``Answers.scatter``). A tolerance is never below three times that. A case that scatters too far
# to tell right from wrong is refused when it is drawn (``levelfield.reference.settled.LOOSEST``).
SCATTER_MARGIN = 3
# Factor on the table's entry: a gate with a wider tolerance says that it was loose. A settled draw
# may have SCATTER_MARGIN times SETTLED, which is wider than that after the first step.
LOOSE = 5
# Rounding the truth to float32 leaves a relative error of 2e-8 to 3e-8 in an array, and computing
# in float32 leaves more. An array of at least EXACT_SIZE elements below this bound was therefore
# not computed in float32.
EXACT, EXACT_SIZE = 1e-8, 32


def tolerances(answers: Answers, numeric: str = "float32") -> Tolerance:
    """Return the row of the table, with no entry below SCATTER_MARGIN times the case's scatter."""
    row = asdict(TOLERANCES[numeric])
    return Tolerance(
        **{kind: max(row[kind], SCATTER_MARGIN * answers.scatter.get(kind, 0.0)) for kind in row}
    )


def exact(numeric: str) -> float:
    """The error below which outputs were not computed in this numeric mode."""
    return EXACT if numeric == "float32" else 0.0


# The prefixes of the names of checks, and the tolerances that they are judged by.
CHECK_KINDS = {
    "outputs/": "outputs",
    "gradient/": "gradients",
    "gradient scale/": "gradient_scale",
    "step losses": "step_losses",
    **{f"{stage}/": stage for stage in ("stepped", "trained")},
    **{
        f"{stage} {kind}/": f"{stage}_{kind}"
        for stage in ("stepped", "trained")
        for kind in ("scale", "statistics")
    },
}


def loose(tolerances_of: Iterable[tuple[str, float]], numeric: str = "float32") -> dict[str, float]:
    """Return the largest tolerance of each kind that exceeds ``LOOSE`` times the table's entry.

    A tolerance that a settled draw may have is not loose. ``tolerances_of``: (name, tolerance) of
    the checks of one cell. The keys are words for people: "gradients", "trained scale".
    """
    row, widest = asdict(TOLERANCES[numeric]), dict[str, float]()
    for name, tolerance in tolerances_of:
        for prefix, kind in CHECK_KINDS.items():
            bound = max(LOOSE * row[kind], SCATTER_MARGIN * SETTLED.get(kind, 0.0))
            if name.startswith(prefix) and tolerance > bound:
                words = kind.replace("_", " ")
                widest[words] = max(tolerance, widest.get(words, 0.0))
    return widest


# The prefixes of the names of the closing gate's checks of a training, and the tolerance beyond
# which one is loose. For losses it is LOOSE times the entry "step_losses" of the table. For
# movements it is half the effect of a learning rate that is 10 % too large.
CLOSING_KINDS = {"step/": ("closing losses", 5e-3), "trained/": ("closing trained", 5e-2)}


def closing_loose(tolerances_of: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the same as :func:`loose` for the checks of one cell's closing gate."""
    widest = dict[str, float]()
    for name, tolerance in tolerances_of:
        for prefix, (words, bound) in CLOSING_KINDS.items():
            if name.startswith(prefix) and tolerance > bound:
                widest[words] = max(tolerance, widest.get(words, 0.0))
    return widest
