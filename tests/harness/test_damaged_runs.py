"""A run that a person edited is read, or refused in one line that says where; nothing else happens.

Every damage is a number: ``damaged(..., number)`` makes it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.advice import advice
from levelfield.harness.advice.needs import Need
from levelfield.harness.advice.words import advice_text
from levelfield.harness.analysis import comparisons, sessions, verdicts
from levelfield.harness.analysis import history as analysis_history
from levelfield.harness.analysis.forecast import most_seconds
from levelfield.harness.analysis.planning import planned_rounds
from levelfield.harness.analysis.verdicts import settled, verdict_frame
from levelfield.harness.cli.advise import advise_command
from levelfield.harness.cli.compare import compare_command
from levelfield.harness.cli.history import history_command
from levelfield.harness.engine import session
from levelfield.harness.engine.in_hand import condemned
from levelfield.harness.environments.sealed import Resolution
from levelfield.harness.errors import BadInput
from levelfield.harness.machine.describe import code_version
from levelfield.harness.plan.cells import plan
from levelfield.harness.plan.suite import Suite, load_suite, validated
from levelfield.harness.records import frames as records_frames
from levelfield.harness.records import store
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.report import CHARTS, charts_of, series, write_report
from levelfield.harness.report.findings import not_quiet
from levelfield.harness.report.interchange import benchmark_json, latex
from levelfield.harness.report.overview import overview
from levelfield.harness.report.page import html
from levelfield.harness.report.provenance import provenance
from levelfield.harness.report.tables import comparison_tables, markdown
from tests.support.damage import Damage, damaged
from tests.support.long import long_unless
from tests.support.synthetic import line, write_mlp_run

ARMS = ("torch:eager", "jax:jit")
DRAWN = 20  # one in so many of the runs that can be read is also drawn and written in every format
SHORT, LONG, CHUNK = 100, 5000, 50  # numbers of damages: in `make test`, in all, and of one test
SHARE = 3  # `make test` draws nothing, and does one in so many of the readings after a damage
LACKING = ("startup", "gate", "slice", "memory", "ceiling", "all")  # the rest is for test-long
# A run without its last record, or resumed by another Levelfield: read all the same.
TOLD = (store.TornRecord, session.OtherCode)


class Shared:
    """What is computed from frames, once for the same frames. ``read`` is the run under test."""

    def __init__(self, folder: Path, other: Path) -> None:
        self.frames = {other: load(other)}
        self.folder, self.other = folder, other
        self.found: dict[tuple[Any, int], Any] = {}

    def read(self) -> Frames:
        """Read the run under test, and forget what was found of it before."""
        other = self.frames[self.other]
        self.found = {key: members for key, members in self.found.items() if key[1] == id(other)}
        self.frames = {self.other: other, self.folder: load(self.folder)}
        return self.frames[self.folder]

    def loaded(self, path: Path | list[Path]) -> Frames:
        """Return what was loaded, instead of loading it again."""
        return self.frames[path[0] if isinstance(path, list) else path]

    def once(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def found(frames: Frames, *more: Any) -> Any:
            key = (function, id(frames))
            if key not in self.found:
                self.found[key] = function(frames, *more)
            return self.found[key]

        return found


@dataclass(frozen=True)
class Base:
    """A sound run that can be resumed here, and another one to compare it with."""

    folder: Path
    description: dict[str, Any]
    records: list[dict[str, Any]]
    other: Path
    suite: Suite
    shared: Shared


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    folder = tmp_path_factory.mktemp("runs")
    runs = [_sound(folder, name, seed) for seed, name in enumerate(("sound", "other"))]
    description = json.loads((runs[0] / "run.json").read_text())
    records = store.read_records(store.open_run(runs[0]))
    code, shared = code_version(), Shared(*runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "code_version", lambda: code)
        for module in (sessions, analysis_history, records_frames):
            patch.setattr(module, "load", shared.loaded)
        for name, modules in (
            ("summary", (sessions, verdicts, comparisons)),
            ("judge", (sessions, comparisons, verdicts)),
            ("comparisons_of", (advice,)),
        ):
            only_once = shared.once(getattr(modules[0], name))
            for module in modules:
                patch.setattr(module, name, only_once)
        yield Base(runs[0], description, records, runs[1], load_suite("quick"), shared)


def _sound(folder: Path, name: str, seed: int) -> Path:
    options: dict[str, Any] = {"blocks": 8, "rounds": 2, "latency_steps": 2, "seed": seed}
    run = write_mlp_run(folder, name=name, arms=ARMS, **options)
    suite = validated(
        Suite("quick", "Runs that were never run", ("mlp",), ARMS, level="quick", batches=(32,))
    )
    suite = dataclasses.replace(suite, phases=("inference", "training"), twin="torch:eager")
    unbuilt = Resolution(None, "", reason="not built", lock_hash=None, lock=())
    cells = plan(suite, ARMS)
    content = session.describe_run(suite, cells, {cell.arm: unbuilt for cell in cells})
    made = json.loads((run / "run.json").read_text())
    kept = {key: made[key] for key in ("created", "schema", "kind", "id", "name")}
    (run / "run.json").write_text(json.dumps({**content, **kept}))
    with (run / "records.jsonl").open("ab") as file:
        file.write(line("death", at=1.0, arm="torch:eager", cell="c0001"))
        file.write(line("pause", at=1.0, budget_seconds=60.0))
    return run


def test_the_base_can_be_read_in_every_way(base: Base) -> None:
    assert {record["record"] for record in base.records} == set(store.kinds.KINDS)
    with _strict():
        frames = base.shared.read()
        for work in [*readings(base, frames), *drawings(base, frames)]:
            work()
        resumed(base)


def readings(base: Base, frames: Frames) -> Iterator[Callable[[], object]]:
    """Everything that makes statements from a run, but drawing and files."""
    comparisons = advice.comparisons_of(frames)
    tables = comparison_tables(frames, comparisons)
    yield lambda: markdown(tables)
    yield lambda: latex(tables)
    yield lambda: overview(frames, comparisons)
    yield lambda: provenance(frames)
    yield lambda: [*not_quiet(frames)]
    yield lambda: strict_json(benchmark_json(frames, comparisons))
    yield lambda: verdict_frame(verdicts.judge(frames))
    for data in (
        *(series.break_even_data, series.roofline_data, series.heat_data, series.profile_data),
        *(series.scaling_data, series.learning_data),
    ):
        yield lambda data=data: data(frames, comparisons)
    yield lambda: (settled(frames), planned_rounds(frames, 6))
    yield lambda: most_seconds(frames, base.suite)
    for need in (Need(), Need(steps=1000), Need(purpose="latency")):
        yield lambda need=need: advice_text(advice.advise(frames, need))
    yield lambda: printed(advise_command, [base.folder], as_json=True, steps=1000)
    for pair in ((base.folder, base.other), (base.other, base.folder)):
        yield lambda pair=pair: printed(compare_command, *pair, as_json=True)
        yield lambda pair=pair: printed(compare_command, *pair)
    yield lambda: printed(history_command, [base.folder, base.other], as_json=True)


def drawings(base: Base, frames: Frames) -> Iterator[Callable[[], object]]:
    """All charts and files."""
    comparisons = advice.comparisons_of(frames)
    yield lambda: html(frames, comparisons)
    yield lambda: [
        CHARTS[name].draw(frames, comparisons) for name in charts_of(frames, comparisons)
    ]
    folder = base.folder.parent / "report"
    yield lambda: write_report(base.folder, folder, formats=("csv", "parquet", "markdown"))
    yield lambda: printed(history_command, [base.folder, base.other], folder / "history")


def resumed(base: Base) -> None:
    """What a resumed run reads before it measures."""
    run = store.open_run(base.folder)
    _, cells, _ = session.reopened(run, {})
    try:
        session.unfinished(run, cells)
        condemned(store.read_records(run), cells)
    finally:
        run.close()


def printed(command: Callable[..., None], *arguments: Any, **options: Any) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        command(*arguments, **options)
    if options.get("as_json"):
        strict_json(output.getvalue())
    return output.getvalue()


def strict_json(text: str) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(f"the token {token} in JSON")

    json.loads(text, parse_constant=refuse)


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in TOLD:
            warnings.simplefilter("ignore", category)
        yield


def complaint(base: Base, damage: Damage, number: int) -> str | None:
    """What goes wrong where a damaged run is read; None if it is read, or refused as it must be."""
    try:
        with _strict():
            try:
                frames = base.shared.read()
            except BadInput as error:
                return _misplaced(base, damage, str(error))
            works = [*readings(base, frames), lambda: resumed(base)]
            if number < SHORT:
                works = works[number % SHARE :: SHARE]
            elif random.Random(number).random() < 1 / DRAWN:
                works += drawings(base, frames)
            for work in works:
                try:
                    work()
                except BadInput as error:
                    if fault := _not_one_line(str(error)):
                        return fault
    except Exception as error:  # any at all is a fault
        return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def _misplaced(base: Base, damage: Damage, text: str) -> str | None:
    """Why an error does not say in one line where the damage is."""
    if damage.field == "cells" and "which is not in run.json" in text:
        return _not_one_line(text)  # the records of a cell whose id has changed
    place = f"{base.folder / damage.file}"
    place += f", line {damage.line}: " if damage.line else ""
    if place not in text:
        return f"{place!r} is not in: {text}"
    # A line that is no JSON has no field, and without "record" the fields of a line are unknown.
    known = damage.field in text or "not valid JSON" in text or damage.field == "record"
    return _not_one_line(text) if known else f"{damage.field!r} is not in: {text}"


def _not_one_line(text: str) -> str | None:
    return None if "\n" not in text else f"not one line: {text!r}"


@pytest.mark.parametrize(
    "kind", [long_unless(kind in LACKING, kind) for kind in (*store.kinds.KINDS, "all")]
)
def test_a_run_without_the_records_of_a_kind_is_read(base: Base, kind: str) -> None:
    path = base.folder / "records.jsonl"
    sound = path.read_bytes()
    kept = [record for record in base.records if kind not in ("all", record["record"])]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    path.write_text(text)
    fault = complaint(base, Damage("records.jsonl", text, 0, "", kind), SHORT)
    path.write_bytes(sound)
    assert fault is None


@pytest.mark.parametrize(
    "first",
    [long_unless(number < SHORT, number) for number in range(0, LONG, CHUNK)],
)
def test_a_damaged_run_is_read_or_refused_with_file_line_and_field(base: Base, first: int) -> None:
    paths = {name: base.folder / name for name in ("run.json", "records.jsonl")}
    sound = {name: path.read_bytes() for name, path in paths.items()}
    complaints = {}
    for number in range(first, first + CHUNK):
        damage = damaged(base.description, base.records, number)
        paths[damage.file].write_text(damage.text)
        fault = complaint(base, damage, number)
        paths[damage.file].write_bytes(sound[damage.file])
        if fault:
            complaints[number] = f"{damage.file}, line {damage.line}: {damage.words}: {fault}"
    assert complaints == {}
