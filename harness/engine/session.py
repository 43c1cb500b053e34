"""A session: the decisions of a run before its first measurement, and how a run is resumed."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from levelfield import reference
from levelfield.harness.analysis.forecast import Cost
from levelfield.harness.engine.engine import Engine
from levelfield.harness.engine.in_hand import clear, record_deaths
from levelfield.harness.engine.state import Progress
from levelfield.harness.environments.sealed import Resolution, buildable, cache_folder, resolve
from levelfield.harness.errors import BadInput, clean
from levelfield.harness.machine import locks
from levelfield.harness.machine.describe import code_version, describe_machine, difference, shown
from levelfield.harness.machine.resources import available_cores, expanded
from levelfield.harness.plan.arms import get_arm, hash_of_models, models_identity
from levelfield.harness.plan.cells import Cell, plan
from levelfield.harness.plan.suite import (
    Effort,
    Limits,
    Suite,
    add_folders,
    add_presets,
    suite_names,
    validated,
)
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records import store
from levelfield.reference.errors import BadDefinition, UnknownName
from levelfield.reference.registry import outside

LEAST_BUDGET_SECONDS = 1.0  # what a wait for cores leaves of a budget, at least


def resolve_arms(names: Sequence[str], given: Mapping[str, Path]) -> dict[str, Resolution]:
    """Return the interpreter that serves each arm."""
    return {name: resolve(get_arm(name).mode.environment, given) for name in names}


def refuse_if_nothing_can_run(resolutions: Mapping[str, Resolution]) -> None:
    """Raise BadInput if no arm has an interpreter.

    An empty comparison is a mistake of the command, not a result.
    """
    if any(resolution.interpreter is not None for resolution in resolutions.values()):
        return
    specs = [get_arm(name).mode.environment for name in resolutions]
    labels = dict.fromkeys(spec.label for spec in specs if buildable(spec))
    if not labels or len(resolutions) == 1:
        name, resolution = next(iter(resolutions.items()))
        others = "" if len(resolutions) == 1 else "none of these arms can run; "
        raise BadInput(f"{others}{name} cannot run: {resolution.reason}")
    raise BadInput(
        "no arm of this comparison has an interpreter; build the environments first: levelfield"
        f" env build {shlex.join(labels)}"
    )


def planned(
    suite: Suite, resolutions: Mapping[str, Resolution]
) -> tuple[list[Cell], dict[str, Resolution]]:
    """Return the cells of a suite, and the interpreter that serves each of their arms.

    ``resolutions`` are those of the suite's own arms. The A/A twin is one of the arms that can run.
    Raises BadInput if the suite names a twin that cannot run.
    """
    running = [arm for arm, resolution in resolutions.items() if resolution.interpreter is not None]
    if suite.twin not in ("auto", "none", *running):
        raise BadInput(
            f"the A/A twin {suite.twin} cannot run: {resolutions[suite.twin].reason}; or let"
            " another arm run twice: --twin auto"
        )
    cells = plan(suite, running)
    arms = dict.fromkeys(cell.arm for cell in cells)
    return cells, {
        arm: resolutions[arm if arm in resolutions else arm.removesuffix(TWIN)] for arm in arms
    }


def describe_run(
    suite: Suite, cells: Sequence[Cell], resolutions: Mapping[str, Resolution]
) -> dict[str, Any]:
    """Return the content of run.json: all decisions before the first measurement."""
    return {
        "suite": suite.to_json(),
        "seed": suite.seed,
        "machine": describe_machine(),
        "code_version": code_version(),
        "locks": {
            arm: {
                "how": resolution.how,
                "interpreter": resolution.interpreter and shown(resolution.interpreter),
                "hash": resolution.lock_hash,
                "lock": list(resolution.lock),
            }
            for arm, resolution in resolutions.items()
        },
        "adapters": _adapters(cells),
        "models": models_identity(dict.fromkeys(cell.model for cell in cells)),
        "cells": [asdict(cell) for cell in cells],
    }


def _adapters(cells: Sequence[Cell]) -> dict[str, dict[str, str]]:
    """Return framework -> the identity of the adapter that serves it here."""
    frameworks = {cell.framework: get_arm(cell.arm).framework for cell in cells}
    return {name: framework.identity() for name, framework in frameworks.items()}


def reopened(
    run: store.Run, given: Mapping[str, Path]
) -> tuple[Suite, list[Cell], dict[str, Resolution]]:
    """Return the decisions of an interrupted run.

    Raises BadInput on another machine, without the cores that it measured on, and for adapters or
    packages that have changed since.
    """
    try:
        suite, cells = _suite_and_cells(run)
        arms = dict.fromkeys(cell.arm for cell in cells)
        locks = {arm: run.description["locks"][arm]["hash"] for arm in arms}
        locked = {arm: tuple(run.description["locks"][arm]["lock"]) for arm in arms}
        adapters = {cell.framework: run.description["adapters"][cell.framework] for cell in cells}
        machine = dict(run.description["machine"])
        models = {
            name: dict(identity) for name, identity in run.description.get("models", {}).items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{run.path / 'run.json'} cannot be resumed: {error!r}; start a new run"
        ) from error
    if differences := difference(machine, describe_machine()):
        raise BadInput(
            f"this is not the machine that {run.path} began on ({'; '.join(differences)}), and one"
            f" run cannot mix them; resume it there, or {_start_anew(suite)}"
        )
    _refuse_other_cores(run, suite)
    _add_models(run, suite, models)
    _refuse_unknown(run, suite, cells)
    for framework, identity in _adapters(cells).items():
        if identity != adapters[framework]:
            raise BadInput(
                f"the adapter {framework} is not the one that {run.path} began with"
                f" ({_difference(adapters[framework], identity)}), and one run cannot mix them;"
                f" restore it, or {_start_anew(suite)}"
            )
    _tell_of_other_code(run)
    resolutions = resolve_arms([*locks], given)
    for arm, resolution in resolutions.items():
        before = locks[arm]
        if before is not None and resolution.lock_hash != before:
            raise BadInput(
                f"the packages of {arm} are not those that {run.path} began with"
                f" ({_changed(locked[arm], resolution.lock)}), and one run cannot mix them; install"
                f" them again, or {_start_anew(suite)}"
            )
    return suite, cells, resolutions


def _refuse_other_cores(run: store.Run, suite: Suite) -> None:
    """Raise BadInput where a core that the run measured on is not available to this process."""
    before, now = _cores_before(run), available_cores()
    if not {*before} <= {*now}:
        listed = ",".join(map(str, before))
        raise BadInput(
            f"{run.path} measured on {locks.named(before)}, and this process may use"
            f" {locks.named(now)} alone; one run cannot mix cores; type: taskset --cpu-list"
            f" {listed} {run.resume_command}; or {_start_anew(suite)}"
        )


def _suite_and_cells(run: store.Run) -> tuple[Suite, list[Cell]]:
    """Return what run.json says. Raises KeyError, TypeError or ValueError if it does not."""
    text = dict(run.description["suite"])
    # A run of an older version measures the memory of its later cells as that of its first ones.
    effort = {"memory_processes": 1, **text["effort"]}
    text["effort"], text["limits"] = Effort(**effort), Limits(**text["limits"])
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in text.items()}
    return Suite(**values), [Cell(**cell) for cell in run.description["cells"]]


def recorded(run: store.Run) -> tuple[Suite, list[Cell]]:
    """Return the suite and the cells of a run, whatever machine it is from; add its models.

    Raises BadInput for a run of models that are not known here or have changed.
    """
    try:
        suite, cells = _suite_and_cells(run)
        models = {n: dict(identity) for n, identity in run.description.get("models", {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{run.path / 'run.json'} cannot be used: {error!r}; run it again"
        ) from error
    _add_models(run, suite, models)
    _refuse_unknown(run, suite, cells)
    return suite, cells


def changes_since(run: store.Run, arms: Sequence[str]) -> list[str]:
    """Say what differs from when a run was made: the machine, and the adapters of arms."""
    description, changes = run.description, []
    machine = description.get("machine")
    if isinstance(machine, dict) and (words := difference(machine, describe_machine())):
        changes.append(f"this is not the machine of the run ({'; '.join(words)})")
    frameworks = {get_arm(arm).framework.name: get_arm(arm).framework for arm in arms}
    for name, framework in frameworks.items():
        before, now = description.get("adapters", {}).get(name), framework.identity()
        if before != now:
            changes.append(
                f"the adapter {name} is not that of the run ({_difference(before, now)})"
            )
    return [clean(change) for change in changes]


def _add_models(run: store.Run, suite: Suite, began: Mapping[str, Mapping[str, str]]) -> None:
    """Add the outside models of a run. Raises BadInput where they are not those it began with."""
    folders = [expanded(Path(folder)) for folder in suite.models_from]
    hashes = {identity["hash"] for identity in began.values()}
    # Nothing is imported from folders whose files have changed.
    installed = [models.folder for models in outside()]
    current_hashes = {hash_of_models(folder) for folder in (*folders, *installed)}
    if hashes <= current_hashes:
        add_folders(folders)
    try:
        add_presets(suite.own_presets)
    except BadDefinition as error:
        raise BadInput(f"{run.path / 'run.json'} cannot be resumed: {error}") from error
    if not hashes <= current_hashes or models_identity(began) != began:
        raise BadInput(
            f"the models {', '.join(began)} are not those that {run.path} began with (the files in"
            f" {', '.join(suite.models_from) or 'their package'} have changed), and one run cannot"
            f" mix them; restore them, or {_start_anew(suite)}"
        )


def _refuse_unknown(run: store.Run, suite: Suite, cells: Sequence[Cell]) -> None:
    """Raise BadInput if the suite or a cell names anything that is not known here."""
    place = "suite"
    try:
        validated(suite)
        for number, cell in enumerate(cells):
            place = f"cells[{number}]"
            get_arm(cell.arm)
            reference.get(cell.model).sizes(cell.preset)
    except (BadInput, UnknownName) as error:
        raise BadInput(f"{run.path / 'run.json'} cannot be resumed: {place}: {error}") from error


class OtherCode(UserWarning):
    """A run goes on with another version of Levelfield than it began with."""


def _tell_of_other_code(run: store.Run) -> None:
    """Warn if another version or commit than this one began the run."""
    began, now = run.description.get("code_version"), code_version()
    if not isinstance(began, dict):
        return
    pairs = [
        (f"{key} {str(began.get(key))[:12]}", f"{key} {str(now[key])[:12]}")
        for key in ("version", "commit")
        if began.get(key) != now[key]
    ]
    if pairs:
        before, after = (", ".join(versions) for versions in zip(*pairs, strict=True))
        words = f"{run.path} began with levelfield of {before} and goes on with {after}"
        warnings.warn(clean(words), OtherCode, stacklevel=3)


def _start_anew(suite: Suite) -> str:
    """Return the command to type; the folder of a suite's file that is not ours is not recorded."""
    if suite.name in suite_names():
        return f"start a new run: levelfield run {shlex.quote(suite.name)}"
    return f"start a new run of the suite's file: levelfield run {shlex.quote(suite.name)}.toml"


