"""``levelfield advise``: recommends a framework for a need."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from levelfield.harness.advice.needs import CRITERIA, PURPOSES, QUESTIONS, Need, read_need, stated
from levelfield.harness.cli.options import ModelsFromOption, with_options
from levelfield.harness.cli.terminal import TextTable, print_json, terminal
from levelfield.harness.errors import BadInput, clean
from levelfield.harness.plan.suite import add_folders
from levelfield.reference.errors import UnknownName

if TYPE_CHECKING:
    from rich.console import Console

    from levelfield.harness.advice.advice import Advice

LONGEST_LIST = 60  # letters of the answers that the help of an option lists
# Options that are not spelled as their question is called, and what stands for their value.
_SPELLED = {"purpose": "--for", "memory_mib": "--memory", "startup_seconds": "--startup"}
_METAVARS = {"memory_mib": "MIB", "startup_seconds": "SECONDS", "licences": "NAME,NAME"}


def _option(name: str) -> inspect.Parameter:
    """The option of one question; its help is the question with the answers that it knows."""
    question = QUESTIONS[name]
    help_text, choices = question.metadata["asks"], question.metadata["known"]
    if choices and not callable(choices):  # the others depend on what is installed
        words = ", ".join(choices)
        answers = f": {words}" if len(words) <= LONGEST_LIST else f", such as {choices[0]}"
        help_text = f"{help_text.removesuffix('.')}{answers}."
    flag = _SPELLED.get(name, f"--{name.replace('_', '-')}")  # no --no-... for a truth value
    option = typer.Option(None, flag, metavar=_METAVARS.get(name), help=help_text)
    kind = str if isinstance(question.default, tuple) else type(question.default)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None
    )


@with_options([_option(name) for name in QUESTIONS if name != "weights"])  # --weight, one each
def advise_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or a folder that contains run folders.")
    ],
    *,
    need: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with the need. Flags override it."),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask for the need, question by question.")
    ] = False,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Weight of time, startup, memory or coverage."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models_from: ModelsFromOption = None,
    **answers: Any,
) -> None:
    """Recommend a framework for a need: by measured verdicts first, by facts second.

    Answers in five lines: the arm, how sure that is over models, machines and errors, and without
    which model and with which weight another one leads. Then shows the ranking with its
    uncertainty, the reason for every exclusion, dated facts, and sources. Says so if the evidence
    does not decide.
    """
    # Imported here because pandas takes longer to load than most commands to run.
    from levelfield.harness.advice.advice import advise
    from levelfield.harness.advice.words import advice_text
    from levelfield.harness.records.frames import load

    add_folders(models_from or ())
    values = {name: value for name, value in answers.items() if value is not None}
    if licences := values.pop("licences", ""):
        values["licences"] = licences.split(",")
    if weight:
        values["weights"] = _weights(weight)
    base = read_need(need) if need else Need()
    chosen = stated(values, base)
    if ask:
        chosen = _asked(chosen)
    advice = advise(load(runs), chosen)
    if as_json:
        print_json(_json_of(advice, chosen))
        return
    console = terminal()
    if console.is_terminal:
        _show(advice, console)
    else:
        console.print(advice_text(advice), end="", soft_wrap=True)


def _show(advice: Advice, console: Console) -> None:
    """Print the advice on a terminal of any width; no cell of its tables is cut."""
    from rich.markdown import Markdown

    from levelfield.harness.advice.words import advice_sections

    for number, section in enumerate(advice_sections(advice)):
        if number:
            console.print()
        console.print(section.heading.lstrip("# "), style="bold")
        for block in section.blocks:
            if isinstance(block, str):
                # Rich's bullets are no ASCII.
                console.print(block if console.options.ascii_only else Markdown(block))
                continue
            first = block.cells.columns[0]
            kinds = {
                str(name): "name"
                if name == first
                else ("prose" if name in block.left else "number")
                for name in block.cells.columns
            }
            console.print(TextTable(kinds, block.cells.to_numpy().tolist()))


def _json_of(advice: Advice, need: Need) -> dict[str, Any]:
    """The advice for scripts."""
    from levelfield.harness.advice.facts import facts_of, frameworks_of
    from levelfield.harness.plan.arms import get_arm

    known = {
        framework.name: facts_of(framework)
        for place in advice.ranking
        for framework in frameworks_of(get_arm(place.arm))
    }
    return {
        "need": {**vars(need), "weights": need.weighted},
        "decided": advice.decided,
        "contenders": advice.contenders,
        "ranking": [asdict(place) for place in advice.ranking],
        "excluded": [asdict(exclusion) for exclusion in advice.excluded],
        "models": advice.models,
        "machines": advice.machines,
        "unlike_machines": advice.unlike,
        "flips": [asdict(flip) for flip in advice.flips],
        "moves": [asdict(move) for move in advice.moves],
        "evidence": [
            f"{comparison.title}, {comparison.details}" for comparison, _ in advice.evidence
        ],
        "facts": {
            name: {
                key: {
                    "value": str(fact.value) if key == "released" else fact.value,
                    "source": fact.source,
                    "date": str(fact.date),
                    "as_of": str(fact.day),
                }
                for key, fact in facts.items()
            }
            for name, facts in known.items()
        },
    }


def _weights(texts: list[str]) -> dict[str, float]:
    weights = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            weights[name] = float(number)
        except ValueError as error:
            raise BadInput(f"--weight takes NAME=NUMBER, such as time=4, not '{text}'") from error
    return weights


def _asked(need: Need) -> Need:
    """Ask every question. Raises BadInput if the answers end early or are no text."""
    try:
        if sys.stdin is None:  # it was closed before Python began
            raise typer.Abort
        return _answered(need)
    except typer.Abort as error:
        raise BadInput(
            "the input ended before all questions were answered; state the need by options or by"
            " --need FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(
            f"an answer is no text in {error.encoding}; type it in that encoding, or state the need"
            " by options or by --need FILE"
        ) from error


def _answered(need: Need) -> Need:
    """Ask every question; return alone keeps the answer so far."""
    from levelfield.harness.advice.words import questions

    for name, question, choices in questions():
        words = clean(f"{question} ({', '.join(choices)})" if choices else question)
        answer = partial(_answer, words, getattr(need, name))
        need = _restated(need, name, answer)
    for name, meaning in CRITERIA.items():
        usual = {**PURPOSES[need.purpose].weights, **need.weights}[name]
        number = partial(_answer, f"Weight of {name} ({meaning})", float(usual))
        need = _restated(need, "weights", partial(_reweighted, need, name, usual, number))
    return need


def _restated(need: Need, name: str, answer: Callable[[], Any]) -> Need:
    """Ask a question until its answer can be; return the need with it."""
    while True:
        try:
            return stated({name: answer()}, need)
        except (BadInput, UnknownName) as error:
            typer.echo(clean(str(error)))


def _reweighted(
    need: Need, name: str, usual: float, number: Callable[[], float]
) -> Mapping[str, float]:
    """Ask for a weight; return the need's weights with it, where it is not the usual one."""
    weight = number()
    return dict(need.weights) if weight == usual else {**need.weights, name: weight}


def _answer(words: str, default: Any) -> Any:
    """Prompt for an answer of the same type as the answer so far."""
    if isinstance(default, bool):
        return typer.confirm(words, default=default)
    if isinstance(default, tuple):
        typed = typer.prompt(words, default=",".join(default))
        return [name for name in typed.split(",") if name]
    return typer.prompt(words, default=default, type=type(default))
