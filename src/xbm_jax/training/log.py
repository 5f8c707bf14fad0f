"""The log of a saved run: a line of JSON for each epoch, and for one step in so many.

Every line ends in ``crc``, the CRC-32 of the line without it, so that a damaged one is seen. Lines are only added. A
run that is killed and carried on takes some steps again: their lines are there already and are not written twice.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from xbm_jax.errors import BankError, OutputError, warn
from xbm_jax.paths import as_path
from xbm_jax.storage.plain import plain

__all__ = ["LOG", "PLACES", "Log", "learned_by", "learns_of", "read_lines", "read_log"]

LOG = "log.jsonl"
PLACES = ("kind", "epoch", "step", "steps", "seconds", "each", "rates")
"""Fields of a line that say where it stands, or hold others: all else in it was measured."""


class Log:
    """Adds lines to ``<folder>/log.jsonl``; a context manager, and of one process at a time.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self._last: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_file():
            raise OutputError("file", str(self.path), "a file, or none")
        try:
            self._file = self.path.open("ab+", buffering=0)  # a line is one write
            self._end_last_line()
        except OSError as error:
            raise self._error(error) from error
        for row in read_lines(self.path):
            self._last[row.get("kind", "")] = max(self._last.get(row.get("kind", ""), 0), row.get("step", 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, kind: str, row: Mapping[str, Any]) -> None:
        """A line of a kind (``"step"``, ``"epoch"``), unless one of its step or a later one is there.

        What is not finite is text, as JSON has no word for it.
        """
        if row["step"] <= self._last.get(kind, 0):
            return
        self._write({"kind": kind, **row})
        self._last[kind] = row["step"]

    def note(self, kind: str, row: Mapping[str, Any]) -> None:
        """A line in any case."""
        self._write({"kind": kind, **row})

    def _write(self, row: dict[str, Any]) -> None:
        try:
            line = _line(plain(row))
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of a full disk a part may be taken
        except OSError as error:
            raise self._error(error) from error

    def _end_last_line(self) -> None:
        """Cut off what a killed writer left of a line."""
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._file.truncate(content.rfind(b"\n") + 1)

    def _error(self, error: OSError) -> OutputError:
        return OutputError("file", str(self.path), f"a file that takes the log ({error.strerror})")


def read_log(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a saved run's log, in order; damaged ones are warned of and left out, a torn last one is ignored.

    A line of kind ``"step"``: epoch, step, steps of the whole run, loss, the objective's metric, rates by group,
    images_per_second, seconds; of kind ``"epoch"``: the mean loss and the validation score; ``"begin"``: where a
    process began, with what, and what it ``learns``, by task and method.

    Raises:
        BankError: there is no log.
    """
    path = as_path(folder) / LOG
    if not path.is_file():
        raise BankError("folder", str(folder), f"the folder of a saved run, with a {LOG} in it")
    return read_lines(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """:func:`read_log` of a log file, wherever it lies."""
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last end of a line is torn
    rows = [_row(line) for line in lines]
    damaged = [number for number, row in enumerate(rows, 1) if row is None]
    if damaged:
        warn(f"{path}: lines {', '.join(map(str, damaged))} were damaged on disk and are left out")
    return [row for row in rows if row is not None]


def learns_of(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The task and method of each run that a log is of, as its newest ``"begin"`` says."""
    return next((row["learns"] for row in reversed(rows) if row.get("learns")), [])


def learned_by(rows: Sequence[Mapping[str, Any]]) -> str:
    """:func:`learns_of` in words; nothing for the log of a release before 0.2."""
    return ", ".join(f"{own['task']} {own['method']}" for own in learns_of(rows))


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        del row["crc"]
        return row if _line(row) == line + b"\n" else None
    except (ValueError, KeyError, TypeError):
        return None


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps({**row, "crc": zlib.crc32(json.dumps(row).encode())}).encode() + b"\n"
