"""What the author of an adapter or of a model outside this repository needs."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

import reference
from harness.cli import app
from harness.errors import BadInput
from reference.spec import UnknownName


def typed(*words: str) -> str:
    """Run a command in this process -> what it prints."""
    done = CliRunner().invoke(
        app, words, prog_name="levelfield", env={"COLUMNS": "160"}, catch_exceptions=False
    )
    assert done.exit_code == 0, done
    return done.output


@pytest.mark.parametrize("name", reference.definitions())
def test_a_model_is_listed_with_its_sizes_names_shapes_and_axes(name: str) -> None:
    found = json.loads(typed("list", "models", name, "--preset", "tiny", "--json", "--batch", "3"))
    model = reference.get(name)
    assert found["sizes"] == json.loads(json.dumps(dict(model.sizes("tiny"))))
    assert found["file"] == f"{model.file}.py"
    summary = reference.summarize(model, "tiny", 3)
    for kind in ("inputs", "parameters", "state", "outputs"):
        assert {n: a["shape"] for n, a in found[kind].items()} == {
            spec.name: list(spec.shape) for spec in getattr(summary, kind)
        }
    for array in found["parameters"].values():
        for axis, factors in array["flattened"].items():
            size = array["shape"][array["axes"].index(axis)]
            assert math.prod(factors.values()) == size
    trained = [name for each in found["objectives"] for name in each["trains"]]
    assert sorted(trained) == sorted(found["parameters"])
    assert (found["generation"] is not None) is (model.generation is not None)
    shown = typed("list", "models", name, "--preset", "tiny")
    assert all(word in shown for word in (*found["parameters"], *found["sizes"]))
    assert f"{found['parameter_count']:,} parameters" in shown


def test_a_flattened_axis_is_listed_with_the_axes_that_it_has_come_from() -> None:
    shown = typed("list", "models", "lenet5")
    assert "in (height x width x channel), out" in shown
    assert "shown: small" in shown


def test_only_a_known_model_has_details() -> None:
    with pytest.raises(UnknownName, match="unknown model 'lenett'; did you mean lenet5"):
        typed("list", "models", "lenett")
    with pytest.raises(UnknownName, match="unknown preset 'smal' in model mlp; did you mean small"):
        typed("list", "models", "mlp", "--preset", "smal")
    for words in (("suites", "quick"), ("models", "--preset", "tiny")):
        with pytest.raises(BadInput, match="levelfield list models mlp"):
            typed("list", *words)
