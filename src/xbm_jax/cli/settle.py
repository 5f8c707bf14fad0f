"""A bank and its chip: which chip a new task is learned on, decided and stored before it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from xbm_jax.banks import MaskBank, chip_card, load_chip, save_chip, task_names
from xbm_jax.cli.console import say
from xbm_jax.data import Dataset, calibration_images
from xbm_jax.errors import BankError, ModelError
from xbm_jax.examples import count
from xbm_jax.models import Chip, array_weights, calibrate, digital_weights
from xbm_jax.storage import store
from xbm_jax.storage.lock import locked
from xbm_jax.streams import Command, stream
from xbm_jax.training import for_chip

__all__ = ["asked_of_data", "chip_for_bank", "fitted", "names_in", "placement", "read_key", "settled"]

_NAMED = 3
_CALIBRATED_ON = {"images": (256, 64), "arrays": (64, 16)}
"""Examples that a chip is calibrated on, and of a batch; a sentence has some twenty tokens, each as much as an image's
pixel."""


def read_key(seed: int) -> jax.Array:
    """The key of a look at a chip as it is read."""
    return stream(jax.random.key(seed), Command.READ)


def asked_of_data(options: Any) -> dict[str, Any]:
    """What a command says of how its examples are to be read."""
    return {"image_size": options.image_size, "tokenizer": options.tokenizer, "max_length": options.max_length}


def fitted(chip: Chip, data: Dataset) -> Dataset:
    """Data as the chip takes them: images in its channels, sentences as they are."""
    images = data.kind == "images" or chip.network.inputs is None  # one of them alone is refused
    return for_chip(chip, data) if images else data


def names_in(bank: Path) -> list[str]:
    """Tasks of the bank, none where there is no bank yet."""
    return task_names(bank) if (bank / "bank.json").exists() else []


def chip_for_bank(console: Console, bank: Path, chip: Chip, data: Dataset) -> Chip:
    """The chip that is in the bank, which must be ``chip``; for a new bank ``chip``, calibrated. Nothing is written.

    Raises:
        BankError: the bank is another chip's, or its chip is missing, damaged or another one.
    """
    there = _chip_in(bank, chip)
    if there is not None:
        return there
    if chip.calibrated:
        return chip
    wanted, batch_size = _CALIBRATED_ON[data.kind]
    examples = calibration_images(data, wanted)
    kind = "images" if data.kind == "images" else "examples"
    say(console, f"Measuring input scales and converter ranges on {count(examples)} training {kind}.")
    return calibrate(chip, examples, batch_size=batch_size)


def settled(bank: Path, chip: Chip, programmed: Chip) -> Chip:
    """The chip as it is in the bank from now on: ``chip``, or what another process made of ``programmed`` first.

    Chip and bank are as good as one: the chip is written under the bank's lock, so that of two processes that calibrate
    a new bank's chip on their own images the second takes the first one's.

    Raises:
        BankError: the other process stored another chip.
    """
    store.checked_directory(bank)
    with locked(bank):
        there = _chip_in(bank, programmed)
        if there is None:
            save_chip(chip, bank / "chip")
    MaskBank.create(bank, there or chip)
    return there or chip


def _chip_in(bank: Path, chip: Chip) -> Chip | None:
    """The chip that is stored in the bank's folder, if one is."""
    a_bank, a_chip = (bank / "bank.json").exists(), store.exists(bank / "chip")
    if not a_bank and not a_chip:
        return None
    try:
        if not a_chip:
            raise BankError("chip", "missing", f"the chip that the bank was made with, in {bank / 'chip'}")
        there = load_chip(bank / "chip")
        if a_bank:
            MaskBank.open(bank, there)
        chip_card(there).check_cells(chip_card(chip))
    except (BankError, ModelError) as error:
        allowed = f"a new folder, or the --model, --weights, --rows, --seed, ... that it was made with ({error})"
        raise BankError("--bank", str(bank), allowed) from error
    return there


def placement(chip: Chip) -> str:
    """Where a network's weights are: on arrays, or digital, layer by layer."""
    digital = {**digital_weights(chip), f"{chip.network.head}/kernel": int(chip.head["kernel"].size)}
    names = ", ".join([*list(digital)[:_NAMED], *([f"{len(digital) - _NAMED} more"] if len(digital) > _NAMED else [])])
    return (
        f"{chip.network.name}: {array_weights(chip):,} weights on arrays ({len(chip.tiles)} layers); "
        f"{sum(digital.values()):,} stay digital: {names}."
    )
