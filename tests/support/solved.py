"""What the reference answered once in a session of tests serves all runs that ask it the same.

A run of a misbehaving framework takes a second, and the reference's processes for it take five.
Tests of those processes themselves do not use this.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.machine.resources import memory_limit_bytes, reference_variables
from levelfield.harness.proof.cases import Cases
from levelfield.reference.registry import outside_variables

PRINTED = "printed"  # a file with what the process printed, which is none of its answers


def remember_answers(patch: pytest.MonkeyPatch, kept: Path) -> None:
    """Keep what processes of the reference answer in ``kept``, which several programs may share.

    A question is the same if its arguments, its files, its variables and its limit of memory are.
    A process that fails is started again for each run.
    """
    honest = Cases._reference

    def answered(cases: Cases, task: tuple[Any, ...], *arguments: str) -> str:
        paths = [Path(argument) for argument in arguments if os.path.isabs(argument)]
        folder = paths[-1] if paths[-1].is_dir() else paths[-1].parent  # of all files of the task
        questions = {path.name: _digest(path) for path in sorted(folder.iterdir())}
        names = [argument.replace(str(folder), "") for argument in arguments]
        facts = task, names, questions, reference_variables(), outside_variables()
        limit = memory_limit_bytes(cases.suite.limits.memory_gib)
        answers = kept / hashlib.sha256(json.dumps([facts, limit]).encode()).hexdigest()
        if not answers.exists():
            printed = honest(cases, task, *arguments)
            _keep(printed, folder, questions, answers)
        for path in answers.iterdir():
            if path.name != PRINTED:
                shutil.copyfile(path, folder / path.name)
        return (answers / PRINTED).read_text()

    patch.setattr(Cases, "_reference", answered)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _keep(printed: str, folder: Path, questions: dict[str, str], answers: Path) -> None:
    """All at once, for another program may look for the same answers or write them."""
    own = Path(tempfile.mkdtemp(dir=answers.parent))
    (own / PRINTED).write_text(printed)
    for path in folder.iterdir():
        if path.name not in questions:
            shutil.copyfile(path, own / path.name)
    try:
        own.rename(answers)
    except OSError:  # the other program was first
        shutil.rmtree(own)
