"""Charts over several arms: their data are what was recorded, and every arm has its name."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy
import pandas
import pytest
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from levelfield.harness.analysis.comparisons import Comparison, comparisons_of
from levelfield.harness.analysis.summary import summary
from levelfield.harness.errors import BadInput
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.report import (
    CHARTS,
    charts_of,
    colours,
    curves,
    drawn,
    matrices,
    plot,
    series,
)
from levelfield.reference.errors import UnknownName
from tests.support.reports import ARMS, frames_of, texts
from tests.support.synthetic import write_run

Swept = tuple[Frames, list[Comparison]]
KINDS = ("break-even", "roofline", "heat", "profile")


def heat(frames: Frames) -> pandas.DataFrame:
    return series.heat_data(frames, comparisons_of(frames))


def test_ratios_are_to_the_fastest_and_failures_have_none(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong"}, speed={"jax:jit": 0.5})
    table = summary(frames)
    table = table[~table["arm"].str.endswith("#2")]
    data = heat(frames)
    assert len(data) == len(table)
    for name, part in data.groupby("comparison"):
        mine = table[(table["phase"] == ("inference" if "inference" in name else "training"))]
        seconds = mine[mine["status"] == "ok"].set_index("arm")["step_seconds"]
        ratios = part.set_index("arm")["ratio"].dropna()
        assert ratios.min() == 1
        assert dict(ratios) == pytest.approx(dict(seconds / seconds.min()))
    (failed,) = data[data["status"] == "wrong"].to_dict("records")
    assert numpy.isnan(failed["ratio"])


def test_a_smoke_run_ranks_nobody(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, level="smoke", blocks=1)
    assert heat(frames).empty
    assert series.profile_data(frames, comparisons_of(frames)).empty


def test_a_mean_of_fewer_comparisons_stands_behind(tmp_path: Path) -> None:
    """An arm must not lead because it failed where it would have been slow."""
    frames = frames_of(tmp_path, statuses={2: "failed"}, speed={ARMS[1]: 0.5})
    data = heat(frames)
    assert data.loc[data["status"] == "failed", "arm"].tolist() == [ARMS[1]]
    means = series.geometric_means(data)
    assert means.index[-1] == ARMS[1]
    last = means.iloc[-1]
    assert (last["measured"], last["planned"]) == (1, 2)
    for arm, mean in means["geometric_mean"].items():
        ratios = data.loc[data["arm"] == arm, "ratio"].dropna()
        assert mean == pytest.approx(ratios.prod() ** (1 / len(ratios)))


def test_a_profile_counts_failures_against_the_arm(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "failed"})
    data = series.profile_data(frames, comparisons_of(frames))
    assert data.groupby("arm")["share"].max()[ARMS[1]] == 0.5
    others = data[data["arm"] != ARMS[1]].groupby("arm")["share"].max()
    assert (others == 1).all()
    for _, part in data.groupby("arm"):
        assert part["factor"].is_monotonic_increasing and part["share"].is_monotonic_increasing


def test_the_roofline_is_the_sessions_own(tmp_path: Path) -> None:
    frames = load("results/example")
    data = series.roofline_data(frames, comparisons_of(frames))
    assert len(data) == 24
    best = frames.ceilings.groupby("what")["per_second"].max()
    assert set(data["ceiling_operations"]) == {best["matrix product"]}
    assert set(data["ceiling_bytes"]) == {best["copy"]}
    roof = numpy.minimum(
        data["operations_per_byte"] * data["ceiling_bytes"], data["ceiling_operations"]
    )
    assert (data["operations_per_second"] < 1.05 * roof).all()


def test_scaling_needs_something_swept(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    assert series.scaling_data(frames, comparisons_of(frames)).empty
    assert "scaling" not in charts_of(frames, comparisons_of(frames))
    small = comparisons_of(frames)[0]
    large = replace(small, rows=small.rows.assign(batch=4 * small.rows["batch"]))
    data = series.scaling_data(frames, [small, large])
    assert len(data) == 2 * len(ARMS)
    assert set(data["size"]) == set(small.rows["batch"]) | set(large.rows["batch"])
    assert set(data["sweep"]) == {"mlp/small inference, threads: 2; by batch"}
    shown = [text.get_text() for text in texts(curves.scaling_chart(frames, [small, large]))]
    assert all(shown.count(arm) == 1 for arm in ARMS)


def test_epochs_without_the_record_of_their_training_are_not_drawn(tmp_path: Path) -> None:
    """A run may be cut off between the two. How many steps an epoch has is then unknown."""
    frames = frames_of(tmp_path)
    first = frames.accuracy["cell"].iloc[0]
    kept = frames.accuracy[frames.accuracy["cell"] != first]
    frames = replace(frames, accuracy=kept)
    assert first in set(frames.epochs["cell"])
    data = series.learning_data(frames, comparisons_of(frames))
    assert len(data) and data["seconds"].notna().all()
    lost = frames.cells.loc[frames.cells["cell"] == first, "arm"].iloc[0]
    assert lost not in set(data["arm"])


def test_learning_is_shown_by_epoch_and_by_time(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={1: "failed"})
    comparisons = comparisons_of(frames)
    data = series.learning_data(frames, comparisons)
    learned = summary(frames).query("phase == 'training' and status == 'ok'")
    learned = learned[~learned["arm"].str.endswith("#2")]
    assert sorted(set(data["arm"])) == sorted(learned["arm"])
    for row in learned.to_dict("records"):
        mine = data[data["arm"] == row["arm"]]
        assert list(mine["epoch"]) == [1, 2, 3]
        assert mine["test_accuracy"].iloc[-1] == row["test_accuracy"]
        whole = row["startup_seconds"] + 400 * row["step_seconds"]
        assert mine["seconds"].iloc[-1] == pytest.approx(whole)
    shown = [text.get_text() for text in texts(curves.learning_chart(frames, comparisons))]
    assert all(shown.count(arm) == 2 for arm in learned["arm"])


def test_the_seeds_of_an_arm_are_a_line_and_a_band(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, blocks=1)
    again = frames.epochs.assign(seed=2, test_accuracy=frames.epochs["test_accuracy"] / 2)
    frames = replace(frames, epochs=pandas.concat([frames.epochs, again]))
    for axes in curves.learning_chart(frames, comparisons_of(frames)).axes:
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
        assert len(lines) == len(axes.collections) == len(ARMS)
        for line, band in zip(lines, axes.collections, strict=True):
            heights = band.get_paths()[0].vertices[:, 1]
            assert heights.max() == pytest.approx(max(line.get_ydata()))
            assert heights.min() == pytest.approx(min(line.get_ydata()) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_arm_has_its_name(tmp_path: Path, kind: str) -> None:
    frames = load("results/example")
    shown = [text.get_text() for text in texts(CHARTS[kind].draw(frames, comparisons_of(frames)))]
    panels = {"break-even": 4, "roofline": 1, "heat": 1, "profile": 1}[kind]
    for arm in set(frames.cells["arm"]) - {"reference:jax#2"}:
        assert shown.count(arm) == panels


@pytest.mark.parametrize("kind", [*KINDS, "scaling", "learning"])
def test_nothing_to_show_is_said(tmp_path: Path, kind: str) -> None:
    frames = frames_of(tmp_path, statuses=dict.fromkeys(range(20), "failed"))
    figure = CHARTS[kind].draw(frames, comparisons_of(frames))
    assert isinstance(figure, Figure)
    shown = " ".join(text.get_text() for text in texts(figure))
    assert "no data" in shown


def test_names_keep_apart_where_arms_are_many(tmp_path: Path) -> None:
    arms = tuple(f"framework{number}:mode" for number in range(24))
    frames = frames_of(tmp_path, arms=arms, blocks=2, rounds=2)
    figure = CHARTS["break-even"].draw(frames, comparisons_of(frames))
    for axes in figure.axes:
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
        assert len(boxes) == 24
        for below, above in pairwise(boxes):
            assert above.y0 > below.y0 + 0.7 * below.height


def test_of_many_arms_the_first_are_in_colour_and_all_others_grey(tmp_path: Path) -> None:
    arms = tuple(f"framework{number}:mode" for number in range(24))
    frames = frames_of(tmp_path, arms=arms, blocks=2, rounds=2)
    (comparison, *_) = comparisons_of(frames)
    (axes,) = curves.break_even_chart(frames, [comparison]).axes
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    grey = [line for line in lines if line.get_linewidth() < 1]
    assert (len(lines), len(grey)) == (24, 21)
    assert len({line.get_color() for line in grey}) == 1
    names = [line.get_gid() for line in lines if line not in grey]
    assert names == [f"arm {arm}" for arm in comparison.rows["arm"][:3]]


@pytest.mark.parametrize("count", [6, 24])
def test_arms_to_highlight_are_in_colour_and_all_others_grey(tmp_path: Path, count: int) -> None:
    arms = tuple(f"framework{number}:mode" for number in range(count))
    frames = frames_of(tmp_path, arms=arms, blocks=2, rounds=2)
    comparisons = comparisons_of(frames)[:1]
    chosen = {arms[-1], arms[2]}
    (axes,) = drawn("break-even", frames, comparisons, highlight=[*chosen]).axes
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    tones = {line.get_gid().removeprefix("arm "): line.get_color() for line in lines}
    assert tones.keys() == set(arms)
    assert {arm for arm in arms if tones[arm] != curves._PALE} == chosen
    assert all(tones[arm] == colours.colour(arm.partition(":")[0]) for arm in chosen)
    thick = {line.get_gid().removeprefix("arm ") for line in lines if line.get_linewidth() > 1}
    assert thick == chosen


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A run and its comparisons, one of which has larger batches too."""
    frames = frames_of(tmp_path_factory.mktemp("swept"), memory_processes=2)
    comparisons = comparisons_of(frames)
    small = comparisons[0]
    large = replace(small, rows=small.rows.assign(batch=4 * small.rows["batch"]))
    return frames, [*comparisons, large]


