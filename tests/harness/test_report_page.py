"""The page in a real browser: it loads without an error, sorts, filters, and runs no foreign text.

Where no Chromium is (Debian's package chromium), what needs one is skipped.
"""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from levelfield.harness.analysis.comparisons import comparisons_of
from levelfield.harness.analysis.explanation import FOLDER, sentences
from levelfield.harness.analysis.summary import summary
from levelfield.harness.records.frames import load
from levelfield.harness.records.store import open_run
from levelfield.harness.report import matrices, write_report
from levelfield.harness.report.page import html
from levelfield.harness.report.text import significant
from tests.support.explained import EXPLANATION
from tests.support.reports import ARMS, frames_of
from tests.support.synthetic import write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
OFFLINE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=60000", "--dump-dom"),
)
HOSTILE = "<script>document.title = 1</script><img src=x onerror='document.title = 2'>"


@dataclass(frozen=True)
class Shown:
    document: str
    console: list[str]
    result: Any


def shown(page: str, folder: Path, script: str = "null") -> Shown:
    """The page as a browser ends with it; ``script`` is an expression evaluated at the end."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; type: apt install chromium")
    ask = f"(async () => {{ document.body.dataset.result = JSON.stringify(await ({script})); }})();"
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{ask}</script></body>"), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *OFFLINE, f"--user-data-dir={folder / 'profile'}", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,  # a browser that hangs must not hang the tests
    )
    (result,) = re.findall(r'data-result="([^"]*)"', done.stdout)
    return Shown(
        document=done.stdout,
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        result=json.loads(markup.unescape(result)),
    )


def printed_pages(page: str, folder: Path) -> int:
    """Number of sheets that a browser prints."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; type: apt install chromium")
    path, sheets = folder / "printed.html", folder / "printed.pdf"
    path.write_text(page, encoding="utf-8")
    options = [option for option in OFFLINE if option != "--dump-dom"]
    options += [f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={sheets}"]
    command = [CHROMIUM, *options, "--no-pdf-header-footer", path.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=240)
    return len(re.findall(rb"/Type\s*/Page\b", sheets.read_bytes()))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    frames = frames_of(tmp_path_factory.mktemp("run"), statuses={2: "wrong", 10: "failed"})
    return html(frames, comparisons_of(frames))


def test_the_page_loads_without_an_error_and_fetches_nothing(page: str, tmp_path: Path) -> None:
    asked = "performance.getEntriesByType('resource').map(each => each.name.slice(0, 5))"
    texts = shown(page, tmp_path, f"[document.title, {asked}]")
    assert texts.console == []
    title, fetched = texts.result
    assert title == "Levelfield: synthetic"
    assert set(fetched) <= {"data:"}


def test_every_address_stays_in_the_page(page: str) -> None:
    assert set(re.findall(r'\b(?:src|href)="([a-z]+:[^;,"]*)', page)) == {"data:"}  # no icon
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets and targets <= set(re.findall(r'id="([^"]+)"', page))
    assert "default-src 'none'" in page


def test_a_click_sorts_by_numbers_and_another_turns_it_round(page: str, tmp_path: Path) -> None:
    column = "step (ms)"
    script = f"""(() => {{
      const table = document.querySelector("#mlp-small-inference table");
      const head = [...table.tHead.rows[0].cells].find(c => c.textContent === "{column}");
      const read = () => [...table.tBodies[0].rows].map(r => r.cells[head.cellIndex].textContent);
      head.firstChild.click(); const up = read(), mark = head.getAttribute("aria-sort");
      head.firstChild.click();
      return [up, mark, read(), head.getAttribute("aria-sort")];
    }})()"""
    up, first, down, second = shown(page, tmp_path, script).result

    def numbers(cells: list[str]) -> list[float]:
        return [float(cell.split()[0]) for cell in cells if cell != "-"]

    assert (first, second) == ("ascending", "descending")
    assert len(up) == len(ARMS) and up[-1] == down[-1] == "-"  # without a number: last both times
    assert numbers(up) == sorted(numbers(up)) and numbers(down) == sorted(numbers(up))[::-1]
    assert len(set(numbers(up))) > 3


def test_the_filter_acts_on_tables_sections_and_charts(page: str, tmp_path: Path) -> None:
    script = """(() => {
      const shown = () => [
        [...document.querySelectorAll("#answer tbody tr")].filter(row => !row.hidden).length,
        [...document.querySelectorAll("#mlp-small-inference tbody tr[data-arm='torch:eager']")]
          .filter(row => !row.hidden).length,
        document.querySelectorAll("#mlp-small-inference svg .out").length,
        document.getElementById("mlp-small-inference").hidden,
        document.querySelector("#answer td[data-arm='torch:eager']").hidden,
      ];
      const press = (kind, value) =>
        document.querySelector(`[data-filter=${kind}][data-value=${value}]`).click();
      const before = shown(); press("framework", "torch"); const without = shown();
      press("phase", "inference"); const training = shown();
      press("framework", "torch"); press("phase", "inference");
      return [before, without, training, shown()];
    })()"""
    before, without, training, after = shown(page, tmp_path, script).result
    assert before == after
    assert before[0] == 2 and before[1] > 3 and before[2:] == [0, False, False]
    assert without[:2] == [2, 0] and without[2] > 3 and without[3:] == [False, True]
    assert training[0] == 1 and training[3] is True


def test_tables_show_the_columns_that_everyone_reads_and_more_on_demand(
    page: str, tmp_path: Path
) -> None:
    script = """(() => {
      const block = document.querySelector("#mlp-small-inference .block");
      const heads = [...block.querySelectorAll("thead th")];
      const count = () => heads.filter(head => head.offsetParent).length;
      const few = count(); block.querySelector("[data-more]").click(); return [few, count()];
    })()"""
    few, whole = shown(page, tmp_path, script).result
    assert few in (7, 8) and whole > few + 5


def test_a_table_is_copied_as_it_is_shown(page: str, tmp_path: Path) -> None:
    script = """(() => {
      const rows = shown(document.querySelector("#answer table"));
      return [formats.markdown(rows), formats.csv(rows)];
    })()"""
    markdown, csv = shown(page, tmp_path, script).result
    assert [line.count("|") for line in markdown.splitlines()] == [len(ARMS) + 3] * 4
    assert csv.splitlines()[0] == ",".join(["comparison", "fastest set", *head_of(page)])


def head_of(page: str) -> list[str]:
    """The arms in the head of the answer's table."""
    return re.findall(r'<th scope="col"[^>]*data-arm="([^"]+)"', page)


def test_a_word_is_explained_where_it_first_stands(page: str) -> None:
    words = re.findall(r'<a class="word" href="#word-([a-z-]+)" title="[^"]+">', page)
    assert {"arm", "cell", "fastest-set"} <= set(words)
    assert len(words) == len(set(words))
    assert page.index('href="#word-arm"') < page.index("<h2")


def test_every_comparison_has_a_name_that_stays(tmp_path: Path) -> None:
    frames = frames_of(tmp_path)
    page = html(frames, comparisons_of(frames))
    for place in ("mlp-small-inference", "mlp-small-training-adam"):
        assert page.count(f'<section id="{place}"') == 1
        assert page.count(f'href="#{place}"') == 3  # contents, answer, itself
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_a_wrong_arm_has_its_explanation_and_the_command_that_shows_it(tmp_path: Path) -> None:
    arms = ("keras:tensorflow", "jax:jit")
    run = write_run(
        *(tmp_path,), arms=arms, models=("neumf",), phases=("training",), statuses={0: "wrong"}
    )
    frames = load(run)
    page = html(frames, comparisons_of(frames))
    assert 'href="#difference-adam-on-repeated-rows"' in page
    assert 'id="difference-adam-on-repeated-rows"' in page
    assert "levelfield check --arms keras:tensorflow --models neumf --preset small" in page


def test_hostile_texts_are_shown_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={2: "failed"})
    records = run / "records.jsonl"
    lines = []
    for line in records.read_text().splitlines():
        record = json.loads(line)
        if record.get("status") == "failed":
            record["reason"] = HOSTILE
        if "describe" in record:
            record["describe"] = {"version": HOSTILE, "blas": HOSTILE}
        lines.append(json.dumps(record))
    records.write_text("\n".join(lines) + "\n")
    frames = load(run)
    assert HOSTILE in set(frames.cells["reason"])
    page = html(frames, comparisons_of(frames))
    assert "<script>document" not in page and "<img src=x" not in page
    assert page.count(markup.escape(HOSTILE).replace("&#x27;", "&#39;"))
    texts = shown(
        page, tmp_path, "[document.title, document.querySelectorAll('img[src=x]').length]"
    )
    assert texts.result == ["Levelfield: synthetic", 0]


