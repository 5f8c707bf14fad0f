"""What one column costs in energy, layer by layer: the prices that masks under a budget learn by."""

from __future__ import annotations

import numpy as np

from xbm_jax.hardware.components import COMPONENTS, Read, has
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.events import count_events
from xbm_jax.hardware.workloads import Workload

__all__ = ["column_prices"]

_PER_COLUMN = ("ADC", "sample and hold", "shift and add", "accumulation")
"""Components that an off column saves."""


def column_prices(technology: Technology, workload: Workload) -> tuple[tuple[str, float], ...]:
    """Joules of one example that a column of each layer costs, for :class:`xbm_jax.masks.Budget`.

    The mean over the layer's columns of what is spent for a column alone: its conversions, their shift and add, its
    addition to the output.
    """
    counted = workload.inventory
    read = Read(technology, workload, count_events(workload, None), "gate", np.zeros(len(counted.layers)))
    parts = [COMPONENTS[name] for name in _PER_COLUMN if has(technology, COMPONENTS[name])]
    joules = sum((part.joules(read) for part in parts), start=np.zeros(len(counted.layers)))
    columns = np.bincount(counted.layer_of_column, minlength=len(counted.layers))
    return tuple((path, float(j / n)) for path, j, n in zip(counted.layers, joules, columns, strict=True))
