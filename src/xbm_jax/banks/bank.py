"""The mask bank: many tasks of one chip, in a folder or in one file; :mod:`xbm_jax.banks.shelf` says what lies where.

A task in a bank is bound to its chip: the chip's identity, its spec and its row order are checked by name when a bank
is opened.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xbm_jax.banks import exchange, upkeep
from xbm_jax.banks.bank_card import KEEP, BankCard, bank_card, checked_keep, read_card, write_card
from xbm_jax.banks.cards import ChipCard, chip_card
from xbm_jax.banks.shelf import FileShelf, FolderShelf, check_name, shelf_at
from xbm_jax.banks.task_record import check_finite, record_of, task_of
from xbm_jax.banks.upkeep import Collected, Damage, Generation
from xbm_jax.errors import BankError, warn
from xbm_jax.models import Chip
from xbm_jax.paths import as_path
from xbm_jax.promotion import numpy_promotion
from xbm_jax.storage import store
from xbm_jax.storage.lock import locked
from xbm_jax.tasks.kept import compact as as_compact
from xbm_jax.tasks.marks import ChipMark, chip_mark
from xbm_jax.tasks.task import Task, check_fits, stored

__all__ = ["MaskBank", "card_of", "describe", "task_names"]


class MaskBank:
    """Tasks by name, for one chip. ``create``, ``open``, then ``put`` and ``get``.

    Attributes:
        folder: of the bank; of a bank that was exported, the file, which is only read.
        chip: the chip.
    """

    def __init__(self, folder: Path, chip: Chip) -> None:
        self.folder, self.chip = folder, chip
        self.shelf = shelf_at(folder)

    @classmethod
    def create(cls, folder: str | Path, chip: Chip, *, keep: int | None = None) -> MaskBank:
        """An empty bank for ``chip``, or the bank that is already there if it belongs to this chip.

        Args:
            keep: generations of a task that stay when it is replaced or removed, 3 by default; another number than
                that of a bank which is there is its number from now on.
        """
        folder = as_path(folder)
        wanted = None if keep is None else checked_keep(keep)
        if not os.path.exists(folder / "bank.json"):
            store.checked_directory(folder / "tasks")
            card = bank_card(chip, wanted or KEEP)
            with locked(folder):
                if not os.path.exists(folder / "bank.json"):  # nobody was faster
                    write_card(folder, card)
        bank = cls.open(folder, chip)
        if wanted not in (None, bank.card.keep):
            bank._rewrite_card(keep=wanted)
        return bank

    @classmethod
    def open(cls, folder: str | Path, chip: Chip) -> MaskBank:
        """The bank in ``folder``, or in an exported file; no task is read.

        Raises:
            BankError: no bank there, a damaged one, or one whose network, row order, spec or cells are not this chip's.
        """
        folder = as_path(folder)
        card_of(folder).check(chip_card(chip))
        return cls(folder, chip)

    @property
    def card(self) -> BankCard:
        """What the bank says of itself."""
        return self.shelf.card()

    @property
    def names(self) -> list[str]:
        """Tasks in the bank, sorted."""
        return self.shelf.names()

    @numpy_promotion
    def put(self, name: str, task: Task, *, compact: bool = True) -> None:
        """Store a task under ``name``; a task of that name is replaced once the new one is whole.

        Args:
            compact: keep two numbers a channel in 16 bits and a head of 8 bits a weight
                (:func:`xbm_jax.tasks.compact`); else norms, statistics and head as they are, 32 bits each, for a task
                that is to be learned on. What was measured of a task (``meta``) is not measured again.

        Raises:
            BankError: a name or a task that cannot be stored, or no bank any more. OutputError: no room for it, or
                another process that writes to the bank for too long. Nothing has changed then.
        """
        check_name(name)
        shelf = self._writable()
        read_card(shelf.folder)
        check_fits(self.chip, task)
        check_finite(task)
        mark, task = self._chip_of(task), (as_compact if compact else stored)(self.chip, task)
        record = record_of(self.chip, name, task, mark)
        text, data = record.text(), record.data()
        with self._lock():
            shelf.write(name, text, data)

    @numpy_promotion
    def get(self, name: str) -> Task:
        """The task as stored: mask values are integer codes, norms and head compact unless it was put otherwise.

        Raises:
            BankError: no such task, or one that is damaged or does not fit the chip.
        """
        return task_of(self.chip, name, self.shelf.read(name), self._mark)

    def meta(self, name: str) -> dict[str, Any]:
        """What was measured of a task, without reading its arrays."""
        return self.shelf.description(name).metadata["meta"]

    def remove(self, name: str) -> None:
        """Delete a task; that is a generation too, and ``restore`` brings the task back until ``gc(removed=True)``."""
        shelf = self._writable()
        check_name(name)
        with self._lock():
            upkeep.remove(shelf, name)

    def rename(self, old: str, new: str) -> None:
        """Give a task another, free name. Older generations stay under the old one.

        Raises:
            BankError: no such task, a damaged one, or a name that is taken or none.
        """
        shelf = self._writable()
        check_name(new)
        with self._lock():
            upkeep.rename(shelf, old, new)

    def history(self, name: str) -> list[Generation]:
        """The generations of a task that are kept, newest first; of a removed one too."""
        return upkeep.history(self._writable(), name)

    def restore(self, name: str, generation: int | None = None) -> int:
        """Make an older generation the current one again, as a new one, whose number is given.

        Args:
            generation: its number; by default the newest task, undamaged, before the current generation.
        """
        shelf = self._writable()
        check_name(name)
        with self._lock():
            return upkeep.restore(shelf, name, generation)

    def verify(self) -> list[Damage]:
        """Read every byte of every generation, and of the chip beside them; gives what is damaged.

        Tasks that are there are also read as ``get`` does.
        """
        found = upkeep.verify(self._writable())
        told = {damage.name for damage in found}
        for name in (name for name in self.names if name not in told):
            try:
                self.get(name)
            except BankError as error:
                found.append(Damage(name, None, str(error)))
        return found

    def gc(self, *, removed: bool = False) -> Collected:
        """Take away what killed writers left and generations beyond the last ``keep``; bring older forms to the newest.

        Args:
            removed: also what is left of removed tasks: then they cannot be restored.
        """
        shelf = self._writable()
        with self._lock():
            return upkeep.collect(shelf, removed=removed)

    def export(self, path: str | Path, names: Sequence[str] | None = None, *, chip: bool = False) -> None:
        """Write tasks, by default all, with the card of their chip to one ``.safetensors`` file (``docs/banks.md``).

        Args:
            names: which; current generations alone.
            chip: the chip too, so that whoever has the file needs nothing else: ``xbm.load_bank(file)``.

        Raises:
            BankError: a task that is not there or damaged. OutputError: the place cannot be written.
        """
        exchange.export(self.shelf, as_path(path), names, self.chip if chip else None)

    def import_(self, path: str | Path, names: Sequence[str] | None = None, *, replace: bool = False) -> list[str]:
        """Put the tasks of an exported file, by default all, into this bank; gives their names.

        Args:
            replace: also those whose names are taken here: a task that is there becomes an older generation.

        Raises:
            BankError: a file that is damaged, of another chip, or has a task that is damaged or whose name is taken;
                nothing has been put then.
        """
        shelf, source = self._writable(), FileShelf(as_path(path))
        source.card().of_chip.check(chip_card(self.chip))
        chosen = exchange.chosen(source, names)
        taken = [] if replace else sorted(set(chosen) & set(self.names))
        if taken:
            raise BankError("names", taken, "names that are free in this bank, or replace=True")
        records = {name: source.read(name) for name in chosen}
        for name, record in records.items():
            task_of(self.chip, name, record, self._mark)  # what cannot be got is not put
        with self._lock():
            for name, record in records.items():
                shelf.write(name, record.text(), record.data())
        return chosen

    def _writable(self) -> FolderShelf:
        if isinstance(self.shelf, FileShelf):
            allowed = "a bank in a folder; one in a file is only read (MaskBank.create(folder, chip).import_(file))"
            raise BankError("bank", str(self.folder), allowed)
        return self.shelf

    def _lock(self) -> Any:
        return locked(self._writable().folder)

    def _rewrite_card(self, **changes: Any) -> None:
        with self._lock():
            write_card(self.folder, dataclasses.replace(self.card, **changes))

    @property
    def _mark(self) -> ChipMark:
        mark = chip_mark(self.chip)
        assert mark is not None  # a bank has the card of its chip, which a traced chip cannot have
        return mark

    def _chip_of(self, task: Task) -> ChipMark:
        """The bank's chip with the calibration that a task was learned under; warns where the chip has another now."""
        if task.chip is None or task.chip.calibration == self._mark.calibration:
            return self._mark
        text = "the task was learned under another calibration than the bank's chip has; what it answers may differ"
        warn(text)
        return dataclasses.replace(self._mark, calibration=task.chip.calibration)


def task_names(folder: str | Path) -> list[str]:
    """Tasks in the bank at ``folder``, sorted; needs no chip.

    Raises:
        BankError: no bank there.
    """
    return shelf_at(as_path(folder)).names()


def describe(folder: str | Path) -> dict[str, Any]:
    """What a bank holds, without its chip: ``{"chip": card, "parameters": number or None, "tasks": {name: task}}``.

    A task is ``{"method": ..., "classes": ..., "meta": ..., "bytes": ...}``; one that cannot be read is
    ``{"error": why}``.
    """
    shelf = shelf_at(as_path(folder))
    card = shelf.card()
    tasks = {name: _description(shelf, name) for name in shelf.names()}
    return {"chip": card.chip, "parameters": card.parameters, "tasks": tasks}


def card_of(folder: str | Path) -> ChipCard:
    """The chip that the bank at ``folder`` belongs to."""
    return shelf_at(as_path(folder)).card().of_chip


def _description(shelf: FolderShelf | FileShelf, name: str) -> dict[str, Any]:
    try:
        return {**shelf.description(name).metadata, "bytes": shelf.disk_bytes(name)}
    except BankError as error:
        return {"error": str(error)}
