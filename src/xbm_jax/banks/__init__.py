"""Chips and tasks on disk."""

from xbm_jax.banks.bank import MaskBank, describe, task_names
from xbm_jax.banks.cards import ChipCard, chip_card
from xbm_jax.banks.chip_store import load_chip, save_chip

__all__ = ["ChipCard", "MaskBank", "chip_card", "describe", "load_chip", "save_chip", "task_names"]
