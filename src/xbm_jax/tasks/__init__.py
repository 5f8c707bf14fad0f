"""Tasks, and what they answer on a chip or on many."""

from xbm_jax.tasks.inspection import Inspection, LayerInspection, WorstClip, WorstColumn
from xbm_jax.tasks.kept import compact
from xbm_jax.tasks.marks import ChipMark, chip_mark
from xbm_jax.tasks.objectives import Classification, MultiLabel, Objective, Regression, TokenClassification
from xbm_jax.tasks.population import Population, design, population_accuracy
from xbm_jax.tasks.task import Task, evaluate, forward, predict, source_task, stored, with_measured_norms
from xbm_jax.tasks.variables import flax_variables
from xbm_jax.tasks.watching import active_columns, adc_clip_rates, inspect

__all__ = [
    "ChipMark",
    "Classification",
    "Inspection",
    "LayerInspection",
    "MultiLabel",
    "Objective",
    "Population",
    "Regression",
    "Task",
    "TokenClassification",
    "WorstClip",
    "WorstColumn",
    "active_columns",
    "adc_clip_rates",
    "chip_mark",
    "compact",
    "design",
    "evaluate",
    "flax_variables",
    "forward",
    "inspect",
    "population_accuracy",
    "predict",
    "source_task",
    "stored",
    "with_measured_norms",
]
