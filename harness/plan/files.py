"""Reads files that people write: suites, needs, facts and what frameworks say of themselves."""

from __future__ import annotations

import errno
import stat
import tomllib
from pathlib import Path
from typing import Any

NUMBER_BITS = 1024  # what is longer is a mistake, and some of Python refuses to print it


def read_text(path: Path) -> str:
    """Read a text file, which an editor may have begun with a mark.

    Raises OSError, also for a pipe or a device, which may never end, and UnicodeDecodeError.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_text(encoding="utf-8-sig")


def read_toml(text: str) -> dict[str, Any]:
    """Return the tables of a text in TOML. Raises ValueError."""
    try:
        tables = tomllib.loads(text)
        _check_numbers(tables)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # of int(), which takes no thousands of digits
        raise ValueError("one of its numbers has too many digits") from error
    return tables


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_numbers(item)
    elif isinstance(value, int) and value.bit_length() > NUMBER_BITS:
        raise ValueError(value.bit_length())
