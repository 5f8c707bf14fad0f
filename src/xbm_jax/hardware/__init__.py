"""What a chip and a task cost, in closed form."""

from xbm_jax.hardware.memory import TaskBits, arrays_used, layer_arrays, task_bits, task_cells_written

__all__ = ["TaskBits", "arrays_used", "layer_arrays", "task_bits", "task_cells_written"]
