"""In which order a read takes its row tiles, so that a compiler finds large and independent products.

Both forms give the same sums as one tile after another over the whole batch; `benchmarks/` measures what they gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xbm_jax.crossbar.primitives.products import on_cpu
from xbm_jax.crossbar.reading.gates import LineGains
from xbm_jax.crossbar.reading.sums import Converters, tile_sums
from xbm_jax.crossbar.writing.orders import ChannelOrder
from xbm_jax.crossbar.writing.plans import Plan

__all__ = ["is_scanned", "pieces", "scanned_tiles"]


_TALL = 24
"""Row tiles from which a convolution's read is a loop wherever it runs: unrolled, it compiles for seconds a layer."""

_SPILLS = (8, 200_000)
"""Row tiles, and partial sums of an image, from which a loop is faster on a CPU: unrolled, they all leave its cache."""


def is_scanned(plan: Plan, codes: jax.Array) -> bool:
    """Whether a read takes its row tiles in a loop; else each tile is an operation of the program."""
    if plan.conv is None:
        return plan.row_tiles > 1
    if plan.groups > 1 or plan.digital_offset:  # groups are short; an offset's input sum counts a tile's own rows only
        return False
    sums = plan.row_tiles * math.prod(codes.shape[1:3]) * plan.columns / math.prod(plan.conv.strides)
    spills = on_cpu() and plan.row_tiles >= _SPILLS[0] and sums >= _SPILLS[1]
    return plan.row_tiles >= _TALL or spills


def scanned_tiles(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters
) -> tuple[Any, Callable[[Any], jax.Array]]:
    """The row tiles as one pytree with a leading tile axis, and the read ``D[t]`` of one of them; for ``lax.scan``.

    A tile's sums stay in the cache, and a tall kernel compiles as fast as a short one.
    """
    count = plan.row_tiles

    def by_tile(array: jax.Array, axis: int) -> jax.Array:
        shape = (*array.shape[:axis], count, *array.shape[axis + 1 :])
        return jnp.expand_dims(jnp.moveaxis(jnp.broadcast_to(array, shape), axis, 0), axis + 1)

    own = Converters(
        adc=jax.tree.map(lambda a: by_tile(a, 2), converters.adc),
        mismatch=jax.tree.map(lambda a: by_tile(a, 1), converters.mismatch),
        first_tile=jnp.arange(count),
        lines=converters.lines and LineGains(converters.lines.gain[:, None], None),
    )
    cells = (effective, converters.variance, converters.curvature, converters.lines and converters.lines.negative)
    inside, rows, rows_of = (_dense_rows if plan.conv is None else _channel_windows)(plan, codes, cells)

    def partial_sum_of(tile: Any) -> jax.Array:
        rows, own = tile
        codes, (effective, variance, curvature, negative) = rows_of(rows)
        lines = own.lines and own.lines._replace(negative=negative)
        own = own._replace(variance=variance, curvature=curvature, key=converters.key, lines=lines)
        ((_, partial_sum),) = tile_sums(plan, codes, effective, own, [inside])
        return partial_sum

    return (rows, own), partial_sum_of


def _in_line(plan: Plan, codes: jax.Array, cells: Any) -> tuple[jax.Array, Any, np.ndarray]:
    """Codes and cells with channels side by side as they stand on word lines, and which rows each tile then holds.

    A loop takes neighbours far faster than channels here and there, and so many tiles are worth one copy.
    """
    inside, order = np.stack(plan.tile_rows), plan.spec.row_order
    if not isinstance(order, ChannelOrder):
        return codes, cells, inside
    channels = np.asarray(order.order)

    def in_order(array: jax.Array, *after: slice) -> jax.Array:
        return array.at[(..., channels, *after)].get(mode="promise_in_bounds", unique_indices=True)

    return in_order(codes), jax.tree.map(lambda a: in_order(a, slice(None)), cells), inside[..., channels]


def _dense_rows(plan: Plan, codes: jax.Array, cells: Any) -> tuple[np.ndarray, Any, Callable[[Any], Any]]:
    """A dense kernel by its tiles; the last one is filled up with rows that hold and get nothing.

    Returns:
        The rows of one tile within its piece, all pieces as a pytree with a leading tile axis, and what makes codes and
        cells of one of them.
    """
    count, rows = plan.row_tiles, plan.spec.rows

    def split(array: jax.Array, axis: int) -> jax.Array:
        padding = [(0, 0)] * array.ndim
        padding[axis] = (0, count * rows - plan.rows)
        shape = (*array.shape[:axis], count, rows, *array.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(array, padding).reshape(shape), axis, 0)

    codes, cells, _ = _in_line(plan, codes, cells)
    by_tile = split(codes, codes.ndim - 1), jax.tree.map(lambda a: split(a, a.ndim - 2), cells)
    return np.ones(rows, bool), by_tile, lambda tile: tile


def _channel_windows(plan: Plan, codes: jax.Array, cells: Any) -> tuple[np.ndarray, Any, Callable[[Any], Any]]:
    """A convolution by windows of input channels, all as wide; in a window, the rows of other tiles hold nothing.

    Returns:
        As :func:`_dense_rows`.
    """
    codes, cells, inside = _in_line(plan, codes, cells)
    touched: np.ndarray = np.any(inside, axis=(1, 2))
    channels = touched.shape[1]
    first, end = touched.argmax(1), channels - touched[:, ::-1].argmax(1)
    width = int((end - first).max())
    start = np.minimum(first, channels - width)
    kept = np.stack([tile[..., at : at + width, None] for tile, at in zip(inside, start, strict=True)])

    def rows_of(tile: Any) -> Any:
        at, kept = tile
        window = partial(lax.dynamic_slice_in_dim, start_index=at, slice_size=width)
        own = jax.tree.map(lambda a: window(a, axis=a.ndim - 2) * kept.astype(a.dtype), cells)
        return window(codes, axis=codes.ndim - 1), own

    return np.ones((*plan.kernel_shape[:2], width), bool), (jnp.asarray(start), jnp.asarray(kept)), rows_of


_CONCURRENT = 16
"""Independent products that XLA's CPU runtime needs before it runs some of them side by side."""


def pieces(plan: Plan, codes: jax.Array, converters: Converters) -> list[slice]:
    """Slices of the batch that are read one by one, so that a CPU with several cores finds enough to do at once.

    A tile's product alone is too small for XLA to spread over cores, and few of them are not run side by side. Noise is
    drawn for the whole batch: a noisy read stays whole, so that its bits do not depend on the machine.
    """
    noisy = converters.variance is not None or plan.spec.adc.noise_lsb > 0
    if plan.conv is None or plan.row_tiles == 1 or plan.fold or noisy or not on_cpu() or jax.device_count() > 1:
        return [slice(None)]
    count = math.gcd(codes.shape[0], 2 ** math.ceil(math.log2(max(_CONCURRENT / plan.row_tiles, 1))))
    size = codes.shape[0] // max(count, 1)
    return [slice(i * size, (i + 1) * size) for i in range(count)]
