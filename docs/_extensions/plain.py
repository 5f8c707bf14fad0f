"""What committed text lacks as pages: docstrings as reStructuredText, and titles for tables that programs write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sphinx.application import Sphinx

_ANOTHER = re.compile(r"(?<=[.;]) (?=[A-Z]\w*Error: )")
_LITERAL = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`)")


def escaped(line: str) -> str:
    """A line whose stars and bars are what they are: our docstrings mark nothing but code."""
    parts = _LITERAL.split(line)
    return "".join(part if i % 2 else re.sub(r"([*|])", r"\\\1", part) for i, part in enumerate(parts))


def as_rst(lines: Iterable[str]) -> list[str]:
    """A docstring whose indented blocks behind an empty line, its formulas, are literal."""
    out, last, block = [], 0, None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and block is not None and indent < block:
            block = None
        if line.strip() and block is None and out and not out[-1].strip() and indent > last:
            block = indent
            out += [f"{' ' * last}::", ""]
        out.append(line if block is not None else escaped(line))
        last = indent if line.strip() and block is None else last
    return out


def errors_apart(lines: Iterable[str]) -> list[str]:
    """A docstring whose errors, several of them in a row, begin a line each, as their section has it."""
    out, inside = [], False
    for line in lines:
        inside = line == "Raises:" or (inside and line[:1] in ("", " "))
        out += _ANOTHER.sub("\n    ", line).split("\n") if inside else [line]
    return out


def of_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon reads the sections."""
    lines[:] = errors_apart(as_rst(lines))


def with_title(app: Sphinx, name: str, source: list[str]) -> None:
    """A table that programs write has no title: its file's name is one."""
    untitled = name.startswith(("docs/tables/", "experiments/results/")) and not source[0].lstrip().startswith("# ")
    if untitled:
        folder, stem = name.split("/")[-2:]
        where = "" if folder in ("tables", "results") else f" ({folder.replace('_', ' ')})"
        commands = "index.md" if folder == "tables" else "README.md" if folder == "results" else "../README.md"
        title, command = f"# {stem.replace('_', ' ')}{where}", f"[The command that wrote this]({commands})"
        source[0] = f"{title}\n\n{source[0]}\n\n{command}\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", of_docstring, priority=100)
    app.connect("source-read", with_title)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
