"""A bank's index: which generation of a task is its current one, and what that one's files were.

    <bank>/index/<name>.json    {"name", "generation", "removed", "kept": {number: {"sha256", "files"}}, "sha256"}

One small file a task, replaced in one step after a generation is whole: so putting a task costs the same however many
there are, and a task whose folder was swapped or rolled back is noticed. ``kept`` has the SHA-256 of a generation's
description and one of all its files; that of the entry is of the rest of it. A missing entry is no loss: the newest
generation then counts, as in banks of before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbm_jax.errors import BankError
from xbm_jax.storage.files import replace_json
from xbm_jax.storage.generations import Stored
from xbm_jax.storage.record import digest, read_json
from xbm_jax.tasks.marks import canonical

__all__ = ["Entry", "drop_entry", "indexed", "read_entry", "sealed", "unsealed", "write_entry"]

_INDEX = "index"


@dataclass(frozen=True)
class Entry:
    """A task of the index.

    Attributes:
        name: the task's.
        generation: number of the current generation.
        removed: whether that one says that the task was removed.
        kept: what is known of each generation, by number.
    """

    name: str
    generation: int
    removed: bool
    kept: dict[int, Stored]


def indexed(folder: Path) -> list[str]:
    """Names of all entries, of removed tasks too."""
    try:
        return [name.removesuffix(".json") for name in os.listdir(folder / _INDEX) if name.endswith(".json")]
    except OSError:
        return []


def read_entry(folder: Path, name: str) -> Entry | None:
    """The entry of a task of the bank in ``folder``; ``None`` where there is none.

    Raises:
        BankError: a damaged entry, or one of another task.
    """
    path = folder / _INDEX / f"{name}.json"
    try:
        data = unsealed(read_json("entry", path))
        kept = {int(number): Stored(int(number), **known) for number, known in data["kept"].items()}
        entry = Entry(str(data["name"]), int(data["generation"]), bool(data["removed"]), kept)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        allowed = f"an undamaged entry of the index ({error}); bank.restore({name!r}) or a new put makes it anew"
        raise BankError("index", str(path), allowed) from error
    if entry.name != name:
        raise BankError("index", str(path), f"the entry of {name!r}; this is that of {entry.name!r}")
    return entry


def write_entry(folder: Path, entry: Entry) -> None:
    """Replace a task's entry in one step; the caller holds the bank's lock."""
    kept = {str(number): {"sha256": known.sha256, "files": known.files} for number, known in entry.kept.items()}
    data = {"name": entry.name, "generation": entry.generation, "removed": entry.removed, "kept": kept}
    replace_json(folder / _INDEX / f"{entry.name}.json", sealed(data))


def drop_entry(folder: Path, name: str) -> None:
    """Remove a task's entry, if there is one; the caller holds the bank's lock."""
    (folder / _INDEX / f"{name}.json").unlink(missing_ok=True)


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """JSON-like data with the SHA-256 of all of it."""
    return {**data, "sha256": digest(canonical(data).encode())}


def unsealed(data: dict[str, Any]) -> dict[str, Any]:
    """Undo :func:`sealed`.

    Raises:
        ValueError: it is not as it was sealed.
    """
    rest = {name: value for name, value in data.items() if name != "sha256"}
    if digest(canonical(rest).encode()) != data["sha256"]:
        raise ValueError("its digest differs")
    return rest
