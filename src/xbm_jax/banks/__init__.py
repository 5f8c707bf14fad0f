"""Chips and tasks on disk."""

from xbm_jax.banks.bank import MaskBank, describe, task_names
from xbm_jax.banks.cards import ChipCard, chip_card
from xbm_jax.banks.chip_store import load_chip, save_chip
from xbm_jax.banks.published import load_bank, publish, unpack
from xbm_jax.banks.upkeep import Collected, Damage, Generation

__all__ = ["ChipCard", "Collected", "Damage", "Generation", "MaskBank", "chip_card", "describe", "load_bank"]
__all__ += ["load_chip", "publish", "save_chip", "task_names", "unpack"]
