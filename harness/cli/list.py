"""``levelfield list``: lists models, arms and suites, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from levelfield import reference
from levelfield.harness.cli.options import ModelsFromOption, PythonOption, given_interpreters
from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.environments.sealed import resolve
from levelfield.harness.errors import BadInput, clean
from levelfield.harness.plan.arms import arms, frameworks, unusable
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import add_folders, load_suite, suite_names
from levelfield.reference.registry import outside_of
from levelfield.reference.spec import Model

MOST_LISTED_BATCH = (
    65_536  # a trace marks every position of a batch: 14 s for all models on one core
)


class What(StrEnum):
    """Kinds of things that can be listed."""

    models = "models"
    adapters = "adapters"
    suites = "suites"


def list_command(
    what: Annotated[
        What | None, typer.Argument(help="Models, adapters or suites. Default: all.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One model: its sizes, and the names and shapes of arrays.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Preset of the one model. Default: small.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    batch: Annotated[
        int,
        typer.Option(
            min=1, max=MOST_LISTED_BATCH, help="Batch for the numbers of operations and bytes."
        ),
    ] = 1,
    models_from: ModelsFromOption = None,
    python: PythonOption = None,
) -> None:
    """List models with their sizes, arms with their abilities on this machine, and suites.

    With the name of a model, list what an adapter's author needs: the sizes that its file is given
    and the names, shapes and axes of its arrays. Imports no framework.
    """
    add_folders(models_from or ())
    if name is not None or preset is not None:
        if what is not What.models or name is None:
            raise BadInput("only a model has details: levelfield list models mlp --preset small")
        model = reference.get(name)
        default = "small" if "small" in model.presets else next(iter(model.presets))
        _show_model(_model(model, preset or default, batch), as_json)
        return
    facts = {
        What.models: lambda: _models(batch),
        What.adapters: lambda: _adapters(given_interpreters(python)),
        What.suites: _suites,
    }
    kinds = [what] if what else list(What)
    tables = {kind.value: facts[kind]() for kind in kinds}
    if as_json:
        print_json(tables[what.value] if what else tables)
        return
    console = terminal()
    for kind in kinds:
        console.print(_table(kind, tables[kind.value]))
    for row in tables.get(What.adapters.value, ()):
        if not row["runs here"]:
            console.print(clean(f"{row['arm']}: not here: {row['why']}"), soft_wrap=True)
    print_next(console, *(_NEXT[kind] for kind in kinds))


_NEXT = {
    What.models: "a model's arrays: levelfield list models MODEL",
    What.adapters: "prove an arm: levelfield check --arms ARM",
    What.suites: "measure: levelfield run SUITE",
}


def _models(batch: int) -> list[dict[str, Any]]:
    return [
        {
            "name": model.name,
            "title": model.title,
            "family": model.family,
            "source": model.source,
            "presets": {
                preset: reference.summarize(model, preset, batch).to_json()
                for preset in model.presets
            },
        }
        for model in reference.definitions().values()
    ]


def _model(model: Model, preset: str, batch: int) -> dict[str, Any]:
    """Return what the author of an adapter's file needs to know about a model."""
    summarized = reference.summarize(model, preset, batch)
    summary, generation, sizes = summarized.to_json(), model.generation, model.sizes(preset)
    outside = outside_of(model.name)
    for kind in _SINGULAR:
        for spec in getattr(summarized, kind):
            # The axes that were flattened into one dimension, in their order.
            summary[kind][spec.name]["flattened"] = {
                dimension.label: dict(dimension.factors)
                for dimension in spec.dimensions
                if len(dimension.factors) > 1
            }
    return {
        "name": model.name,
        "title": model.title,
        "family": model.family,
        "source": model.source,
        "file": f"{model.file}.py",
        "folder": outside.folder.name if outside else None,
        "presets": list(model.presets),
        "preset": preset,
        "batch": batch,
        "sizes": dict(sizes),
        "derived": list(model.derive(sizes)),
        **summary,
        "objectives": [
            {
                "name": objective.name,
                "loss": objective.loss,
                "outputs": list(objective.outputs),
                "targets": list(objective.targets),
                "trains": [n for n in summary["parameters"] if n.startswith(objective.trains)],
                "own_forward": objective.forward is not None,
            }
            for objective in model.objectives
        ],
        "generation": generation
        and {"prompt": generation.prompt, "tokens": generation.count(sizes)},
    }