def test_names_of_arms_cannot_leave_a_chart(tmp_path: Path) -> None:
    hostile = 'mine:"></text><script>document.title = 1</script>&\uffff'
    arms = ("torch:eager", hostile)
    run = write_run(tmp_path, arms=arms, models=("mlp",), phases=("inference",), statuses={})
    frames = load(run)
    texts = shown(
        html(frames, comparisons_of(frames)),
        tmp_path,
        "[document.title, document.querySelectorAll('svg script').length,"
        " document.querySelectorAll('svg [data-arm]').length > 5]",
    )
    assert (texts.result, texts.console) == (["Levelfield: synthetic", 0, True], [])


def test_the_summary_says_what_can_be_concluded_and_what_cannot(tmp_path: Path) -> None:
    calm, uncontrolled = (
        write_run(tmp_path, arms=ARMS, models=("mlp",), statuses={}, name=name, twin=twin)
        for name, twin in (("calm", True), ("uncontrolled", False))
    )
    for run, void in ((calm, 0), (uncontrolled, 2)):
        frames = load(run)
        comparisons = comparisons_of(frames)
        answer_part = html(frames, comparisons).partition('<section id="all"')[0]
        assert answer_part.count(' left">void</td>') == void
        assert ("every comparison is void" in answer_part) is bool(void)
        sets = [comparison.judged["throughput"].verdicts.fastest for comparison in comparisons]
        assert all(sets) is not bool(void)
        assert all(f">{', '.join(fastest)}<" in answer_part for fastest in sets if fastest)


