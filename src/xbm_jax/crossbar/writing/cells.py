"""From integers to levels, from levels to conductances, and from conductances to what a read multiplies by.

differential:  level[p, s] = (max(+-w_int, 0) >> s * cell_bits) & (L - 1),       p = positive, negative cell
offset:        level[s]    = ((w_int + 2**(weight_bits - 1)) >> s * cell_bits) & (L - 1)
g = device(g_min + level * g_step)                                               then stuck cells, then wires
E = (g[+] - g[-]) / g_step  (a pair),   g / g_step  (a single column)            in levels
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar.primitives.wires import fold_wires
from xbm_jax.crossbar.writing.orders import row_index
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.spec import CrossbarSpec
from xbm_jax.streams import Cells, stream

__all__ = ["curvature", "decode", "effective_levels", "encode", "levels_at", "read_variance"]
__all__ += ["seen_through_wires", "shift_add", "stuck", "target", "untouched", "write"]


def encode(ratio: jax.Array, spec: CrossbarSpec) -> jax.Array:
    """Levels, uint8 [P, S, *shape], of real weights in units of their scale."""
    w_int = jnp.clip(jnp.round(ratio), -spec.max_weight, spec.max_weight).astype(jnp.int32)
    if spec.encoding == "differential":
        stored = jnp.stack([jnp.maximum(w_int, 0), jnp.maximum(-w_int, 0)])
    else:
        stored = (w_int + 2 ** (spec.weight_bits - 1))[None]
    digits = [(stored >> (s * spec.cell_bits)) & spec.max_level for s in range(spec.slices)]
    return jnp.stack(digits, axis=1).astype(jnp.uint8)


def decode(levels: jax.Array, spec: CrossbarSpec) -> jax.Array:
    """The integers ``w_int``, float32 [*shape], that nominal levels stand for."""
    stored = shift_add(levels.astype(jnp.float32), spec.cell_bits, axis=1)
    return stored[0] - stored[1] if spec.encoding == "differential" else stored[0] - 2.0 ** (spec.weight_bits - 1)


def target(levels: jax.Array, spec: CrossbarSpec) -> jax.Array:
    """Conductance asked of each cell, siemens; from a table, so that its bits never depend on how XLA fuses."""
    steps = np.arange(spec.max_level + 1) * spec.g_step_siemens
    return jnp.asarray(spec.cell.g_min_siemens + steps, jnp.float32)[levels.astype(jnp.int32)]


def write(levels: jax.Array, spec: CrossbarSpec, chip_key: jax.Array, write_key: jax.Array | None = None) -> jax.Array:
    """Conductances in siemens right after programming: the device's error, then stuck cells.

    Which cells are stuck is the chip's, whoever writes: it follows from ``chip_key``; so does the programming error
    unless ``write_key`` draws it afresh.
    """
    error_key = stream(chip_key, Cells.ERROR) if write_key is None else write_key
    written = spec.device.program(target(levels, spec), spec.cell.g_max_siemens, error_key)
    return stuck(written, spec, chip_key)


def stuck(conductance: jax.Array, spec: CrossbarSpec, chip_key: jax.Array) -> jax.Array:
    """``conductance`` with the chip's stuck cells at their rail, at whatever time."""
    fault_key = stream(chip_key, Cells.FAULTS)
    return spec.faults.apply(conductance, spec.cell.g_min_siemens, spec.cell.g_max_siemens, fault_key)


def seen_through_wires(conductance: jax.Array, plan: Plan) -> jax.Array:
    """Conductances [P, S, *shape] as an array with ideal wires would need them to give the same column currents.

    Word line r of a tile carries its r-th kernel row, counted from the end of the bit lines that is far from the
    converters. A logical column's cells stand on neighbouring bit lines, the positive one of slice 0 first, then its
    negative one, then slice 1. Cells of an array that no weight uses hold ``g_min``; their word lines rest at 0 V.

    While a row tile is read, the selectors of the array's other rows are open (to read a few of many rows takes a
    transistor a cell, and its gate is off): their cells carry no current, but the bit lines still run past those that
    lie between the tile and the converters. Each tile is solved for itself, in its place.
    """
    spec = plan.spec
    if spec.wires.ideal:
        return conductance
    polarities, slices = conductance.shape[:2]
    height, columns = spec.tile_height, plan.columns // plan.groups
    rows = plan.row_tiles * height
    per_array = plan.columns_per_array
    blocks = math.ceil(columns / per_array)
    order = np.argsort(row_index(plan.kernel_shape, spec.row_order).reshape(-1))
    # [P, S, K, N] -> [G, T, R, blocks, columns per array, S, P], padded by cells at g_min
    matrix = conductance.reshape(polarities, slices, plan.rows, plan.groups, columns)[:, :, order]
    padding = ((0, 0), (0, 0), (0, rows - plan.rows), (0, 0), (0, blocks * per_array - columns))
    matrix = jnp.pad(matrix, padding, constant_values=spec.cell.g_min_siemens)
    split = matrix.reshape(polarities, slices, plan.row_tiles, height, plan.groups, blocks, per_array)
    arrays = split.transpose(4, 2, 5, 3, 6, 1, 0)
    used = per_array * slices * polarities
    physical = arrays.reshape(plan.groups, plan.row_tiles, blocks, height, used)
    spare = ((0, 0),) * 4 + ((0, spec.cols - used),)
    physical = jnp.pad(physical, spare, constant_values=spec.cell.g_min_siemens)
    folded = fold_wires(physical, spec.wires.row_ohms, spec.wires.col_ohms, _rows_passed(plan))[..., :used]
    back = folded.reshape(arrays.shape).transpose(6, 5, 1, 3, 0, 2, 4)
    back = back.reshape(polarities, slices, rows, plan.groups, blocks * per_array)[:, :, : plan.rows, :, :columns]
    return back[:, :, np.argsort(order)].reshape(conductance.shape)


