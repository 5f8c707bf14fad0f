"""Where the records of a bank lie: in a folder that is written to, or in one file that is read.

    bank/bank.json            what chip the bank belongs to, and how many generations are kept
    bank/index/<name>.json    which generation of a task is the current one (:mod:`xbm_jax.banks.index`)
    bank/tasks/<name>/000001  a generation of a task, by Orbax (:mod:`xbm_jax.storage.store`)
    bank/.xbm-lock            held by whoever writes to the bank

A put writes the generation, then the index, then takes away what is older than the last ``keep``: killed in between, a
bank has the task of before or the new one. Reading takes no lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from xbm_jax.banks.bank_card import BankCard, parse_card, read_card
from xbm_jax.banks.index import Entry, indexed, read_entry, write_entry
from xbm_jax.banks.task_record import TASK_FORM
from xbm_jax.errors import BankError
from xbm_jax.storage import store
from xbm_jax.storage.generations import generations, prune
from xbm_jax.storage.record import Description, Record
from xbm_jax.storage.tensor_file import TensorFile

__all__ = ["CHIP_KEY", "ENDING", "FILE_FORM", "FileShelf", "FolderShelf", "Shelf", "check_name", "shelf_at", "task_key"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
_LONGEST = 200  # characters: file systems take 255 and the index adds an ending
_OVERTAKEN = 100  # times that a reader begins anew because a writer replaced what it was reading

ENDING = ".safetensors"
FILE_FORM = 1
CHIP_KEY = "chip"

_T = TypeVar("_T")


class Shelf(Protocol):
    """What a bank reads from."""

    def card(self) -> BankCard:
        """What the bank says of itself."""
        ...

    def names(self) -> list[str]:
        """Tasks there, sorted."""
        ...

    def read(self, name: str) -> Record:
        """The record of a task, every array compared with its digest."""
        ...

    def description(self, name: str) -> Description:
        """What a task's record says of itself; its arrays are not read."""
        ...

    def disk_bytes(self, name: str) -> int:
        """Bytes that a task takes."""
        ...


class FolderShelf:
    """A bank's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def card(self) -> BankCard:
        return read_card(self.folder)

    def names(self) -> list[str]:
        read_card(self.folder)
        return sorted(name for name in self.all_names() if self._is_there(name))

    def all_names(self) -> set[str]:
        """Names of tasks, those that were removed too."""
        known = set(indexed(self.folder))
        try:
            others = set(os.listdir(self.folder / "tasks")) - known
        except OSError:
            others = set()
        return {name for name in known.union(n for n in others if store.exists(self.place(n))) if _is_name(name)}

    def entry(self, name: str) -> Entry | None:
        """Which generation of a task counts, removed or not; ``None`` for a task that was never there.

        Raises:
            BankError: a damaged entry of the index, or, where it is missing, a damaged generation.
        """
        found = read_entry(self.folder, name)
        if found is not None:
            return found
        there = generations(self.place(name))
        if not there:
            return None
        described = store.read_description(self.place(name), form=TASK_FORM, generation=there[-1])
        return Entry(name, there[-1], bool(described.metadata.get("removed", False)), {})

    def current(self, name: str) -> Entry:
        """The entry of a task of the bank.

        Raises:
            BankError: no such task, or a damaged entry.
        """
        check_name(name)
        found = self.entry(name)
        if found is None or found.removed:
            raise _unknown(name, self.names())
        return found

    def read(self, name: str) -> Record:
        return self._consistent(name, lambda entry: self.read_generation(entry, entry.generation))

    def description(self, name: str) -> Description:
        return self._consistent(name, self._description)

    def read_generation(self, entry: Entry, number: int) -> Record:
        """A generation of a task, which has to be the one that the index knows.

        Raises:
            BankError: it is missing, damaged, or another one.
        """
        self._check_there(entry, number)
        record, sha256 = store.read(self.place(entry.name), form=TASK_FORM, generation=number)
        self._check(entry, number, sha256, record.metadata)
        return record

    def disk_bytes(self, name: str) -> int:
        """Bytes on disk of a task's current generation and its entry."""
        place = self.place(name) / f"{self.current(name).generation:06d}"
        files = [path for path in place.rglob("*") if path.is_file()]
        entry = self.folder / "index" / f"{name}.json"
        return sum(path.stat().st_size for path in [*files, *([entry] if entry.exists() else [])])

    def write(self, name: str, text: str, data: Any, *, removed: bool = False) -> int:
        """Add a generation and make it the current one; the caller holds the bank's lock.

        Raises:
            BankError: no bank any more. OutputError: no room for it. Nothing has changed then.
        """
        keep = read_card(self.folder).keep
        try:
            known = self.entry(name)
        except BankError:  # it is replaced
            known = None
        place = self.place(name)
        stored = store.write(place, text, data)
        kept = {**(known.kept if known else {}), stored.number: stored}
        there = generations(place)[-keep:]
        write_entry(self.folder, Entry(name, stored.number, removed, {n: kept[n] for n in there if n in kept}))
        prune(place, keep, stored.number)
        return stored.number

    def place(self, name: str) -> Path:
        """The folder of a task's generations."""
        return self.folder / "tasks" / name

    def _is_there(self, name: str) -> bool:
        """Whether a task counts: unless it was removed. A damaged one does."""
        try:
            entry = self.entry(name)
        except BankError:
            return True
        return entry is not None and not entry.removed

    def _consistent(self, name: str, read: Callable[[Entry], _T]) -> _T:
        """What ``read`` makes of a task; anew where a writer replaced it meanwhile."""
        for _ in range(_OVERTAKEN):
            entry = self.current(name)
            try:
                return read(entry)
            except BankError:
                if self.current(name) == entry:
                    raise
        raise BankError("task", name, f"a task that is not replaced {_OVERTAKEN} times while it is read")

    def _description(self, entry: Entry) -> Description:
        self._check_there(entry, entry.generation)
        described = store.read_description(self.place(entry.name), form=TASK_FORM, generation=entry.generation)
        self._check(entry, entry.generation, described.sha256, described.metadata)
        return described

    def _check_there(self, entry: Entry, number: int) -> None:
        if not (self.place(entry.name) / f"{number:06d}").is_dir():
            there = ", ".join(map(str, generations(self.place(entry.name)))) or "none"
            allowed = f"generation {number}, of which the index knows; there are {there} (xbm bank restore)"
            raise BankError(f"tasks[{entry.name!r}]", "missing or rolled back", allowed)

    def _check(self, entry: Entry, number: int, sha256: str, metadata: dict[str, Any]) -> None:
        """Raise unless a generation is the one of the index, and of that task."""
        known = entry.kept.get(number)
        if known is not None and known.sha256 != sha256:
            allowed = f"{known.sha256[:12]}, the digest in the index; another generation was put in place of {number}"
            raise BankError(f"tasks[{entry.name!r}].sha256", sha256[:12], allowed)
        _check_own(entry.name, metadata)