def coloured(figure: Figure) -> set[str]:
    """The arms that a figure shows in a colour, by what is drawn for each arm."""
    arms = set()
    for artist in figure.findobj():
        if isinstance(artist, Line2D):
            tones = to_rgba_array(artist.get_color())
        elif isinstance(artist, Patch | Collection):
            both = artist.get_facecolor(), artist.get_edgecolor()
            tones = numpy.vstack([to_rgba_array(one) for one in both])
        else:
            continue
        seen = tones[tones[:, 3] > 0, :3]
        if numpy.ptp(seen, axis=1).max(initial=0) > 0.01:
            arms.add(artist.get_gid())
    return {name.removeprefix("arm ") for name in arms if name is not None}


@pytest.mark.parametrize("kind", [name for name, chart in CHARTS.items() if chart.highlights])
def test_every_chart_of_arms_can_highlight(swept: Swept, kind: str) -> None:
    plain = coloured(drawn(kind, *swept))
    assert {"jax:jit", "torch:eager", "keras:jax"} <= plain
    assert coloured(drawn(kind, *swept, highlight="jax:*, torch:eager")) == {
        "jax:jit",
        "torch:eager",
    }


def test_what_cannot_be_highlighted_is_refused_in_one_line(swept: Swept, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown arm 'jax:jitt' in these runs; did you"):
        drawn("ratio", *swept, highlight=["torch:eager,jax:jitt"])
    with pytest.raises(
        BadInput, match=r"chart 'heat' has no colours of arms .*break-even"
    ) as refused:
        drawn("heat", *swept, highlight="jax:jit")
    assert "\n" not in str(refused.value)
    run = write_run(tmp_path, arms=ARMS, models=("mlp",))
    with pytest.raises(UnknownName, match="unknown arm 'jax' in these runs; did you mean"):
        plot("ratio", [run], tmp_path / "out", highlight=["jax"])
    assert not (tmp_path / "out").exists()


def test_a_chart_without_data_is_refused_in_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",))
    with pytest.raises(BadInput, match=r"'scaling': these runs have no data for it.*heat"):
        plot("scaling", [run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_front_has_the_arms_that_none_beats_in_both(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    data = series.pareto_data(frames, comparisons_of(frames))
    for _, part in data.groupby("comparison"):
        for row in part.to_dict("records"):
            better = part[
                (part["step_seconds"] <= row["step_seconds"])
                & (part["peak_bytes"] <= row["peak_bytes"])
                & (part["arm"] != row["arm"])
            ]
            assert row["on_front"] is better.empty


def test_the_matrix_has_the_status_of_every_cell(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong", 4: "unsupported"})
    comparisons = comparisons_of(frames)
    words = [text.get_text() for text in texts(matrices.status_chart(frames, comparisons))]
    assert (words.count("wrong"), words.count("unsup.")) == (1, 1)
    assert words.count("ok") == 2 * len(ARMS) - 2


def test_plot_writes_both_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",))
    paths = plot("heat", [run], tmp_path / "out")
    assert [path.name for path in paths] == ["heat.png", "heat.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    with pytest.raises(UnknownName, match="profile"):
        plot("pie", [run], tmp_path)
