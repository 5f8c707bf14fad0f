"""What ``xbm bank`` takes: a dataclass per action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from xbm_jax.cli.paths import UserPath

__all__ = [
    "Bank",
    "BankExport",
    "BankGc",
    "BankHistory",
    "BankImport",
    "BankList",
    "BankPull",
    "BankPush",
    "BankRemove",
]
__all__ += ["BankRename", "BankRestore", "BankShow", "BankVerify"]

_Bank = Annotated[UserPath, tyro.conf.Positional]
_Name = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class BankList:
    """Tasks of a bank, a line each, and the bytes that they take.

    Args:
        bank: folder of the bank, or an exported file.
    """

    bank: _Bank


@dataclass(frozen=True)
class BankShow:
    """The chip of a bank, and everything that was measured of its tasks.

    Args:
        bank: folder of the bank, or an exported file.
        task: one task; by default all of them.
    """

    bank: _Bank
    task: str | None = None


@dataclass(frozen=True)
class BankVerify:
    """Read every byte of every generation, and of the chip beside them; exit code 1 where something is damaged.

    Args:
        bank: folder of the bank.
    """

    bank: _Bank


@dataclass(frozen=True)
class BankHistory:
    """The generations of a task that are kept, newest first; of a removed one too.

    Args:
        bank: folder of the bank.
        task: its name.
    """

    bank: _Bank
    task: _Name


@dataclass(frozen=True)
class BankRestore:
    """Make an older generation of a task the current one again, also after it was removed.

    Args:
        bank: folder of the bank.
        task: its name.
        generation: its number in the history; by default the newest before the current one.
    """

    bank: _Bank
    task: _Name
    generation: int | None = None


@dataclass(frozen=True)
class BankGc:
    """Take away what killed writers left and old generations; bring what earlier versions wrote to the newest form.

    Args:
        bank: folder of the bank.
        removed: also what is left of removed tasks; they cannot be restored then.
    """

    bank: _Bank
    removed: bool = False


@dataclass(frozen=True)
class BankRename:
    """Give a task another name.

    Args:
        bank: folder of the bank.
        task: its name.
        to: a name that is free.
    """

    bank: _Bank
    task: _Name
    to: _Name


@dataclass(frozen=True)
class BankRemove:
    """Remove a task; ``xbm bank restore`` brings it back until ``xbm bank gc --removed``.

    Args:
        bank: folder of the bank.
        task: its name.
    """

    bank: _Bank
    task: _Name


@dataclass(frozen=True)
class BankExport:
    """Write a bank, or some of its tasks, to one .safetensors file.

    Args:
        bank: folder of the bank.
        file: where to.
        task: some of the tasks; by default all of them.
        chip: with the chip in <bank>/chip, so that whoever has the file needs nothing else.
    """

    bank: _Bank
    file: _Bank
    task: tuple[str, ...] = ()
    chip: bool = True


@dataclass(frozen=True)
class BankImport:
    """Put the tasks of an exported file into a bank; a new bank is made with the file's chip.

    Args:
        file: the exported file.
        bank: folder of the bank.
        task: some of the tasks; by default all of them.
        replace: also those whose names are taken, which are refused otherwise.
    """

    file: _Bank
    bank: _Bank
    task: tuple[str, ...] = ()
    replace: bool = False


@dataclass(frozen=True)
class BankPush:
    """Publish a bank and its chip on the Hugging Face hub, as one file.

    Args:
        bank: folder of the bank, its chip in <bank>/chip; or an exported file.
        to: owner/repository.
        private: make a new repository a private one.
    """

    bank: _Bank
    to: _Name
    private: bool = False


@dataclass(frozen=True)
class BankPull:
    """Download a published bank and put it into a folder.

    Args:
        address: hf://owner/repository, or hf://owner/repository@revision.
        bank: folder of the bank; a new one is made with the published chip.
        replace: also tasks whose names are taken, which are refused otherwise.
    """

    address: _Name
    bank: _Bank
    replace: bool = False


@dataclass(frozen=True)
class Bank:
    """Look into a mask bank, look after it, publish it."""

    action: (
        Annotated[BankList, tyro.conf.subcommand("list")]
        | Annotated[BankShow, tyro.conf.subcommand("show")]
        | Annotated[BankVerify, tyro.conf.subcommand("verify")]
        | Annotated[BankHistory, tyro.conf.subcommand("history")]
        | Annotated[BankRestore, tyro.conf.subcommand("restore")]
        | Annotated[BankGc, tyro.conf.subcommand("gc")]
        | Annotated[BankRename, tyro.conf.subcommand("rename")]
        | Annotated[BankRemove, tyro.conf.subcommand("remove")]
        | Annotated[BankExport, tyro.conf.subcommand("export")]
        | Annotated[BankImport, tyro.conf.subcommand("import")]
        | Annotated[BankPush, tyro.conf.subcommand("push")]
        | Annotated[BankPull, tyro.conf.subcommand("pull")]
    )
