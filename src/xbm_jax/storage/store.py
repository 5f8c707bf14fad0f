"""Named arrays and JSON in a folder, by Orbax; the only module that knows Orbax.

    <folder>/000001        a generation: one checkpoint, whole
    <folder>/.xbm-writing  what is being written or taken away; whoever holds the lock may remove it
    <folder>/.xbm-lock     the lock of whoever writes (see :mod:`xbm_jax.storage.lock`); readers take none

A save writes a new generation, has it on disk, renames it into place and only then takes away older ones, so that a
killed save loses nothing. It takes away what its own description proves to be an older generation; everything else in
the folder is somebody else's and stays. The SHA-256 of every array and of the description is kept and checked on
loading: Orbax itself loads a flipped bit without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xbm_jax.errors import BankError, OutputError
from xbm_jax.paths import as_path
from xbm_jax.storage.files import strict_json, sync_folder
from xbm_jax.storage.forms import check_form, stamp
from xbm_jax.storage.lock import locked
from xbm_jax.storage.quiet import CallError, quietly

__all__ = ["checked_directory", "exists", "generations", "load", "load_metadata", "save", "take_away"]

_WRITING = ".xbm-writing"
_DESCRIPTION = "_CHECKPOINT_METADATA"  # Orbax's name
_MARKS = (_DESCRIPTION, "commit_success.txt", "orbax.checkpoint")
_GENERATION = re.compile(r"[0-9]{6,}")
_OVERTAKEN = 100  # times that a reader begins anew because a writer took away what it was reading

_T = TypeVar("_T")


def save(
    folder: str | Path,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, Any],
    *,
    form: int = 1,
    keep: int = 1,
    lock: str | Path | None = None,
) -> None:
    """Write one generation, then take away the older ones.

    Args:
        form: number of the form of ``arrays`` and ``metadata``.
        keep: how many generations there are then at most, the new one among them.
        lock: the folder whose lock is held meanwhile; ``folder`` itself by default.

    Raises:
        BankError: metadata that JSON cannot hold, or an array of a type that has no form on disk.
        OutputError: the place cannot be written, or another writer holds it too long. What was there is still there.
    """
    folder = as_path(folder).resolve()
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    text = _description(arrays, metadata, form)
    checked_directory(as_path(lock or folder))
    with locked(lock or folder):
        checked_directory(folder)
        try:
            _write_generation(folder, arrays, text, keep)
        except (CallError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError("folder", str(folder), f"a folder that takes what is to be stored ({reason})") from None
        finally:
            shutil.rmtree(folder / _WRITING, ignore_errors=True)
            with suppress(OSError):  # raised where anything is in it
                folder.rmdir()


def load(
    folder: str | Path, *, form: int = 1, generation: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and metadata of the newest generation.

    Args:
        form: the newest form that the caller reads.
        generation: another one, by its number.

    Raises:
        BankError: nothing there, unreadable, of a newer form, or an array that differs from what was saved; each is
            named.
    """
    if generation is not None:
        return _load(as_path(folder).resolve() / f"{generation:06d}", form)
    return _of_newest(folder, lambda generation: _load(generation, form))


def load_metadata(folder: str | Path, *, form: int = 1) -> dict[str, Any]:
    """The metadata of the newest generation, without reading its arrays."""
    return _of_newest(folder, lambda generation: _described(generation, form)["metadata"])


def exists(folder: str | Path) -> bool:
    """Whether a generation is there, damaged or not."""
    return bool(_generations(as_path(folder)))


def generations(folder: str | Path) -> list[int]:
    """Numbers of the generations that are there, damaged or not, oldest first."""
    return [int(path.name) for path in _generations(as_path(folder))]


def take_away(folder: Path) -> None:
    """Remove a folder that is the store's alone, in one step for whoever reads it; its caller holds the lock.

    Raises:
        OutputError: it cannot be removed.
    """
    writing = folder.parent / _WRITING
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(exist_ok=True)
        folder.rename(writing / folder.name)
    except OSError as error:
        raise OutputError("folder", str(folder), f"a folder that can be removed ({error.strerror})") from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)


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


def _description(arrays: dict[str, np.ndarray], metadata: dict[str, Any], form: int) -> str:
    for name, array in arrays.items():
        if not _can_be_stored(array.dtype):
            raise BankError(f"arrays[{name!r}].dtype", str(array.dtype), "numbers of the machine's byte order, or bool")
    described = {n: {"sha256": _digest(a), "shape": list(a.shape), "dtype": str(a.dtype)} for n, a in arrays.items()}
    return strict_json("metadata", {**stamp(form), "metadata": metadata, "arrays": described}, metadata)


