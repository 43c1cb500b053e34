"""The site of the documentation: it builds, has no dead link and loads nothing from other hosts.

The same links are read as a forge reads them, and the commands as the program reads them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer.main
from mkdocs.exceptions import PluginError

from levelfield.harness.cli.application import app
from levelfield.harness.report import CHARTS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
EXTERNAL = ("http", "https")
UsageError: Any = typer.BadParameter.__mro__[1]
PROGRAM: Any = typer.main.get_command(app)


def built(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = built(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


class Reader(HTMLParser):
    """The anchors of a page, its links, and the addresses from which it loads something."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {values[name] or "" for name in ("id", "name") if name in values}
        addresses = [values[name] or "" for name in ("href", "src") if name in values]
        (self.links if tag == "a" else self.loads).extend(addresses)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Reader]:
    return {path: Reader(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_the_site_has_no_dead_link(pages: dict[Path, Reader]) -> None:
    dead = []
    for path, page in pages.items():
        for address in (*page.links, *page.loads):
            scheme, _, name, _, anchor = urlsplit(address)
            target = (path.parent / unquote(name)).resolve() if name else path
            if scheme:
                continue
            known = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(anchor) not in known | {"__codelineno"}:
                dead.append(f"{path.name}: {address}")
    assert dead == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_the_site_loads_nothing_from_another_host(site: Path, pages: dict[Path, Reader]) -> None:
    foreign = {
        f"{path.name}: {address}"
        for path, page in pages.items()
        for address in page.loads
        if urlsplit(address).netloc
    }
    assert foreign == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import\s*)['\"]?(?:https?:)?//[^)]*", styles) == []


@pytest.mark.parametrize(
    "words",
    [
        "Levelfield levelfield compare --fail-above",
        "speedup mean_speedup draw_case Objective",
        "geometric mean of the ratios",
        "every-key.toml",
    ],
)
def test_the_search_finds_what_the_pages_say(site: Path, words: str) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert [word for word in words.split() if word not in index] == []


def test_the_code_of_a_model_has_a_tab_for_each_framework(site: Path) -> None:
    page = (site / "models" / "mlp.html").read_text(encoding="utf-8")
    (row,) = re.findall(r'<div class="tabbed-labels">(.*?)</div>', page, re.DOTALL)
    titles = re.findall(r"<th>(.*?)</th>", (ROOT / "docs/models/mlp.md").read_text("utf-8"))
    assert len(titles) > 10
    assert re.findall(r"<label[^>]*>(.*?)</label>", row) == titles
    assert "```" not in page


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_documents_become_links_of_the_site() -> None:
    linked = hook().linked
    readme = "[a](docs/faq.md#why-a-cpu) [b](#two-commands) [c](results/digits) [d](https://a.b/c)"
    assert linked(readme, "README.md", "readme.md") == (
        "[a](faq.md#why-a-cpu) [b](#two-commands) [c](gallery.md#digits) [d](https://a.b/c)"
    )
    nested = "[a](../../README.md#x) [b](../models) ![c](../../results/example/report/heat.png)"
    assert linked(nested, "docs/howto/ci.md", "howto/ci.md") == (
        "[a](../readme.md#x) [b](../models/README.md) ![c](../runs/example/heat.png)"
    )
    code = "```\n[a](nowhere.md)\n```\n"
    assert linked(code, "docs/faq.md", "faq.md") == code
    with pytest.raises(PluginError, match=r"docs/faq.md links to nowhere.md, which is no part"):
        linked("[a](nowhere.md)", "docs/faq.md", "faq.md")
    with pytest.raises(PluginError, match=r"links to ../pyproject.toml, which is no part"):
        linked("[a](../pyproject.toml)", "docs/faq.md", "faq.md")


@pytest.mark.long  # each builds the site
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("docs/faq.md", "[a](glossary.md#no-such-word)", "does not contain an anchor"),
        ("README.md", "[a](docs/no-such-page.md)", "which is no part of the site"),
        ("docs/no-place.md", "# A page of no part of the navigation", "not included in the"),
    ],
)
def test_a_dead_link_ends_the_build(tmp_path: Path, name: str, text: str, words: str) -> None:
    for path in ROOT.iterdir():
        if path.name in ("docs", "mkdocs.yml") or path.suffix == ".md":
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, tmp_path / path.name)
        elif path.name in ("results", "levelfield", "harness", "adapters", "reference", "LICENSE"):
            (tmp_path / path.name).symlink_to(path)
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    assert built(tmp_path, tmp_path / "good").returncode == 0
    with (tmp_path / name).open("a", encoding="utf-8") as document:
        document.write(f"\n{text}\n")
    done = built(tmp_path, tmp_path / "bad")
    assert done.returncode == 1
    assert words in done.stderr


