"""``levelfield run``: proves, measures and reports a suite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from levelfield.harness.cli.options import (
    SELECTION,
    NoWaitOption,
    PythonOption,
    Selection,
    given_interpreters,
    narrowed,
    tell_of_dropped_variables,
    with_models_from,
    with_options,
)
from levelfield.harness.cli.progress import minutes, watched
from levelfield.harness.cli.report import show_report
from levelfield.harness.cli.signals import Interrupted
from levelfield.harness.cli.terminal import terminal
from levelfield.harness.errors import BadInput, RunFailed, clean
from levelfield.harness.machine.scratch import NoRoom
from levelfield.harness.plan.domains import shortened
from levelfield.harness.plan.suite import Suite, load_suite
from levelfield.harness.plan.vocabulary import TWIN
from levelfield.harness.records import store
from levelfield.harness.statistics.levels import LEVELS

if TYPE_CHECKING:
    from levelfield.harness.environments.sealed import Resolution
    from levelfield.harness.plan.cells import Cell

DEFAULT_RESULTS = Path("results")
MOST_HOURS = 10_000  # of a budget: more than a year
BudgetOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop after this time, such as 20m or 1h; --resume goes on."),
]


@with_options(SELECTION, before="level")
def run_command(
    suite: Annotated[str | None, typer.Argument(help="A suite's name or TOML file.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Finish a run that was interrupted.")
    ] = None,
    *,
    level: Annotated[str | None, typer.Option(help="smoke, quick, standard or thorough.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Share below which a difference does not matter, such as 0.02."),
    ] = None,
    twin: Annotated[
        str | None, typer.Option(help="Arm that runs twice as the A/A control; auto or none.")
    ] = None,
    residency: Annotated[
        str | None,
        typer.Option(help="resident, or sequential where memory cannot hold all arms at once."),
    ] = None,
    python: PythonOption = None,
    no_wait: NoWaitOption = False,
    budget: BudgetOption = None,
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder in which run folders are made.")
    ] = DEFAULT_RESULTS,
    **selected: Any,
) -> None:
    """Prove, measure and report every cell of a suite. Each measurement is kept at once."""
    if suite is not None and resume is not None:
        raise BadInput(f"a run has its suite in it; leave out {shortened(suite)}, or --resume")
    if suite is None and resume is None:
        raise BadInput("name a suite, such as: levelfield run quick; or a run: --resume RUN")
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.engine import session

    budget_seconds = None if budget is None else seconds_of(budget)
    interpreters = given_interpreters(python)
    if resume is not None:
        _refuse_changes(*selected.values(), level, margin, twin, residency)
        run = store.open_run(resume)
        chosen, cells, resolutions = session.reopened(run, interpreters)
    else:
        assert suite is not None
        changes = {"level": level, "margin": margin, "twin": twin, "residency": residency}
        run, chosen, cells, resolutions = _new_run(
            suite, Selection(**selected), changes, interpreters=interpreters, results=results
        )
    tell_of_dropped_variables(chosen)
    with run:
        _measure(run, chosen, cells, resolutions, wait=not no_wait, budget_seconds=budget_seconds)
    _finish(run, chosen)


def _new_run(
    name: str,
    selection: Selection,
    changes: Mapping[str, Any],
    *,
    interpreters: Mapping[str, Path],
    results: Path,
) -> tuple[store.Run, Suite, list[Cell], dict[str, Resolution]]:
    """Plan a suite with what the command line changes in it, and make the folder of its run."""
    from levelfield.harness.engine import session

    loaded = with_models_from(load_suite(name), selection)
    chosen = narrowed(loaded, selection, **changes)
    cells, resolutions = _planned(chosen, interpreters)
    named_twin = loaded.twin if changes["twin"] is None else chosen.twin
    _say_what_controls(named_twin, chosen, cells)
    folder = f"{datetime.now():%Y%m%d-%H%M%S}-{chosen.name}"
    run = store.create(results, folder, session.describe_run(chosen, cells, resolutions))
    return run, chosen, cells, resolutions


def seconds_of(text: str) -> float:
    """Seconds of a time such as 90s, 20m or 1.5h. Raises BadInput."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= MOST_HOURS * 3600:
        raise BadInput(
            f"--budget is {shortened(text)}, not a time above 0 and up to {MOST_HOURS:,} h; type a"
            " number and its unit, such as 90s, 20m or 1h"
        )
    return seconds


