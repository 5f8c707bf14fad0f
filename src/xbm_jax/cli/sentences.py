"""Sentences on the command line: in quotes, in files, or on standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from xbm_jax.errors import DataError
from xbm_jax.paths import as_path

__all__ = ["sentences_of"]

_FILES = (".txt", ".tsv")


def sentences_of(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sentences in the order in which they were given, and what is amiss with those left out.

    Args:
        given: sentences, ``.txt`` files of one a line, ``.tsv`` files of ``label<TAB>sentence`` (the label does not
            count), and ``-`` for lines of standard input. Empty lines at the end do not count.

    Raises:
        DataError: a file that is not there, or is no UTF-8.
    """
    found: list[str] = []
    failed: list[str] = []
    for text in given:
        if text == "-":
            lines, where = sys.stdin.read().rstrip().split("\n"), "standard input"
        elif text.lower().endswith(_FILES):
            lines, where = _lines(as_path(text)), text
        else:
            lines, where = [text], "an argument"
        for number, line in enumerate(lines, start=1):
            sentence = line.strip()
            if sentence:
                found.append(sentence)
            else:
                at = where if len(lines) == 1 else f"{where}, line {number}"
                failed.append(f"{at} is empty and is left out")
    return found, failed


def _lines(path: Path) -> list[str]:
    """Sentences of a file, one a line."""
    if not path.is_file():
        raise DataError("inputs", str(path), "an existing file of sentences")
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise DataError("inputs", str(path), f"a file in UTF-8 (byte {error.start}: {error.reason})") from error
    return [line.partition("\t")[2] if path.suffix.lower() == ".tsv" else line for line in lines]
