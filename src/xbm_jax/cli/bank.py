"""``xbm bank``: look into a bank, look after it, publish it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from xbm_jax.banks import ChipCard, describe, load_bank, publish, unpack, upkeep
from xbm_jax.banks.exchange import export
from xbm_jax.banks.shelf import ENDING, FolderShelf, check_name, shelf_at
from xbm_jax.cli.bank_options import (
    BankExport,
    BankGc,
    BankHistory,
    BankImport,
    BankList,
    BankPull,
    BankPush,
    BankRemove,
    BankRename,
    BankRestore,
    BankShow,
    BankVerify,
)
from xbm_jax.cli.console import Output, complain, say
from xbm_jax.errors import BankError
from xbm_jax.report import print_bank, print_history
from xbm_jax.storage.lock import locked

__all__ = ["bank_command"]


def bank_command(action: Any) -> int:
    """Do one action; 1 where something is damaged, which standard error says, else 0."""
    match action:
        case BankList(bank):
            return _list(bank)
        case BankShow(bank, task):
            return _show(bank, task)
        case BankVerify(bank):
            return _verify(bank)
        case BankExport(bank, file, task, chip):
            whole = load_bank(bank).chip if chip else None
            export(shelf_at(bank), file, task or None, whole)
            say(Output(), f"Written to {file}: {file.stat().st_size:,} bytes.")
        case BankImport(file, bank, task, replace):
            names = unpack(file, bank, task or None, replace=replace)
            say(Output(), f"{bank}: {', '.join(names)}.")
        case BankPush(bank, to, private):
            say(Output(), f"Published as {publish(load_bank(bank), to, private=private)}.")
        case BankPull(address, bank, replace):
            say(Output(), f"{bank}: {', '.join(unpack(address, bank, replace=replace))}.")
        case _:
            _look_after(action)
    return 0


def _look_after(action: Any) -> None:
    """What changes or shows generations of a bank in a folder."""
    shelf, console = _folder(action.bank), Output()
    match action:
        case BankHistory(_, task):
            print_history(upkeep.history(shelf, task), console)
            return
    with locked(shelf.folder):
        match action:
            case BankRestore(_, task, generation):
                number = upkeep.restore(shelf, task, generation)
                say(console, f"{task} is as it was; that is generation {number}.")
            case BankRename(_, task, to):
                check_name(to)
                upkeep.rename(shelf, task, to)
                say(console, f"{task} is {to} now.")
            case BankRemove(_, task):
                upkeep.remove(shelf, task)
                say(console, f"{task} is removed; xbm bank restore {shelf.folder} {task} brings it back.")
            case BankGc(_, removed):
                done = upkeep.collect(shelf, removed=removed)
                gone = f"{done.leftovers} leftovers, {done.generations} generations, {len(done.purged)} removed tasks"
                say(console, f"Taken away: {gone}. Brought to the newest form: {len(done.migrated)} tasks.")


def _folder(bank: Path) -> FolderShelf:
    shelf = shelf_at(bank)
    if not isinstance(shelf, FolderShelf):
        raise BankError("bank", str(bank), f"a folder; a {ENDING} file is only read")
    shelf.card()
    return shelf


def _list(where: Path) -> int:
    described = describe(where)
    print_bank(_title(described["chip"]), described["tasks"], Output(), _sizes(described))
    return _tell_damaged(described)


def _sizes(described: dict[str, Any]) -> str:
    """What the tasks take on disk, and against a fine-tuned copy of the backbone for each."""
    sizes = [task["bytes"] for task in described["tasks"].values() if "bytes" in task]
    parameters = described["parameters"]
    if not sizes:
        return ""
    text = f"{sum(sizes):,} bytes on disk for {len(sizes)} task{'s' * (len(sizes) > 1)}"
    if not parameters:
        return text
    ratio = 4 * parameters * len(sizes) / sum(sizes)
    return f"{text}; fine-tuned checkpoints ({parameters:,} parameters at 32 bits) take {ratio:.3g} times as much"


def _show(where: Path, task: str | None) -> int:
    described = describe(where)
    if task is not None:
        if task not in described["tasks"]:
            raise BankError("--task", task, "one of " + (", ".join(described["tasks"]) or "none: the bank is empty"))
        described["tasks"] = {task: described["tasks"][task]}
    print(json.dumps(_finite(described), indent=1, allow_nan=False))
    return _tell_damaged(described)


def _verify(folder: Path) -> int:
    found = upkeep.verify(_folder(folder))
    for damage in found:
        where = "the bank's chip" if not damage.name else f"task {damage.name!r}"
        number = "" if damage.generation is None else f", generation {damage.generation}"
        complain(f"{where}{number}: {damage.error}")
    if not found:
        say(Output(), f"{folder}: every byte is as it was written.")
    return int(bool(found))


def _tell_damaged(described: dict[str, Any]) -> int:
    damaged = {name: task["error"] for name, task in described["tasks"].items() if "error" in task}
    for name, error in damaged.items():
        complain(f"task {name!r} is damaged: {error}")
    return int(bool(damaged))


def _finite(value: Any) -> Any:
    """``value`` as JSON has it: what older versions stored as NaN or infinite is null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _title(card: dict) -> str:
    chip = ChipCard.from_json(card)
    specs = [json.loads(spec) for spec in chip.specs.values()]
    heights = sorted({(spec["rows"], spec.get("active_rows") or spec["rows"]) for spec in specs})
    named = [str(count) if active == count else f"{count} ({active} at once)" for count, active in heights]
    return f"{chip.network}, chip {chip.identity[:12]}, {' and '.join(named)} rows"
