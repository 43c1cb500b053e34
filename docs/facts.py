"""Read anew what the Python Package Index tells of the frameworks, into their facts.toml.

For maintainers, by hand: ``python docs/facts.py``. It is the only thing here that reads a page of
the network. It writes licence, platforms, pythons, released, releases and, of what was released
within the year, maintenance, all of the version that env.toml pins; other facts stay. Sources: the
index's JSON interface (https://docs.pypi.org/api/json/), wheel tags (PEP 425).
"""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import UTC, date, datetime, timedelta
from typing import Any

import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from levelfield.harness.plan.arms import Framework, frameworks

TODAY = datetime.now(UTC).date()
YEAR = timedelta(days=365)
# What is peculiar to packages of the index: that which speaks for one that is pinned, that whose
# wheels hold what is compiled, and versions of which later ones are another framework.
ALIASES = {"tensorflow-cpu": "tensorflow"}
WHEELS = {"jax": "jaxlib"}
BELOW = {"keras2": Version("2.4")}
LICENCES = {
    **dict.fromkeys(("MIT", "MIT License"), "MIT"),
    **dict.fromkeys(("BSD-3-Clause",), "BSD-3-Clause"),
    **dict.fromkeys(
        ("Apache-2.0", "Apache 2.0", "Apache License 2.0", "Apache Software License"), "Apache-2.0"
    ),
}
SYSTEMS = {"linux": "linux", "macosx": "macos", "win": "windows"}
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "arm64"}


def package_of(framework: Framework) -> str | None:
    """Name and version of the framework's own package: the first pinned one that has its name.

    None where pip does not bring it.
    """
    own = framework.name.rstrip("0123456789")  # keras2 is a Keras
    for mode in framework.modes.values():
        for text in mode.environment.requirements:
            if own in canonicalize_name(Requirement(text).name):
                return text
    return None


def asked(name: str) -> dict[str, Any]:
    """What the index tells of a package and all of its versions."""
    # A minute of silence is no slow answer any more, and someone is waiting at a terminal.
    with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/json", timeout=60) as reply:
        return json.load(reply)


def tags(files: list[str]) -> tuple[list[str], list[str]]:
    """(platforms, CPython versions) of wheels; "any" is every platform."""
    platforms, pythons = set(), set()
    for name in files:
        if not name.endswith(".whl"):
            continue
        python, abi, platform = name[:-4].split("-")[-3:]
        for platform_tag in platform.split("."):
            platforms |= {"any"} if platform_tag == "any" else platforms_of(platform_tag)
        for python_tag in python.split("."):
            if (match := re.fullmatch(r"cp3(\d+)", python_tag)) and abi != "abi3":
                pythons.add(f"3.{match[1]}")
    return sorted(platforms), sorted(pythons, key=Version)


def platforms_of(tag: str) -> set[str]:
    """Of one platform tag, as system-machine."""
    system = next((name for start, name in SYSTEMS.items() if start in tag), None)
    if system is None:
        return set()
    if tag.endswith("universal2"):
        return {"macos-arm64", "macos-x86_64"}
    return {f"{system}-{name}" for end, name in MACHINES.items() if tag.endswith(end)}


def licence_of(info: dict[str, Any]) -> str:
    """Its SPDX identifier, where the index tells a single one."""
    classifiers = [
        classifier for classifier in info["classifiers"] if classifier.startswith("License ::")
    ]
    names = (info.get("license_expression"), info["license"], *classifiers)
    words = [(name or "").strip().rpartition(":: ")[2] for name in names]
    return next((LICENCES[word] for word in words if word in LICENCES), "")


def told(requirement: str, below: Version | None) -> dict[str, tuple[Any, str]]:
    """key -> (value, source) of a pinned package."""
    parsed = Requirement(requirement)
    (pin,) = parsed.specifier
    name = ALIASES.get(parsed.name, parsed.name)
    own, wheels = asked(name), asked(WHEELS.get(name, name))["releases"][pin.version]
    dates = {
        Version(version): min(file["upload_time"] for file in files)[:10]
        for version, files in own["releases"].items()
        if files and not Version(version).is_prerelease
    }
    dates = {version: day for version, day in dates.items() if not below or version < below}
    platforms, pythons = tags([wheel["filename"] for wheel in wheels])
    asks = [wheel["requires_python"] for wheel in wheels if wheel["requires_python"]]
    info = {"license": "", "classifiers": []} if below else own["info"]
    named = [
        match[1]
        for classifier in info["classifiers"]
        if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
    ]
    # An old source distribution's ">=3.4" was written before what it would break on.
    pythons = pythons or (asks[:1] if platforms == ["any"] else sorted(named, key=Version))
    page = f"https://pypi.org/project/{WHEELS.get(name, name)}/{pin.version}/"
    history = f"https://pypi.org/project/{name}/#history"
    recent = sum(date.fromisoformat(day) > TODAY - YEAR for day in dates.values())
    facts = {
        "licence": (licence_of(info), f"https://pypi.org/project/{name}/"),
        "platforms": (platforms, page),
        "pythons": (pythons, page),
        "released": (date.fromisoformat(max(dates.values())), history),
        "releases": (recent, history),
        "maintenance": ("active" if recent else "", history),
    }
    return {key: fact for key, fact in facts.items() if fact[0] not in ("", [])}


def main() -> None:
    """Write what was read."""
    for framework in frameworks().values():
        requirement = package_of(framework)
        path = framework.folder / "facts.toml"
        document = tomlkit.parse(path.read_text()) if path.exists() else tomlkit.document()
        for key, (value, source) in (
            told(requirement, BELOW.get(framework.name)).items() if requirement else ()
        ):
            table = tomlkit.table()
            table.update({"value": value, "source": source, "date": TODAY})
            document[key] = table
        if document:
            path.write_text(tomlkit.dumps(document))
            print(path)


if __name__ == "__main__":
    main()
