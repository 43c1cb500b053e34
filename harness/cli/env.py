"""``levelfield env``: builds, lists and removes sealed environments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from levelfield.harness.cli.options import PythonOption, given_interpreters
from levelfield.harness.cli.terminal import TextTable, print_json, print_next, terminal
from levelfield.harness.environments import sealed
from levelfield.harness.errors import BadInput, RunFailed, clean
from levelfield.harness.plan.arms import VERSION, EnvironmentSpec, arms, get_arm
from levelfield.harness.plan.domains import shortened
from levelfield.harness.plan.suite import load_suite
from levelfield.reference.errors import UnknownName

app = typer.Typer(help="Build, list, lock and remove sealed environments.", no_args_is_help=True)

Labels = Annotated[list[str] | None, typer.Argument(help="Environments, such as torch keras/jax.")]


def specs_by_label() -> dict[str, EnvironmentSpec]:
    """Every environment that an arm wants, by label."""
    specs = (arm.mode.environment for arm in arms().values())
    return {spec.label: spec for spec in specs}


def specs_of_arms(names: Iterable[str]) -> list[EnvironmentSpec]:
    """The environments of some arms, each once, in order."""
    specs = (get_arm(name).mode.environment for name in names)
    return list({spec.label: spec for spec in specs}.values())


def _chosen(labels: list[str] | None) -> list[EnvironmentSpec]:
    specs = specs_by_label()
    return [_spec_of(label, specs) for label in labels or specs]


def _spec_of(label: str, specs: Mapping[str, EnvironmentSpec]) -> EnvironmentSpec:
    """``jax``, ``keras/jax``, and at a version ``jax@0.9.2`` or ``keras@3.14.0/jax``."""
    framework, at, rest = label.partition("@")
    version, slash, name = rest.partition("/")
    plain = framework + slash + name
    # Without requirements, nothing installs a version of it.
    if plain not in specs or bool(at) != bool(version) or (at and not specs[plain].requirements):
        raise UnknownName("environment", label, specs)
    if at and not VERSION.fullmatch(version):
        raise BadInput(f"{shortened(version)} is no version; type one such as 1.2.3")
    return specs[plain].at(version) if at else specs[plain]


@app.command("build")
def build_command(
    labels: Labels = None,
    suite: Annotated[
        str | None, typer.Option(help="Build the environments of this suite's arms.")
    ] = None,
) -> None:
    """Build environments: all, those named, or those of a suite. Finished ones are kept.

    One that cannot be built does not stop the others; its arms end as "no-environment".
    """
    specs = _chosen(labels) if labels or suite is None else []
    if suite is not None:
        specs += [s for s in specs_of_arms(load_suite(suite).arms) if s not in specs]
    build_environments(specs)


def build_environments(specs: list[EnvironmentSpec]) -> None:
    """Build with a progress bar. Raises RunFailed at the end if any could not be built."""
    console = terminal()
    failures: list[str] = []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("environments", total=len(specs), now="")
        for spec in specs:
            progress.update(task, description=f"environment {spec.label}")
            try:
                environment = sealed.build(
                    spec, on_progress=lambda line: progress.update(task, now=line[:60])
                )
                details = (
                    f"{environment.python}, {len(environment.lock)} packages,"
                    f" {environment.build_seconds:.0f} s"
                )
                console.print(f"environment {spec.label}: ready ({details})", soft_wrap=True)
            except sealed.EnvironmentFailed as error:
                failures.append(spec.label)
                console.print(clean(f"environment {spec.label}: {error}"), soft_wrap=True)
            progress.advance(task)
    if failures:
        raise RunFailed(
            f"could not build {', '.join(failures)}; their arms will end as 'no-environment'; "
            f"to try again: levelfield env build {' '.join(failures)}"
        )


@app.command("list")
def list_command(
    python: PythonOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which interpreter runs which arm, and why."""
    interpreters = given_interpreters(python)
    rows = []
    for arm in arms().values():
        spec = arm.mode.environment
        resolution = sealed.resolve(spec, interpreters)
        rows.append(
            {
                "arm": arm.name,
                "environment": spec.label,
                "served by": resolution.how,
                "why": resolution.reason,
                "interpreter": str(resolution.interpreter or ""),
                "lock": (resolution.lock_hash or "")[:12],
            }
        )
    if as_json:
        print_json(rows)
        return
    kinds = {"arm": "name", "environment": "name", "served by": "status", "why": "prose"}
    console = terminal()
    console.print(TextTable(kinds, [tuple(row[column] for column in kinds) for row in rows]))
    for folder in sealed.half_built():
        console.print(f"half-built, never used: {folder}", soft_wrap=True)
    print_next(
        console,
        "build one: levelfield env build ENVIRONMENT",
        "prove an arm: levelfield check --arms ARM",
    )


@app.command("lock")
def lock_command(
    label: Annotated[str, typer.Argument(help="Environment, such as torch or keras/jax.")],
) -> None:
    """Print the packages that are installed in an environment, one pinned package per line."""
    (spec,) = _chosen([label])
    environment = sealed.find(spec)
    if environment is None and not spec.requirements:
        raise RunFailed(f"{label} is never built, and has no packages of its own: {spec.hint}")
    if environment is None:
        raise RunFailed(f"{label} is not built; type: levelfield env build {label}")
    print("\n".join(map(clean, environment.lock)))


@app.command("remove")
def remove_command(
    labels: Labels = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all environments, half-built ones as well.")
    ] = False,
) -> None:
    """Remove environments from the cache."""
    if everything:
        for environment in sealed.list_environments():
            sealed.remove(environment.path)
        for folder in sealed.half_built():
            sealed.remove(folder)
        return
    if not labels:
        raise BadInput("name the environments to remove, or all of them: --all")
    for spec in _chosen(labels):
        sealed.remove(spec)
        print(f"removed {spec.label}")
