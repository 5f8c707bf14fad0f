"""Tasks, the banks that keep them, and serving."""

from xbm_jax.tasks.bank import MaskBank, describe, task_names
from xbm_jax.tasks.chip_store import load_chip, save_chip
from xbm_jax.tasks.identity import ChipCard, ChipMark, chip_card, chip_mark
from xbm_jax.tasks.inspect import active_columns, adc_clip_rates, inspect
from xbm_jax.tasks.inspection import Inspection, LayerInspection, WorstClip, WorstColumn
from xbm_jax.tasks.population import Population, design, population_accuracy
from xbm_jax.tasks.serving import Server, serve
from xbm_jax.tasks.task import Task, predict, source_task, stored, with_measured_norms

__all__ = [
    "ChipCard",
    "ChipMark",
    "Inspection",
    "LayerInspection",
    "MaskBank",
    "Population",
    "Server",
    "Task",
    "WorstClip",
    "WorstColumn",
    "active_columns",
    "adc_clip_rates",
    "chip_card",
    "chip_mark",
    "describe",
    "design",
    "inspect",
    "load_chip",
    "population_accuracy",
    "predict",
    "save_chip",
    "serve",
    "source_task",
    "stored",
    "task_names",
    "with_measured_norms",
]
