"""Explains why one arm is slower: two profiles, joined with the layers of the definition.

An explanation is a JSON file that ``levelfield explain`` writes. The figures are those of processes
that are never timed. The sentences follow from the figures alone.
"""

from __future__ import annotations

import json
import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from levelfield.harness.errors import cause_of, clean
from levelfield.harness.plan.vocabulary import OPERATOR_CATEGORIES
from levelfield.harness.proof.replies import (
    AMOUNT,
    COUNTS,
    FILE_NAME,
    MOST_OPERATORS,
    POSITIVE,
    SHORT_TEXT,
    WHOLE,
    Kind,
    Operator,
    cut,
    list_of,
    object_from,
    object_of,
    optional,
)

FOLDER = "explain"  # of a run, for its explanations
FILE_KIND, FILE_SCHEMA = "levelfield-explanation", 1
FILE_LIMIT_BYTES = 4 << 20
MOST_LAYERS = 2000
SENTENCE_CHARACTERS = 600
# Words of a table, and of a sentence about seconds.
CATEGORY_WORDS = {
    "product": "matrix products",
    "convolution": "convolutions",
    "computation": "other computation",
    "layout": "layout changes",
    "copy": "copies",
    "dispatch": "dispatch",
    "compilation": "compilation",
}
UNATTRIBUTED = "no operator (Python or waiting)"
PRODUCT_CATEGORIES = ("product", "convolution")
SMALL_SHARE = 0.05  # of a step: a smaller gap of two profiles is none to explain
NAMED_SHARE = 0.1  # of the gap: a smaller part of it is not named
NAMED_OPERATORS = 3
DISTURBANCE = 0.01  # of a step; less is not said of a profiler
OTHER_SPEED = 1.25  # times as long or as short as in the run: another machine, or a busy one
LONG_TEXT = Kind(
    "a text", lambda value: isinstance(value, str), lambda value: cut(value, SENTENCE_CHARACTERS)
)
SCHEMA_NUMBER = Kind(f"the number {FILE_SCHEMA}", lambda value: value == FILE_SCHEMA)
KIND_NAME = Kind(f'the text "{FILE_KIND}"', lambda value: value == FILE_KIND)


@dataclass(frozen=True)
class ExplainedArm:
    """An arm in a process that is never timed, and what the run says of it."""

    arm: Annotated[str, SHORT_TEXT, "framework[@version]:mode"]
    version: Annotated[str, SHORT_TEXT, "version that the framework reports"]
    steps: Annotated[int, WHOLE, "steps of a slice"]
    plain_seconds: Annotated[float, POSITIVE, "seconds per step without the profiler"]
    profiled_seconds: Annotated[
        float | None, optional(POSITIVE), "seconds per step under it; null without a profiler"
    ]
    published_seconds: Annotated[
        float | None, optional(POSITIVE), "seconds per step that the run reports: a median"
    ]
    published_low: Annotated[float | None, optional(AMOUNT), "lower end of its interval"]
    published_high: Annotated[float | None, optional(AMOUNT), "upper end of its interval"]
    profiler: Annotated[str | None, optional(SHORT_TEXT), "the profiler's name; null for none"]
    trace: Annotated[
        str | None, optional(FILE_NAME), "file next to this one that ui.perfetto.dev opens"
    ]
    counts: Annotated[
        Mapping[str, int],
        COUNTS,
        "what compilation did before the profiled steps: graph breaks, recompilations, traces",
    ]
    new_counts: Annotated[Mapping[str, int], COUNTS, "what it did in the profiled steps"]
    operators: Annotated[
        tuple[Operator, ...],
        list_of(object_of(Operator)),
        "per step: name, within (its caller or its source), category, calls, seconds",
    ]

    def seconds_of(self, category: str) -> float:
        """Seconds per step of a category, or of :data:`UNATTRIBUTED`."""
        if category == UNATTRIBUTED:
            return max((self.profiled_seconds or 0.0) - self.attributed_seconds, 0.0)
        return sum(one.seconds for one in self.operators if one.category == category)

    @property
    def attributed_seconds(self) -> float:
        """Seconds per step that the profiler attributes to operators."""
        return sum(one.seconds for one in self.operators)

    @property
    def step_seconds(self) -> float:
        """Seconds per step without the profiler: those of the run where it has any."""
        return self.published_seconds or self.plain_seconds


