"""Tables, figures, result files, run pages, progress and logs; rich and matplotlib are imported only when used."""

from xbm_jax.report.context import run_context
from xbm_jax.report.cost_figures import draw_accuracy_against_energy, draw_energy, draw_swings
from xbm_jax.report.costs import CostRow, cost_csv, cost_json, print_costs
from xbm_jax.report.figure import accuracy_against_bits
from xbm_jax.report.floor_plan import draw_floor_plan
from xbm_jax.report.layers import draw_inspection
from xbm_jax.report.outlets import Outlet, all_of, profiled, to_tensorboard, to_wandb
from xbm_jax.report.page import write_report
from xbm_jax.report.progress import TrainingBar, TrainingProgress
from xbm_jax.report.rows import Row, read_results, row_of, write_results
from xbm_jax.report.table import markdown_table, print_bank, print_history, print_inspection, print_table

__all__ = [
    "CostRow",
    "Outlet",
    "Row",
    "TrainingBar",
    "TrainingProgress",
    "accuracy_against_bits",
    "all_of",
    "cost_csv",
    "cost_json",
    "draw_accuracy_against_energy",
    "draw_energy",
    "draw_floor_plan",
    "draw_inspection",
    "draw_swings",
    "markdown_table",
    "print_bank",
    "print_costs",
    "print_history",
    "print_inspection",
    "print_table",
    "profiled",
    "read_results",
    "row_of",
    "run_context",
    "to_tensorboard",
    "to_wandb",
    "write_report",
    "write_results",
]
