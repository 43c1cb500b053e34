"""Figures for programs and notebooks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import levelfield
from levelfield.harness.analysis.questions import Runs
from levelfield.reference.errors import UnknownName
from tests.support.reports import texts
from tests.support.synthetic import write_run

ARMS = ("jax:jit", "torch:eager")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    return levelfield.load(write_run(folder, arms=ARMS, statuses={}, models=("mlp", "vae")))


@pytest.mark.parametrize("kind", ["ratio", "heat", "learning"])
def test_every_chart_is_a_figure_that_a_notebook_shows(runs: Runs, kind: str) -> None:
    drawn = levelfield.figure(runs, kind)
    assert isinstance(drawn, Figure)
    image = imread(io.BytesIO(drawn._repr_png_()))  # type: ignore[attr-defined]
    width, height = drawn.get_size_inches() * drawn.dpi
    assert image.shape[:2] == pytest.approx((height, width), abs=1)
    assert np.ptp(image) > 0.5


def test_a_figure_has_the_comparisons_that_are_asked_for(runs: Runs) -> None:
    def titles(**chosen: str) -> set[str]:
        shown = {text.get_text() for text in texts(levelfield.figure(runs, "ratio", **chosen))}
        return {title for title in shown if title.startswith(("mlp/", "vae/"))}

    whole = titles()
    assert len(whole) == 4
    assert titles(model="vae") == {title for title in whole if title.startswith("vae/")}
    assert titles(phase="inference") == {title for title in whole if " inference" in title}
    assert len(titles(model="mlp", phase="training")) == 1


def test_a_figure_of_nothing_is_refused(runs: Runs) -> None:
    with pytest.raises(UnknownName, match="unknown chart 'hat'; did you mean heat"):
        levelfield.figure(runs, "hat")
    words = "no comparison of these runs has the model 'gpt2' and the phase any; runs.cells has"
    with pytest.raises(levelfield.BadInput, match=words):
        levelfield.figure(runs, "heat", model="gpt2")
    with pytest.raises(levelfield.BadInput, match="have no data for the chart scaling; choose"):
        levelfield.figure(runs, "scaling")


def test_a_figure_shows_only_the_arms_to_highlight_in_colour(runs: Runs) -> None:
    def image(*arms: str) -> bytes:
        drawn = levelfield.figure(runs, "ratio", model="mlp", highlight=arms)
        return bytes(drawn._repr_png_())  # type: ignore[attr-defined]

    assert image("jax:*") == image("jax:jit") != image() == image(*ARMS)
    with pytest.raises(UnknownName, match="unknown arm 'torch' in these runs; did you mean torch:"):
        levelfield.figure(runs, "ratio", highlight="jax:jit,torch")


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_backend_and_the_settings_of_the_user_stay(order: str) -> None:
    """Also where Matplotlib is imported after Levelfield has drawn."""
    program = f"""
import os
if {order == "before"}:
    import matplotlib
    matplotlib.rcParams["font.size"] = 21
import levelfield
drawn = levelfield.figure(levelfield.load("results/example"), "memory", model="mlp")
import matplotlib, matplotlib.pyplot
assert os.environ["MPLBACKEND"] == "svg"
assert matplotlib.get_backend() == "svg", matplotlib.get_backend()
assert matplotlib.pyplot.get_fignums() == []
assert matplotlib.rcParams["font.size"] == {21 if order == "before" else 10}
assert type(matplotlib.pyplot.figure().canvas).__name__ == "FigureCanvasSVG"
"""
    root = Path(__file__).parents[2]
    variables = {**os.environ, "MPLBACKEND": "svg"}
    subprocess.run([sys.executable, "-c", program], cwd=root, env=variables, check=True)


def test_drawing_leaves_the_settings_of_this_process(runs: Runs) -> None:
    def settings() -> dict[str, object]:
        # To read the setting of the backend would choose one.
        names = set(matplotlib.rcParams) - {"backend"}
        return {name: matplotlib.rcParams[name] for name in names}

    before, backend = settings(), matplotlib.get_backend(auto_select=False)
    levelfield.figure(runs, "heat")._repr_png_()  # type: ignore[attr-defined]
    assert settings() == before
    assert matplotlib.get_backend(auto_select=False) == backend
