"""What the fused read's kernel reads: patches of codes, parts of cells and converters, tile by tile, in bfloat16."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.exact import bfloat16_parts
from xbm_jax.crossbar.primitives.products import tap_by_tap
from xbm_jax.crossbar.reading.sums import Converters, cycle_codes, parts_of
from xbm_jax.crossbar.writing.orders import ChannelOrder
from xbm_jax.crossbar.writing.plans import Plan

__all__ = ["UNIT", "Operands", "operands", "patches"]

UNIT = 64
"""Rows that the matrix units take at once; a tile is filled up to a multiple of them with rows that hold nothing."""


class Operands(NamedTuple):
    """What the kernel reads.

    Attributes:
        x: codes, bfloat16 [M, T * J * H], tiles of H rows, cycles within a tile.
        cells: bfloat16 [T * V * P * H, N], the parts of a conversion's cells, smallest first.
        grid: float32 [T * J * V, 4, N]: step, lowest code and offset of each converter, and the factor f.
        height, parts, counts: H, P and (T, J, V).
    """

    x: jax.Array
    cells: jax.Array
    grid: jax.Array
    height: int
    parts: int
    counts: tuple[int, int, int]


def operands(
    plan: Plan, pixels: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> Operands:
    """What the kernel reads of codes ``pixels`` [M, K], in the order of the word lines."""
    parts, tiles, rows = parts_of(plan, converters), plan.row_tiles, plan.spec.tile_height
    height = UNIT * math.ceil(rows / UNIT)
    streamed = cycle_codes(plan, pixels)
    count, conversions = len(streamed), effective.shape[0]

    def by_tile(array: jax.Array, axis: int) -> jax.Array:
        """[..., K, ...] as [..., T, H, ...], filled up with zeros."""
        after = array.ndim - axis - 1
        padded = jnp.pad(array, ((0, 0),) * axis + ((0, tiles * rows - plan.rows),) + ((0, 0),) * after)
        split = padded.reshape(*array.shape[:axis], tiles, rows, *array.shape[axis + 1 :])
        return jnp.pad(split, ((0, 0),) * (axis + 1) + ((0, height - rows),) + ((0, 0),) * after)

    x = by_tile(jnp.stack(streamed, 1).astype(jnp.bfloat16), 2)  # [M, J, T, H]
    x = x.transpose(0, 2, 1, 3).reshape(len(pixels), -1)
    cut = jnp.stack(bfloat16_parts(_in_line(plan, effective), parts)[::-1], 1).astype(jnp.bfloat16)
    cells = by_tile(cut, 2).transpose(2, 0, 1, 3, 4).reshape(-1, plan.columns)  # of [V, P, T, H, N]
    counts = (tiles, count, conversions)
    return Operands(x, cells, _grid(plan, counts, gain, converters), height, parts, counts)


def _grid(plan: Plan, counts: tuple[int, int, int], gain: jax.Array | None, converters: Converters) -> jax.Array:
    """Converters and factors of every (tile, cycle, conversion), [T * J * V, 4, N]."""
    assert converters.adc is not None  # as `suits` has it
    tiles, count, conversions = counts
    shape = (tiles, count, conversions, plan.columns)
    adc = [
        jnp.broadcast_to(jnp.moveaxis(jnp.asarray(a), 2, 0), shape)  # of [J, V, T, N]
        for a in (converters.adc.lsb, converters.adc.min_code, converters.adc.offset)
    ]
    factor = jnp.asarray(plan.cycle_weights)[:, None, None] * jnp.asarray(plan.conversion_weights)[:, None]
    if gain is not None:
        factor = factor * gain[:, None, None, :]
    if converters.lines is not None:
        factor = factor * jnp.repeat(converters.lines.gain, conversions // 2, axis=1)[:, None]
    made = jnp.stack([*adc, jnp.broadcast_to(factor, shape)], -2).astype(jnp.float32)
    return made.reshape(-1, 4, plan.columns)


def patches(plan: Plan, codes: jax.Array) -> tuple[jax.Array, tuple[int, ...]]:
    """What each output sees, [M, K] in the order of the word lines, and the outputs' shape without columns."""
    order = plan.spec.row_order
    if isinstance(order, ChannelOrder):
        codes = codes[..., jnp.asarray(order.order)]
    if plan.conv is None:
        return codes.reshape(-1, codes.shape[-1]), codes.shape[:-1]
    taps = tap_by_tap(codes, plan.kernel_shape, plan.conv)
    stacked = jnp.stack(taps, -1 if plan.by_channel else -2)
    return stacked.reshape(-1, plan.rows), stacked.shape[:3]


def _in_line(plan: Plan, effective: jax.Array) -> jax.Array:
    """Cells [V, *kernel_shape] in the order of the word lines, [V, K, N]."""
    order = plan.spec.row_order
    if isinstance(order, ChannelOrder):
        effective = effective[..., jnp.asarray(order.order), :]
    if plan.conv is not None and plan.by_channel:
        effective = jnp.moveaxis(effective, -2, 1)
    return effective.reshape(effective.shape[0], plan.rows, plan.columns)