@dataclass(frozen=True)
class ExplainedLayer:
    """A layer of the definition and its matrix operations in a step."""

    name: Annotated[str, SHORT_TEXT, "name of the layer in the definition"]
    kind: Annotated[str, SHORT_TEXT, "product or convolution"]
    operations: Annotated[int, WHOLE, "floating-point operations of a step"]


@dataclass(frozen=True)
class Explanation:
    """Why one of two arms is slower in a comparison."""

    kind: Annotated[str, KIND_NAME, "levelfield-explanation"]
    schema: Annotated[int, SCHEMA_NUMBER, "number of this schema"]
    created: Annotated[str, SHORT_TEXT, "when it was made, ISO 8601"]
    run: Annotated[str, SHORT_TEXT, "id of the run"]
    comparison: Annotated[str, SHORT_TEXT, "id of the comparison in the run"]
    title: Annotated[str, SHORT_TEXT, "model, preset and phase of the comparison"]
    details: Annotated[str, SHORT_TEXT, "batch, threads, numeric mode and device"]
    product_per_second: Annotated[
        float | None,
        optional(POSITIVE),
        "best rate of a matrix product on the machine of the run, operations per second",
    ]
    notes: Annotated[tuple[str, ...], list_of(LONG_TEXT), "what differs from the run"]
    sentences: Annotated[
        tuple[str, ...], list_of(LONG_TEXT), "the three sentences; computed again when read"
    ]
    arms: Annotated[
        tuple[ExplainedArm, ...], list_of(object_of(ExplainedArm)), "the two arms, as asked for"
    ]
    layers: Annotated[
        tuple[ExplainedLayer, ...],
        list_of(object_of(ExplainedLayer)),
        "layers of the definition that have matrix operations",
    ]

    @property
    def slower(self) -> ExplainedArm:
        """The arm with the longer step without a profiler."""
        return max(self.arms, key=lambda one: one.step_seconds)

    @property
    def faster(self) -> ExplainedArm:
        """The other arm."""
        return min(reversed(self.arms), key=lambda one: one.step_seconds)

    @property
    def operations(self) -> int:
        """Matrix operations of a step."""
        return sum(layer.operations for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file, with the sentences."""
        return {**asdict(self), "sentences": sentences(self)}


class UnreadableExplanation(UserWarning):
    """A file of an explanation cannot be read and is left out; the message says why."""


def explanations(run_folder: Path | str) -> list[Explanation]:
    """Return the explanations in a run's folder, in the order of their files' names.

    Warns with UnreadableExplanation for each file that is left out.
    """
    folder = Path(run_folder, FOLDER)
    read = []
    for path in sorted(folder.glob("explanation-*.json")) if folder.is_dir() else ():
        try:
            read.append(read_explanation(path))
        except (OSError, ValueError, RecursionError) as error:
            words = clean(f"left out: {path}: {cause_of(error)}")
            warnings.warn(words, UnreadableExplanation, stacklevel=2)
    return read


def read_explanation(path: Path) -> Explanation:
    """Return the explanation in a file. Raises OSError, or ValueError for foreign content."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no plain file")
        text = file.read(FILE_LIMIT_BYTES + 1)
    if len(text) > FILE_LIMIT_BYTES:
        raise ValueError(f"it has more than {FILE_LIMIT_BYTES} bytes")
    read = object_from(Explanation, json.loads(text))
    if len(read.arms) != 2 or len(read.layers) > MOST_LAYERS:
        raise ValueError(f"it has {len(read.arms)} arms and {len(read.layers)} layers")
    if any(len(one.operators) > MOST_OPERATORS for one in read.arms):
        raise ValueError(f"an arm has more than {MOST_OPERATORS} operators")
    return read


# ---- tables ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CategoryRow:
    """A row of the table by category: seconds per step of the slower and of the faster arm.

    Seconds are None for an arm without a profile.
    """

    name: str
    slower: float | None
    faster: float | None


