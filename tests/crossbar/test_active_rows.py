"""A few rows of an array read at once: row tiles are those of an array that is no higher, arrays are as before.

With ideal wires whatever is known of arrays of ``active_rows`` rows holds to the bit; with wires each tile is solved in
its place on bit lines of all ``rows``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crossbar.test_read import quick_jit
from crossbar.test_wires import nodal_currents
from tasks import tiny
from xbm_jax.banks import chip_card, load_chip, save_chip
from xbm_jax.cli.bank import _title
from xbm_jax.crossbar import Adc, Cell, Conv, CrossbarSpec, Gaussian, Plan, Tiles, Wires, plan, program, read
from xbm_jax.crossbar.writing.cells import seen_through_wires
from xbm_jax.hardware import arrays_used, task_bits
from xbm_jax.masks import methods
from xbm_jax.models import Chip, calibrate, reads_per_example
from xbm_jax.models import program as program_chip
from xbm_jax.report import row_of
from xbm_jax.tasks import predict

LAYERS: dict[str, tuple[tuple[int, ...], Conv | None]] = {
    "dense": ((21, 3), None),
    "conv": ((2, 2, 5, 3), Conv(padding="SAME")),
    "grouped": ((3, 2, 3, 4), Conv(groups=2)),
}
ADC = Adc(5, "max", "tile", gain_mismatch=0.05, offset_mismatch_lsb=0.3)
LOW = CrossbarSpec(rows=8, cols=16, cell=Cell(7, 20.0), adc=ADC, device=Gaussian(0.02))
HIGH = LOW.replace(rows=16, active_rows=8)


@pytest.mark.parametrize(
    ("rows", "shape", "conv", "tiles", "grid"),
    [
        (32, (32, 8), None, [0] * 4, (1, 1)),
        (32, (33, 9), None, [0] * 4 + [1], (2, 2)),  # 8 columns an array
        (16, (17, 1), None, [0, 0, 1], (2, 1)),
        (8, (17, 1), None, [0, 1, 2], (3, 1)),
        (32, (3, 3, 4, 18), Conv(groups=2), [0] * 4 + [1], (2, 4)),  # 36 rows and 9 columns in each group
    ],
)
def test_an_array_holds_several_row_tiles(
    rows: int, shape: tuple[int, ...], conv: Conv | None, tiles: list[int], grid: tuple[int, int]
) -> None:
    spec = CrossbarSpec(rows=rows, cols=16, active_rows=8)
    made = plan(np.ones(shape), spec, conv)
    assert made.row_tiles == len(tiles) == len(made.tile_rows) and made.array_grid == grid
    np.testing.assert_array_equal(made.array_of_tile, tiles)
    np.testing.assert_array_equal(made.tile_index, plan(np.ones(shape), spec.replace(rows=8), conv).tile_index)
    numbers = np.arange(np.prod(grid)).reshape(grid)
    spread = np.array([[numbers[t, a] for a in made.array_of_column] for t in tiles])
    np.testing.assert_array_equal(made.spread_arrays(jnp.asarray(numbers)), spread)


def written(layer: str, spec: CrossbarSpec) -> Tiles:
    shape, conv = LAYERS[layer]
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    return program(kernel, plan(kernel, spec, conv, signed_inputs=True), jax.random.key(0), input_scale=0.25)


@pytest.mark.parametrize("layer", LAYERS)
def test_reads_and_gradients_are_those_of_low_arrays(layer: str) -> None:
    shape, conv = LAYERS[layer]
    rng = np.random.default_rng(1)
    size = (3, shape[0]) if conv is None else (1, 4, 3, shape[2] * conv.groups)
    x = jnp.asarray(rng.normal(0, 10, size), jnp.float32)

    @quick_jit
    def answers(tiles: Tiles, x: jax.Array, gain: jax.Array) -> Any:
        y, back = jax.vjp(lambda x, gain: read(tiles, x, gain), x, gain)
        return y, back(jnp.sin(y))

    high, low = written(layer, HIGH), written(layer, LOW)
    assert high.plan.array_grid[0] == 2 and high.plan.row_tiles == low.plan.row_tiles == 3
    gain = jnp.asarray(rng.choice([0.0, 1.0, -0.5], (low.plan.row_tiles, shape[-1])), jnp.float32)
    tiny.assert_same_bits((high.effective, high.adc, high.mismatch), (low.effective, low.adc, low.mismatch))
    tiny.assert_same_bits(answers(high, x, gain), answers(low, x, gain))


def small_chip(spec: CrossbarSpec) -> Chip:
    return calibrate(program_chip(tiny.weights(), spec, jax.random.key(0)), tiny.stripes().x_train[:64])


def test_a_chip_calibrates_counts_and_answers_as_low_arrays_do_and_comes_back(tmp_path: Any) -> None:
    """27 and twice 72 rows of 8 columns: 2, 3 and 3 row tiles of 24 rows, on 1, 2 and 2 arrays of 48."""
    low, images = tiny.chip("adc"), tiny.stripes().x_test[:8]
    high = small_chip(tiny.SPECS["adc"].replace(rows=48, active_rows=24))
    grids = [{path: (t.adc, t.input_scale) for path, t in chip.tiles.items()} for chip in (high, low)]
    tiny.assert_same_bits(*grids)
    assert (arrays_used(low), arrays_used(high)) == (2 + 3 + 3, 1 + 2 + 2)
    task = tiny.made_up_task(high, methods.xbm())
    assert task_bits(high, task).mask_bits == 8 * (2 + 3 + 3)
    measured = dict.fromkeys(("accuracy", "val_accuracy", "seconds", "images_per_second"), 1.0)
    assert row_of(high, task.replace(meta=measured), name="task", seed=0).rows == 24
    assert _title(chip_card(high).to_json()).endswith(", 48 (24 at once) rows")
    assert reads_per_example(high, images) == reads_per_example(low, images)
    answers = predict(high, task, images)
    np.testing.assert_array_equal(answers, predict(low, tiny.made_up_task(low, methods.xbm()), images))
    save_chip(high, tmp_path)
    got = load_chip(tmp_path, tiny.network())
    assert got.tiles["conv1"].plan == high.tiles["conv1"].plan and chip_card(got) == chip_card(high)
    np.testing.assert_array_equal(predict(got, task, images), answers)


def through_wires(made: Plan, cells: np.ndarray, row_ohms: float, col_ohms: float) -> np.ndarray:
    """What each cell of pairs [2, 1, K, N] conducts in its array: all rows there, those of other tiles at 0 siemens.

    One group of a dense kernel. Row 0 is farthest from the converters, the pair of a column is side by side.
    """
    spec, (rows, columns) = made.spec, cells.shape[2:]
    seen, per_array, high = np.zeros(cells.shape), spec.cols // 2, spec.active_rows or spec.rows
    for array in np.ndindex(-(-rows // spec.rows), -(-columns // per_array)):
        top, left = array[0] * spec.rows, array[1] * per_array
        for first in range(top, min(top + spec.rows, rows), high):
            g = np.zeros((spec.rows, spec.cols))
            g[first - top : first - top + high] = spec.cell.g_min_siemens  # of the tile itself, spare cells too
            right = min(left + per_array, columns)
            here = [(r, n) for r in range(first, min(first + high, rows)) for n in range(left, right)]
            for r, n in here:
                g[r - top, 2 * (n - left) : 2 * (n - left) + 2] = cells[:, 0, r, n]
            folded = nodal_currents(g, np.eye(spec.rows), row_ohms, col_ohms)
            for r, n in here:
                seen[:, 0, r, n] = folded[r - top, 2 * (n - left) : 2 * (n - left) + 2]
    return seen


def cells_of(made: Plan) -> jax.Array:
    """Conductances of pairs [2, 1, *kernel_shape], siemens."""
    drawn = np.random.default_rng(3).uniform(1e-5, 1e-4, (2, 1, *made.kernel_shape))
    return jnp.asarray(drawn, jnp.float32)


FOLDED = pytest.param(8, 40.0, 70.0, marks=pytest.mark.slow)


@pytest.mark.parametrize(("cols", "row_ohms", "col_ohms"), [FOLDED, (12, 40.0, 70.0), (12, 0.0, 70.0)])
def test_a_tile_is_solved_where_it_stands_in_its_array(cols: int, row_ohms: float, col_ohms: float) -> None:
    """Against a nodal solution of whole arrays: of 24 rows, tiles of 8; two arrays, the last tile partly filled."""
    wires, cell = Wires(row_ohms, col_ohms), Cell(7, on_off=10.0)
    spec = CrossbarSpec(rows=24, active_rows=8, cols=cols, wires=wires, cell=cell, adc=Adc(None))
    made = plan(np.ones((37, 5)), spec)
    cells = cells_of(made)
    wanted = through_wires(made, np.asarray(cells, np.float64), row_ohms, col_ohms)
    np.testing.assert_allclose(seen_through_wires(cells, made), wanted, rtol=3e-6)
    lost = 1 - wanted.sum((0, 1, 3)) / np.asarray(cells).sum((0, 1, 3))
    assert lost[:8].mean() > 1.2 * lost[16:24].mean()  # the first of an array's three tiles is farthest off


def test_wires_of_a_grouped_convolution_are_those_of_its_groups() -> None:
    """Each group is on arrays of its own, as a dense kernel of its rows and columns is."""
    spec = CrossbarSpec(rows=24, active_rows=8, cols=8, wires=Wires(0.0, 30.0), adc=Adc(None), row_order="tap")
    made, alone = plan(np.ones((3, 3, 4, 6)), spec, Conv(groups=2)), plan(np.ones((36, 3)), spec)
    cells = cells_of(made)
    seen = seen_through_wires(cells, made).reshape(2, 1, 36, 6)
    for own in (slice(0, 3), slice(3, 6)):
        group = seen_through_wires(cells.reshape(2, 1, 36, 6)[..., own], alone)
        np.testing.assert_allclose(seen[..., own], group, rtol=1e-6)
