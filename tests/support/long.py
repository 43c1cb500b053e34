"""What ``make test`` leaves out and ``make test-long`` runs.

The arms that the suite tiny leaves out, because a machine may lack what they need: the test command
is the same one everywhere. And, of what takes minutes for all models, those that are not the one
net of its kind.
"""

from __future__ import annotations

from typing import Any

import pytest

NETS = ("mlp", "lenet5", "lstm", "bert")  # one of each kind
QUICK = NETS[:3]  # without the one that takes half a minute where the others take seconds


def long_unless(short: bool, *values: Any) -> Any:
    """A parameter of a test, marked as long."""
    return pytest.param(*values, marks=() if short else pytest.mark.long)