def by_category(explanation: Explanation) -> list[CategoryRow]:
    """Return the categories in which an arm spends time, what no operator has, and the step."""
    both = (explanation.slower, explanation.faster)
    rows = []
    for category in (*OPERATOR_CATEGORIES, UNATTRIBUTED):
        seconds = [one.seconds_of(category) if one.profiled_seconds else None for one in both]
        if any(seconds):
            rows.append(CategoryRow(CATEGORY_WORDS.get(category, category), *seconds))
    return [*rows, CategoryRow("profiled step", *(one.profiled_seconds for one in both))]


@dataclass(frozen=True)
class KindRow:
    """Matrix operations of one kind in a step, and the seconds of both arms in such operators."""

    name: str
    operations: int
    slower: float | None
    faster: float | None


def by_kind(explanation: Explanation) -> list[KindRow]:
    """Join the layers of the definition with the operators of both arms, by kind.

    Profilers do not know the layers. A convolution that an arm computes as a product counts as a
    convolution in the definition and as a product in the arm.
    """
    both = (explanation.slower, explanation.faster)
    rows = []
    for kind in PRODUCT_CATEGORIES:
        operations = sum(one.operations for one in explanation.layers if one.kind == kind)
        seconds = [one.seconds_of(kind) or None for one in both]
        if operations or any(seconds):
            rows.append(KindRow(CATEGORY_WORDS[kind], operations, *seconds))
    return rows


def product_rate(explanation: Explanation, one: ExplainedArm) -> float | None:
    """Return the operations per second of an arm in its products and convolutions."""
    seconds = sum(map(one.seconds_of, PRODUCT_CATEGORIES))
    return explanation.operations / seconds if seconds else None


@dataclass(frozen=True)
class ReportSection:
    """An explanation as a report shows it: texts of one line each, which are not escaped."""

    title: str
    sentences: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def section(explanation: Explanation) -> ReportSection:
    """Return the sentences and the table by category, whose figures are milliseconds per step."""
    slower, faster = explanation.slower, explanation.faster
    rows = []
    for row in by_category(explanation):
        known = row.slower is not None and row.faster is not None
        gap = (row.slower or 0.0) - (row.faster or 0.0) if known else None
        cells = (row.slower, row.faster, gap)
        texts = ("-" if value is None else figure(1000 * value) for value in cells)
        rows.append((row.name, *texts))
    return ReportSection(
        title=f"Why {slower.arm} is slower than {faster.arm}: {explanation.title}",
        sentences=sentences(explanation),
        columns=("time goes to", f"{slower.arm} (ms)", f"{faster.arm} (ms)", "gap (ms)"),
        rows=tuple(rows),
        notes=explanation.notes,
    )


# ---- sentences ---------------------------------------------------------------------------------


def sentences(explanation: Explanation) -> tuple[str, str, str]:
    """Return three sentences: where the gap is, in which operators, and what is not known."""
    if any(one.profiled_seconds is None for one in explanation.arms):
        first = _without_profile(explanation)
    else:
        first = _where(explanation)
    return first, _operators(explanation), _unknown(explanation)


def _without_profile(explanation: Explanation) -> str:
    slower, faster = explanation.slower, explanation.faster
    lacking = [one.arm for one in explanation.arms if one.profiled_seconds is None]
    verb = "offers" if len(lacking) == 1 else "offer"
    return (
        f"The adapter of {' and '.join(lacking)} {verb} no profiler, so that only whole steps can"
        f" be compared: {milliseconds(slower.step_seconds)} of {slower.arm} and"
        f" {milliseconds(faster.step_seconds)} of {faster.arm}."
    )


