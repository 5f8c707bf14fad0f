"""Records in a folder, by Orbax; the only module that knows Orbax.

    <folder>/000001        a generation: one checkpoint, whole
    <folder>/.xbm-writing  what is being written or taken away; whoever holds the lock may remove it
    <folder>/.xbm-lock     the lock of whoever writes (see :mod:`xbm_jax.storage.lock`); readers take none

A save writes a new generation, has it on disk, renames it into place and only then takes away older ones, so that a
killed save loses nothing. It takes away what its own description proves to be an older generation; everything else in
the folder is somebody else's and stays.

A generation is an Orbax checkpoint of one array ``data`` of bytes, in Zarr 2 without compression, and the record's
envelope (:mod:`xbm_jax.storage.record`) as its custom metadata. So its bytes are a file, and are read as such: the
digests of description and arrays are checked, Orbax itself would load a flipped bit without a word. Layout 1, of
earlier versions, is read by Orbax.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from xbm_jax.archives import check_total
from xbm_jax.errors import BankError, OutputError
from xbm_jax.paths import as_path
from xbm_jax.storage.files import sync_folder
from xbm_jax.storage.generations import (
    WRITING,
    Stored,
    checked_directory,
    custom_of,
    exists,
    files_digest,
    found_in,
    generations,
    prune,
)
from xbm_jax.storage.lock import locked
from xbm_jax.storage.quiet import CallError, quietly
from xbm_jax.storage.record import Description, Record, cut, digest, envelope, opened

__all__ = ["checked_directory", "exists", "load", "load_metadata", "read", "read_description", "save"]
__all__ += ["verified", "write"]

_DATA = "state/data/0"  # the one chunk of the one array of Orbax's pytree
_OVERTAKEN = 100  # times that a reader begins anew because a writer took away what it was reading

_COMPARE = "_check_directory_consistency"  # Orbax's name

_T = TypeVar("_T")


def save(
    folder: str | Path,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, Any],
    *,
    form: int = 1,
    lock: str | Path | None = None,
    keep: int = 1,
) -> Stored:
    """Write one generation, then take away the older ones.

    Args:
        form: number of the form of ``arrays`` and ``metadata``.
        lock: the folder whose lock is held meanwhile; ``folder`` itself by default.
        keep: generations that stay, the new one among them.

    Raises:
        BankError: metadata that JSON cannot hold, or an array of a type that has no form on disk.
        OutputError: the place cannot be written, or another writer holds it too long. What was there is still there.
    """
    folder = as_path(folder).resolve()
    record = Record({name: np.asarray(array) for name, array in arrays.items()}, metadata, form)
    text, data = record.text(), record.data()
    checked_directory(as_path(lock or folder))
    with locked(lock or folder):
        stored = write(folder, text, data)
        prune(folder, keep)
    return stored


def load(
    folder: str | Path, *, form: int = 1, generation: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and metadata of the newest generation, or of a numbered one.

    Args:
        form: the newest form that the caller reads.

    Raises:
        BankError: nothing there, unreadable, of a newer form, or an array that differs from what was saved; each is
            named.
    """
    record, _ = _of_generation(folder, generation, lambda path: _load(path, form))
    return record.arrays, record.metadata


def load_metadata(folder: str | Path, *, form: int = 1, generation: int | None = None) -> dict[str, Any]:
    """The metadata of the newest generation, or of a numbered one, without reading its arrays."""
    return read_description(folder, form=form, generation=generation).metadata


def read(folder: str | Path, *, form: int = 1, generation: int | None = None) -> tuple[Record, str]:
    """As :func:`load`, as a record, with the SHA-256 of its description."""
    return _of_generation(folder, generation, lambda path: _load(path, form))


def read_description(folder: str | Path, *, form: int = 1, generation: int | None = None) -> Description:
    """What the newest generation, or a numbered one, says of itself."""
    return _of_generation(folder, generation, lambda path: _described(path, form))


