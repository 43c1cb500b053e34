"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from levelfield.harness.cli.terminal import terminal
from levelfield.harness.errors import BadInput, clean
from levelfield.harness.machine.resources import dropped_variables
from levelfield.harness.plan.arms import arms
from levelfield.harness.plan.suite import Suite, add_folders, expand_arms, refuse_copies, validated
from levelfield.reference.errors import UnknownName
from levelfield.reference.registry import outside

PythonOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=PATH",
        help="Interpreter for a framework or environment, such as torch=/opt/env/bin/python.",
    ),
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


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The options with which a command changes a suite; None leaves what the suite says."""

    arms: Annotated[
        str | None, typer.Option(help="Arms or patterns, separated by commas: torch:*,jax:jit.")
    ] = None
    models: Annotated[str | None, typer.Option(help="Models, separated by commas.")] = None
    models_from: ModelsFromOption = None
    presets: Annotated[
        str | None, typer.Option("--presets", "--preset", help="Presets, separated by commas.")
    ] = None
    phases: Annotated[
        str | None, typer.Option(help="inference, training, generation, separated by commas.")
    ] = None
    optimizers: Annotated[
        str | None, typer.Option(help="sgd, momentum, adam, separated by commas.")
    ] = None
    batch: Annotated[int | None, typer.Option(help="Examples per step.")] = None
    threads: Annotated[int | None, typer.Option(help="Cores that each arm may use.")] = None
    numeric: Annotated[
        str | None,
        typer.Option(help="float32, or int8: dynamic quantisation, where an arm offers that."),
    ] = None


SELECTION = tuple(inspect.signature(Selection, eval_str=True).parameters.values())


def with_options(
    options: Sequence[inspect.Parameter], *, before: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options, whose values it receives in its ``**`` parameter.

    Its help lists them before its own option ``before``, or last. Typer makes an option of each
    parameter in a command's signature.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own_parameters = [
            parameter
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        at = (
            [parameter.name for parameter in own_parameters].index(before)
            if before
            else len(own_parameters)
        )
        parameters = [*own_parameters[:at], *options, *own_parameters[at:]]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def given_interpreters(options: list[str] | None) -> dict[str, Path]:
    """``NAME=PATH`` options -> name -> path. Raises BadInput or UnknownName."""
    labels = {
        name for arm in arms().values() for name in (arm.framework.name, arm.mode.environment.label)
    }
    interpreters = {}
    for option in options or ():
        name, equals, path = option.partition("=")
        if not equals:
            raise BadInput(
                f"--python takes NAME=PATH, such as torch=/opt/bin/python, not {option!r}"
            )
        if name not in labels:
            raise UnknownName("framework or environment", name, sorted(labels), where="--python")
        interpreters[name] = Path(path)
    return interpreters


def with_models_from(suite: Suite, selection: Selection) -> Suite:
    """The suite with the folders of outside models added. Raises BadInput.

    Unless models are selected, the models of the folders are those to compare.
    """
    if not selection.models_from:
        return suite
    added = add_folders(selection.models_from)
    names = [name for models in outside() if str(models.folder) in added for name in models.models]
    changed = replace(suite, models_from=tuple(dict.fromkeys((*suite.models_from, *added))))
    return changed if selection.models is not None else replace(changed, models=tuple(names))


def narrowed(suite: Suite, selection: Selection, **scalars: str | float | None) -> Suite:
    """The suite with what the command line says in place of what the file says.

    ``scalars``: level, margin, twin, residency.
    """
    words = {
        name: tuple(word.strip() for word in text.split(","))
        for name in ("arms", "models", "presets", "phases", "optimizers")
        if (text := getattr(selection, name)) is not None
    }
    changes: dict[str, object] = {**words}
    if "arms" in words:
        names = expand_arms(words["arms"])
        refuse_copies(names)
        if suite.twin not in ("none", *names):
            changes["twin"] = "auto"  # the suite's own is not among the arms that the user wants
    scalars["numeric"] = selection.numeric
    changes |= {name: value for name, value in scalars.items() if value is not None}
    if selection.batch is not None:
        changes["batches"] = (selection.batch,)
    if selection.threads is not None:
        changes["threads"] = (selection.threads,)
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