def _where(explanation: Explanation) -> str:
    slower, faster = explanation.slower, explanation.faster
    plain, other_plain = slower.plain_seconds, faster.plain_seconds
    if other_plain - plain > SMALL_SHARE * other_plain:
        return (
            f"In the run {slower.arm} is the slower arm, and here its step without a profiler is"
            f" the shorter one ({milliseconds(plain)}; {faster.arm}: {milliseconds(other_plain)}),"
            " so that this profile does not explain the gap."
        )
    whole, other = slower.profiled_seconds or 0.0, faster.profiled_seconds or 0.0
    gap = whole - other
    steps = f"{milliseconds(whole)} of {slower.arm} and {milliseconds(other)} of {faster.arm}"
    if abs(gap) < SMALL_SHARE * max(whole, other):
        return f"The profiled steps hardly differ ({steps}): this profile shows no gap to explain."
    if gap < 0:
        return (
            f"Under the profilers {slower.arm}, the slower arm, has the shorter step ({steps}), so"
            " that this profile does not explain the gap."
        )
    parts = {
        category: slower.seconds_of(category) - faster.seconds_of(category)
        for category in (*OPERATOR_CATEGORIES, UNATTRIBUTED)
    }
    longer = sorted(parts.items(), key=lambda part: -part[1])
    named = [part for part in longer if part[1] >= NAMED_SHARE * gap] or longer[:1]
    saved = [part for part in reversed(longer) if part[1] <= -NAMED_SHARE * gap]
    text = (
        f"A profiled step of {slower.arm} takes {milliseconds(gap)} longer than one of"
        f" {faster.arm} ({steps}): {_listed([_part(part, gap) for part in named])}"
    )
    if saved:
        less = _listed([f"{milliseconds(-n)} less in {_word(c)}" for c, n in saved])
        text += f", and {less}"
    return text + "."


def _word(category: str) -> str:
    return CATEGORY_WORDS.get(category, category)


def _part(part: tuple[str, float], gap: float) -> str:
    category, seconds = part
    return (
        f"{milliseconds(seconds)} more in {_word(category)} ({percent(seconds / gap)} of the gap)"
    )


def _operators(explanation: Explanation) -> str:
    parts = []
    for one in (explanation.slower, explanation.faster):
        longest = sorted(one.operators, key=lambda row: -row.seconds)
        longest = longest[: NAMED_OPERATORS if one is explanation.slower else NAMED_OPERATORS - 1]
        if longest:
            parts.append(f"of {one.arm} {_listed([_operator(row) for row in longest])}")
    text = "No operator is known"
    if parts:
        text = f"By their seconds per step, the longest operators are: {'; '.join(parts)}"
    rates = [
        f"{figure(rate / 1e9)} ({one.arm})"
        for one in (explanation.slower, explanation.faster)
        if (rate := product_rate(explanation, one))
    ]
    if explanation.operations and rates:
        text += (
            f"; the products of the definition, {figure(explanation.operations / 1e6)} MFLOP a"
            f" step, run at {_listed(rates)} GFLOP/s"
        )
    return text + "."


def _operator(row: Operator) -> str:
    place = f"in {row.within}; " if row.within else ""
    times = f"{figure(row.calls)} call{'' if row.calls == 1 else 's'}"
    return f"{row.name} ({place}{milliseconds(row.seconds)}, {times})"


def _unknown(explanation: Explanation) -> str:
    both, parts = (explanation.slower, explanation.faster), []
    for one in both:
        whole = one.profiled_seconds
        if whole is None:
            continue
        parts.append(
            f"the profiler of {one.arm} attributes {percent(one.attributed_seconds / whole)} of"
            f" the step to operators and {_disturbance(whole / one.plain_seconds - 1)}"
        )
    for one in both:
        ratio = one.plain_seconds / (one.published_seconds or one.plain_seconds)
        if not 1 / OTHER_SPEED < ratio < OTHER_SPEED:
            parts.append(
                f"without a profiler {one.arm} takes {figure(ratio)} times as long here as in the"
                " run"
            )
    counted = [f"{one.arm} {_counts(one)}" for one in both if one.counts]
    if counted:
        parts.append(f"compilation: {', '.join(counted)}")
    else:
        parts.append("neither arm reports any compilation")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


def _disturbance(share: float) -> str:
    if share < DISTURBANCE:
        return "does not make it noticeably longer"
    return f"makes it {percent(share)} longer"


def _counts(one: ExplainedArm) -> str:
    counts = _listed([f"{name}: {count}" for name, count in one.counts.items()])
    new = [f"{name}: {count}" for name, count in one.new_counts.items() if count]
    return f"reports {counts} before the profiled steps and {_listed(new or ['none'])} in them"


def _listed(words: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def figure(value: float) -> str:
    """Return a number in three significant digits, large ones without a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds with their unit."""
    return f"{figure(seconds * 1000)} ms"


def percent(share: float) -> str:
    """Return a share as a percentage in whole numbers."""
    return f"{100 * share:.0f} %"
