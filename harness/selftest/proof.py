"""Runs all parts of the self-test in order and keeps their results."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from levelfield.harness.machine.describe import code_version, describe_machine
from levelfield.harness.machine.scratch import scratch_folder
from levelfield.harness.records.frames import load
from levelfield.harness.report import write_report
from levelfield.harness.selftest import mutations, page, real, simulation
from levelfield.harness.selftest.goals import Finding, caught
from levelfield.harness.selftest.machinery import Say, run_suite
from levelfield.harness.selftest.overhead import overhead
from levelfield.harness.selftest.probes import probed

QUICK_SESSIONS, FULL_SESSIONS = 1000, 10_000
REAL_RUNS = ("quiet", "planted", "bursts", "sequential")
MUTATIONS = "mutations"


def prove(folder: Path, say: Say, *, full: bool) -> tuple[list[Finding], Path]:
    """Run the proof below ``folder``; only the full proof measures the real machine."""
    say("simulated worlds")
    findings = list(
        simulation.simulated(sessions_per_world=FULL_SESSIONS if full else QUICK_SESSIONS)
    )
    say("overhead of the slice loop")
    findings += overhead()
    findings += probed(folder / "probes", say)
    if full:
        _measure(folder, say)
        findings += judged(folder)
        findings += mutations.judged(folder / MUTATIONS)
    return findings, page.write(folder, findings, _facts("full" if full else "quick"))


def prove_mutations(folder: Path, say: Say) -> tuple[list[Finding], Path]:
    """Run only the part of the full proof that seeds mistakes into copies of real adapters."""
    findings = list(mutations.judged(mutations.run_mutations(folder, say)))
    return findings, page.write(folder, findings, _facts(MUTATIONS))


def published(folder: Path) -> tuple[list[Finding], page.ProofFacts]:
    """Read a published proof, with its mutations judged from the records of their own run.

    That run may be younger than the rest of the proof, because it follows every change of the gate.
    """
    findings, facts = page.read(folder)
    findings = [finding for finding in findings if finding.part != mutations.PART]
    return [*findings, *mutations.judged(folder / MUTATIONS)], facts


def _facts(level: str) -> page.ProofFacts:
    machine = describe_machine()
    return page.ProofFacts(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        level=level,
        code_version=code_version(),
        processor=machine["processor"],
        cores=machine["cores"],
    )


def _measure(folder: Path, say: Say) -> None:
    """Run the sessions on real frameworks, each a run like any other."""
    run_suite(folder, real.copies_suite("quiet"), say)
    run_suite(folder, real.planted_suite(), say)
    with real.bursts(folder):
        run_suite(folder, real.copies_suite("bursts"), say)
    run_suite(folder, real.sequential_suite(), say)
    mutations.run_mutations(folder, say)


def judged(folder: Path) -> Iterator[Finding]:
    """Judge the sessions from their records alone."""
    quiet, slower, noisy, sequential = (load(folder / name) for name in REAL_RUNS)
    yield from real.false_verdicts(quiet, "quiet machine")
    yield from real.false_verdicts(noisy, "a core burnt in bursts")
    yield from real.bursts_seen(noisy, folder / real.BURSTS)
    yield from real.planted_slowdowns(slower)
    yield from real.one_after_the_other(sequential)
    yield from real.judged_by_others(quiet, slower)
    yield recomputed(folder / REAL_RUNS[0])


def judge_again(folder: Path) -> None:
    """Repeat the simulations of a kept proof, and judge its recorded runs by the present rules."""
    findings, facts = page.read(folder)
    probes = [finding for finding in findings if finding.part not in (simulation.PART, real.PART)]
    again = [*simulation.simulated(sessions_per_world=FULL_SESSIONS), *probes, *judged(folder)]
    page.write(
        folder, again, replace(facts, judged=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")
    )


def recomputed(run: Path) -> Finding:
    """Compare two reports that are made from one run, byte by byte."""
    hashes = []
    for _ in range(2):
        with scratch_folder() as folder:
            files = write_report(run, folder, formats=("markdown", "csv"))
            whole = b"".join(path.read_bytes() for path in sorted(files))
            hashes.append(hashlib.sha256(whole).hexdigest())
    words = "identical" if hashes[0] == hashes[1] else "different"
    return caught(real.PART, "report recomputed from raw records", words, "identical")
