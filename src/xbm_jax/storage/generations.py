"""A folder of generations: which are there, what one says of itself, and how one is taken away.

Nothing here knows what a generation's arrays are; :mod:`xbm_jax.storage.store` writes and reads those.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from xbm_jax.errors import BankError, OutputError
from xbm_jax.paths import as_path
from xbm_jax.storage.record import digest, is_undamaged, read_json

__all__ = [
    "DESCRIPTION",
    "WRITING",
    "Stored",
    "checked_directory",
    "clean",
    "custom_of",
    "exists",
    "files_digest",
    "found_in",
]
__all__ += ["generations", "prune", "take_away"]

WRITING = ".xbm-writing"
DESCRIPTION = "_CHECKPOINT_METADATA"  # Orbax's name
_MARKS = (DESCRIPTION, "commit_success.txt", "orbax.checkpoint")
_GENERATION = re.compile(r"[0-9]{6,}")


class Stored(NamedTuple):
    """A generation: its number, the SHA-256 of its description, and one of all its files."""

    number: int
    sha256: str
    files: str


def generations(folder: str | Path) -> list[int]:
    """Numbers of the generations there, oldest first, damaged ones too."""
    return [int(path.name) for path in found_in(as_path(folder))]


def exists(folder: str | Path) -> bool:
    """Whether a generation is there, damaged or not."""
    return bool(generations(folder))


def prune(folder: Path, keep: int, needed: int | None = None) -> list[int]:
    """Take away generations but the newest ``keep`` and the ``needed`` one; the caller holds the lock. Gives those."""
    there, gone = found_in(folder), []
    for older in there[: max(0, len(there) - keep)]:
        if int(older.name) != needed and _is_own(older):
            with suppress(OutputError):  # it stays, and is in nobody's way
                take_away(older)
                gone.append(int(older.name))
    return gone


def take_away(folder: Path) -> None:
    """Remove a folder that is the store's alone, in one step for whoever reads it; its caller holds the lock.

    Raises:
        OutputError: it cannot be removed.
    """
    writing = folder.parent / WRITING
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(exist_ok=True)
        folder.rename(writing / folder.name)
    except OSError as error:
        raise OutputError("folder", str(folder), f"a folder that can be removed ({error.strerror})") from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def clean(folder: Path) -> bool:
    """Remove what a killed writer left in ``folder``; the caller holds the lock. Whether there was anything."""
    left = (folder / WRITING).is_dir()
    shutil.rmtree(folder / WRITING, ignore_errors=True)
    return left


def checked_directory(folder: Path) -> None:
    """Make ``folder`` and see that it can be written.

    Orbax takes brackets and wildcards in a path for a pattern and then finds nothing of what it wrote.
    """
    try:
        if any(character in str(folder.resolve()) for character in "[]*?"):
            raise OutputError("folder", str(folder), "a path without [ ] * ?")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # of no name, or of one that nobody has
            pass
    except OSError as error:
        raise OutputError("folder", str(folder), f"a writable folder ({error.strerror})") from error


def found_in(folder: Path) -> list[Path]:
    """Generations, oldest first, damaged ones too."""
    for _ in range(3):  # a listing may miss both the generation that goes and the one that comes
        try:
            named = [p for p in folder.iterdir() if _GENERATION.fullmatch(p.name) and p.name == f"{int(p.name):06d}"]
        except OSError:
            return []
        found = [p for p in named if p.is_dir() and not _is_foreign(p)]
        if found:
            return sorted(found, key=lambda p: int(p.name))
    return []


def _is_foreign(path: Path) -> bool:
    """Whether a folder that is named like a generation is certainly none: no checkpoint, or one of another program."""
    if not any((path / mark).exists() for mark in _MARKS):
        return True
    try:
        custom = custom_of(path)
        return not custom or not {"json", "sha256"} & set(custom)
    except (BankError, TypeError):
        return False  # damaged


def _is_own(path: Path) -> bool:
    """Whether a folder is certainly a generation: its description is there, undamaged, and ours."""
    try:
        return not path.is_symlink() and is_undamaged(custom_of(path))
    except BankError:
        return False


def custom_of(generation: Path) -> Any:
    """What Orbax keeps for us, as it is.

    Raises:
        BankError: it cannot be read.
    """
    path = generation / DESCRIPTION
    try:
        return read_json("description", path)["custom_metadata"]
    except OSError as error:
        raise BankError("folder", str(generation), f"a readable checkpoint ({error.strerror})") from error
    except (KeyError, TypeError, BankError) as error:
        raise BankError("folder", str(generation), f"a readable checkpoint ({error})") from error


def files_digest(generation: Path) -> str:
    """SHA-256 of names and contents of all files under a generation."""
    names = sorted(path.relative_to(generation).as_posix() for path in generation.rglob("*") if path.is_file())
    return digest("".join(f"{name}\0{digest((generation / name).read_bytes())}\n" for name in names).encode())