def test_the_page_lists_the_packages_of_every_arm(page: str) -> None:
    assert "Packages of torch:eager" in page
    assert "torch==1.2.3" in page


def test_charts_have_words_and_data(page: str) -> None:
    pictures = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', page)
    assert len(pictures) == page.count("<figure") == page.count("The data of this chart") > 8
    steps = [words for words in pictures if words.startswith("Time per step")]
    assert len(steps) == 2
    assert all(arm in "".join(steps) for arm in ARMS)


def test_every_cell_without_a_number_is_in_the_page_with_its_reason(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "wrong", 4: "no-environment", 9: "timeout"})
    page = html(frames, comparisons_of(frames))
    failures = page.partition('<section id="failures"')[2].partition("</section>")[0]
    without = frames.cells[frames.cells["status"] != "ok"]
    assert failures.count("<tr") == len(without) + 1 == 4
    for reason in filter(None, without["reason"]):
        assert markup.escape(reason).replace("&#x27;", "&#39;") in failures


def test_no_number_of_a_failed_cell_is_in_the_page(tmp_path: Path) -> None:
    frames = frames_of(tmp_path, statuses={2: "failed", 3: "timeout"})
    table = summary(frames)
    failed = table[(table["status"] != "ok") & table["first_step_seconds"].notna()]
    assert len(failed), "a cell that failed after it was timed"
    slices = frames.slices[frames.slices["cell"].isin(failed["cell"])]
    page = html(frames, comparisons_of(frames))
    for seconds in [*failed["first_step_seconds"], *slices["step_seconds"]]:
        assert f">{significant(seconds, 4)}<" not in page
    fine = table[table["status"] == "ok"]
    assert f">{significant(fine['step_seconds'].iloc[0], 4)}<" in page


def test_the_explanations_of_its_runs_are_in_the_page_and_no_others(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), blocks=2, rounds=2)
    mine = replace(EXPLANATION, run=open_run(run).identity)
    foreign = replace(EXPLANATION, title="copied from another run")
    (run / FOLDER).mkdir()
    for number, one in enumerate((mine, foreign)):
        path = run / FOLDER / f"explanation-k00{number}-a-b.json"
        path.write_text(json.dumps(one.to_json()))
    (path,) = write_report([run], tmp_path / "report", formats=("html",))
    page = path.read_text()
    assert "<h2>Why arms are slower</h2>" in page
    assert all(markup.escape(sentence, quote=False) in page for sentence in sentences(mine))
    assert foreign.title not in page


def test_it_is_one_file_and_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path, arms=ARMS, models=("mlp",), blocks=2, rounds=2)
    (path,) = write_report([run], tmp_path / "report", formats=("html",))
    before = path.read_bytes()
    write_report([run], tmp_path / "report", formats=("html",))
    assert path.read_bytes() == before


def faults_of_access(page: str, folder: Path) -> list[str]:
    """The serious faults that axe-core finds: https://github.com/dequelabs/axe-core."""
    checker = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    checker = checker.replace("</script", "<\\/script")
    loaded = page.replace("</body>", f"<script>{checker}</script></body>")
    script = """axe.run(document).then(result => result.violations
      .filter(fault => ["serious", "critical"].includes(fault.impact)).map(fault => fault.id))"""
    faults: list[str] = shown(loaded, folder, script).result
    return faults


