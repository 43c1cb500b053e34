"""Tables: every arm shows, no number of an arm that is not ok does, no text is an order."""

from __future__ import annotations

import dataclasses
import json
import re
from io import StringIO
from pathlib import Path

import pandas
import pytest
from markdown_it import MarkdownIt

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.summary import summary
from levelfield.harness.cli.report import show_table
from levelfield.harness.cli.terminal import terminal
from levelfield.harness.errors import clean
from levelfield.harness.records.frames import Frames, load
from levelfield.harness.records.store import STATUSES
from levelfield.harness.report import tables as report_tables
from levelfield.harness.report import write_report
from levelfield.harness.report.charts import ratio_chart
from levelfield.harness.report.findings import SMOKE, UNMEASURED, findings
from levelfield.harness.report.provenance import provenance
from levelfield.harness.report.tables import ComparisonTable, markdown
from levelfield.harness.report.text import escape, significant
from tests.support.reports import ARMS, frames_of
from tests.support.synthetic import write_run

HOSTILE = (
    "a|b\nc <script>alert(1)</script> ![x](http://e) `q` **b** \\| [r]: h \x1b[31m \u202e& $e$"
)


def comparison_tables(frames: Frames) -> list[ComparisonTable]:
    return report_tables.comparison_tables(frames, comparisons_of(frames))


def with_reason(frames: Frames, cell: int, status: str, reason: str) -> Frames:
    cells = frames.cells.copy()
    cells.loc[cell, ["status", "reason"]] = [status, reason]
    return dataclasses.replace(frames, cells=cells)


def texts_of(table: ComparisonTable) -> dict[str, dict[str, str]]:
    return {row["arm"]: row for row in table.cells.to_dict("records")}


