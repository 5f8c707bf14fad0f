"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xbm_jax.errors import BankError, OutputError

__all__ = ["replace_file", "replace_json", "strict_json", "sync_folder"]


def replace_file(path: str | Path, content: str | bytes | Iterable[bytes]) -> None:
    """Put ``content`` (text as UTF-8, or bytes in parts) at ``path`` in one step, making its folder if need be.

    A reader sees the old file or the new, also after a power cut. Whatever goes wrong, Ctrl-C too, the old one stays
    and no part is left over. Where ``path`` is a link, what it points to is replaced.

    Raises:
        OutputError: the place cannot be written.
    """
    try:
        target = Path(os.path.realpath(path))
        part = target.with_name(f".{uuid.uuid4().hex}.part")  # two writers must not share one
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            content = content.encode() if isinstance(content, str) else content
            _write_through(part, (content,) if isinstance(content, bytes) else content)
            part.replace(target)
            sync_folder(target.parent)
        finally:
            _remove(part)
    except OSError as error:
        raise OutputError("file", str(path), f"a writable file ({error.strerror})") from error


def replace_json(path: str | Path, data: Any, *, indent: int = 1) -> None:
    """:func:`replace_file` with ``data`` as JSON that every program reads, in a user's own letters.

    Raises:
        OutputError: the place cannot be written. BankError: NaN, an infinity, or a kind of value that JSON lacks.
    """
    strict_json(Path(path).name, data)
    replace_file(path, json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def strict_json(field: str, data: Any, shown: Any = None) -> str:
    """``data`` as JSON that every program reads.

    Raises:
        BankError: NaN, an infinity, or a kind of value that JSON lacks; names ``field`` and ``shown``.
    """
    try:
        return json.dumps(data, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = f"JSON-like data, every number finite ({error})"
        raise BankError(field, data if shown is None else shown, allowed) from error


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on disk. Some file systems cannot; there nothing is lost but the guarantee."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _write_through(path: Path, parts: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _remove(part: Path) -> None:
    """Remove what a failure left; where the folder itself is the trouble there is nothing to remove."""
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return
