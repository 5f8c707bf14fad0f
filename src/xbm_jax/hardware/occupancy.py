"""How full a layer's arrays are, and how much of each a task uses."""

from __future__ import annotations

import numpy as np

from xbm_jax.crossbar import Plan
from xbm_jax.errors import DataError

__all__ = ["array_on", "array_use", "used_lines"]


def used_lines(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Share of each array's word lines and bit lines that carry weights, float64 [above] and [beside].

    min(rows, K - a rows) / rows,   S P columns(b) / cols

    of ``spec.rows`` word lines and ``spec.cols`` bit lines, for array a of those above each other and b of those beside
    each other (:attr:`Plan.array_grid`). All slices S and both cells of a pair (P = 2) count, whatever they hold.
    """
    spec, (above, beside) = plan.spec, plan.array_grid
    rows = np.minimum(spec.rows, plan.rows - spec.rows * np.arange(above))
    lines = np.bincount(plan.array_of_column, minlength=beside) * spec.bitlines_per_column
    return rows / spec.rows, lines / spec.cols


def array_use(plan: Plan) -> np.ndarray:
    """Share of each array's cells that hold a part of a weight, float64 shaped as ``plan.array_grid``.

    The product of both of :func:`used_lines`: weights stand in one corner of their array.
    """
    return np.outer(*used_lines(plan))


def array_on(plan: Plan, on: np.ndarray) -> np.ndarray:
    """Share of each array's columns that count, float64 shaped as ``plan.array_grid``.

    Every column counts once for each of the array's row tiles, whatever the tile's height; a pair by line twice.

    Args:
        plan: of the layer.
        on: which columns count, bool [T, N], or which of their lines, [T, 2, N]; gains that are not zero.

    Raises:
        DataError: ``on`` of another shape.
    """
    on, shape = np.asarray(on), (plan.row_tiles, plan.columns)
    if on.shape not in (shape, (shape[0], 2, shape[1])):
        raise DataError("on.shape", on.shape, f"{shape}, or {(shape[0], 2, shape[1])} by line: this layer's")
    share = on.astype(np.float64) if on.ndim == 2 else on.mean(1)
    place = plan.array_of_tile[:, None], plan.array_of_column
    total, count = np.zeros(plan.array_grid), np.zeros(plan.array_grid)
    np.add.at(total, place, share)
    np.add.at(count, place, 1)
    return total / count
