"""Chips and tasks on disk, and serving."""

from xbm_jax.banks.bank import MaskBank, describe, task_names
from xbm_jax.banks.cards import ChipCard, chip_card
from xbm_jax.banks.chip_store import load_chip, save_chip
from xbm_jax.banks.serving import Server, serve

__all__ = ["ChipCard", "MaskBank", "Server", "chip_card", "describe", "load_chip", "save_chip", "serve", "task_names"]
