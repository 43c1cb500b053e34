"""Mistakes seeded into copies of adapters: the gate catches all that float32 can show."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest
from typer.testing import CliRunner

from levelfield.harness.cli.application import app
from levelfield.harness.environments import sealed
from levelfield.harness.errors import BadInput
from levelfield.harness.plan.arms import frameworks, get_arm
from levelfield.harness.selftest import mutations, page, proof
from levelfield.harness.selftest.goals import Finding
from levelfield.harness.selftest.mutations import (
    MODES,
    Edit,
    Mistake,
    judged,
    mutated,
    read_mistakes,
)
from tests.support.engine import quiet

PUBLISHED = Path(__file__).parents[2] / "results" / "selftest" / proof.MUTATIONS
EVERY = read_mistakes()
ZOO = read_mistakes(Path(__file__).with_name("zoo_mistakes.toml"))
# One of each group that `make test` has the time for; all run in `make test-long`.
FEW = ("leaky-relu", "late-loss", "nesterov", "epsilon-1e-7", "other-order")


def missed(findings: Sequence[Finding]) -> list[str]:
    return [f"{finding.what}: {finding.figure}" for finding in findings if not finding.met]


def test_the_suite_is_as_large_as_promised() -> None:
    assert len(EVERY) == len({mistake.name for mistake in EVERY}) >= 60
    models = {cell.split()[0] for mistake in EVERY for cell in mistake.cells}
    assert len(models) >= 5
    assert "resnet50/small" in models


@pytest.mark.parametrize("framework", MODES)
def test_every_replacement_fits_the_adapter_of_today(framework: str, tmp_path: Path) -> None:
    for mistake in (*EVERY, *ZOO):
        copy = mutated(framework, mistake.name, mistake.edits[framework], tmp_path)
        for edit in mistake.edits[framework]:
            original = frameworks()[framework].folder / edit.file
            text = (copy.folder / edit.file).read_text(encoding="utf-8")
            assert text != original.read_text(encoding="utf-8")
            ast.parse(text)


@pytest.mark.parametrize(("old", "places"), [("no such text", 0), ("self.logits", 2)])
def test_a_replacement_without_its_one_place_is_refused(
    old: str, places: int, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"mistake 'x': {places} places instead of 1"):
        mutated("torch", "x", [Edit("mlp.py", old, "")], tmp_path)


def test_a_file_that_lists_no_mistakes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mistakes.toml"
    path.write_text('[[mistakes]]\nname = "x"\n')
    with pytest.raises(BadInput, match="no list of mistakes"):
        read_mistakes(path)
    path.unlink()
    with pytest.raises(
        BadInput, match=r"\(FileNotFoundError: No such file or directory\); restore"
    ):
        read_mistakes(path)


def run_with(monkeypatch: pytest.MonkeyPatch, **ends: tuple[str, str]) -> list[Finding]:
    """Judge a run of one mistake and one that float32 cannot show; ``ends``: status and reason."""
    seen = Mistake("seen", "g", "seen", ("mlp/tiny training sgd",), {})
    unseen = Mistake("unseen", "g", "unseen", ("mlp/tiny training sgd",), {}, below="too small")
    common = {"model": "mlp", "preset": "tiny", "phase": "training", "optimizer": "sgd"}
    rows = [
        {"framework": f"torch-{name}", **common, "status": status, "reason": reason}
        for name, (status, reason) in ends.items()
    ]
    runs = pandas.DataFrame({"created": ["2026-11-26"]})
    frames = SimpleNamespace(cells=pandas.DataFrame(rows), runs=runs)
    monkeypatch.setattr(mutations, "load", lambda path: frames)
    return list(judged(Path("run"), [seen, unseen]))


def test_a_caught_mistake_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("wrong", "loss: error 1")
    findings = run_with(monkeypatch, unchanged=("ok", ""), seen=wrong, unseen=("ok", ""))
    assert missed(findings) == []
    assert [finding.figure for finding in findings] == [
        *("1 of 1", "1 of 1"),
        *("torch: loss: error 1", "torch: ok"),
    ]
    assert findings[-1].note == "too small"


@pytest.mark.parametrize(
    ("status", "figure"), [("ok", "torch: ok"), ("failed", "torch: failed: TypeError")]
)
def test_a_mistake_that_passes_or_crashes_is_not_caught(
    monkeypatch: pytest.MonkeyPatch, status: str, figure: str
) -> None:
    end = (status, "TypeError" if status == "failed" else "")
    findings = run_with(monkeypatch, unchanged=("ok", ""), seen=end, unseen=("ok", ""))
    assert [finding.met for finding in findings] == [True, False, False, True]
    assert findings[2].figure == figure


def test_a_crash_is_an_error_below_rounding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, crash = ("wrong", "loss: error 1"), ("failed", "TypeError")
    findings = run_with(monkeypatch, unchanged=("ok", ""), seen=wrong, unseen=crash)
    assert [finding.met for finding in findings] == [True, True, True, False]


def test_a_mistake_that_was_not_run_is_not_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = run_with(monkeypatch, unchanged=("ok", ""), unseen=("ok", ""))
    assert [finding.met for finding in findings] == [True, False, False, True]


def test_a_refused_copy_without_a_mistake_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("wrong", "loss: error 1")
    findings = run_with(monkeypatch, unchanged=wrong, seen=wrong, unseen=("ok", ""))
    assert [finding.met for finding in findings] == [False, True, True, True]


def run_of(folder: Path, mistakes: Sequence[Mistake]) -> list[Finding]:
    for name, mode in MODES.items():
        spec = get_arm(f"{name}:{mode}").mode.environment
        resolution = sealed.resolve(spec, {})
        if resolution.how not in ("sealed", "found"):
            pytest.skip(f"neither sealed nor found: {resolution.reason}")
    run = mutations.run_mutations(folder, quiet, mistakes=mistakes)
    return list(judged(run, mistakes))


ROUNDED = "F.max_pool2d(x, pool, stride=2"
# Mistakes of models that the published run does not have.
POOLING = (
    Mistake(
        "rounds-down",
        "pooling",
        "max pooling rounds down where it has to round up",
        ("googlenet/tiny training sgd",),
        {
            "torch": (Edit("googlenet.py", f"{ROUNDED}, ceil_mode=True)", f"{ROUNDED})"),),
            "jax": (
                Edit(
                    "googlenet.py",
                    "x = max_pool_ceil(x, window=pool, stride=2)",
                    "x = max_pool(x, window=pool, stride=2)",
                ),
            ),
        },
    ),
    Mistake(
        "divisor",
        "pooling",
        "mean pooling divides by the number of pixels over that of windows, not by a window's own",
        ("alexnet/tiny training sgd",),
        {
            "torch": (
                Edit(
                    "alexnet.py",
                    "self.avgpool(x)",
                    "F.avg_pool2d(x, 2, stride=(1, 2), divisor_override=3)",
                ),
            ),
            "jax": (
                Edit("layers.py", ".mean(axis) for part", ".sum(axis) * side / size for part"),
            ),
        },
    ),
    Mistake(
        "flatten-order",
        "pooling",
        "the pooled image is flattened in the other order of channels",
        ("alexnet/tiny training sgd",),
        {
            "torch": (
                Edit(
                    "alexnet.py",
                    "torch.flatten(self.avgpool(x), 1)",
                    "torch.flatten(self.avgpool(x).permute(0, 2, 3, 1), 1)",
                ),
            ),
            "jax": (
                Edit(
                    "alexnet.py",
                    "x.reshape(x.shape[0], -1)",
                    "x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)",
                ),
            ),
        },
    ),
)


@pytest.mark.real
@pytest.mark.long
def test_mistakes_of_pooling_are_caught(tmp_path: Path) -> None:
    assert missed(run_of(tmp_path, POOLING)) == []


@pytest.mark.real
def test_some_mistakes_in_real_adapters_are_caught(tmp_path: Path) -> None:
    assert missed(run_of(tmp_path, [mistake for mistake in EVERY if mistake.name in FEW])) == []


@pytest.mark.real
@pytest.mark.long
def test_every_mistake_in_real_adapters_is_caught(tmp_path: Path) -> None:
    assert missed(run_of(tmp_path, EVERY)) == []


@pytest.mark.real
@pytest.mark.long
def test_every_mistake_in_the_zoo_is_caught(tmp_path: Path) -> None:
    assert len(ZOO) == len({mistake.name for mistake in (*EVERY, *ZOO)}) - len(EVERY)
    assert missed(run_of(tmp_path, ZOO)) == []


def test_the_command_runs_the_mutations_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding(mutations.PART, "caught", "100%", "1 of 1", 1.0, True)]
    monkeypatch.setattr(mutations, "run_mutations", lambda folder, say: folder)
    monkeypatch.setattr(mutations, "judged", lambda run: findings)
    done = CliRunner().invoke(app, ["selftest", "--mutations", "--results", str(tmp_path)])
    assert done.exit_code == 0
    (folder,) = tmp_path.iterdir()
    text = (folder / "measurement.md").read_text(encoding="utf-8")
    assert "## Mistakes seeded into copies of real adapters" in text
    assert "1 of 1 goals are met." in text


def test_the_page_takes_mutations_from_their_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Finding(mutations.PART, "old", "100%", "0 of 1", 0.0, False)
    other = Finding("probe", "other", "100%", "1 of 1", 1.0, True)
    new = Finding(mutations.PART, "new", "100%", "1 of 1", 1.0, True)
    facts = page.ProofFacts("today", "full", {"version": "1"}, None, 2)
    page.write(tmp_path, [old, other], facts)
    monkeypatch.setattr(mutations, "judged", lambda run: [new])
    assert proof.published(tmp_path) == ([other, new], facts)


def test_the_published_run_is_of_the_mistakes_of_today() -> None:
    # The place of a replacement moves with the adapter's code. The mistake stays the same.
    published = read_mistakes(PUBLISHED / mutations.MISTAKES.name)
    assert [replace(mistake, edits={}) for mistake in published] == [
        replace(mistake, edits={}) for mistake in EVERY
    ]
    assert not [finding.what for finding in judged(PUBLISHED) if "not run" in finding.figure]


def test_every_mistake_of_the_published_run_is_caught() -> None:
    assert missed(list(judged(PUBLISHED))) == []