def _finish(run: store.Run, suite: Suite) -> None:
    """Report a run that has measured all that it can. Raises RunFailed if no cell is ok."""
    show_report([run.path], run.path / "report", terminal())
    if store.paused(run):
        left = len(run.description["cells"]) - len(store.finished(run))
        terminal().print(
            f"the budget is used up; {left} cells may be measured further; to go on, type:"
            f" {run.resume_command} --budget 20m",
            soft_wrap=True,
        )
    if "ok" not in store.statuses(run).values():
        raise RunFailed(f"no cell of {run.path} is ok; its report says why")
    if suite.level == "quick":
        _tell_what_more_would_cost(run.path, suite)


def _refuse_changes(*values: Any) -> None:
    """Raise BadInput if an option that changes a suite was given to a resumed run."""
    if any(value is not None for value in values):
        raise BadInput(
            "--resume finishes a run as it was planned; leave out all options but --python,"
            " --no-wait and --budget"
        )


def _planned(
    suite: Suite, interpreters: Mapping[str, Path]
) -> tuple[list[Cell], dict[str, Resolution]]:
    """Return the cells of a suite and their interpreters. Raises BadInput if no arm can run."""
    from levelfield.harness.engine import session

    available = session.resolve_arms(suite.arms, interpreters)
    session.refuse_if_nothing_can_run(available)
    return session.planned(suite, available)


def _say_what_controls(named: str, suite: Suite, cells: Sequence[Cell]) -> None:
    """One line where the A/A twin is not the ``named`` one, or where there is none."""
    twins = [cell.arm.removesuffix(TWIN) for cell in cells if cell.arm.endswith(TWIN)]
    if suite.twin != named:
        notice = f"the suite's A/A twin {named} is not among the arms asked for; "
    else:
        notice = ""
    if not twins and LEVELS[suite.level]:
        words = notice + "no arm runs twice, so this run has no control and gives no verdicts"
    elif notice:
        words = f"{notice}instead, this arm runs twice: {', '.join(dict.fromkeys(twins))}"
    else:
        return
    terminal(stderr=True).print(words, soft_wrap=True)


def _tell_what_more_would_cost(run: Path, suite: Suite) -> None:
    """After a quick run, say what the next level adds and how long it takes here."""
    from levelfield.harness.analysis.forecast import most_seconds
    from levelfield.harness.records import frames

    standard = load_suite("standard")
    seconds = most_seconds(frames.load(run), standard)
    if seconds is None:
        return
    others = [arm for arm in standard.arms if arm not in suite.arms]
    terminal().print(
        f"levelfield run standard adds {len(others)} arms ({', '.join(others)}), verdicts below"
        f" 5 % and up to {LEVELS['standard'][-1]} blocks for pairs that are open; on this machine"
        f" at most about {minutes(seconds)}",
        soft_wrap=True,
    )


def _measure(
    run: store.Run,
    suite: Suite,
    cells: Sequence[Cell],
    resolutions: Mapping[str, Resolution],
    *,
    wait: bool,
    budget_seconds: float | None,
) -> None:
    """Measure with progress. Ctrl-C stops cleanly and says how to go on."""
    from levelfield.harness.analysis.forecast import forecast as forecast_of
    from levelfield.harness.engine import session

    console = terminal(stderr=True)
    for arm, resolution in resolutions.items():
        if resolution.interpreter is None:
            console.print(clean(f"{arm}: {resolution.reason}"), soft_wrap=True)
    cells_left = session.unfinished(run, cells)
    forecast = forecast_of(run, cells)
    if forecast is not None and len(cells_left) == len(cells):
        console.print(
            f"about {minutes(forecast.seconds)}, judged by {forecast.run}, which measured"
            f" the tasks of {forecast.known} of the {len(cells)} cells",
            soft_wrap=True,
        )
    try:
        with watched(console, len(cells_left)) as listener:
            session.measure(
                *(run, suite, cells),
                resolutions=resolutions,
                progress=listener,
                wait=wait,
                budget_seconds=budget_seconds,
                costs=None if forecast is None else forecast.costs,
            )
    except Interrupted as interrupted:
        run.close()
        console.print(
            "interrupted; the measurements so far are kept; to continue, type: "
            f"{run.resume_command}",
            soft_wrap=True,
        )
        raise typer.Exit(interrupted.code) from None
    except NoRoom as error:
        raise RunFailed(f"{error}; to go on, type: {run.resume_command}") from error
