"""The page of one run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xbm_jax.report.names import as_text
from xbm_jax.report.rows import Row
from xbm_jax.report.table import energy_note, escaped, markdown_table
from xbm_jax.storage.files import replace_file

__all__ = ["write_report"]

_LEGEND = (
    "Accuracy is on the test split, measured once; the epoch was chosen on the validation split (val). Bits are what "
    "is kept for the task; cells written are physical cells changed against the programmed backbone."
)


def write_report(
    path: str | Path,
    rows: Sequence[Row],
    context: Mapping[str, Any],
    sections: Sequence[tuple[str, str]],
    figures: Sequence[str | Path],
) -> None:
    """Write a Markdown page: the table, the figures by paths relative to the page, the sections, and the context.

    Args:
        path: the page.
        rows: what the table shows.
        context: of :func:`~xbm_jax.report.run_context`.
        sections: title and Markdown of each.
        figures: pictures; they are linked to, not copied.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    path = Path(path)
    parts = ["# xbm_jax: results", markdown_table(rows).rstrip(), _LEGEND]
    parts += [note] if (note := energy_note(rows)) else []
    parts += [_figure(path, Path(figure)) for figure in figures]
    for title, text in sections:
        parts += [f"## {title}", text.strip()]
    parts += ["## Made with", *_context(context)]
    replace_file(path, "\n\n".join(parts) + "\n")


def _figure(page: Path, figure: Path) -> str:
    """Markdown of a picture; the path works from where the page lies."""
    relative = Path(os.path.relpath(figure, page.parent)).as_posix()
    shown = escaped(figure.stem.replace("_", " ")).replace("]", r"\]")
    return f"![{shown}]({quote(relative)})"


def _context(context: Mapping[str, Any]) -> list[str]:
    """A list of what the run was made with, then its configuration as JSON."""
    lines = [f"- {name}: {_inline(value)}" for name, value in context.items() if name != "config"]
    config = json.dumps(context.get("config", {}), indent=2, ensure_ascii=False)
    return ["\n".join(lines), "Configuration:", f"```json\n{config}\n```"]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(item)}" for name, item in value.items())
    return _code(str(value))


def _code(text: str) -> str:
    """Markdown of ``text`` as code, between more backticks than it holds in a row."""
    text = as_text(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    blank = " " if "`" in text else ""
    return f"{ticks}{blank}{text}{blank}{ticks}"
