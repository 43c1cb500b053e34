"""The outcome of a gate: its checks, each with an error and a tolerance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One check. ``error`` is infinite if the two sides cannot be compared at all."""

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN never passes."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Outcome:
    """All checks of one cell."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether there is a check and every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """The first failed check, which is the most basic one, and how many more failed."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return ""
        first, rest = failed[0], len(failed) - 1
        cause = first.note or f"error {first.error:.2g}, tolerance {first.tolerance:.0e}"
        return f"{first.name}: {cause}" + (f" (and {rest} more)" if rest else "")

    def worst(self, *prefixes: str) -> float:
        """The largest error among checks whose name begins so; NaN without any."""
        errors = [check.error for check in self.checks if check.name.startswith(prefixes)]
        return max(errors) if errors else float("nan")

    def to_json(self) -> list[dict[str, Any]]:
        """Return the checks for the store."""
        return [{**asdict(check), "passed": check.passed} for check in self.checks]
