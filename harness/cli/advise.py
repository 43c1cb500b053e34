"""``levelfield advise``: recommends a framework for a need."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.terminal import terminal
from harness.errors import BadInput
from reference.spec import UnknownName

if TYPE_CHECKING:
    from harness.advice.needs import Need


def advise_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or a folder that contains run folders.")
    ],
    need: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with the need. Flags override it."),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask for the need, question by question.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            help="Model or family of models: dense, convolutional, recurrent, transformer,"
            " generative, recommender."
        ),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option("--for", help="Purpose: prototyping, training, latency, throughput or edge."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device: cpu or cuda.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile of the arms: default or tuned.")
    ] = None,
    numeric: Annotated[str | None, typer.Option(help="Numeric mode: float32 or int8.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps per process. Time then includes start-up.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="MIB", help="Limit for peak memory.")
    ] = None,
    startup: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Limit for the time to the end of the first step."),
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="Platform that needs a wheel, such as macos-arm64.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python that needs a wheel, such as 3.12.")
    ] = None,
    licences: Annotated[
        str | None, typer.Option(help="Acceptable licences, separated by commas.")
    ] = None,
    exports: Annotated[
        str | None, typer.Option(help="Format to which the model must be exported, such as ONNX.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Numeric type that the framework must document, such as bfloat16."),
    ] = None,
    graph: Annotated[
        str | None, typer.Option(help="Kind of graph: dynamic, static or lazy.")
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="Require training over several devices or processes."),
    ] = False,
    maintained: Annotated[
        bool, typer.Option("--maintained", help="Require a framework that is still maintained.")
    ] = False,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Weight of time, startup, memory or coverage."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend a framework for a need: by measured verdicts first, by facts second.

    Shows the ranking with its uncertainty, the weights at which another framework leads, and the
    reason for every exclusion. Says so if the evidence does not decide.
    """
    # Imported here because pandas takes longer to load than most commands to run.
    from rich.markdown import Markdown

    from harness.advice.advice import advise
    from harness.advice.needs import Need, read_need, stated
    from harness.advice.words import advice_text
    from harness.records.frames import load

    said: dict[str, Any] = {
        "task": task,
        "purpose": purpose,
        "device": device,
        "profile": profile,
        "numeric": numeric,
        "steps": steps,
        "memory_mib": memory,
        "startup_seconds": startup,
        "platform": platform,
        "python": python,
        "licences": licences.split(",") if licences else None,
        "exports": exports,
        "precision": precision,
        "graph": graph,
        "distributed": distributed or None,
        "maintained": maintained or None,
        "weights": _weights(weight or []) or None,
    }
    base = read_need(need) if need else Need()
    chosen = stated({name: value for name, value in said.items() if value is not None}, base)
    if ask:
        chosen = _asked(chosen)
    advice = advise(load(runs), chosen)
    if as_json:
        found = {
            "need": {**vars(chosen), "weights": chosen.weighted},
            "decided": advice.decided,
            "contenders": advice.contenders,
            "ranking": [asdict(each) for each in advice.ranking],
            "excluded": [asdict(each) for each in advice.excluded],
            "moves": [asdict(each) for each in advice.moves],
            "evidence": [f"{each.title}, {each.details}" for each, _ in advice.evidence],
        }
        print(json.dumps(found, indent=1))
        return
    text, console = advice_text(advice), terminal()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text, end="")


def _weights(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise BadInput(f"--weight takes NAME=NUMBER, such as time=4, not '{text}'") from error
    return found


def _asked(need: Need) -> Need:
    """Ask every question; return alone keeps the answer so far."""
    from harness.advice.needs import CRITERIA, PURPOSES, stated
    from harness.advice.words import questions

    for name, question, known in questions():
        words = f"{question} ({', '.join(known)})" if known else question
        now = getattr(need, name)
        while True:
            try:
                need = stated({name: _answer(words, now)}, need)
                break
            except (BadInput, UnknownName) as error:
                typer.echo(str(error))
    now = {**PURPOSES[need.purpose].weights, **need.weights}
    asked = {
        name: typer.prompt(f"Weight of {name} ({what})", default=float(now[name]), type=float)
        for name, what in CRITERIA.items()
    }
    changed = {name: number for name, number in asked.items() if number != now[name]}
    return stated({"weights": {**need.weights, **changed}}, need)


def _answer(words: str, now: Any) -> Any:
    """Prompt for an answer of the same type as the answer so far."""
    if isinstance(now, bool):
        return typer.confirm(words, default=now)
    if isinstance(now, tuple):
        typed = typer.prompt(words, default=",".join(now))
        return [each for each in typed.split(",") if each]
    return typer.prompt(words, default=now, type=type(now))