def _can_be_stored(dtype: np.dtype) -> bool:
    """Whether the type's name alone gives it back: not so for objects, text, records, or another byte order."""
    if dtype.kind in "OSUMm" or dtype.type is np.void:
        return False
    return dtype.isnative and np.dtype(str(dtype)) == dtype


def _write_generation(folder: Path, arrays: dict[str, np.ndarray], text: str, keep: int) -> None:
    from orbax.checkpoint import v1 as ocp

    there = _generations(folder)
    number = 1 + max((int(path.name) for path in there), default=0)
    while os.path.lexists(folder / f"{number:06d}"):  # somebody else's
        number += 1
    writing = folder / _WRITING
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(exist_ok=True)
    # A folder of its own within: Orbax may still be writing what an interrupted save of this process began.
    staged = Path(tempfile.mkdtemp(dir=writing)) / f"{number:06d}"
    # Orbax refuses empty arrays, whose shape and type are all there is to keep, and a checkpoint of nothing.
    full = {name: array for name, array in arrays.items() if array.size} or {"nothing": np.zeros(1, np.uint8)}
    quietly(ocp.save, str(staged), full, custom_metadata={"json": text, "sha256": _sha256(text.encode())})
    _sync(staged)
    staged.rename(folder / staged.name)
    sync_folder(folder)
    for older in filter(_is_own, there[: max(len(there) + 1 - keep, 0)]):
        with suppress(OSError):  # it stays, and is in nobody's way
            older.rename(writing / older.name)


def _sync(generation: Path) -> None:
    """Have on disk what Orbax wrote itself, at the top and one level down; TensorStore sees to its own files."""
    for folder in (generation, *filter(Path.is_dir, generation.iterdir())):
        for path in filter(Path.is_file, folder.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(folder)


def _generations(folder: Path) -> list[Path]:
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
        custom = json.loads((path / _DESCRIPTION).read_bytes())["custom_metadata"]
        return not custom or not {"json", "sha256"} & set(custom)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # damaged


def _is_own(path: Path) -> bool:
    """Whether a folder is certainly a generation: its description is there, undamaged, and ours."""
    try:
        custom = json.loads((path / _DESCRIPTION).read_bytes())["custom_metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return not path.is_symlink() and _is_undamaged(custom)


def _newest(folder: str | Path) -> Path:
    found = _generations(as_path(folder).resolve())
    if not found:
        raise BankError("folder", str(folder), "a folder that was saved to")
    return found[-1]


def _of_newest(folder: str | Path, read: Callable[[Path], _T]) -> _T:
    """What ``read`` makes of the newest generation; anew where a writer replaced that one meanwhile."""
    for _ in range(_OVERTAKEN):
        generation = _newest(folder)
        try:
            return read(generation)
        except BankError:
            if _newest(folder) == generation:
                raise
    raise BankError("folder", str(folder), f"a folder that is not replaced {_OVERTAKEN} times while it is read")


def _load(generation: Path, form: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from orbax.checkpoint import v1 as ocp

    described = _described(generation, form)
    wanted = described["arrays"]
    abstract = {n: np.empty(d["shape"], d["dtype"]) for n, d in wanted.items() if 0 not in d["shape"]}
    loaded = _from_orbax(generation, ocp.load, abstract) if abstract else {}
    arrays = {n: np.asarray(loaded.get(n, np.empty(d["shape"], d["dtype"]))) for n, d in wanted.items()}
    damaged = [n for n, a in arrays.items() if _digest(a) != wanted[n]["sha256"]]
    if damaged:
        raise BankError("arrays", damaged, f"arrays as saved; those in {generation.name} were damaged on disk")
    return arrays, described["metadata"]


def _described(generation: Path, form: int) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    custom: Any = _from_orbax(generation, ocp.metadata).custom_metadata
    if not _is_undamaged(custom):
        raise BankError("folder", str(generation), "a readable checkpoint (its description was damaged on disk)")
    described = json.loads(custom["json"])
    check_form(str(generation), described, form)
    return described


def _is_undamaged(custom: Any) -> bool:
    """Whether what Orbax kept for us is what we gave it."""
    try:
        return _sha256(custom["json"].encode()) == custom["sha256"]
    except (KeyError, TypeError, AttributeError):
        return False


def _from_orbax(generation: Path, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return quietly(function, str(generation), *args)
    except CallError as error:
        raise BankError("folder", str(generation), f"a readable checkpoint ({error})") from error


def _digest(array: np.ndarray) -> str:
    return _sha256(np.ascontiguousarray(array).tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
