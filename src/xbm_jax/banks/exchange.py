"""A bank as one file: ``.safetensors``, with its chip if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xbm_jax.banks.chip_store import CHIP_FORM, chip_of, chip_record
from xbm_jax.banks.shelf import CHIP_KEY, ENDING, FILE_FORM, FileShelf, Shelf, task_key
from xbm_jax.errors import BankError, DataError, OutputError
from xbm_jax.models import Chip, Network
from xbm_jax.storage.record import Record
from xbm_jax.storage.tensor_file import write_tensor_file

__all__ = ["chip_in", "chosen", "export"]


def export(shelf: Shelf, path: Path, names: Sequence[str] | None, chip: Chip | None) -> None:
    """Write tasks of a shelf, the card of their chip, and the chip if given, to one file."""
    if path.suffix != ENDING:
        raise OutputError("path", str(path), f"a file that ends in {ENDING}")
    picked = chosen(shelf, names)
    card = Record({}, {"card": shelf.card().to_json(), "tasks": picked}, FILE_FORM)
    records = {task_key(name): shelf.read(name) for name in picked}
    if chip is not None:
        records[CHIP_KEY] = chip_record(chip)
    write_tensor_file(path, records, {"bank": card.text()})


def chip_in(shelf: FileShelf, network: Network | None) -> Chip:
    """The chip that came with a file.

    Raises:
        BankError: none did, or a damaged one.
    """
    if CHIP_KEY not in shelf.file.keys:
        allowed = "a file with its chip in it, bank.export(path, chip=True); or MaskBank.open(path, chip)"
        raise BankError("chip", str(shelf.path), allowed)
    record, _ = shelf.file.record(CHIP_KEY, CHIP_FORM)
    return chip_of(record, str(shelf.path), network)


def chosen(shelf: Shelf, names: Sequence[str] | None) -> list[str]:
    """Names of a shelf, checked; by default all.

    Raises:
        DataError: names that are no list. BankError: a name that is not there.
    """
    there = shelf.names()
    if names is None:
        return there
    if isinstance(names, str):
        raise DataError("names", names, f"a list of names: [{names!r}]")
    unknown = [name for name in names if name not in there]
    if unknown:
        raise BankError("names", unknown, "some of " + (", ".join(there) or "none: the bank is empty"))
    return list(dict.fromkeys(names))