def html(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


# -- tables -----------------------------------------------------------------------------------


def test_one_table_per_comparison_and_the_fastest_first(tmp_path: Path) -> None:
    speed = {arm: float(10 - place) for place, arm in enumerate(ARMS)}
    tables = comparison_tables(frames_of(tmp_path, speed=speed, models=("mlp", "lenet")))
    assert [table.title.split(",")[0] for table in tables] == [
        "mlp/small inference",
        "mlp/small training with adam",
        "lenet/small inference",
        "lenet/small training with adam",
    ]
    for table in tables:
        assert tuple(table.cells["arm"]) == ARMS[::-1]
        assert table.below[0] == "6 of 6 arms ok."
        assert table.below[1].startswith("Fastest set (throughput): flax:jit; 0 of 15 pairs")
        assert table.notes == ()
        assert table.cells["verdict"].tolist() == ["fastest set", *["slower"] * 5]


def test_a_smoke_run_has_no_verdicts_and_the_order_of_the_plan(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, level="smoke", blocks=1)
    for table in comparison_tables(frames):
        assert tuple(table.cells["arm"]) == ARMS
        assert SMOKE in table.below
        assert table.pairs.empty
        assert not {"verdict", "ratio to first"} & set(table.cells)


def test_a_comparison_that_no_block_reached_is_no_smoke_run(tmp_path: Path) -> None:
    """A cap may end before the second comparison."""
    unreached = dict.fromkeys(range(len(ARMS) + 1, 2 * len(ARMS) + 2), "timeout")
    frames = frames_of(tmp_path, models=("mlp", "lenet"), phases=("inference",), statuses=unreached)
    first, second = comparison_tables(frames)
    assert UNMEASURED in second.below
    assert not {SMOKE, UNMEASURED} & set(first.below)
    assert SMOKE not in second.below


def test_ratios_stand_with_their_interval_and_hold_the_truth(tmp_path: Path) -> None:
    speed = {arm: 1.0 + 0.2 * place for place, arm in enumerate(ARMS)}
    table = comparison_tables(frames_of(tmp_path, speed=speed, phases=("inference",)))[0]
    rows = texts_of(table)
    assert rows["torch:eager"]["ratio to first"] == "1"
    for place, arm in enumerate(ARMS[1:], 1):
        ratio, low, high = map(float, re.findall(r"[\d.]+", rows[arm]["ratio to first"]))
        assert low < ratio < high
        assert low < 1 + 0.2 * place < high


def test_ties_share_the_fastest_set(tmp_path: Path) -> None:
    speed = dict.fromkeys(ARMS, 1.0)
    table = comparison_tables(frames_of(tmp_path, speed=speed, phases=("inference",), blocks=16))[0]
    assert table.below[1].count(":") > 5  # all of them are named
    words = set(table.cells["verdict"].tolist()[1:])
    assert all(word.startswith("fastest set, ") for word in words)


def test_the_error_bar_and_the_noise_stand_below(tmp_path: Path) -> None:
    loud = [(block, index) for block in (1, 2) for index in range(3)]
    table = comparison_tables(frames_of(tmp_path, phases=("inference",), loud=loud))[0]
    bar = next(line for line in table.below if line.startswith("A/A: "))
    assert re.match(
        r"A/A: torch:eager against itself [\d.]+ ± [\d.]+%; margin [\d.]+%; 6 blocks", bar
    )
    assert "17% of the rounds disturbed (foreign load 6)" in bar
    assert "audit" not in bar  # one audit has no interval
    assert any(line.startswith("Noise: foreign load") for line in table.below)
    assert "torch:eager#2" not in set(table.cells["arm"])


def test_audits_stand_below_with_their_interval(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, phases=("inference",), blocks=13, level="standard")
    frames.slices.loc[frames.slices["block"] > 9, "residency"] = "audit"
    table = comparison_tables(frames)[0]
    bar = next(line for line in table.below if line.startswith("A/A: "))
    assert re.search(
        r"in 5 audit blocks, each arm alone, \S+ against \S+ is off by [+-][\d.]+%"
        r" \[[+-][\d.]+%, [+-][\d.]+%\], more than any other pair",
        bar,
    )


def test_waiting_for_a_core_is_a_column_and_blames_no_arm(tmp_path: Path) -> None:
    loaded = frames_of(tmp_path, phases=("inference",))
    slices = loaded.slices.assign(wait_seconds=0.48 * loaded.slices["seconds"])
    loaded = dataclasses.replace(loaded, slices=slices)
    (table,) = comparison_tables(loaded)
    assert {row["waited for a core (%)"] for row in texts_of(table).values()} == {"48"}
    assert not [line for line in table.below if "waited" in line]


def test_noise_alone_voids_nothing(tmp_path: Path) -> None:
    loud = [(block, index) for block in range(1, 8) for index in range(3)]
    table = comparison_tables(frames_of(tmp_path, phases=("inference",), loud=loud))[0]
    assert any("50% of the rounds disturbed (foreign load 18)" in line for line in table.below)
    assert table.below[1].startswith("Fastest set (throughput): jax:jit")


def test_break_even_is_told_of_arms_that_start_faster(tmp_path: Path) -> None:
    table = comparison_tables(frames_of(tmp_path, phases=("inference",)))[0]
    rows = texts_of(table)
    assert rows["jax:jit"]["ratio to first"][:2] in ("1", "1.")  # compiles: torch is ahead at first
    words = rows["torch:eager"]["break-even with first (steps)"]
    assert re.fullmatch(r"faster up to [\d,]+ \[[\d,]+, [\d,]+\]", words)
    assert rows[table.cells["arm"][0]]["break-even with first (steps)"] == "-"


@pytest.mark.parametrize(
    ("times", "share", "shown"), [(9.0, 0.02, True), (9.0, 0.5, False), (1.5, 0.02, False)]
)
def test_a_surprisingly_slow_arm_is_told_how_little_is_arithmetic(
    tmp_path: Path, times: float, share: float, shown: bool
) -> None:
    frames = load(write_run(tmp_path, arms=("jax:jit", "flax:jit"), models=("mlp",)))
    comparison = comparisons_of(frames)[0]
    seconds = {"jax:jit": 1e-3, "flax:jit": 1e-3 * times}
    rows = comparison.rows.assign(
        step_seconds=comparison.rows["arm"].map(seconds), roofline_share=share
    )
    lines = [
        text
        for text in findings(frames, dataclasses.replace(comparison, rows=rows))
        if "arithmetic" in text
    ]
    assert bool(lines) is shown
    start = "flax:jit: its step takes 9.0 times as long as the fastest"
    assert all(text.startswith(start) for text in lines)
    assert all("would take 0.180 ms of its 9.00 ms" in text for text in lines)
    assert all("nnx.jit traverses the object graph" in text for text in lines)


@pytest.mark.parametrize(
    ("arm", "model", "noted"),
    [("torch:eager", "lstm", True), ("torch:eager", "mlp", False), ("jax:jit", "lstm", False)],
)
def test_a_way_of_writing_a_model_that_costs_time_is_noted_below_its_number(
    tmp_path: Path, arm: str, model: str, noted: bool
) -> None:
    frames = load(write_run(tmp_path, arms=(arm,), models=(model,), statuses={}))
    lines = [
        text
        for text in findings(frames, comparisons_of(frames)[0])
        if "pack_padded_sequence" in text
    ]
    assert [text.startswith(f"{arm}: it packs sequences") for text in lines] == [True] * noted


def test_an_arm_without_a_number_has_no_note(tmp_path: Path) -> None:
    frames = load(write_run(tmp_path, arms=("torch:eager",), models=("lstm",), statuses={}))
    comparison = comparisons_of(frames)[0]
    failed = dataclasses.replace(comparison, rows=comparison.rows.assign(status="failed"))
    assert not [text for text in findings(frames, failed) if "pack_padded_sequence" in text]


def test_a_loose_gate_is_told_once_for_all_arms(tmp_path: Path) -> None:
    frames = load(write_run(tmp_path, models=("mlp",)))
    comparison = comparisons_of(frames)[0]
    assert not [line for line in findings(frames, comparison) if "gate was loose" in line]
    rows = comparison.rows.assign(loose="trained up to 0.67")
    lines = [*findings(frames, dataclasses.replace(comparison, rows=rows))]
    notes = [line for line in lines if "gate was loose" in line]
    assert len(rows) > 1
    assert len(notes) == 1
    assert "trained up to 0.67" in notes[0]


def test_two_blocks_make_a_report_whose_intervals_say_nothing(tmp_path: Path) -> None:
    """As of a run that was interrupted early: an interval's end may be 0 to the machine."""
    run = write_run(tmp_path, models=("mlp",), blocks=2, statuses={}, twin=False)
    frames = load(run)
    judged = comparisons_of(frames)[0].judged["throughput"]
    pairs = judged.verdicts.pairs
    assert min(pair.low for pair in pairs) < 0.3
    wide = [dataclasses.replace(pair, low=0.0, high=1e300) for pair in pairs]
    for pair in wide:
        assert pair.turned().low == pytest.approx(1e-300) and pair.turned().high == float("inf")
    verdicts = dataclasses.replace(judged.verdicts, pairs=tuple(wide))
    comparison = comparisons_of(frames)[0]
    comparison = dataclasses.replace(
        comparison, judged={"throughput": dataclasses.replace(judged, verdicts=verdicts)}
    )
    shown = markdown(report_tables.comparison_tables(frames, [comparison]))
    assert "[0.000, out of range]" in shown.replace("\\", "")
    assert max(map(len, shown.split())) < 120
    ratio_chart(frames, [comparison]).canvas.draw()
    assert write_report([run], tmp_path / "report", formats=("markdown", "charts", "html"))


def test_differences_from_what_was_asked_are_told(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, phases=("inference",))
    processes = frames.processes.copy()
    processes.loc[processes["arm"] == "jax:jit", "describe"] = '{"threads": 7, "device": "<b>"}'
    table = comparison_tables(dataclasses.replace(frames, processes=processes))[0]
    assert "jax:jit: asked for threads 2, it reports 7" in table.below
    assert "jax:jit: asked for device cpu, it reports <b>" in table.below


def test_cells_show_what_was_measured_in_three_digits(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    row = summary(frames).iloc[0]
    shown = texts_of(comparison_tables(frames)[0])["torch:eager"]
    step, low, high = map(float, re.findall(r"[\d.]+", shown["step (ms)"]))
    assert step == pytest.approx(row["step_seconds"] * 1e3, rel=5e-3)
    assert low <= step <= high
    p50, p95, p99 = map(float, shown["latency p50 / p95 / p99 (ms)"].split(" / "))
    assert p50 <= p95 <= p99
    assert int(shown["examples/s"].replace(",", "")) == pytest.approx(
        row["examples_per_second"], rel=5e-3
    )
    assert float(shown["peak (MiB)"]) == pytest.approx(row["peak_bytes"] / 2**20, rel=5e-3)
    assert float(shown["output error"]) == pytest.approx(row["output_error"], rel=0.05)
    texts = {name: text for name, text in shown.items() if name not in ("arm", "ratio to first")}
    for name, text in texts.items():
        for number in re.findall(r"[\d.,]+(?:e-?\d+)?", text):
            digits = number.split("e")[0].replace(",", "").replace(".", "").lstrip("0")
            assert len(digits.rstrip("0")) <= 3, (name, text)


def test_accuracy_is_a_column_where_something_was_learned(tmp_path: Path) -> None:
    inference, training = comparison_tables(frames_of(tmp_path))
    assert "test accuracy (%)" not in inference.cells
    assert all(95 < float(text) < 98 for text in training.cells["test accuracy (%)"])


@pytest.mark.parametrize("status", [*STATUSES[1:], "unfinished"])
def test_an_arm_that_is_not_ok_shows_its_status_and_reason_and_no_number(
    tmp_path: Path, status: str
) -> None:
    frames = frames_of(tmp_path, statuses={2: status})
    table = comparison_tables(frames)[0]
    row = texts_of(table)["jax:jit"]
    assert row.pop("status") == f"{status} (1)"
    row.pop("arm")
    row.pop("output error")  # of a wrong arm the error is the finding
    assert set(row.values()) == {"-"}
    assert table.below[0] == "5 of 6 arms ok."
    reason = frames.cells["reason"][2] or "interrupted, or not yet run"
    assert table.notes == (clean(f"jax:jit {status}: {reason}"),)


def test_a_reason_names_the_log_of_its_process(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "failed"})
    frames.cells.loc[2, "log"] = "0003-jax_jit.log"
    (note,) = comparison_tables(frames)[0].notes
    assert note.endswith(" (log: logs/0003-jax_jit.log)")


def test_times_recorded_of_an_arm_that_failed_later_stay_out(tmp_path: Path) -> None:
    frames = with_reason(frames_of(tmp_path), 2, "failed", "died while learning")
    assert summary(frames)["first_step_seconds"].notna()[2]
    row = texts_of(comparison_tables(frames)[0])["jax:jit"]
    assert row["step (ms)"] == row["verdict"] == row["start-up (s)"] == row["peak (MiB)"] == "-"


def test_every_reason_is_listed_also_those_of_ok_arms(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={9: "failed", 10: "timeout"})
    memory, accuracy = frames.memory.copy(), frames.accuracy.copy()
    at = memory["cell"] == "c0008"
    memory.loc[at, "peak_bytes"] = pandas.NA
    memory.loc[at, "reason"] = "timeout: too slow to weigh"
    accuracy["test_accuracy"] = float("nan")
    accuracy["reason"] = "the data do not fit the model"
    frames = dataclasses.replace(frames, memory=memory, accuracy=accuracy)
    table = comparison_tables(frames)[1]
    rows = texts_of(table)
    assert sorted(note.split(":")[0] for note in table.notes) == [
        *("jax", "peak", "tensorflow", "test accuracy")
    ]
    for arm, column, note in (
        ("torch:eager", "peak (MiB)", "peak: timeout: too slow to weigh"),
        ("flax:jit", "test accuracy (%)", "test accuracy: the data do not fit the model"),
    ):
        assert rows[arm][column] == f"- ({table.notes.index(note) + 1})"


def test_an_arm_without_latency_shows_a_dash_there_only(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, latency_steps=0)
    for row in texts_of(comparison_tables(frames)[0]).values():
        assert row["latency p50 / p95 / p99 (ms)"] == "-"
        assert float(row["step (ms)"].split()[0]) > 0


def test_two_runs_make_two_tables_that_name_their_run(tmp_path: Path) -> None:
    for name in ("first", "second"):
        frames_of(tmp_path, name=name, phases=("inference",))
    titles = [table.title for table in comparison_tables(load(tmp_path))]
    assert len(titles) == 2
    assert titles[0].endswith("run first") and titles[1].endswith("run second")


# -- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1234.5, "1,230"),
        (987654321, "988,000,000"),
        (0.04, "0.0400"),
        (0.00123456, "0.00123"),
        (0.0000123456, "1.23e-05"),
        (-1.2345, "-1.23"),
        (0, "0"),
        (float("inf"), "inf"),
        (float("nan"), "-"),
        (pandas.NA, "-"),
        (None, "-"),
    ],
)
def test_significant(number: object, text: str) -> None:
    assert significant(number) == text


