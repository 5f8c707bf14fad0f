"""How full arrays are, against counting their cells one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xbm_jax.crossbar import Cell, Conv, CrossbarSpec, Plan
from xbm_jax.errors import DataError
from xbm_jax.hardware import array_on, array_use, layer_arrays, used_lines

SMALL = CrossbarSpec(rows=16, cols=10, active_rows=8, cell=Cell(4))
PLANS = [
    Plan(shape, spec, Conv(groups=groups) if len(shape) == 4 else None, True, "shapes alone")
    for shape, spec, groups in (
        ((16, 2), SMALL, 1),
        ((41, 5), SMALL, 1),
        ((1, 1), CrossbarSpec(rows=8, cols=8), 1),
        ((3, 3, 2, 9), SMALL, 3),
        ((3, 3, 4, 14), CrossbarSpec(rows=24, cols=9, cell=Cell(2), encoding="offset"), 2),
        ((3, 3, 1, 6), CrossbarSpec(rows=64, cols=64), 6),
    )
]


def literal(plan: Plan, on: np.ndarray) -> tuple[list[list[int]], list[list[list[bool]]]]:
    """Each array's used cells, and the column (or line) decisions in it; an array for each block of columns."""
    spec, per_group = plan.spec, plan.columns // plan.groups
    wires = spec.slices * spec.polarities
    fit, height = spec.cols // wires, spec.tile_height
    cells, decisions = [], []
    for top in range(0, plan.rows, spec.rows):
        cells.append([])
        decisions.append([])
        for group in range(plan.groups):
            for first in range(0, per_group, fit):
                held = set()
                own = []
                for row in range(top, min(top + spec.rows, plan.rows)):
                    for m in range(first, min(first + fit, per_group)):
                        held |= {(row, m, wire) for wire in range(wires)}
                        if row % height == 0:
                            own.append(on[row // height, ..., group * per_group + m])
                cells[-1].append(len(held))
                decisions[-1].append(np.ravel(own).tolist())
    return cells, decisions


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.kernel_shape}")
def test_shares_are_those_of_a_count_of_cells(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    shapes = [(plan.row_tiles, plan.columns), (plan.row_tiles, 2, plan.columns)]
    for on in (rng.integers(0, 2, shape).astype(bool) for shape in shapes):
        cells, decisions = literal(plan, on)
        assert array_use(plan) * plan.spec.rows * plan.spec.cols == pytest.approx(np.array(cells))
        found = array_on(plan, on)
        assert found == pytest.approx(np.array([[np.mean(own) for own in row] for row in decisions]))
        assert found.size == layer_arrays(plan)
    total = math.prod(plan.kernel_shape) * plan.spec.bitlines_per_column
    assert np.sum(array_use(plan)) * plan.spec.rows * plan.spec.cols == pytest.approx(total)


def test_shares_on_paper() -> None:
    """20 of 16 rows, and 3 columns of 4 bit lines: 2 on one array of 10 bit lines, 1 on the next."""
    plan = Plan((20, 3), SMALL, None, True, "shapes alone")
    rows, lines = used_lines(plan)
    assert (rows.tolist(), lines.tolist()) == ([1.0, 4 / 16], [8 / 10, 4 / 10])
    assert array_use(plan).tolist() == [[0.8, 0.4], [0.2, 0.1]]
    mask = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0]], bool)
    assert array_on(plan, mask).tolist() == [[0.25, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("shape", [(3, 4), (3, 1, 3), (3,), (1, 3)])
def test_masks_of_another_layer(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"on\.shape = .*: \(3, 3\), or \(3, 2, 3\) by line"):
        array_on(Plan((20, 3), SMALL, None, True, "shapes alone"), np.ones(shape, bool))
