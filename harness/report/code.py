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
    """(tokens, lines) of a program without comments, docstrings and blank lines."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
    }
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    found = [
        token
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (*silent, tokenize.ENDMARKER) and token.start not in docstrings
    ]
    return len(found), len({line for t in found for line in range(t.start[0], t.end[0] + 1)})


def model_sources(model: str) -> dict[str, tuple[str, str]]:
    """Name of a framework -> its title and its file of a model, if it has a readable one."""
    found = {}
    for name, framework in frameworks().items():
        # A third party's file may be anything.
        with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
            source = framework.model_file(model).read_text(encoding="utf-8")
            ast.parse(source)
            found[name] = framework.title, source
    return found


def module_of(model: str) -> str | None:
    """The file of a model; None for one that this version does not have.

    Before the file of an outside model stands the name of its folder.
    """
    found, outside = reference.definitions().get(model), outside_of(model)
    if found is None:
        return None
    return f"{outside.folder.name}/{found.file}" if outside else found.file
