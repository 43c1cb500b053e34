"""Below every table stands what to type next, and a script gets JSON instead."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from levelfield.harness.cli.advise import _show as show_advice
from levelfield.harness.cli.application import app
from levelfield.harness.cli.check import CheckedCell, _next_step
from levelfield.harness.cli.terminal import TextTable, terminal
from levelfield.harness.records.frames import load
from tests.support.reports import ARMS
from tests.support.sessions import SAME, session
from tests.support.synthetic import write_run


def printed(*arguments: object, columns: int = 200) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("two runs")
    return [
        session(folder, "before", 1),
        session(folder, "after", 2, speed={**SAME, "jax:jit": 0.96}),
    ]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("one run"), arms=ARMS, models=("mlp",), blocks=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("list suites", "next: measure: levelfield run SUITE"),
        ("list models mlp", "next: prove it: levelfield check --models mlp --arms ARM"),
        ("env list", "next: build one: levelfield env build ENVIRONMENT; prove an arm:"),
        ("compare before after", "next: more runs in order: levelfield history; a gate:"),
        ("history before after", "next: two runs in detail: levelfield compare RUN RUN2;"),
        ("report one", "next: which framework to take: levelfield advise "),
    ],
)
def test_a_table_says_what_to_type_next(
    runs: list[Path], one: Path, tmp_path: Path, arguments: str, words: str
) -> None:
    places = {"before": runs[0], "after": runs[1], "one": one}
    typed = [places.get(word, word) for word in arguments.split()]
    typed += ["--format", "latex", "--output", tmp_path] if "report" in arguments else []
    for columns in (200, 40):
        lines = printed(*typed, columns=columns).splitlines()
        assert sum(line.startswith("next: ") for line in lines) == 1
        assert any(line.startswith(words) for line in lines[-2:])  # a report's path comes last


def checked(arm: str, status: str) -> CheckedCell:
    return CheckedCell(
        arm, "mlp", "tiny", "training", "adam", status, None, None, None, None, None, None
    )


@pytest.mark.parametrize(
    ("statuses", "timed", "words"),
    [
        (("ok", "ok"), False, "levelfield check tiny --timed"),
        (("ok", "unwritten"), True, "levelfield run tiny"),
        (("ok", "wrong"), True, "levelfield check --arms b:eager"),
        (("unsupported", "no-environment"), False, "levelfield env build"),
    ],
)
def test_a_check_says_what_follows_from_it(
    statuses: tuple[str, str], timed: bool, words: str
) -> None:
    rows = [
        checked(arm, status) for arm, status in zip(("a:eager", "b:eager"), statuses, strict=True)
    ]
    assert _next_step("tiny", rows, timed=timed).endswith(words)


def test_a_report_for_scripts_has_the_numbers_and_verdicts_of_its_tables(
    one: Path, tmp_path: Path
) -> None:
    text = printed("report", one, "--output", tmp_path, "--format", "latex", "--json")
    document = json.loads(text, parse_constant=pytest.fail)
    assert document["unlike_machines"] == []
    assert document["written"] == [str(tmp_path / "tables.tex")]
    assert len(document["comparisons"]) == 2
    for comparison in document["comparisons"]:
        fine = [arm for arm in comparison["arms"] if arm["status"] == "ok"]
        assert comparison["leader"] == fine[0]["arm"]
        assert all(arm["step_seconds"] > 0 for arm in fine)
        throughput = [v for v in comparison["verdicts"] if v["statistic"] == "throughput"]
        assert len(throughput) == len(fine) * (len(fine) - 1) / 2
    assert (tmp_path / "tables.tex").is_file()


@pytest.mark.parametrize("command", ["compare", "history"])
def test_each_band_of_a_narrow_table_names_its_arms(runs: list[Path], command: str) -> None:
    output = printed(command, *runs, columns=60)
    rows = [line for line in output.splitlines() if re.match(r"(jax|flax):jit ", line)]
    assert len(rows) >= 4  # both arms, in several bands
    assert all(len(line) <= 60 for line in rows)
    assert sum("slower" in row or "faster" in row for row in rows) == 1
    assert output.count("mlp") == 1  # the comparison is a title, once


def test_every_band_begins_with_the_columns_that_name_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    kinds = {"arm": "name", "run": "name", "first": "number", "second": "number"}
    rows = [("a:jit", "one", "1.000000", "2.000000"), ("a:jit", "two", "3.000000", "4.000000")]
    terminal().print(TextTable(kinds, rows, keys=2))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["arm", "run", "first"],
        ["a:jit", "one", "1.000000"],
        ["a:jit", "two", "3.000000"],
        ["arm", "run", "second"],
        ["a:jit", "one", "2.000000"],
        ["a:jit", "two", "4.000000"],
    ]


def test_advice_on_an_ascii_terminal_has_no_other_characters(one: Path) -> None:
    from levelfield.harness.advice.advice import advise
    from levelfield.harness.advice.needs import Need

    class Ascii:
        """A stream of a terminal that shows ASCII alone."""

        encoding = "ascii"
        text = ""

        def write(self, text: str) -> int:
            self.text += text
            return len(text)

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return True

    stream, console = Ascii(), terminal()
    console.file = stream  # type: ignore[assignment]
    show_advice(advise(load(one), Need()), console)
    assert "* " in stream.text
    assert stream.text.isascii()
