"""Facts about each run and about the processes that served it."""

from __future__ import annotations

from typing import Any

import pandas

from levelfield.harness.analysis.machines import unlike_machines
from levelfield.harness.machine.describe import NO_LIMIT
from levelfield.harness.records.frames import Frames
from levelfield.harness.report.text import ABSENT, escape, json_object, markdown_table, significant

_COLUMNS = (
    *("arm", "version", "adapter", "Python", "environment", "threads asked", "threads"),
    "read back",
)
_LEFT = ("arm", "version", "adapter", "environment", "read back")


def provenance(frames: Frames) -> str:
    """Provenance as Markdown: date, seed and machine of each run, versions of each arm."""
    parts = ["## Runs and versions"]
    for run in frames.runs.to_dict("records"):
        facts = [f"- {name}: {escape(text)}" for name, text in run_facts(run, frames) if text]
        parts += [f"### Run {escape(run['run'])}", "\n".join(facts)]
        table = pandas.DataFrame(versions(frames, run["run"]), dtype="str")
        parts += [markdown_table(table, left=_LEFT)] if len(table) else []
    return "\n\n".join(parts) + "\n"


def machines_words(frames: Frames) -> list[str]:
    """Say that runs were made on unlike machines, and in what these differ; else nothing."""
    return [
        f"Unlike machines, so no verdict compares an arm of one with an arm of the other: {words}"
        for words in unlike_machines(frames)
    ]


def run_facts(run: dict[Any, Any], frames: Frames) -> list[tuple[str, str]]:
    """Facts on a run and its machine, as names and texts. ``run``: a row of ``frames.runs``."""
    suite, machine = json_object(run["suite"]), json_object(run["machine"])
    memory, limit = machine.get("memory_bytes"), machine.get("memory_limit_bytes")
    quota = machine.get("quota_cores")
    system = [machine.get("system"), machine.get("architecture")]
    seed = run["seed"]
    return [
        ("date", run["created"]),
        ("seed", "" if pandas.isna(seed) else str(seed)),
        ("levelfield", _inline(json_object(run["code_version"]) or run["code_version"])),
        ("suite", ": ".join(str(suite[key]) for key in ("name", "title") if suite.get(key))),
        ("effort per cell", _inline(suite.get("effort"))),
        ("processor", _inline(machine.get("processor"))),
        ("variables of all arms", _inline(suite.get("variables"))),
        ("available cores", _inline(machine.get("cores"))),
        ("cores by quota", "" if quota == NO_LIMIT else _inline(quota)),
        ("measured on", _measured_on(frames, run["run"])),
        ("memory", f"{significant(memory / 2**30)} GiB" if memory else ""),
        (
            "memory by limit",
            f"{significant(limit / 2**30)} GiB" if isinstance(limit, int | float) else "",
        ),
        ("system", " ".join(str(part) for part in system if part)),
        ("hypervisor", _inline(machine.get("hypervisor"))),
    ]


def versions(frames: Frames, run: str) -> list[dict[str, str]]:
    """One row per arm and kind of process that served it; an arm that none served has a row too."""
    rows: list[dict[str, str]] = []
    processes = frames.processes[frames.processes["run"] == run]
    (adapters,) = frames.runs.loc[frames.runs["run"] == run, "adapters"].map(json_object)
    cells = frames.cells[frames.cells["run"] == run].drop_duplicates("arm")
    for arm, framework in zip(cells["arm"], cells["framework"], strict=True):
        adapter = _adapter(adapters.get(framework))
        served = processes[processes["arm"] == arm].to_dict("records")
        for process in served:
            asked, reported = json_object(process["asked"]), json_object(process["describe"])
            reported = {key: value for key, value in reported.items() if value is not None}
            row = {
                "arm": arm,
                "version": _inline(reported.pop("version", None)),
                "adapter": adapter,
                "Python": process["python"],
                "environment": f"{process['how']} {process['lock_hash'][:12]}".strip(),
                "threads asked": _inline(asked.get("threads")),
                "threads": _inline(reported.pop("threads", None)),
                "read back": _inline(reported),
            }
            row = {name: text or ABSENT for name, text in row.items()}
            rows += [row] if row not in rows else []
        if not served:
            empty = dict.fromkeys(_COLUMNS, ABSENT)
            rows.append(
                {**empty, "arm": arm, "adapter": adapter, "read back": "no process was started"}
            )
    return rows


def _measured_on(frames: Frames, run: str) -> str:
    """Say which cores the workers of a run had, and what these cores share."""
    asked = frames.processes.loc[frames.processes["run"] == run, "asked"].map(json_object)
    texts = []
    for process in asked:
        cores = process.get("cores")
        if isinstance(cores, list) and cores:
            remark = f" ({process['remark']})" if process.get("remark") else ""
            texts.append(f"{'core' if len(cores) == 1 else 'cores'} {_inline(cores)}{remark}")
    return "; ".join(dict.fromkeys(texts))


def _adapter(identity: Any) -> str:
    """The adapter that served: its distribution, the distribution's version, its files' hash."""
    if not isinstance(identity, dict):
        return ABSENT
    facts = [str(identity.get(key, ""))[:40] for key in ("distribution", "version")]
    return " ".join(filter(None, (*facts, str(identity.get("hash", ""))[:12]))) or ABSENT


def _inline(value: Any) -> str:
    """A JSON value in one line, without nulls."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_inline(member)}" for key, member in value.items() if member is not None
        )
    if isinstance(value, list):
        return " ".join(_inline(member) for member in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
