"""Prints what commands found as JSON, for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def print_json(found: Any) -> None:
    """Print a value as strict JSON (RFC 8259): a number that is not finite becomes null."""
    print(json.dumps(_strict(found), indent=1, allow_nan=False))


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(each) for key, each in value.items()}
    return [_strict(each) for each in value] if isinstance(value, list | tuple) else value