def _rows_passed(plan: Plan) -> np.ndarray | None:
    """Rows between each row tile and its array's converters, int [T, 1]; ``None`` where a tile is an array."""
    if plan.tiles_per_array == 1:
        return None
    place = np.arange(plan.row_tiles) % plan.tiles_per_array
    return (plan.tiles_per_array - 1 - place)[:, None] * plan.spec.tile_height


def effective_levels(levels: jax.Array, conductance: jax.Array, plan: Plan) -> jax.Array:
    """What each conversion multiplies its inputs by, float [V, *shape], in levels; [1, *shape] where a read folds.

    The nominal level plus the cell's deviation, so that ideal cells give exact integers.
    """
    spec = plan.spec
    seen = seen_through_wires(conductance, plan)
    deviation = (seen - target(levels, spec)) / spec.g_step_siemens
    cell = levels.astype(jnp.float32) + deviation
    base = spec.cell.g_min_siemens / spec.g_step_siemens
    if spec.encoding == "differential" and (plan.fold or spec.subtract == "analog"):
        pair = (levels[0].astype(jnp.float32) - levels[1].astype(jnp.float32)) + (deviation[0] - deviation[1])
        return shift_add(pair, spec.cell_bits)[None] if plan.fold else pair
    if spec.encoding == "offset":
        raw = cell[0] + base
        return (shift_add(raw, spec.cell_bits) - plan.digital_offset)[None] if plan.fold else raw
    return jnp.concatenate([cell[0], cell[1]]) + base


def curvature(conductance: jax.Array, plan: Plan) -> jax.Array | None:
    """What each conversion multiplies squared and cubed inputs by, float [2, V, *shape]; ``None`` without a curve.

    Equations: :mod:`xbm_jax.crossbar.devices.curves`.
    """
    spec = plan.spec
    if spec.curve is None:
        return None
    v_unit = spec.curve.v_read_volts / plan.cycle_code_limits[1]
    second, third = spec.curve.coefficients(conductance)
    orders = jnp.stack([second * (v_unit / spec.g_step_siemens), third * (v_unit**2 / spec.g_step_siemens)])
    if spec.encoding == "differential" and spec.subtract == "analog":
        return orders[:, 0] - orders[:, 1]
    return jnp.concatenate([orders[:, p] for p in range(spec.polarities)], axis=1)


def levels_at(effective: jax.Array, curvature: jax.Array | None, code: jax.Array | float) -> jax.Array:
    """What each conversion multiplies by one input code: ``E + code * E2 + code**2 * E3``, shaped as ``effective``."""
    return effective if curvature is None else effective + curvature[0] * code + curvature[1] * code**2


def untouched(kept: jax.Array, plan: Plan) -> jax.Array:
    """Entries of ``effective`` none of whose cells were rewritten; ``kept`` bool [P, S, *shape]."""
    if plan.fold:
        return jnp.all(kept, axis=(0, 1))[None]
    return jnp.concatenate(list(kept)) if plan.spec.subtract == "digital" else jnp.all(kept, axis=0)


def read_variance(
    conductance: jax.Array, plan: Plan, t_seconds: jax.Array | float, programmed: jax.Array
) -> jax.Array | None:
    """Variance of :func:`effective_levels` from read to read, same shape; ``None`` where reads are exact.

    Cells fluctuate independently: a pair's two variances add, and a folded column's slices add by their squared weight.
    """
    spec = plan.spec
    sigma = spec.device.read_sigma(conductance, spec.cell.g_max_siemens, t_seconds, programmed)
    if sigma is None:
        return None
    variance = (sigma / spec.g_step_siemens) ** 2
    if spec.encoding == "differential" and spec.subtract == "digital" and not plan.fold:
        return jnp.concatenate([variance[0], variance[1]])
    summed = jnp.sum(variance, axis=0)
    return shift_add(summed, 2 * spec.cell_bits)[None] if plan.fold else summed


def shift_add(digits: jax.Array, bits: int, axis: int = 0) -> jax.Array:
    """``sum_s 2**(s * bits) * digits[s]`` over one axis."""
    weights = 2.0 ** (bits * jnp.arange(digits.shape[axis], dtype=digits.dtype))
    return jnp.tensordot(digits, weights, axes=(axis, 0), precision=jax.lax.Precision.HIGHEST)
