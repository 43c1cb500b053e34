"""The entry points of installed packages, of which any may be damaged."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, EntryPoints, distributions, entry_points
from pathlib import Path

from levelfield.harness.errors import clean

# Python raises a TypeError for a line without "=", and a ValueError for a text that is no UTF-8.
_UNREADABLE = (OSError, ValueError, TypeError)


class UnreadablePackage(UserWarning):
    """The entry points of an installed package cannot be read; the message says which."""


def entries_of(group: str) -> list[EntryPoint]:
    """Return the entry points of a group. A package whose own cannot be read costs a warning."""
    try:
        return [*entry_points(group=group)]
    except _UNREADABLE:  # one such package keeps Python from reading those of all others
        return [entry for own in _of_each_package() for entry in own.select(group=group)]


def _of_each_package() -> Iterator[EntryPoints]:
    packages: dict[str, Distribution] = {}
    for distribution in distributions():  # the first of a name is the one that is imported
        packages.setdefault(package_of(distribution)[0], distribution)
    for name, distribution in packages.items():
        try:
            yield distribution.entry_points
        except _UNREADABLE:
            words = (
                f"the entry points of {name} are left out: its entry_points.txt in"
                f" {_folder_of(distribution)} is no list of NAME = PACKAGE in UTF-8; mend,"
                f" update or uninstall {name}"
            )
            warnings.warn(clean(words), UnreadablePackage, stacklevel=2)


def package_of(distribution: Distribution | None) -> tuple[str, str]:
    """Return (name, version) of an installed package, also of one whose METADATA is damaged."""
    if distribution is None:
        return "an unknown package", "unknown"
    try:
        metadata = distribution.metadata
        known = {key: metadata[key] for key in metadata}
    except (OSError, ValueError):
        known = {}
    name = known.get("Name") or f"a package in {_folder_of(distribution)}"
    return clean(name), clean(known.get("Version") or "unknown")


def _folder_of(distribution: Distribution) -> Path:
    return Path(str(distribution.locate_file(""))).resolve()
