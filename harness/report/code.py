"""The code of the models in each framework's files, and its size."""

from __future__ import annotations

import ast
import contextlib
import io
import tokenize

from levelfield import reference
from levelfield.harness.plan.arms import frameworks
from levelfield.reference.registry import outside_of


def code_size(source: str) -> tuple[int, int]:
    """(tokens, lines) of a program without comments, docstrings and blank lines.

    An f-string is one token, as it is for Python 3.11; later Pythons split it.
    """
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
    }
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    count, depth = 0, 0
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (*silent, tokenize.ENDMARKER) or token.start in docstrings:
            continue
        lines.update(range(token.start[0], token.end[0] + 1))
        kind = tokenize.tok_name[token.type]
        depth -= kind == "FSTRING_END"
        count += depth == 0 and kind != "FSTRING_END"
        depth += kind == "FSTRING_START"
    return count, len(lines)


def model_sources(model: str) -> dict[str, tuple[str, str]]:
    """Name of a framework -> its title and its file of a model, if it has a readable one."""
    sources = {}
    for name, framework in frameworks().items():
        # A third party's file may be anything.
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
            source = framework.model_file(model).read_text(encoding="utf-8")
            ast.parse(source)
            sources[name] = framework.title, source
    return sources


def module_of(model: str) -> str | None:
    """The file of a model; None for one that this version does not have.

    Before the file of an outside model stands the name of its folder.
    """
    definition, outside = reference.definitions().get(model), outside_of(model)
    if definition is None:
        return None
    return f"{outside.folder.name}/{definition.file}" if outside else definition.file
