"""Arrays and frames of the right type from recorded values, which may be of any type."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pandas

from levelfield.harness.errors import BadInput
from levelfield.harness.plan.domains import NOT_FINITE
from levelfield.harness.records.columns import COLUMNS
from levelfield.harness.records.kinds import COUNT, COUNT_OR_NA, NUMBER, TEXT, TRUTH

Columns = dict[str, Any]  # by name: sequences of equal length, "owner" being the position

_NONE = type(None)
_TYPES: dict[str, set[type]] = {
    NUMBER: {float, int, str, _NONE},
    TEXT: {str, _NONE},
    COUNT: {int},
    COUNT_OR_NA: {int, _NONE},
    TRUTH: {bool},
}
YES_NO = {True: "yes", False: "no"}


def typed_frame(name: str, columns: Columns, owners: Sequence[str]) -> pandas.DataFrame:
    """Return the frame that ``COLUMNS`` describes; ``owners`` name the positions, for errors."""
    arrays = {}
    for column, (dtype, _) in COLUMNS[name].items():
        values = columns[column]
        if isinstance(values, Sequence):

            def where(row: int, column: str = column) -> str:
                return f"{owners[columns['owner'][row]]}, {name}, {column}"

            values = typed_array(dtype, values, where)
        arrays[column] = values
    return pandas.DataFrame(arrays, copy=False)


def typed_array(dtype: str, values: Sequence[Any], where: Callable[[int], str]) -> Any:
    """Return an array of recorded values. Raises BadInput for one that does not fit the column."""
    types = set(map(type, values))
    if bad_types := types - _TYPES[dtype]:
        row = next(row for row, value in enumerate(values) if type(value) in bad_types)
        raise BadInput(f"{where(row)}: {values[row]!r} is not of type {dtype}")
    try:
        if dtype == NUMBER and str in types:
            values = [NOT_FINITE[v] if type(v) is str else v for v in values]
        if dtype in (NUMBER, COUNT, TRUTH):
            return numpy.array(values, dtype=dtype)
        if dtype == COUNT_OR_NA:
            return pandas.array(values, dtype="Int64")
        return pandas.array([value or "" for value in values], dtype="str")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot
        values = [(value or "").encode("utf-8", "backslashreplace").decode() for value in values]
        return pandas.array(values, dtype="str")
    except (KeyError, OverflowError) as error:
        raise BadInput(f"{where(0)} and below: {error} is not of type {dtype}") from error


def json_text(value: Any) -> str:
    """Return ``value`` as canonical JSON, but a text as itself and null as the empty text."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def json_texts(columns: Columns, *names: str) -> Columns:
    """Return the columns, the named ones as JSON texts."""
    return {**columns, **{name: [json_text(value) for value in columns[name]] for name in names}}
