"""What a chip and a task cost, in closed form, and the mask bits that its arrays hold."""

from xbm_jax.hardware.constants.technology import Technology, load_technology, technologies
from xbm_jax.hardware.constants.technology import stack as stack_technologies
from xbm_jax.hardware.costs import CostReport, cost
from xbm_jax.hardware.explained import Term, explain
from xbm_jax.hardware.inventories import Inventory, inventory
from xbm_jax.hardware.mask_buffers import MaskBuffer, mask_buffer, read_mask_buffer
from xbm_jax.hardware.mask_hardware import MaskMemory, SwitchCost, mask_memory, switch_cost
from xbm_jax.hardware.mask_words import MaskWords, bit_lines
from xbm_jax.hardware.memory import TaskBits, arrays_used, layer_arrays, task_bits, task_cells_written
from xbm_jax.hardware.occupancy import array_on, array_use, used_lines
from xbm_jax.hardware.prices import column_prices
from xbm_jax.hardware.search import Design, Point, accuracy, built, designs, measure, pareto, priced
from xbm_jax.hardware.sensitivity import Swing, swings
from xbm_jax.hardware.summary import USUAL_TECHNOLOGY, CostSummary, cost_summary
from xbm_jax.hardware.workloads import Activity, Training, Workload, measure_activity, workload

__all__ = [
    "USUAL_TECHNOLOGY",
    "Activity",
    "CostReport",
    "CostSummary",
    "Design",
    "Inventory",
    "MaskBuffer",
    "MaskMemory",
    "MaskWords",
    "Point",
    "Swing",
    "SwitchCost",
    "TaskBits",
    "Technology",
    "Term",
    "Training",
    "Workload",
    "accuracy",
    "array_on",
    "array_use",
    "arrays_used",
    "bit_lines",
    "built",
    "column_prices",
    "cost",
    "cost_summary",
    "designs",
    "explain",
    "inventory",
    "layer_arrays",
    "load_technology",
    "mask_buffer",
    "mask_memory",
    "measure",
    "measure_activity",
    "pareto",
    "priced",
    "read_mask_buffer",
    "stack_technologies",
    "swings",
    "switch_cost",
    "task_bits",
    "task_cells_written",
    "technologies",
    "used_lines",
    "workload",
]
