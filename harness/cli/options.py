"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import terminal
from harness.errors import BadInput, clean
from harness.machine.resources import dropped_variables
from harness.plan.arms import arms
from harness.plan.suite import Suite, add_folders, expand_arms, validated
from reference.spec import UnknownName, outside

PythonOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=PATH",
        help="Interpreter for a framework or environment, such as torch=/opt/env/bin/python.",
    ),
]
ArmsOption = Annotated[
    str | None, typer.Option(help="Arms or patterns, separated by commas: torch:*,jax:jit.")
]
ModelsOption = Annotated[str | None, typer.Option(help="Models, separated by commas.")]
PresetsOption = Annotated[
    str | None, typer.Option("--presets", "--preset", help="Presets, separated by commas.")
]
PhasesOption = Annotated[
    str | None, typer.Option(help="inference, training, generation, separated by commas.")
]
OptimizersOption = Annotated[
    str | None, typer.Option(help="sgd, momentum, adam, separated by commas.")
]
BatchOption = Annotated[int | None, typer.Option(help="Examples per step.")]
NumericOption = Annotated[
    str | None,
    typer.Option(help="float32, or int8: dynamic quantisation, where an arm offers that."),
]
LevelOption = Annotated[str | None, typer.Option(help="smoke, quick, standard or thorough.")]
MarginOption = Annotated[
    float | None, typer.Option(help="Share below which a difference does not matter, such as 0.02.")
]
TwinOption = Annotated[
    str | None, typer.Option(help="Arm that runs twice as the A/A control; auto or none.")
]
ResidencyOption = Annotated[
    str | None,
    typer.Option(help="resident, or sequential where memory cannot hold all arms at once."),
]
ModelsFromOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Folder of models that are not built in; may be given several times.",
    ),
]
NoWaitOption = Annotated[
    bool,
    typer.Option(
        "--no-wait",
        help="End at once if another run measures on the cores; otherwise wait for its end.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(help="Cores that each arm may use.")]


def given_interpreters(options: list[str] | None) -> dict[str, Path]:
    """``NAME=PATH`` options -> name -> path. Raises BadInput or UnknownName."""
    known = {
        name for arm in arms().values() for name in (arm.framework.name, arm.mode.environment.label)
    }
    given = {}
    for option in options or ():
        name, equals, path = option.partition("=")
        if not equals:
            raise BadInput(f"--python takes NAME=PATH, such as torch=/opt/bin/python, not {option}")
        if name not in known:
            raise UnknownName("framework or environment", name, sorted(known), where="--python")
        given[name] = Path(path)
    return given


def with_models_from(suite: Suite, folders: Sequence[Path] | None, models: str | None) -> Suite:
    """The suite with the folders of outside models added. Raises BadInput.

    Without ``models``, the models of the folders are those to compare.
    """
    if not folders:
        return suite
    added = add_folders(folders)
    own = [name for each in outside() if str(each.folder) in added for name in each.models]
    changed = replace(suite, models_from=tuple(dict.fromkeys((*suite.models_from, *added))))
    return changed if models is not None else replace(changed, models=tuple(own))


def narrowed(
    suite: Suite,
    *,
    arms: str | None = None,
    models: str | None = None,
    presets: str | None = None,
    phases: str | None = None,
    optimizers: str | None = None,
    batch: int | None = None,
    threads: int | None = None,
    **scalars: str | float | None,
) -> Suite:
    """The suite with what the command line says in place of what the file says.

    ``scalars``: level, margin, twin, residency, numeric.
    """
    words = {"arms": arms, "models": models, "presets": presets, "phases": phases}
    words["optimizers"] = optimizers
    changes: dict[str, object] = {
        key: tuple(word.strip() for word in text.split(","))
        for key, text in words.items()
        if text is not None
    }
    if arms is not None and suite.twin not in (
        "none",
        *expand_arms([word.strip() for word in arms.split(",")]),
    ):
        changes["twin"] = "auto"  # the suite's own is not among the arms that the user wants
    changes |= {key: value for key, value in scalars.items() if value is not None}
    if batch is not None:
        changes["batches"] = (batch,)
    if threads is not None:
        changes["threads"] = (threads,)
    return validated(replace(suite, **changes))  # type: ignore[arg-type]


def tell_of_dropped_variables(suite: Suite) -> None:
    """Name the settings in the user's environment that no worker gets, in one line."""
    if dropped := dropped_variables(suite.variables):
        one = len(dropped) == 1
        terminal(stderr=True).print(
            f"the arms do not get {', '.join(map(clean, dropped))} of your environment; to use"
            f" {'it' if one else 'them'}, write {'it' if one else 'them'} into the suite's table"
            " [variables]",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
