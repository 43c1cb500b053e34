"""``levelfield list``: lists models, arms and suites, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import JustifyMethod
from rich.table import Table

import reference
from harness.cli.options import PythonOption, given_interpreters
from harness.cli.terminal import terminal
from harness.environments.sealed import resolve
from harness.plan.arms import arms, frameworks, unusable
from harness.plan.cells import plan
from harness.plan.suite import load_suite, suite_names


class What(StrEnum):
    """Kinds of things that can be listed."""

    models = "models"
    adapters = "adapters"
    suites = "suites"


def list_command(
    what: Annotated[
        What | None, typer.Argument(help="Models, adapters or suites. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, help="Batch for the numbers of operations and bytes.")
    ] = 1,
    python: PythonOption = None,
) -> None:
    """List models with their sizes, arms with their abilities on this machine, and suites.

    Imports no framework.
    """
    facts = {
        What.models: lambda: _models(batch),
        What.adapters: lambda: _adapters(given_interpreters(python)),
        What.suites: _suites,
    }
    wanted = [what] if what else list(What)
    found = {each.value: facts[each]() for each in wanted}
    if as_json:
        print(json.dumps(found[what.value] if what else found, indent=1))
        return
    console = terminal()
    for each in wanted:
        console.print(_table(each, found[each.value]))
    for row in found.get(What.adapters.value, ()):
        if not row["runs here"]:
            print(f"{row['arm']}: not here: {row['why']}")


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


def _adapters(given: Mapping[str, Path]) -> list[dict[str, Any]]:
    written = {
        arm.name: [
            model
            for model in reference.definitions()
            if arm.framework.generic or arm.framework.model_file(model).exists()
        ]
        for arm in arms().values()
    }
    served = {
        spec.label: resolve(spec, given)
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
            "models": written[arm.name],
            "runs here": served[arm.mode.environment.label].interpreter is not None,
            "why": served[arm.mode.environment.label].reason,
            "environment": arm.mode.environment.label,
            "requirements": list(arm.mode.environment.requirements),
            "documentation": arm.framework.documentation,
            "adapter": adapters[arm.framework.name],
        }
        for arm in arms().values()
    ]
    rows += [{**_UNUSABLE, "arm": name, "why": why} for name, why in unusable().items()]
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
    found = []
    for name in suite_names():
        suite = load_suite(name)
        found.append({"name": name, "title": suite.title, "cells": len(plan(suite))})
    return found


def _table(what: What, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=what.value.capitalize(), title_justify="left")
    if what is What.models:
        for column in ("model", "title", "preset", "parameters", "operations per example"):
            justify: JustifyMethod = (
                "right" if column[0] == "o" or column == "parameters" else "left"
            )
            table.add_column(column, justify=justify)
        for row in rows:
            for preset, summary in row["presets"].items():
                counts = summary["parameter_count"], summary["inference_operations"]
                table.add_row(row["name"], row["title"], preset, *(f"{n:,}" for n in counts))
    elif what is What.adapters:
        for column in ("arm", "description", "phases", "models", "here"):
            table.add_column(column, no_wrap=column in ("arm", "here"))
        every = list(reference.definitions())
        for row in rows:
            table.add_row(
                row["arm"],
                f"{row['title']}: {row['summary']}" if row["adapter"] else "cannot be used",
                ", ".join(row["phases"]),
                "all" if row["models"] == every else ", ".join(row["models"]),
                "yes" if row["runs here"] else "no",
            )
    else:
        for column in ("suite", "title", "cells"):
            table.add_column(column)
        for row in rows:
            table.add_row(row["name"], row["title"], str(row["cells"]))
    return table