def write(folder: Path, text: str, data: np.ndarray) -> Stored:
    """Write one generation of a record's text and bytes; the caller holds the lock.

    Raises:
        OutputError: the place cannot be written. What was there is still there.
    """
    checked_directory(folder)
    try:
        return _write_generation(folder, text, data)
    except (CallError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError("folder", str(folder), f"a folder that takes what is to be stored ({reason})") from None
    finally:
        shutil.rmtree(folder / WRITING, ignore_errors=True)
        with suppress(OSError):  # raised where anything is in it
            folder.rmdir()


def verified(folder: Path, number: int, *, form: int = 1) -> Stored:
    """A generation after every byte of it was read, the arrays once more by Orbax.

    Raises:
        BankError: what is damaged.
    """
    path = folder / f"{number:06d}"
    record, sha256 = _load(path, form)
    if _described(path, form).layout > 1 and record.arrays:
        from orbax.checkpoint import v1 as ocp

        data = record.data()
        loaded = (
            _from_orbax(path, ocp.load, {"data": np.empty(data.shape, data.dtype)}) if data.size else {"data": data}
        )
        if not np.array_equal(loaded["data"], data):
            raise BankError("folder", str(path), "a readable checkpoint (Orbax reads other bytes than its file has)")
    return Stored(number, sha256, files_digest(path))


def _write_generation(folder: Path, text: str, data: np.ndarray) -> Stored:
    from orbax.checkpoint import v1 as ocp

    number = 1 + max(generations(folder), default=0)
    while os.path.lexists(folder / f"{number:06d}"):  # somebody else's
        number += 1
    writing = folder / WRITING
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(exist_ok=True)
    # A folder of its own within: Orbax may still be writing what an interrupted save of this process began.
    staged = Path(tempfile.mkdtemp(dir=writing)) / f"{number:06d}"
    # Orbax refuses empty arrays and a checkpoint of nothing.
    content = {"data": data if data.size else np.zeros(1, np.uint8)}
    custom = envelope(text)
    with _alone(ocp):
        quietly(ocp.save, str(staged), content, custom_metadata=custom)
    files = _synced(staged)
    staged.rename(folder / staged.name)
    sync_folder(folder)
    return Stored(number, custom["sha256"], files)


@contextmanager
def _alone(ocp: Any) -> Iterator[None]:
    """Orbax's options: bytes as they are, and this process alone; of several that run one program it would wait."""
    context, process = ocp.Context(), jax.process_index()
    saving, among = context.array.saving, context.multiprocessing
    saving.use_ocdbt = saving.use_zarr3 = saving.use_compression = saving.enable_write_sharding_file = False
    among.primary_host, among.active_processes, among.barrier_sync_key_prefix = process, {process}, f"xbm_{process}"
    # Made in the background, a folder for which there is no room has Orbax's threads wait for minutes.
    context.asynchronous.create_directories_asynchronously = False
    with context, _comparing_no_paths() if jax.process_count() > 1 else nullcontext():
        yield


@contextmanager
def _comparing_no_paths() -> Iterator[None]:
    """Orbax 0.12.8 compares the path among all processes, whatever the options say; nobody else saves here."""
    module = importlib.import_module("orbax.checkpoint.experimental.v1._src.saving.execution")
    with ExitStack() as undo:
        if compare := getattr(module, _COMPARE, None):
            undo.callback(setattr, module, _COMPARE, compare)
            setattr(module, _COMPARE, lambda _: None)
        yield


def _synced(generation: Path) -> str:
    """Have on disk all that Orbax wrote; gives the digest of its files."""
    for path in generation.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(generation)
    return files_digest(generation)


def _of_generation(folder: str | Path, number: int | None, read: Callable[[Path], _T]) -> _T:
    """What ``read`` makes of a generation; of the newest one anew where a writer replaced that one meanwhile."""
    path = as_path(folder).resolve()
    if number is not None:
        if not (path / f"{number:06d}").is_dir():
            raise BankError("folder", str(folder), f"a folder with {number:06d} in it")
        return read(path / f"{number:06d}")
    for _ in range(_OVERTAKEN):
        there = found_in(path)
        if not there:
            raise BankError("folder", str(folder), "a folder that was saved to")
        try:
            return read(there[-1])
        except BankError:
            if found_in(path)[-1:] == there[-1:]:
                raise
    raise BankError("folder", str(folder), f"a folder that is not replaced {_OVERTAKEN} times while it is read")


def _load(generation: Path, form: int) -> tuple[Record, str]:
    described = _described(generation, form)
    if described.layout == 1:
        arrays = _load_by_orbax(generation, described)
    else:
        arrays = cut(generation.name, described, _bytes_of(generation, described.nbytes))
    return Record(arrays, described.metadata, described.form), described.sha256


def _described(generation: Path, form: int) -> Description:
    return opened(str(generation), custom_of(generation), form)


def _bytes_of(generation: Path, count: int) -> np.ndarray:
    """The bytes of a generation's one array, as many as its description says."""
    path = generation / _DATA
    if not count:
        return np.zeros(0, np.uint8)
    try:
        size = path.stat().st_size
        if size != count:
            allowed = f"a readable checkpoint ({_DATA} has {size} bytes, not {count} as its description says)"
            raise BankError("folder", str(generation), allowed)
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise BankError("folder", str(generation), f"a readable checkpoint ({_DATA}: {error.strerror})") from error


def _load_by_orbax(generation: Path, described: Description) -> dict[str, np.ndarray]:
    """The arrays of layout 1."""
    from orbax.checkpoint import v1 as ocp

    wanted = described.arrays
    held = sum(path.stat().st_size for path in generation.rglob("*") if path.is_file())
    try:
        check_total(described.nbytes, held)
    except ValueError as error:
        raise BankError("folder", str(generation), f"a readable checkpoint ({error})") from error
    abstract = {n: np.empty(d["shape"], d["dtype"]) for n, d in wanted.items() if 0 not in d["shape"]}
    loaded = _from_orbax(generation, ocp.load, abstract) if abstract else {}
    arrays = {n: np.asarray(loaded.get(n, np.empty(d["shape"], d["dtype"]))) for n, d in wanted.items()}
    damaged = [n for n, a in arrays.items() if digest(np.ascontiguousarray(a).tobytes()) != wanted[n]["sha256"]]
    if damaged:
        raise BankError("arrays", damaged, f"arrays as saved; those in {generation.name} were damaged on disk")
    return arrays


def _from_orbax(generation: Path, function: Callable[..., Any], *args: Any) -> Any:
    from orbax.checkpoint import v1 as ocp

    try:
        with _alone(ocp):
            return quietly(function, str(generation), *args)
    except CallError as error:
        raise BankError("folder", str(generation), f"a readable checkpoint ({error})") from error