def _changed(before: Sequence[str], now: Sequence[str]) -> str:
    """Name, for people, the first packages whose version is in one of the two locks only."""
    removals, additions = (
        sorted(set(first) - set(second)) for first, second in ((before, now), (now, before))
    )
    parts = [
        f"{word} {', '.join(packages[:2])}{' and more' if len(packages) > 2 else ''}"
        for word, packages in (("no longer", removals), ("now", additions))
        if packages
    ]
    return clean("; ".join(parts))


def _difference(before: Any, now: Mapping[str, str]) -> str:
    """Describe, for people, the first difference between two identities of an adapter."""
    old_identity = before if isinstance(before, dict) else {}
    key = next(key for key in (*now, *old_identity) if old_identity.get(key) != now.get(key))
    old_value, value = (str(identity.get(key, "nothing"))[:40] for identity in (old_identity, now))
    if key == "hash":
        return "its files have changed"
    return clean(f"its {key} was {old_value} and is {value}")


def unfinished(run: store.Run, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that have no status yet. A torn last record is repaired first."""
    store.repair(run)
    finished = store.finished(run)
    return [cell for cell in cells if cell.id not in finished]


def measure(  # noqa: PLR0913 - three by position, the rest are named at every call
    run: store.Run,
    suite: Suite,
    cells: Sequence[Cell],
    *,
    resolutions: Mapping[str, Resolution],
    progress: Progress,
    only_gate: bool = False,
    timed: bool = False,
    wait: bool = True,
    budget_seconds: float | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> None:
    """Bring the cells to their statuses; the measurements of an interrupted run count.

    The cores to measure on are locked. ``wait``: wait if another run measures on them and no others
    are free; otherwise raise RunFailed. A run that times nothing shares cores instead. The wait is
    a part of ``budget_seconds``, and no longer than it. ``costs``: those that an earlier run lets
    expect of all cells, by id.
    """
    began = time.monotonic()
    store.repair(run)
    record_deaths(run)
    timing = (timed or not only_gate) and bool(unfinished(run, cells))
    with locks.held_cores(
        cores_folder(),
        max((cell.threads for cell in cells), default=1),
        run=str(run.path.absolute()),
        busy=("wait" if wait else "refuse") if timing else "share",
        before=_cores_before(run),
        patience_seconds=budget_seconds,
    ) as cores:
        if budget_seconds is not None:
            budget_seconds = max(budget_seconds - (time.monotonic() - began), LEAST_BUDGET_SECONDS)
        engine = Engine(
            *(run, suite, resolutions, progress, cores),
            only_gate=only_gate,
            timed=timed,
            budget_seconds=budget_seconds,
            costs=costs,
            spare_cores=lambda count: locks.spare_cores(
                cores_folder(), cores, most=count, run=str(run.path.absolute()), lock=timing
            ),
        )
        try:
            engine.measure(cells)
        finally:
            clear(run.path)


def cores_folder() -> Path:
    """Return the folder of the locks of cores."""
    return cache_folder() / "cores"


def _cores_before(run: store.Run) -> Sequence[int]:
    """Return the cores of the last session of a run; none if it has none or names none."""
    sessions = [record for record in store.read_records(run) if record["record"] == "session"]
    return [core for core in (sessions or [{}])[-1].get("cores") or () if isinstance(core, int)]