class FileShelf:
    """A bank in one file, as :meth:`xbm_jax.banks.MaskBank.export` writes it."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, TensorFile(path)
        metadata = self.file.description("bank", FILE_FORM).metadata
        self._card = parse_card(str(path), metadata.get("card"))
        names = metadata.get("tasks")
        if not isinstance(names, list) or not all(_is_name(name) for name in names):
            raise BankError("file", str(path), "a bank, whose tasks have names")
        self._names: list[str] = names

    def card(self) -> BankCard:
        return self._card

    def names(self) -> list[str]:
        return sorted(set(self._names))

    def read(self, name: str) -> Record:
        self._check(name)
        record, _ = self.file.record(task_key(name), TASK_FORM)
        _check_own(name, record.metadata)
        return record

    def description(self, name: str) -> Description:
        self._check(name)
        described = self.file.description(task_key(name), TASK_FORM)
        _check_own(name, described.metadata)
        return described

    def disk_bytes(self, name: str) -> int:
        """Bytes of a task's arrays in the file."""
        return self.description(name).nbytes

    def _check(self, name: str) -> None:
        check_name(name)
        if name not in self._names:
            raise _unknown(name, self.names())


def shelf_at(where: Path) -> FolderShelf | FileShelf:
    """The shelf of a bank's folder, or of its file."""
    return FileShelf(where) if where.suffix == ENDING else FolderShelf(where)


def task_key(name: str) -> str:
    """The key of a task's record in a file."""
    return f"task/{name}"


def check_name(name: Any) -> None:
    """Raise BankError unless a bank takes a task of that name."""
    if not _is_name(name):
        allowed = f"letters, digits and . _ @ + - , the first a letter or digit, at most {_LONGEST} of them"
        raise BankError("name", name, allowed)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def _unknown(name: str, names: list[str]) -> BankError:
    return BankError("name", name, "one of " + (", ".join(names) or "none: the bank is empty"))


def _check_own(name: str, metadata: dict[str, Any]) -> None:
    """Raise if a record says that it is another task's; those of before say nothing."""
    if metadata.get("name", name) != name:
        allowed = f"{name!r}; this is the record of another task, in its place"
        raise BankError(f"tasks[{name!r}].name", metadata["name"], allowed)