def test_a_hostile_reason_is_shown_and_does_nothing(tmp_path: Path) -> None:
    frames = with_reason(frames_of(tmp_path, level="smoke"), 0, "failed", HOSTILE)
    page = html(markdown(comparison_tables(frames)))
    assert not re.findall(r"<(script|img|a|code|strong|em)\b", page)
    assert page.count("<table>") == 2
    item = re.search(r"<ol>\n<li>(.*?)</li>", page, re.DOTALL)
    assert item
    shown = item[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert shown == clean(f"torch:eager failed: {HOSTILE}")
    assert "\x1b" not in page and "\u202e" not in page


def test_a_hostile_name_stays_in_its_cell(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, phases=("inference",), level="smoke")
    cells = frames.cells.copy()
    cells.loc[0, "arm"] = HOSTILE
    text = markdown(comparison_tables(dataclasses.replace(frames, cells=cells)))
    page = html(text)
    assert page.count("<tr>") == 1 + len(ARMS)
    widths = {row.count("<td") for row in page.split("<tr>")[2:]}
    assert widths == {page.count("<th ") + page.count("<th>")}
    assert "<script" not in page


@pytest.mark.parametrize("text", ["a|b", "a\\|b", "a\\\\|b", "|", "\\", "a\r\nb", "<b>", "&lt;"])
def test_escape_survives_a_table(text: str) -> None:
    page = html(f"| x | y |\n| --- | --- |\n| {escape(text)} | end |\n")
    cells = re.findall(r"<td>(.*?)</td>", page)
    shown = cells[0].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert (shown, cells[1:]) == (clean(text), ["end"])


def test_a_terminal_shows_the_same_and_takes_no_orders(tmp_path: Path) -> None:
    quiet = frames_of(tmp_path, level="smoke")
    frames = with_reason(quiet, 0, "failed", f"[bold]kept[/bold] {HOSTILE}")
    frames.cells.loc[3, "arm"] = "[red]arm[/red]"
    table = comparison_tables(frames)[0]
    console = terminal()
    console.file, console.width = StringIO(), 200
    show_table(table, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[bold]kept[/bold]" in shown and "\x1b" not in shown and "5 of 6 arms ok" in shown
    for arm, row in texts_of(table).items():
        assert arm in shown and row["step (ms)"] in shown


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_terminal_breaks_no_number(tmp_path: Path, width: int) -> None:
    table = comparison_tables(frames_of(tmp_path, statuses={9: "no-environment"}))[1]
    console = terminal()
    console.file, console.width = StringIO(), width
    show_table(table, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    for arm, row in texts_of(table).items():
        own = "  ".join(line for line in lines if line.startswith(f"{arm}  "))
        assert all(f"  {text}  " in f"  {own}  " for name, text in row.items() if name != "arm")


def test_provenance_tells_machine_seed_and_what_each_arm_read_back(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, seed=41, statuses={6: "no-environment", 13: "unwritten"})
    processes = frames.processes.copy()
    hostile = json.dumps({"version": "9.8.7", "threads": 3, "tf32": False, "note": "<i>|x"})
    processes.loc[processes["arm"] == "jax:jit", "describe"] = hostile
    text = provenance(dataclasses.replace(frames, processes=processes))
    for fact in ("seed: 41", "2026-01-02", "Example 9000", "memory: 8.00 GiB", "0.0.0+synthetic"):
        assert fact in text
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert set(ARMS) <= lines.keys()
    assert "9.8.7" in lines["jax:jit"] and "tf32 no, note &lt;i&gt;\\|x" in lines["jax:jit"]
    assert "no process was started" in lines["flax:jit"]
    assert "/environments" not in text


def test_what_seeds_part_is_said_of_every_arm(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, phases=("training",))
    one = comparisons_of(frames)[0]
    learned = frames.accuracy[frames.accuracy["comparison"] == one.id]
    arms = list(dict.fromkeys(learned["arm"]))
    assert len(arms) > 1
    first, second = arms[:2]
    rows = learned.drop_duplicates("arm").set_index("arm", drop=False)

    def told(other: float) -> list[str]:
        more = [
            {**rows.loc[first].to_dict(), "seed": seed, "test_accuracy": value}
            for seed, value in ((0, 0.90), (1, 0.92), (2, 0.91))
        ]
        more.append({**rows.loc[second].to_dict(), "seed": 0, "test_accuracy": other})
        changed = dataclasses.replace(frames, accuracy=pandas.DataFrame(more))
        return [line for line in findings(changed, one) if "test accuracies" in line]

    (near,) = told(0.915)
    assert near.startswith(f"{first}: 3 test accuracies from 3 seeds lie within 2.0%")
    assert near.endswith("no arm is farther from it")
    (far,) = told(0.925)
    assert far.endswith(f"farther from it: {second}")