@pytest.fixture(scope="module")
def short_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of one comparison, which has every kind of part."""
    frames = frames_of(tmp_path_factory.mktemp("run"), phases=("training",), statuses={2: "wrong"})
    return html(frames, comparisons_of(frames))


# Shows on the screen what is printed: the rules of the style for print hold for all media.
AS_PRINTED = """
  for (const { media } of document.styleSheets[0].cssRules)
    if (media?.mediaText === "print") media.mediaText = "all";
  const visible = (selector, root = document) =>
    [...root.querySelectorAll(selector)].filter(part => part.checkVisibility());
"""
# Points across the printed part of a sheet of Letter size on its side, see the template.
ACROSS_POINTS = 11 * 72 - 2 * 8 / 25.4 * 72


def test_a_print_is_short_unless_everything_is_asked_for(page: str, tmp_path: Path) -> None:
    script = f"""(() => {{ {AS_PRINTED}
      const shown = () => [
        visible("main > section").map(part => part.id),
        visible("figure").map(part => part.id),
        visible("details, .tools, nav").length,
        visible("#mlp-small-inference table").length,
        visible("#mlp-small-inference > ul > li").length,
        visible(".only-print").length,
      ];
      const screen = visible("#print-all").length, short = shown();
      document.getElementById("print-all").click();
      return [screen, short, shown()];
    }})()"""
    on_screen, short, whole = shown(page, tmp_path, script).result
    comparisons = ["mlp-small-inference", "mlp-small-training-adam"]
    assert on_screen == 0, "the box is no part of a print"
    assert short == [["answer", "all", *comparisons], ["heat", "status", "profile"], 0, 1, 2, 1]
    assert whole[0] == [*short[0], "failures", "code", "machine", "glossary"]
    assert len(whole[1]) > 10 and set(short[1]) < set(whole[1])
    assert whole[2] > 10 and whole[4] > 2 and (whole[3], whole[5]) == (1, 0)


def test_a_print_leaves_no_heading_alone_and_no_small_type(page: str, tmp_path: Path) -> None:
    script = f"""(() => {{ {AS_PRINTED}
      const style = part => getComputedStyle(part);
      const points = part => 0.75 * parseFloat(style(part).fontSize);
      const texts = visible("main :not(svg, svg *)")
        .filter(part => [...part.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
      const across = part => {ACROSS_POINTS} / part.ownerSVGElement.viewBox.baseVal.width;
      return [
        Math.min(...texts.map(points)),
        Math.min(...visible("svg text").map(text => points(text) / 0.75 * across(text))),
        [...new Set(visible("h1, h2, h3").map(head => style(head).breakAfter))],
        [...new Set(visible("section[data-model], figure, tr").map(one => style(one).breakInside))],
        style(document.getElementById("all")).page,
      ];
    }})()"""
    text, chart, headings, parts, sheet = shown(page, tmp_path, script).result
    assert text == pytest.approx(8, abs=0.01) and 8 <= chart < 10
    assert matrices._SMALL * ACROSS_POINTS / (72 * matrices._INCHES) >= 8
    assert (headings, parts, sheet) == (["avoid"], ["avoid"], "wide")


def test_a_browser_prints_few_sheets_or_everything(page: str, tmp_path: Path) -> None:
    everything = page.replace('id="print-all"', 'id="print-all" checked')
    few, whole = printed_pages(page, tmp_path), printed_pages(everything, tmp_path)
    assert 3 <= few <= 5 and whole >= few + 5


@pytest.mark.long
def test_the_print_of_six_arms_in_17_comparisons_is_for_a_manager(tmp_path: Path) -> None:
    frames = load("results/families")
    comparisons = comparisons_of(frames)
    assert len(comparisons) == 17
    page = html(frames, comparisons)
    assert printed_pages(page, tmp_path) <= 12
    everything = page.replace('id="print-all"', 'id="print-all" checked')
    assert printed_pages(everything, tmp_path) > 50


def test_everyone_can_read_the_page(short_page: str, tmp_path: Path) -> None:
    assert faults_of_access(short_page, tmp_path) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("--soft: #59636e", "--soft: #b0b0b0", "color-contrast"),
        pytest.param(
            *('<html lang="en">', "<html>", "html-has-lang"), marks=pytest.mark.long, id="language"
        ),
        pytest.param(
            *('role="img" aria-label=', 'role="img" data-label=', "svg-img-alt"),
            marks=pytest.mark.long,
            id="words",
        ),
    ],
)
def test_the_checker_of_access_sees_a_fault(
    short_page: str, tmp_path: Path, right: str, wrong: str, fault: str
) -> None:
    assert fault in faults_of_access(short_page.replace(right, wrong), tmp_path)
