"""The cells of a suite: the tasks of each arm, and which arms run twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

from levelfield import reference
from levelfield.harness.errors import BadInput
from levelfield.harness.plan.arms import get_arm
from levelfield.harness.plan.domains import AT_LEAST_0, AT_LEAST_1, POSSIBLE_BATCH, OneOf
from levelfield.harness.plan.suite import Suite, presets_of
from levelfield.harness.plan.vocabulary import DEVICES, NUMERICS, PHASES, PROFILES, TWIN
from levelfield.reference.optimizers import OPTIMIZERS

# The fields in which all cells of a comparison agree, and in which two comparisons of a run differ.
TASK = (
    *("model", "preset", "phase", "batch", "optimizer", "numeric", "device", "threads"),
    "profile",
)


@dataclass(frozen=True)
class Cell:
    """One row of the comparison: one task of one arm.

    The fields are those of a cell in run.json. ``optimizer`` is None except in training. ``tokens``
    is the number that a generation decodes, 0 otherwise. Cells of one ``comparison`` differ in
    nothing but the arm.
    """

    id: str
    comparison: str
    arm: str
    framework: str
    mode: str
    model: str
    preset: str
    phase: Annotated[str, OneOf(PHASES)]
    batch: Annotated[int, POSSIBLE_BATCH]
    optimizer: Annotated[str | None, OneOf((*OPTIMIZERS,))]
    numeric: Annotated[str, OneOf(NUMERICS)]
    device: Annotated[str, OneOf(DEVICES)]
    threads: Annotated[int, AT_LEAST_1]
    profile: Annotated[str, OneOf(PROFILES)]
    tokens: Annotated[int, AT_LEAST_0] = 0

    @property
    def title(self) -> str:
        """Title for progress bars and messages."""
        optimizer = f" {self.optimizer}" if self.optimizer else ""
        return f"{self.arm} {self.model}/{self.preset} {self.phase}{optimizer} batch {self.batch}"


def twins_of(suite: Suite, running: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the arms that run twice in every comparison, one of each profile.

    ``running`` holds the arms that an interpreter serves, or None for all. A named twin is the one
    of its own profile. In any other profile it is the first of the arms that offer the most kinds
    of slices of the suite's models and phases.
    """
    if suite.twin == "none":
        return ()
    best: dict[str, tuple[int, str]] = {}
    for name in suite.arms:
        arm, offered = get_arm(name), _offered(suite, name)
        serves = not arm.suffix and (running is None or name in running)
        if serves and offered > best.get(arm.mode.profile, (0, ""))[0]:
            best[arm.mode.profile] = offered, name
    twins = {profile: name for profile, (_, name) in best.items()}
    if suite.twin != "auto":
        twins[get_arm(suite.twin).mode.profile] = suite.twin
    return tuple(twins.values())


def _offered(suite: Suite, name: str) -> int:
    """Count the kinds of slices of a suite's models and phases that an arm offers."""
    arm = get_arm(name)
    if suite.numeric not in arm.mode.numerics:
        return 0
    pairs = [
        (model, phase)
        for model, phase in product(suite.models, suite.phases)
        if phase in arm.mode.phases
        and (arm.framework.generic or arm.framework.model_file(model).exists())
        and (phase != "generation" or reference.get(model).generation is not None)
    ]
    return len(pairs) * len(arm.mode.statistics)


def with_twin(suite: Suite, running: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the arms of a suite; each arm that runs twice is followed by its A/A twin."""
    twins = twins_of(suite, running)
    groups = [[name, f"{name}{TWIN}"] if name in twins else [name] for name in suite.arms]
    return tuple(dict.fromkeys(name for names in groups for name in names))


def plan(suite: Suite, running: Collection[str] | None = None) -> list[Cell]:
    """Return every cell of a suite.

    The cells of one arm and thread count follow each other, because they share a process.
    ``running`` holds the arms among which the A/A twin is chosen (``twins_of``). Raises BadInput if
    there is none.
    """
    cells: list[Cell] = []
    comparisons: dict[tuple[object, ...], str] = {}
    rows = (
        (threads, arm, model, preset, batch, phase)
        for threads, arm, model, suite_preset, batch, phase in product(
            suite.threads,
            with_twin(suite, running),
            suite.models,
            suite.presets,
            suite.batches,
            suite.phases,
        )
        for preset in presets_of(suite, model, suite_preset, phase)
    )
    for threads, arm, model, preset, batch, phase in rows:
        definition = reference.get(model)
        tokens = 0
        if phase == "generation":
            if definition.generation is None:
                continue
            tokens = definition.generation.count(definition.sizes(preset))
        for optimizer in suite.optimizers if phase == "training" else (None,):
            profile = get_arm(arm).mode.profile
            key = (threads, model, preset, batch, phase, optimizer, profile)
            comparison = comparisons.setdefault(key, f"k{len(comparisons) + 1:03d}")
            cells.append(
                Cell(
                    id=f"c{len(cells) + 1:04d}",
                    comparison=comparison,
                    arm=arm,
                    framework=get_arm(arm).framework.name,
                    mode=get_arm(arm).mode.name,
                    model=model,
                    preset=preset,
                    phase=phase,
                    batch=batch,
                    optimizer=optimizer,
                    numeric=suite.numeric,
                    device=suite.device,
                    threads=threads,
                    profile=profile,
                    tokens=tokens,
                )
            )
    _refuse_empty(suite, cells)
    return cells


def _refuse_empty(suite: Suite, cells: Sequence[Cell]) -> None:
    """Raise BadInput if there are no cells; all phases but generation have some in every suite."""
    if not cells:
        raise BadInput(
            "there is nothing to compare, because none of these models generates:"
            f" {', '.join(suite.models)}; name another phase, such as --phases inference, or gpt2"
        )
