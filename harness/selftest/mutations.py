"""Seeds mistakes into copies of real adapters and counts which ones the gate catches.

``mistakes.toml`` lists the mistakes. Each is a replacement of text in an adapter's files, so a
mutated adapter is the real one with a mistake that an author could make. Every mutated adapter runs
as an arm of its own, in the sealed environment of its framework, through the real worker and gate.

A mistake is caught if its cell ends as "wrong". A crash does not count: it would show that the
replacement is broken, and not that the gate sees the mistake.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from levelfield.harness.errors import BadInput, cause_of
from levelfield.harness.machine.scratch import scratch_folder
from levelfield.harness.plan.arms import Framework, frameworks, read_framework, registered
from levelfield.harness.plan.cells import Cell, plan
from levelfield.harness.plan.suite import Effort, Suite, validated
from levelfield.harness.records.frames import load
from levelfield.harness.selftest.goals import Finding
from levelfield.harness.selftest.machinery import Say, run_suite

PART = "mutation"
MISTAKES = Path(__file__).with_name("mistakes.toml")
MODES = {"torch": "eager", "jax": "jit"}  # the mutated frameworks, and the mode that runs
UNCHANGED = "unchanged"  # the name of the copy without a mistake
BATCH, MUTATION_SEED = 8, 20261126
NOT_RUN = "not run", ""


@dataclass(frozen=True)
class Edit:
    """A replacement: ``old`` occurs exactly once in ``file`` of an adapter's folder."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    ``cells`` are texts such as "mlp/tiny training sgd": model, preset, phase and optimiser.
    ``edits`` maps a framework to its replacements. ``below`` says why no answer in float32 can show
    the mistake; it is empty if the gate must catch it.
    """

    name: str
    group: str
    what: str
    cells: tuple[str, ...]
    edits: Mapping[str, tuple[Edit, ...]]
    below: str = ""


def read_mistakes(path: Path = MISTAKES) -> tuple[Mistake, ...]:
    """Read the mistakes of a TOML file. Raises BadInput."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["mistakes"]
        return tuple(
            Mistake(
                name=table["name"],
                group=table["group"],
                what=table["what"],
                cells=tuple(table["cells"]),
                edits={name: tuple(Edit(*edit) for edit in table[name]) for name in MODES},
                below=table.get("below", ""),
            )
            for table in tables
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = f"{type(error).__name__}: {cause_of(error)}"
        raise BadInput(f"{path} is no list of mistakes ({words}); restore the file") from error


def mutated(framework: str, name: str, edits: Iterable[Edit], folder: Path) -> Framework:
    """Copy an adapter into ``folder``, make the replacements, and read the framework there.

    Raises BadInput if a text does not occur exactly once in its file. A mistake that no longer fits
    its adapter is therefore reported instead of running without effect.
    """
    original = frameworks()[framework]
    root = folder / f"{framework}-{name}" / original.root.name
    copied = root / original.folder.relative_to(original.root)
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(original.folder, copied, ignore=hidden)
    for path in original.folder.parent.glob("*.py"):  # the contract, and what adapters share
        shutil.copy(path, copied.parent / path.name)
    shutil.copy(original.root / "__init__.py", root / "__init__.py")
    for part in ("harness", "reference"):  # what the worker and the adapters import besides
        (root / part).symlink_to(original.root / part)
    for edit in edits:
        path = copied / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise BadInput(
                f"mistake '{name}': {text.count(edit.old)} places instead of 1 in "
                f"adapters/{framework}/{edit.file} read {edit.old!r}; adapt {MISTAKES.name}"
            )
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")
    return read_framework(f"{framework}-{name}", original.package, root)


def run_mutations(
    folder: Path,
    say: Say,
    *,
    mistakes: Sequence[Mistake] | None = None,
    names: Collection[str] = tuple(MODES),
) -> Path:
    """Prove every cell of the mistakes, and the same cells without a mistake -> the run's folder.

    ``names`` are the frameworks whose adapters are mutated. All mistakes are the default; then the
    file that lists them is kept in the run's folder.
    """
    chosen = read_mistakes() if mistakes is None else mistakes
    unmutated = Mistake(
        name=UNCHANGED,
        group="",
        what="no mistake",
        cells=tuple(dict.fromkeys(cell for mistake in chosen for cell in mistake.cells)),
        edits=dict.fromkeys(MODES, ()),
    )
    with scratch_folder() as scratch, ExitStack() as stack:
        asked: dict[str, Mistake] = {}
        for name in names:
            for mistake in (unmutated, *chosen):
                copy = mutated(name, mistake.name, mistake.edits[name], scratch)
                stack.enter_context(registered(copy))
                asked[f"{copy.name}:{MODES[name]}"] = mistake
        suite = _suite(unmutated.cells, tuple(asked))
        cells = [cell for cell in plan(suite) if _words(cell) in asked[cell.arm].cells]
        path = run_suite(folder, suite, say, cells=cells, only_gate=True)
    if mistakes is None:
        shutil.copy(MISTAKES, path / MISTAKES.name)
    return path


def _suite(cells: Sequence[str], arms: tuple[str, ...]) -> Suite:
    """The smallest suite that plans all these cells."""
    words = [cell.split() for cell in cells]
    places = [place.split("/") for place, *_ in words]
    return validated(
        Suite(
            name="mutations",
            title="adapters with one mistake each",
            models=tuple(model for model, _ in places),
            arms=arms,
            presets=tuple(preset for _, preset in places),
            phases=tuple(phase for _, phase, *_ in words),
            optimizers=tuple(optimizer for _, _, *rest in words for optimizer in rest) or ("sgd",),
            batches=(BATCH,),
            level="smoke",
            twin="none",
            seed=MUTATION_SEED,
            effort=Effort(quiet_seconds=0.0, ceilings=False, accuracy=False, memory=False),
        )
    )


def _words(cell: Cell) -> str:
    """Describe a cell in the words of ``Mistake.cells``."""
    return _place(cell.model, cell.preset, cell.phase, cell.optimizer)


def _place(model: str, preset: str, phase: str, optimizer: str | None) -> str:
    return " ".join(filter(None, (f"{model}/{preset}", phase, optimizer)))


def judged(run: Path, mistakes: Sequence[Mistake] | None = None) -> Iterator[Finding]:
    """The findings of a run of ``run_mutations``; by default for the mistakes that it keeps.

    The copies without a mistake come first, then the share that is caught in each framework, then
    one finding for each cell of each mistake.
    """
    if mistakes is None:
        mistakes = read_mistakes(run / MISTAKES.name)
    frames = load(run)
    made = f"run of {frames.runs['created'].iloc[0]}"
    ends = {
        (row["framework"], _place(row["model"], row["preset"], row["phase"], row["optimizer"])): (
            row["status"],
            row["reason"],
        )
        for row in frames.cells.to_dict("records")
    }
    names = [name for name in MODES if any(key[0] == f"{name}-{UNCHANGED}" for key in ends)]

    def end(framework: str, mistake: str, place: str) -> tuple[str, str]:
        return ends.get((f"{framework}-{mistake}", place), NOT_RUN)

    places = dict.fromkeys(place for mistake in mistakes for place in mistake.cells)
    seen = [
        (mistake.name, place)
        for mistake in mistakes
        if not mistake.below
        for place in mistake.cells
    ]
    for name in names:
        cells = [end(name, UNCHANGED, place) for place in places]
        yield _share(f"cells of {name} without a mistake that are ok", cells, "ok", note=made)
    for name in names:
        cells = [end(name, mistake, place) for mistake, place in seen]
        yield _share(f"mistakes in {name}'s adapter that are caught", cells, "wrong", note=made)
    for mistake in mistakes:
        for place in mistake.cells:
            yield _finding(mistake, place, {name: end(name, mistake.name, place) for name in names})


def _share(what: str, ends: Sequence[tuple[str, str]], expected: str, *, note: str) -> Finding:
    """Judge how many cells ended as expected; all of them must."""
    hits, cells = sum(status == expected for status, _ in ends), len(ends)
    return Finding(PART, what, "100%", f"{hits} of {cells}", hits / cells, hits == cells, note)


def _finding(mistake: Mistake, place: str, ends: Mapping[str, tuple[str, str]]) -> Finding:
    figure = "; ".join(
        f"{name}: {reason if status == 'wrong' else ': '.join(filter(None, (status, reason)))}"
        for name, (status, reason) in ends.items()
    )
    hits = sum(status == "wrong" for status, _ in ends.values())
    accepted = ("ok", "wrong") if mistake.below else ("wrong",)
    return Finding(
        PART,
        f"{mistake.group}: {mistake.what} ({place})",
        "cannot be seen" if mistake.below else "wrong",
        figure,
        hits / len(ends),
        all(status in accepted for status, _ in ends.values()),
        note=mistake.below,
    )
