"""The project is written in plain English: words that hide their meaning do not come back.

The allow-list ``words-allowed.toml`` has the number of hits that each file may still have.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = ROOT / "tests" / "words-allowed.toml"
# A word or phrase, and the word to write instead.
WORDS = {
    r"at hand": "available",
    r"beside": "next to, with",
    r"behind": "after, following",
    r"anew": "again",
    r"nobody": "no arm, no user",
    r"alike": "in the same way, equal",
    r"(?:held|holds?|holding) against": "compared with",
    r"meanwhile": "temporarily",
    r"told": "said, reported",
    r"(?<!goals are )met": "measured, reached",
    r"likewise": "repeat the noun",
    r"of the same(?=\s*(?:[.,;:)]|$))": "repeat the noun",
}
# Verbs, adjectives and pronouns that say nothing of a variable's content.
VAGUE_NAMES = {"found", "each", "told", "met", "said"}
SAYINGS = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
# These words after the start of a text, a line or an item, or after a sentence. Questions may.
BEGINNINGS = re.compile(
    r"""(?:^[\s#*|>"'\[(-]*|[.!?]["')*]*\s+|\|\s*)(?:What|Of|Whoever)\s(?![^.!?|#]*\?)""",
    re.MULTILINE,
)
CODE = re.compile(r"^```.*?^```|``[^`]+``|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINKS = re.compile(r"\]\([^)]*\)")
KEY = re.compile(r"""^\s*[\w."-]+\s*=\s*|\b\w+ = (?=")""", re.MULTILINE)


def files() -> Iterator[Path]:
    """The files that are checked: code, documents and TOML, except the results of runs."""
    yield ROOT / "levelfield" / "__init__.py"
    for folder in ("harness", "adapters", "reference"):
        yield from sorted((ROOT / folder).rglob("*.py"))
    for suffix in ("md", "toml"):
        yield from sorted(ROOT.glob(f"*.{suffix}"))
        for folder in ("harness", "adapters", "reference", "docs", "tests", ".github"):
            yield from sorted((ROOT / folder).rglob(f"*.{suffix}"))


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, string constant and f-string, except identifiers."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
            values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            waiting += values
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not node.value.isidentifier():
                yield node.lineno, node.value
        else:
            waiting += ast.iter_child_nodes(node)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """First line and text of every comment; comments on successive lines are one text."""
    first, last, text = 0, -1, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            words = token.string.lstrip("#").strip()
            if alone and token.start[0] == last + 1:
                text += f" {words}"
            else:
                yield first, text
                first, text = token.start[0], words
            last = token.start[0]
    yield first, text


def texts(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a file that is prose."""
    if path.suffix == ".py":
        yield from strings(source)
        yield from comments(source)
    elif path.suffix == ".md":
        yield 1, LINKS.sub("]", source)
    else:
        yield 1, KEY.sub(lambda key: " " * len(key[0].lstrip("\n")), source)


def hits(path: Path, source: str) -> Iterator[str]:
    """Place and wording of everything in a file that plain English avoids."""
    for line, text in texts(path, source):
        prose = CODE.sub(lambda code: "\n" * code[0].count("\n") or "x", text)
        for pattern in (SAYINGS, BEGINNINGS):
            for hit in pattern.finditer(prose):
                at = line + prose[: hit.end() - 1].count("\n")
                around = " ".join(prose[max(0, hit.start() - 25) : hit.end() + 25].split())
                yield f"{path.name}:{at}: '{hit[0].strip()}' in '{around}'"


def test_words_are_plain() -> None:
    allowed = tomllib.loads(ALLOWED.read_text(encoding="utf-8"))
    wrong = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        here = list(hits(path, path.read_text(encoding="utf-8")))
        most = allowed.pop(name, 0)
        if len(here) > most:
            wrong.append(f"{name} has {len(here)} hits, {most} allowed; write instead, by WORDS:")
            wrong += [f"    {hit}" for hit in here]
        elif len(here) < most:
            wrong.append(f"{ALLOWED.name}: lower '{name}' from {most} to {len(here)}")
    wrong += [f"{ALLOWED.name}: remove '{name}', which is no checked file" for name in allowed]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "source", "count"),
    [
        ("a.py", "x = 1  # the arms at hand\n", 1),
        ("a.py", "# Nothing is lost, at\n# hand it is.\nx = 1\n", 1),
        ("a.py", '"""Do it.\n\nWhat is measured is kept.\n"""\n', 1),
        ("a.py", 'x = f"{1} is behind {2}"\n', 1),
        ("a.py", 'x = "Of both. Of none."\n', 2),
        ("a.py", "behind = dict(met=1)\nx = behind['met']\n", 0),
        ("a.py", '"""Say what is measured: ``behind``."""\n', 0),
        ("a.py", 'x = "upper end of the same"\n', 1),
        ("a.py", 'x = "gradients of the same losses"\n', 0),
        ("a.md", "**What did you type?** Say it.\n", 0),
        ("a.md", "# What it is\n\n* Whoever asks\n\n| Of it | what |\n", 3),
        ("a.md", "```\nbeside = 1\n```\nand `behind`\n", 0),
        ("a.toml", 'what = "met"\ntitle = "What is it"\n# Scheduled anew.\n', 3),
    ],
)
def test_words_are_found_in_prose_alone(name: str, source: str, count: int) -> None:
    assert len(list(hits(Path(name), source))) == count


def vague_variables(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of variables and parameters of ``VAGUE_NAMES``; fields are no variables."""
    tree = ast.parse(source)
    fields = {
        id(statement.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        name = ""
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and id(node) not in fields
        ):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.ExceptHandler):
            name = node.name or ""
        if name in VAGUE_NAMES:
            yield node.lineno, name


def test_variables_are_nouns() -> None:
    folders = ("harness", "adapters", "reference", "tests", "docs")
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert len(paths) > 200
    vague = [
        f"{path.relative_to(ROOT)}:{line}: name the content of '{name}' by a noun"
        for path in paths
        for line, name in vague_variables(path.read_text(encoding="utf-8"))
    ]
    assert not vague, "\n".join(vague)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("found = 1\n", 1),
        ("for each in range(3):\n    print(each)\n", 1),
        ("x = [each for each in y]\n", 1),
        ("def told(met, *, said=1): pass\n", 2),
        ("f = lambda each: each\n", 1),
        ("with a as found: pass\n", 1),
        ("try:\n    x()\nexcept ValueError as told: pass\n", 1),
        ("if (met := x()): pass\n", 1),
        ("class Goal:\n    met: bool\n", 0),
        ("print(found.each)\n", 0),
    ],
)
def test_vague_variables_are_found(source: str, count: int) -> None:
    assert len(list(vague_variables(source))) == count