def _show_model(model: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(model)
        return
    console = terminal()
    console.print(f"{model['name']}: {model['title']} ({model['family']}; {model['source']})")
    console.print(f"presets: {', '.join(model['presets'])}; shown: {model['preset']}")
    place = "adapters" if model["folder"] is None else model["folder"]
    console.print(f"file of a framework: {place}/<framework>/{model['file']}, with build(sizes)")
    sizes = [
        (key, json.dumps(value), "derived" if key in model["derived"] else "the preset")
        for key, value in model["sizes"].items()
    ]
    console.print(TextTable({"key": "name", "value": "number", "set by": "name"}, sizes, "Sizes"))
    arrays: list[tuple[str, ...]] = []
    for kind, word in _SINGULAR.items():
        for name, array in model[kind].items():
            shape = " x ".join(map(str, array["shape"]))
            axes = [
                f"{axis} ({' x '.join(array['flattened'][axis])})"
                if axis in array["flattened"]
                else axis
                for axis in array["axes"]
            ]
            arrays.append((name, word, shape, ", ".join(axes)))
    kinds = {"name": "name", "kind": "name", "shape": "number", "axes": "prose"}
    console.print(TextTable(kinds, arrays, f"Arrays at batch {model['batch']}"))
    for objective in model["objectives"]:
        arguments = ", ".join((*objective["outputs"], *objective["targets"]))
        words = f"objective {objective['name']}: {objective['loss']}({arguments})"
        if objective["own_forward"]:
            words += "; its forward is its own: a file may need a function of the objective's name"
        if len(objective["trains"]) < len(model["parameters"]):
            words += f"; trains {', '.join(objective['trains'])}"
        console.print(words, soft_wrap=True)
    if model["generation"]:
        tokens, prompt = model["generation"]["tokens"], model["generation"]["prompt"]
        console.print(f"generation: decodes {tokens} tokens after {prompt}")
    console.print(
        f"{model['parameter_count']:,} parameters; operations of a step:"
        f" inference {model['inference_operations']:,}, training {model['training_operations']:,}",
        soft_wrap=True,
    )
    print_next(console, f"prove it: levelfield check --models {model['name']} --arms ARM")


_SINGULAR = {"inputs": "input", "parameters": "parameter", "state": "state", "outputs": "output"}


def _adapters(interpreters: Mapping[str, Path]) -> list[dict[str, Any]]:
    models_by_arm = {
        arm.name: [
            model
            for model in reference.definitions()
            if arm.framework.generic or arm.framework.model_file(model).exists()
        ]
        for arm in arms().values()
    }
    resolutions = {
        spec.label: resolve(spec, interpreters)
        for spec in {arm.mode.environment for arm in arms().values()}
    }
    adapters = {name: framework.identity() for name, framework in frameworks().items()}
    rows: list[dict[str, Any]] = [
        {
            "arm": arm.name,
            "title": arm.framework.title,
            "summary": arm.mode.summary,
            "profile": arm.mode.profile,
            "phases": list(arm.mode.phases),
            "statistics": list(arm.mode.statistics),
            "numerics": list(arm.mode.numerics),
            "models": models_by_arm[arm.name],
            "runs here": resolutions[arm.mode.environment.label].interpreter is not None,
            "why": resolutions[arm.mode.environment.label].reason,
            "environment": arm.mode.environment.label,
            "requirements": list(arm.mode.environment.requirements),
            "documentation": arm.framework.documentation,
            "adapter": adapters[arm.framework.name],
        }
        for arm in arms().values()
    ]
    rows += [{**_UNUSABLE, "arm": name, "why": reason} for name, reason in unusable().items()]
    return rows


_UNUSABLE: dict[str, Any] = {
    **dict.fromkeys(("arm", "title", "summary", "profile"), ""),
    **{key: [] for key in ("phases", "statistics", "numerics", "models")},
    "runs here": False,
    **dict.fromkeys(("why", "environment"), ""),
    "requirements": [],
    "documentation": "",
    "adapter": None,
}


def _suites() -> list[dict[str, Any]]:
    suites = {name: load_suite(name) for name in suite_names()}
    return [
        {"name": name, "title": suite.title, "cells": len(plan(suite))}
        for name, suite in suites.items()
    ]


def _table(what: What, rows: list[dict[str, Any]]) -> TextTable:
    title = what.value.capitalize()
    if what is What.models:
        kinds = {"model": "name", "preset": "name", "parameters": "number"}
        kinds |= {"operations per example": "number", "title": "prose"}
        return TextTable(kinds, [line for row in rows for line in _sizes(row)], title)
    if what is What.adapters:
        kinds = {"arm": "name", "here": "status", "phases": "prose", "models": "prose"}
        model_names = list(reference.definitions())
        lines = [
            (
                row["arm"],
                "yes" if row["runs here"] else "no",
                ", ".join(row["phases"]),
                "all" if row["models"] == model_names else ", ".join(row["models"]),
                f"{row['title']}: {row['summary']}" if row["adapter"] else "cannot be used",
            )
            for row in rows
        ]
        return TextTable({**kinds, "description": "prose"}, lines, title)
    kinds = {"suite": "name", "cells": "number", "title": "prose"}
    return TextTable(kinds, [(row["name"], str(row["cells"]), row["title"]) for row in rows], title)


def _sizes(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The lines of a model, one for each preset."""
    for preset, summary in row["presets"].items():
        counts = summary["parameter_count"], summary["inference_operations"]
        yield row["name"], preset, *(f"{count:,}" for count in counts), row["title"]
