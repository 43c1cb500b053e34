"""Formats numbers and foreign texts for terminals and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

import pandas

from levelfield.harness.errors import clean

ABSENT = "-"
_MARKUP = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{mark: f"\\{mark}" for mark in "\\`*_{}[]#|!~$"}}
)


def json_object(text: str) -> dict[str, Any]:
    """The object in a JSON text; empty if the text holds none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def significant(value: Any, digits: int = 3) -> str:
    """A number in so many significant digits, never more: 1234.5 -> "1,230", 0.04 -> "0.0400".

    Very small and very large numbers are powers of ten.
    """
    if pandas.isna(value):
        return ABSENT
    number = float(value)
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    exponent = int(f"{number:.{digits - 1}e}".partition("e")[2])
    if not -digits <= exponent < 13:
        return f"{number:.{digits - 1}e}"
    decimals = digits - 1 - exponent
    return f"{round(number, decimals):,.{max(decimals, 0)}f}"


def milliseconds(seconds: Any) -> str:
    """Seconds as milliseconds in three significant digits."""
    return ABSENT if pandas.isna(seconds) else significant(seconds * 1000)


def mebibytes(size_bytes: Any) -> str:
    """Bytes as MiB in three significant digits."""
    return ABSENT if pandas.isna(size_bytes) else significant(size_bytes / 2**20)


def scientific(value: Any) -> str:
    """A number as a power of ten in two digits."""
    return ABSENT if pandas.isna(value) else f"{float(value):.1e}"


def escape(text: str) -> str:
    """Any text as Markdown that shows it: no markup, no HTML, no way out of a table's cell."""
    return clean(text).translate(_MARKUP)


def markdown_table(cells: pandas.DataFrame, *, left: Collection[str] = ()) -> str:
    """A frame of texts as a Markdown table; the columns in ``left`` are aligned to the left."""
    lines = [
        [escape(str(name)) for name in cells.columns],
        [":---" if name in left else "---:" for name in cells.columns],
        *([escape(str(cell)) for cell in row] for row in cells.itertuples(index=False)),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
