"""``bank.json``: what a bank says of itself; the same text stands in an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbm_jax.banks.cards import ChipCard, chip_card
from xbm_jax.banks.index import sealed, unsealed
from xbm_jax.errors import BankError
from xbm_jax.models import Chip
from xbm_jax.storage.files import replace_json
from xbm_jax.storage.forms import check_form, stamp
from xbm_jax.storage.record import read_json

__all__ = ["BANK_FORM", "KEEP", "BankCard", "bank_card", "checked_keep", "parse_card", "read_card", "write_card"]

BANK_FORM = 2  # 1: before there was an index
KEEP = 3
"""Generations of a task that are kept, the current one among them."""


@dataclass(frozen=True)
class BankCard:
    """What a bank says of itself.

    Attributes:
        chip: the card of its chip, as JSON.
        keep: generations of a task that are kept.
        parameters: of the backbone, all of which a fine-tuned copy has; ``None`` on cards of before it was counted.
        form: of the bank.
    """

    chip: dict[str, Any]
    keep: int = KEEP
    parameters: int | None = None
    form: int = BANK_FORM

    @property
    def of_chip(self) -> ChipCard:
        """The card of the chip."""
        return ChipCard.from_json(self.chip)

    def to_json(self) -> dict[str, Any]:
        """In the newest form, with a digest of itself."""
        data = {**stamp(BANK_FORM), "keep": self.keep, "parameters": self.parameters, "chip": self.chip}
        return sealed(data)


def bank_card(chip: Chip, keep: int) -> BankCard:
    """The card of a new bank for ``chip``."""
    return BankCard(chip_card(chip).to_json(), keep, chip.network.num_parameters)


def checked_keep(keep: Any) -> int:
    """A number of generations.

    Raises:
        BankError: not a whole number above zero.
    """
    if type(keep) is not int or keep < 1:
        raise BankError("keep", keep, "at least 1, a whole number")
    return keep


def read_card(folder: Path) -> BankCard:
    """The card of the bank in ``folder``.

    Raises:
        BankError: no bank there, a damaged card, or one of a newer form.
    """
    path = folder / "bank.json"
    try:
        return parse_card(str(path), read_json("bank.json", path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BankError("bank", str(folder), "a folder with a bank.json in it") from error
    except OSError as error:
        raise BankError("bank.json", str(path), f"an undamaged bank card ({error})") from error
    except BankError as error:
        if error.field != "bank.json":
            raise
        raise BankError("bank.json", str(path), f"an undamaged bank card ({error})") from error


def write_card(folder: Path, card: BankCard) -> None:
    """Put the card into ``folder``; the caller holds the bank's lock."""
    replace_json(folder / "bank.json", card.to_json())


def parse_card(where: str, data: Any) -> BankCard:
    """Undo :meth:`BankCard.to_json`, of earlier forms too."""
    try:
        form, chip = data["format"], data["chip"]
        check_form("bank", data, BANK_FORM)
        if form == 1:
            return BankCard(chip, form=1)
        data = unsealed(data)
        return BankCard(chip, checked_keep(data["keep"]), data["parameters"])
    except BankError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BankError("bank.json", where, f"an undamaged bank card ({error})") from error
