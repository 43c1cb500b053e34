"""The hook of mkdocs that makes one site of the documents, wherever they lie in the repository.

Documents link to each other as files of the repository, so that the links work on a forge. The hook
adds the documents outside ``docs/`` to the site and turns each link into one within the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# File of the repository -> its place in the site. Folders are those that documents link to.
PLACES = {
    "README.md": "readme.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "files/LICENSE.txt",
    "CITATION.cff": "files/CITATION.cff.txt",
    "results/example/report/report.md": "runs/example.md",
    "docs/models": "models/README.md",
    "results/digits": "gallery.md#digits",
    "results/example": "gallery.md#example",
    "results/families": "gallery.md#families",
    "results/selftest": "gallery.md#selftest",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
INTRODUCTION = "<!-- the introduction of README.md -->"
SIDE_BY_SIDE = re.compile(r"<table>\n<tr>(<th>.*)</tr>\n<tr>\n(.*)\n</tr>\n</table>", re.DOTALL)
CELL = re.compile(r'<td valign="top">\n\n(.*?)\n\n</td>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the models, which follow from the definitions, at the end of Reference."""
    names = sorted(path.name for path in (ROOT / "docs" / "models").glob("*.md"))
    (reference,) = (entry["Reference"] for entry in config.nav or () if "Reference" in entry)
    reference.append({"Models": [f"models/{name}" for name in names]})  # README.md is the first
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the documents outside ``docs/``, and the charts of the published runs."""
    for source, place in places().items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def places() -> dict[str, str]:
    """Each file outside ``docs/`` that the site has, and its place there."""
    documents = {source: place for source, place in PLACES.items() if (ROOT / source).is_file()}
    for chart in sorted(ROOT.glob("results/*/report/*.[ps][nv]g")):
        documents[chart.relative_to(ROOT).as_posix()] = (
            f"runs/{chart.parts[-3]}/{chart.name}"  # next to the page of the run's report
        )
    return documents


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page into links within the site. Raises PluginError for a dead one."""
    place = page.file.src_uri
    sources = {target: source for source, target in places().items()}
    markdown = linked(markdown, sources.get(place, f"docs/{place}"), place)
    if INTRODUCTION in markdown:
        introduction = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
        introduction = introduction.partition("\n")[2].replace("](#", "](README.md#")
        markdown = markdown.replace(INTRODUCTION, linked(introduction, "README.md", place))
    return in_tabs(markdown) if place.startswith("models/") else markdown


def linked(markdown: str, source: str, place: str) -> str:
    """Return Markdown of the file ``source`` with links as the page ``place`` needs them."""
    known = PLACES | places()

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        where = known.get(target, target.removeprefix("docs/"))
        if where == target or not (ROOT / target).exists():
            raise PluginError(f"{source} links to {match[1]}, which is no part of the site")
        return posixpath.relpath(where, posixpath.dirname(place) or ".") + (match[2] or "")

    return "".join(part if code else LINK.sub(link, part) for code, part in parts(markdown))


def parts(markdown: str) -> Iterator[tuple[bool, str]]:
    """Split Markdown into blocks of code and the texts between them."""
    end = 0
    for block in CODE.finditer(markdown):
        yield False, markdown[end : block.start()]
        yield True, block[0]
        end = block.end()
    yield False, markdown[end:]


def in_tabs(markdown: str) -> str:
    """Return a model's page with a tab for each framework instead of a table as wide as all."""

    def tabs(match: re.Match[str]) -> str:
        titles = re.findall(r"<th>(.*?)</th>", match[1])
        blocks = [block.replace("\n", "\n    ") for block in CELL.findall(match[2])]
        return "\n\n".join(
            f'=== "{title}"\n\n    {block}' for title, block in zip(titles, blocks, strict=True)
        )

    return SIDE_BY_SIDE.sub(tabs, markdown)
