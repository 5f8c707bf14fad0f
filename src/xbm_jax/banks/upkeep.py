"""What becomes of a bank's generations: history, restoring, removing, renaming, checking, collecting.

The caller holds the bank's lock for what writes.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbm_jax.banks.bank_card import BANK_FORM, read_card, write_card
from xbm_jax.banks.index import drop_entry, read_entry
from xbm_jax.banks.shelf import FolderShelf, check_name
from xbm_jax.banks.task_record import TASK_FORM, now
from xbm_jax.errors import BankError
from xbm_jax.storage import store
from xbm_jax.storage.generations import clean, generations, prune, take_away
from xbm_jax.storage.record import Record

__all__ = ["Collected", "Damage", "Generation", "collect", "history", "remove", "rename", "restore", "verify"]

_CHIP_FORM = 2**31  # any: a chip's form is its reader's to know, its digests are checked whatever it is


@dataclass(frozen=True)
class Generation:
    """One generation of a task.

    Attributes:
        number: counts up.
        current: whether it is the one that the bank has now.
        removed: whether the task was removed by it.
        time: when it was put, in UTC; ``None`` of earlier versions.
        method: name of the task's method.
        accuracy: what was measured of it, if anything.
        error: why it cannot be read, if so.
    """

    number: int
    current: bool
    removed: bool = False
    time: str | None = None
    method: str | None = None
    accuracy: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Damage:
    """Something damaged: of which task ("" for the bank itself), in which generation, and what."""

    name: str
    generation: int | None
    error: str


@dataclass(frozen=True)
class Collected:
    """What :func:`collect` did: leftovers and generations taken away, tasks purged and brought to the newest form."""

    leftovers: int
    generations: int
    purged: tuple[str, ...]
    migrated: tuple[str, ...]


def history(shelf: FolderShelf, name: str) -> list[Generation]:
    """The generations of a task, newest first."""
    check_name(name)
    there = generations(shelf.place(name))
    if not there:
        shelf.current(name)
    try:
        entry = shelf.entry(name)
        current = entry.generation if entry else None
    except BankError:
        current = None
    return [_generation(shelf, name, number, number == current) for number in reversed(there)]


def restore(shelf: FolderShelf, name: str, number: int | None = None) -> int:
    """Write an older generation once more, as the newest; gives the new one's number.

    Raises:
        BankError: no such generation, a damaged one, or one that says that the task was removed.
    """
    there = history(shelf, name)
    fit = [g.number for g in there if not g.removed and g.error is None]
    if number is None:
        current = next((g for g in there if g.current), None)
        older = [n for n in fit if current is None or n < current.number]
        if not older:
            raise BankError("generation", None, f"an undamaged older generation of {name!r}; none of {fit} is")
        number = older[0]
    elif number not in fit:
        raise BankError("generation", number, f"an undamaged one of {name!r}: " + (", ".join(map(str, fit)) or "none"))
    try:
        entry = shelf.entry(name)
    except BankError:
        entry = None
    if entry is None:
        record, _ = store.read(shelf.place(name), form=TASK_FORM, generation=number)
    else:
        record = shelf.read_generation(entry, number)
    return shelf.write(name, record.text(), record.data())


def remove(shelf: FolderShelf, name: str) -> None:
    """Add a generation that says that the task is removed."""
    if name not in shelf.names():
        shelf.current(name)
    gone = Record({}, {"name": name, "removed": True, "meta": {}, "time": now()}, TASK_FORM)
    shelf.write(name, gone.text(), gone.data(), removed=True)


def rename(shelf: FolderShelf, old: str, new: str) -> None:
    """Put a task under a new name, then remove it under the old one."""
    record = shelf.read(old)
    if new in shelf.names():
        raise BankError("new", new, "a name that is free in this bank")
    named = dataclasses.replace(record, metadata={**record.metadata, "name": new}, form=TASK_FORM)
    shelf.write(new, named.text(), named.data())
    remove(shelf, old)


def verify(shelf: FolderShelf) -> list[Damage]:
    """Read every byte of a bank's folder that it knows of; gives what is damaged.

    Raises:
        BankError: no bank there, or a damaged card: then nothing can be said of the rest.
    """
    _ = read_card(shelf.folder).of_chip
    found: list[Damage] = []
    if store.exists(shelf.folder / "chip"):
        found += _checked("", None, lambda: _newest_verified(shelf.folder / "chip"))
    for name in sorted(shelf.all_names()):
        found += _task_damage(shelf, name)
    return found


def collect(shelf: FolderShelf, *, removed: bool = False) -> Collected:
    """Take away what nobody needs, and bring what earlier versions wrote to the newest form."""
    card = read_card(shelf.folder)
    if card.form < BANK_FORM:
        write_card(shelf.folder, card)
    leftovers = _left(shelf.folder / "tasks") + _parts(shelf.folder) + _parts(shelf.folder / "index")
    pruned, purged, migrated = 0, [], []
    for name in sorted(shelf.all_names()):
        place = shelf.place(name)
        try:
            entry = shelf.entry(name)
        except BankError:
            continue  # verify names it; what is damaged is not taken away
        if entry is None:
            continue
        if entry.removed and removed:
            take_away(place)
            drop_entry(shelf.folder, name)
            purged.append(name)
            continue
        if not entry.removed and _migrated(shelf, name):
            migrated.append(name)
            continue
        pruned += len(prune(place, card.keep, entry.generation))
    return Collected(leftovers, pruned, tuple(purged), tuple(migrated))


def _migrated(shelf: FolderShelf, name: str) -> bool:
    """Rewrite a task of an earlier form; whether it was one. A damaged one is left as it is."""
    try:
        described = shelf.description(name)
        if described.form == TASK_FORM and described.layout > 1:
            return False
        record = shelf.read(name)
    except BankError:
        return False
    named = dataclasses.replace(record, metadata={**record.metadata, "name": name}, form=TASK_FORM)
    shelf.write(name, named.text(), named.data())
    return True


def _task_damage(shelf: FolderShelf, name: str) -> list[Damage]:
    found: list[Damage] = []
    there = generations(shelf.place(name))
    try:
        entry = read_entry(shelf.folder, name)
    except BankError as error:
        found.append(Damage(name, None, str(error)))
        entry = None
    if entry is not None and entry.generation not in there:
        found.append(Damage(name, entry.generation, "missing or rolled back: the index knows of it"))
    for number in there:
        found += _checked(name, number, lambda number=number: _verify(shelf, name, number, entry))
    return found


def _verify(shelf: FolderShelf, name: str, number: int, entry: Any) -> None:
    found = store.verified(shelf.place(name), number, form=TASK_FORM)
    known = entry.kept.get(number) if entry is not None else None
    if known is not None and known != found:
        what = "description" if known.sha256 != found.sha256 else "files"
        raise BankError(f"tasks[{name!r}]/{number:06d}", "changed", f"the {what} that the index knows of")
    described = store.read_description(shelf.place(name), form=TASK_FORM, generation=number).metadata
    if described.get("name", name) != name:
        raise BankError(f"tasks[{name!r}]/{number:06d}", described["name"], "a generation of this task")


def _newest_verified(folder: Path) -> None:
    for number in generations(folder):
        store.verified(folder, number, form=_CHIP_FORM)


def _checked(name: str, number: int | None, act: Any) -> list[Damage]:
    try:
        act()
    except BankError as error:
        return [Damage(name, number, str(error))]
    return []


def _generation(shelf: FolderShelf, name: str, number: int, current: bool) -> Generation:
    try:
        said = store.read_description(shelf.place(name), form=TASK_FORM, generation=number).metadata
    except BankError as error:
        return Generation(number, current, error=str(error))
    method, meta = said.get("method"), said.get("meta")
    return Generation(
        number,
        current,
        bool(said.get("removed", False)),
        said.get("time"),
        method.get("name") if isinstance(method, dict) else None,
        meta.get("accuracy") if isinstance(meta, dict) else None,
    )


def _left(tasks: Path) -> int:
    """Take away what killed writers left among the tasks and in each, and folders that a first put never filled."""
    folders = [tasks, *filter(Path.is_dir, tasks.iterdir())] if tasks.is_dir() else []
    left = sum(clean(folder) for folder in folders)
    for folder in folders[1:]:
        with suppress(OSError):  # raised where anything is in it
            folder.rmdir()
    return left


def _parts(folder: Path) -> int:
    """Take away what killed writers of single files left (:func:`xbm_jax.storage.files.replace_file`)."""
    left = [path for path in folder.glob(".*.part") if path.is_file()] if folder.is_dir() else []
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
