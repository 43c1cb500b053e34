"""Damages one field of a run, as a person who edits its files may do."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HUGE = 10**30
DOUBLE = object()  # the name twice in one object: the second value stands
MISSING = object()
WRONG = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**53, 10**15, HUGE, -HUGE, 0.0, -0.5, 0.5, 1e-300),
    *(1e15, 1e300, float("nan"), float("inf"), float("-inf"), "", "nan", "inf", "3", "ok", "audit"),
    *("latency", "copy", "\x1b[31m\u202e", "two\nlines", "x" * 300, "torch:eager", "c0001", "k009"),
    *([], [[]], [1], [None], ["c0001"], [[0.1], [0.1, 0.2]], {}, {"a": {"b": [1]}}, [{}]),
    *(MISSING, DOUBLE),
)


@dataclass(frozen=True)
class Damage:
    """A damaged file of a run: its whole text, and the line and the field that were damaged."""

    file: str
    text: str
    line: int  # 0 in run.json
    field: str
    words: str


def damaged(description: Mapping[str, Any], records: list[dict[str, Any]], number: int) -> Damage:
    """Return the damage of a number. Every kind of record is as likely as every other."""
    chance = random.Random(number)
    if chance.random() < 0.25:
        content = json.loads(json.dumps(description))
        field, words = _spoil(content, chance)
        return Damage("run.json", _text(content), 0, field, words)
    kind = chance.choice(sorted({record["record"] for record in records}))
    line = chance.choice([at for at, record in enumerate(records) if record["record"] == kind])
    lines = [json.dumps(record) for record in records]
    if chance.random() < 0.05:
        lines.insert(line, lines[line])
        return Damage("records.jsonl", "\n".join(lines) + "\n", line + 2, "", f"{kind} doubled")
    content = json.loads(lines[line])
    field, words = _spoil(content, chance)
    lines[line] = _text(content)
    return Damage("records.jsonl", "\n".join(lines) + "\n", line + 1, field, f"{kind}: {words}")


def _spoil(content: dict[str, Any], chance: random.Random) -> tuple[str, str]:
    """Change one value in place; return its outermost field, and what was done.

    Half of the new values have the type of the old one, for they come further.
    """
    field = chance.choice(sorted(content))
    holder, key, path = content, field, field
    while isinstance(holder[key], dict | list) and holder[key] and chance.random() < 0.8:
        holder = holder[key]
        key = (
            chance.choice(sorted(holder))
            if isinstance(holder, dict)
            else chance.randrange(len(holder))
        )
        path = f"{path}[{key!r}]"
    kinds = (int, float) if type(holder[key]) in (int, float) else (type(holder[key]),)
    of_kind = [value for value in WRONG if type(value) in kinds]
    wrong = chance.choice(of_kind if of_kind and chance.random() < 0.5 else WRONG)
    if wrong is MISSING:
        del holder[key]
        return field, f"{path} is missing"
    if wrong is DOUBLE and isinstance(holder, list):
        holder.append(holder[key])
        return field, f"{path} is there twice"
    if wrong is DOUBLE:
        holder[f"{key}{_TWICE}"] = chance.choice(WRONG[:-2])
        return field, f"{path} is there twice, the second {holder[f'{key}{_TWICE}']!r}"
    holder[key] = wrong
    return field, f"{path} is {str(wrong)[:40]!r}"


_TWICE = " (again)"


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content).replace(_TWICE, "")  # NaN and Infinity as Python writes them
