"""Charts: every arm and every slice, nothing of an arm that is not ok, and texts one can read."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.summary import startups, summary
from levelfield.harness.plan.arms import frameworks
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.report import charts as report_charts
from levelfield.harness.report import colours, series
from levelfield.harness.report.gallery import CHARTS as CHART_DATA
from levelfield.harness.report.panels import LOG_ABOVE, jitter
from levelfield.harness.report.text import significant
from tests.support.reports import ARMS, frames_of, texts
from tests.support.synthetic import write_run

Chart = Callable[[Frames], Figure]


def drawn(name: str) -> Chart:
    def draw(frames: Frames) -> Figure:
        return getattr(report_charts, name)(frames, comparisons_of(frames))

    return draw


step_time_chart, memory_chart = drawn("step_time_chart"), drawn("memory_chart")
startup_chart, ratio_chart = drawn("startup_chart"), drawn("ratio_chart")
time_to_chart = drawn("time_to_chart")
CHARTS = (
    step_time_chart,
    drawn("throughput_chart"),
    memory_chart,
    startup_chart,
    ratio_chart,
)


def stated() -> dict[str, str]:
    """The colours of the built-in frameworks, from their folders."""
    return {
        name: tomllib.loads((framework.folder / "env.toml").read_text("utf-8"))["colour"]
        for name, framework in frameworks().items()
        if framework.package.startswith("levelfield.adapters.")
    }


def test_every_built_in_framework_has_the_colour_of_its_folder() -> None:
    own = stated()
    assert {name: colours.colour(name) for name in own} == own
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for colour in own.values())
    assert len(set(own.values())) == len(own) >= 18


def distance(one: str, other: str) -> float:
    """Of two colours in the RGB cube, whose side is 1."""
    parts = [[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in (one, other)]
    return math.dist(*parts)


def test_a_framework_without_a_colour_gets_a_constant_one_apart_from_those_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = frameworks()
    strange = {f"framework{n}": replace(known["torch"], colour="") for n in range(8)}
    monkeypatch.setattr(colours, "frameworks", lambda: {**known, **strange})
    chosen = {name: colours.colour(name) for name in (*strange, "uninstalled")}
    assert chosen == {name: colours.colour(name) for name in (*strange, "uninstalled")}
    for name, own in chosen.items():
        others = [
            *stated().values(),
            *(colour for other, colour in chosen.items() if other != name),
        ]
        assert min(distance(own, other) for other in others) >= colours.APART
    # A colour that a folder states is kept, and another framework makes way for it.
    first = chosen["framework0"]
    moved = {**known, "new": replace(known["torch"], colour=first), **strange}
    monkeypatch.setattr(colours, "frameworks", lambda: moved)
    assert colours.colour("new") == first
    assert distance(colours.colour("framework0"), first) >= colours.APART


def test_colours_never_run_out() -> None:
    everything = [
        f"#{red:02X}{green:02X}80" for red in range(0, 256, 15) for green in range(0, 256, 15)
    ]
    assert re.fullmatch("#[0-9A-F]{6}", colours.chosen("late", everything))
    assert colours.chosen("late", everything) not in everything


def test_tints_run_from_the_colour_to_white() -> None:
    assert colours.tint("#0072B2", 0) == "#0072B2"
    assert colours.tint("#0072B2", 1) == "#FFFFFF"


@pytest.mark.parametrize("draw", CHARTS)
def test_every_chart_has_every_arm_and_the_status_of_those_without_data(
    tmp_path: Path, draw: Chart
) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong", 4: "no-environment", 9: "timeout"})
    shown = [text.get_text() for text in texts(draw(frames))]
    for arm in ARMS:
        assert shown.count(arm) == 2
    for status in ("wrong", "no-environment", "timeout"):
        assert shown.count(status) == 1
    for title in ("mlp/small inference", "mlp/small training with adam"):
        assert shown.count(title) == 1


def test_every_slice_is_a_dot_and_none_of_an_arm_that_is_not_ok(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={9: "timeout"}, loud=[(1, 0)])
    inference, training = step_time_chart(frames).axes
    scatters = [
        collection for collection in inference.collections if hasattr(collection, "get_sizes")
    ]
    times = sorted(x for scatter in scatters for x, _ in scatter.get_offsets())
    own = frames.slices[
        (frames.slices["phase"] == "inference")
        & (frames.slices["statistic"] == "throughput")
        & (frames.slices["residency"] == "resident")
        & (frames.slices["arm"] != "torch:eager#2")
    ]
    assert times == pytest.approx(sorted(own["step_seconds"] * 1000))
    hollow = [(scatter.get_facecolors()[:, 3] == 0).sum() for scatter in scatters]
    assert hollow == [1] * len(ARMS)
    assert inference.get_ylim() == (5.5, -0.5)  # the first arm is on top
    scatters = [
        collection for collection in training.collections if hasattr(collection, "get_sizes")
    ]
    rows = {round(y) for scatter in scatters for _, y in scatter.get_offsets()}
    assert rows == set(range(5))  # the arm without a number is the last


def test_an_axis_is_logarithmic_only_above_its_range(tmp_path: Path) -> None:
    near = frames_of(tmp_path, name="near", speed={"jax:jit": LOG_ABOVE / 2})
    far = frames_of(tmp_path, name="far", speed={"jax:jit": LOG_ABOVE * 3})
    assert {axes.get_xscale() for axes in step_time_chart(near).axes} == {"linear"}
    assert {axes.get_xlim()[0] for axes in step_time_chart(near).axes} == {0}
    assert {axes.get_xscale() for axes in step_time_chart(far).axes} == {"log"}


def test_memory_bars_end_at_the_highest_peak(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    axes = memory_chart(frames).axes[0]
    peaks = summary(frames).drop_duplicates("arm").set_index("arm")["peak_bytes"]
    highest = []
    for row, label in enumerate(axes.get_yticklabels()):
        ends = [bar.get_x() + bar.get_width() for bar in axes.patches if round(bar.get_y()) == row]
        assert max(ends) == pytest.approx(peaks[label.get_text()] / 2**20)
        highest.append(max(ends))
    assert len(highest) == len(ARMS)
    assert highest == sorted(highest)


def test_the_line_of_memory_goes_from_the_lowest_peak_to_the_highest(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, memory_processes=3)
    assert len(frames.memory) == 3 * len(frames_of(tmp_path, name="single").memory)
    figure = memory_chart(frames)
    (one, *_) = comparisons_of(frames)
    mine = frames.memory[frames.memory["comparison"] == one.id]
    of_process = mine.groupby(["arm", "process"])["peak_bytes"].max() / 2**20
    stages = mine.groupby(["arm", "stage"])["peak_bytes"].median() / 2**20
    expected = {
        arm: (min(peaks), max(peaks), stages[arm].max())
        for arm, peaks in of_process.groupby(level="arm")
    }
    axes, drawn = figure.axes[0], {}
    arms = [label.get_text() for label in axes.get_yticklabels()]
    lines = [path.vertices for part in axes.collections for path in part.get_paths()]
    for (low, height), (high, _) in lines:
        ends = [b.get_x() + b.get_width() for b in axes.patches if round(b.get_y()) == height]
        drawn[arms[round(height)]] = (low, high, max(ends))
    assert drawn == {arm: pytest.approx(expected[arm]) for arm in ARMS}
    assert all(low < middle < high for low, high, middle in drawn.values())
    assert "Median and range of 3 processes." in " ".join(t.get_text() for t in texts(figure))


def test_the_memory_of_one_process_has_no_line(tmp_path: Path) -> None:
    figure = memory_chart(frames_of(tmp_path))
    assert [part for axes in figure.axes for part in axes.collections] == []
    assert "One process per arm." in " ".join(t.get_text() for t in texts(figure))


def test_the_data_of_memory_have_the_ends_of_several_processes(tmp_path: Path) -> None:
    columns = ["arm", "stage", "peak (MiB)"]
    single, three = frames_of(tmp_path), frames_of(tmp_path, name="three", memory_processes=3)
    data = CHART_DATA["memory"].data
    assert [*data(single, comparisons_of(single))] == columns
    table = data(three, comparisons_of(three))
    assert [*table] == [*columns, "lowest peak (MiB)", "highest peak (MiB)"]
    assert len(table) == len(data(single, comparisons_of(single)))
    steady = table[table["stage"] == "first_step"]
    assert (steady["lowest peak (MiB)"] <= steady["peak (MiB)"]).all()
    assert (steady["peak (MiB)"] <= steady["highest peak (MiB)"]).all()


def test_memory_increments() -> None:
    mebibyte = 2**20
    peaks = [30 * mebibyte, None, 350 * mebibyte, 500 * mebibyte, 480 * mebibyte]
    assert report_charts._increments(peaks) == [30, 0, 320, 150, 0]


def test_jitter_stays_in_its_row() -> None:
    heights = [jitter(index) for index in range(1000)]
    assert max(map(abs, heights)) <= 0.22 and len(set(heights)) == 1000


@pytest.mark.parametrize("draw", CHARTS)
def test_no_text_is_cut_or_covers_another(tmp_path: Path, draw: Chart) -> None:
    arms = (*ARMS, "a_third_party_framework:with-a-long-mode", "tensorflow:function")
    speed = {"jax:jit": 90, "keras:jax": 9e3}
    frames = frames_of(
        tmp_path, arms=arms, statuses={3: "no-environment"}, speed=speed, memory_processes=13
    )
    figure = draw(frames)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(boxes) > 40
    for one, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, one
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, one
    for number, (one, first) in enumerate(boxes):
        for other, second in boxes[:number]:
            across = min(first.x1, second.x1) - max(first.x0, second.x0)
            along = min(first.y1, second.y1) - max(first.y0, second.y0)
            assert min(across, along) < 1, (one, other)


def test_bars_are_examples_over_seconds_with_their_interval(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, phases=("training",))
    table = summary(frames).set_index("arm")
    (comparison,) = comparisons_of(frames)
    (axes,) = report_charts.throughput_chart(frames, [comparison]).axes
    bars = [patch.get_width() for patch in axes.patches]
    rows = table.loc[comparison.rows["arm"]]
    assert bars == pytest.approx(list(rows["batch"] / rows["step_seconds"]))
    spans = [path.vertices[:, 0] for line in axes.collections for path in line.get_paths()]
    low, high = rows["batch"] / rows["step_seconds_high"], rows["batch"] / rows["step_seconds_low"]
    for ends in zip(low, high, strict=True):
        assert any(tuple(span) == pytest.approx(ends) for span in spans)


def test_the_line_of_a_start_goes_from_the_shortest_to_the_longest(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    starts = startups(frames)
    starts = starts[starts["block"].notna()].groupby(["run", "cell"])["startup_seconds"]
    (one, *_) = comparisons_of(frames)
    ends = {
        tuple(starts.get_group((one.run, cell)).agg(["min", "max"])) for cell in one.rows["cell"]
    }
    axes = startup_chart(frames).axes[0]
    lines = [path.vertices[:, 0] for part in axes.collections for path in part.get_paths()]
    assert {tuple(line) for line in lines} == ends


def test_an_arm_without_starts_has_no_bar_and_says_so(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    (one, *_) = comparisons_of(frames)
    lost = one.rows["cell"].iloc[0]
    frames = replace(frames, startup=frames.startup[frames.startup["cell"] != lost])
    axes = startup_chart(frames).axes[0]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    assert len(outlines) == len(one.rows) - 1
    assert "not measured" in {text.get_text() for text in axes.texts}


def test_the_bar_of_a_start_ends_at_the_median_that_the_table_shows(tmp_path: Path) -> None:
    """The medians of the stages add up to another figure."""
    frames = frames_of(tmp_path)
    axes = startup_chart(frames).axes[0]
    outlines = [patch.get_width() for patch in axes.patches if not patch.get_fill()]
    medians = comparisons_of(frames)[0].rows["startup_seconds"]
    assert outlines == pytest.approx(sorted(medians))
    table = comparisons_of(frames)[0].rows.set_index("arm")
    shown = {text.get_text().partition(" ")[0] for text in axes.texts}
    assert {significant(seconds) for seconds in table["startup_seconds"]} <= shown


def test_ratios_have_a_logarithmic_axis_and_say_the_level_of_their_intervals(
    tmp_path: Path,
) -> None:
    figure = ratio_chart(frames_of(tmp_path))
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert "%, corrected for the number of pairs" in " ".join(t.get_text() for t in texts(figure))


def test_a_void_panel_says_so(tmp_path: Path) -> None:
    frames = load(write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={}, twin=False))
    titles = [axes.get_title(loc="right") for axes in ratio_chart(frames).axes]
    assert titles == ["void: no ranking"] * 2


def test_the_bars_of_time_end_where_every_arm_has_reached_the_accuracy(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    data = series.time_to_data(frames, comparisons_of(frames))
    assert sorted(set(data["arm"])) == sorted(ARMS)
    goal = data["test_accuracy"].iloc[0]
    assert goal == frames.epochs.groupby("arm")["test_accuracy"].max().min()
    (axes,) = time_to_chart(frames).axes
    assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(sorted(data["seconds"]))