def without_code(text: str) -> str:
    return FENCED.sub("", text)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings on a forge.

    Small letters, without punctuation, spaces as hyphens; a repeated one gets a number
    (https://docs.github.com/en/get-started/writing-on-github, "Section links").
    """
    text = without_code(path.read_text(encoding="utf-8"))
    slugs: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{slug}-{slugs[slug]}" if slugs[slug] else slug)
        slugs[slug] += 1
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_works_on_a_forge(document: Path) -> None:
    dead = []
    text = without_code(document.read_text(encoding="utf-8"))
    for address in re.findall(r"\]\(([^)\s]*)\)", text):
        scheme, host, name, _, anchor = urlsplit(address)
        if scheme:
            good = scheme in EXTERNAL and re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", host)
        else:
            target = document.parent / name if name else document
            good = target.exists() and (not anchor or anchor in anchors(target))
        dead += [] if good else [address]
    assert dead == []


def test_the_anchors_of_a_forge_are_those_of_its_rules(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "# May I quote a number?\n## `effort`, 2 of it\n## One\n## One\n```\n# no\n```\n"
    )
    assert anchors(path) == {"may-i-quote-a-number", "effort-2-of-it", "one", "one-1"}


def of_blocks(text: str) -> Iterator[list[str]]:
    """The words of every command of Levelfield in the blocks of a document."""
    for block in FENCED.findall(text):
        for line in block.splitlines():
            if line.startswith("levelfield "):
                # README.md explains commands to the right of them.
                yield shlex.split(re.split(r" {2,}", line)[0])[1:]


def of_sentences(text: str) -> Iterator[list[str]]:
    """The words of every command of Levelfield that a sentence names; it may be no whole one."""
    for code in re.findall(r"`([^`]+)`", without_code(text)):
        if code.startswith("levelfield "):
            yield shlex.split(" ".join(code.split()))[1:]


def refusal(words: list[str]) -> str:
    """Why the command line does not understand these words; "" if it does."""
    command = PROGRAM
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context("levelfield", [*words])
    except UsageError as error:
        return str(error)
    except typer.Exit:  # of --help and --version
        return ""
    return "" if not hasattr(command, "commands") else f"no command in {words}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_is_understood(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    whole = [(words, refusal(words)) for words in of_blocks(text)]
    named = [(words, refusal(words)) for words in of_sentences(text)]
    part = re.compile("Missing (parameter|argument)|requires an argument|no command in")
    wrong = [pair for pair in whole if pair[1]]
    wrong += [pair for pair in named if pair[1] and not part.search(pair[1])]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("levelfield runs quick", "no command in"),
        ("levelfield run quick --leval smoke", "No such option"),
        ("levelfield plot heat", "Missing parameter"),
        ("levelfield check a b", "unexpected extra argument"),
        ("levelfield run quick --batch many", "should be a valid integer"),
    ],
)
def test_a_command_that_is_not_understood_is_seen(line: str, words: str) -> None:
    (typed,) = of_blocks(f"```sh\n{line}  explained\n```\n")
    (named,) = of_sentences(f"Type `{line}`.")
    assert typed == named
    assert words in refusal(typed)


def test_the_tutorial_explains_charts_that_exist() -> None:
    text = (ROOT / "docs" / "tutorial" / "reading-a-report.md").read_text(encoding="utf-8")
    table = text.split("| chart | question |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([\w-]+)`", table))
    assert named <= set(CHARTS)
    assert len(named) > 8
