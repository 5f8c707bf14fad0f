"""In which order a read takes its row tiles, so that a compiler finds large and independent products.

Both forms give the same sums as one tile after another over the whole batch; `benchmarks/` measures what they gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xbm_jax.crossbar.primitives.platforms import by_platform
from xbm_jax.crossbar.reading.gates import LineGains
from xbm_jax.crossbar.reading.sums import Converters, tile_sums
from xbm_jax.crossbar.writing.orders import ChannelOrder
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.layout import alone

__all__ = ["Order", "in_order", "orders", "scanned_tiles"]


_TALL = 24
"""Row tiles from which a convolution's read is a loop wherever it runs: unrolled, it compiles for seconds a layer."""

_SPILLS = (8, 200_000)
"""Row tiles, and partial sums of an image, from which a loop is faster on a CPU: unrolled, they all leave its cache."""


class Order(NamedTuple):
    """In which order a read goes.

    Attributes:
        scanned: takes its row tiles in a loop; else each tile is an operation of the program.
        parts: where those parts of the batch begin and end that are read one by one, where it is no loop.
    """

    scanned: bool
    parts: tuple[tuple[int | None, int | None], ...]

    @property
    def slices(self) -> list[slice]:
        """Of the batch, one by one."""
        return [slice(*part) for part in self.parts]


_WHOLE = ((None, None),)
_T = TypeVar("_T")


def in_order(plan: Plan, codes: jax.Array, converters: Converters, read: Callable[[Order], _T]) -> _T:
    """``read`` of the order that suits the platform which the program is compiled for."""
    on_cpu, elsewhere = orders(plan, codes, converters)
    if on_cpu == elsewhere:
        return read(on_cpu)
    return by_platform(lambda: read(on_cpu), lambda: read(elsewhere))


def orders(plan: Plan, codes: jax.Array, converters: Converters) -> tuple[Order, Order]:
    """The order on a CPU, and the one elsewhere."""
    if plan.conv is None:
        by_row_tile = Order(plan.row_tiles > 1, _WHOLE)
        return by_row_tile, by_row_tile
    tall = plan.row_tiles >= _TALL
    if plan.groups > 1 or plan.digital_offset:  # groups are short; an offset's input sum counts a tile's own rows only
        tall, spills = False, False
    else:
        sums = plan.row_tiles * math.prod(codes.shape[1:3]) * plan.columns / math.prod(plan.conv.strides)
        spills = plan.row_tiles >= _SPILLS[0] and sums >= _SPILLS[1]
    loop, unrolled = Order(True, _WHOLE), Order(False, _pieces(plan, codes, converters))
    return (loop if tall or spills else unrolled), (loop if tall else Order(False, _WHOLE))


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
        other_weights=converters.other_weights,
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


def _channels_in_line(plan: Plan) -> np.ndarray | None:
    """Which input channels stand one behind another on word lines, where it is not 0, 1, 2, ..."""
    order = plan.spec.row_order
    return np.asarray(order.order) if isinstance(order, ChannelOrder) else None


def _picked(array: jax.Array, channels: jax.Array, *after: slice) -> jax.Array:
    """Some channels of an array, zeros where there is none. In a loop, of one tile alone: it fits into the cache."""
    return array.at[(..., channels, *after)].get(mode="fill", fill_value=0, unique_indices=True)


def _dense_rows(plan: Plan, codes: jax.Array, cells: Any) -> tuple[np.ndarray, Any, Callable[[Any], Any]]:
    """A dense kernel by its tiles; the last one is filled up with rows that hold and get nothing.

    Returns:
        The rows of one tile within its piece, all pieces as a pytree with a leading tile axis, and what makes codes and
        cells of one of them.
    """
    count, rows, channels = plan.row_tiles, plan.spec.tile_height, _channels_in_line(plan)
    missing, inside = count * rows - plan.rows, np.ones(rows, bool)

    def split(array: jax.Array, axis: int) -> jax.Array:
        padding = [(0, 0)] * array.ndim
        padding[axis] = (0, missing)
        shape = (*array.shape[:axis], count, rows, *array.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(array, padding).reshape(shape), axis, 0)

    if channels is None:
        by_tile = split(codes, codes.ndim - 1), jax.tree.map(lambda a: split(a, a.ndim - 2), cells)
        return inside, by_tile, lambda tile: tile
    nowhere = plan.rows + np.arange(missing)
    index = jnp.asarray(np.concatenate([channels, nowhere]).reshape(count, rows))

    def rows_of(tile: jax.Array) -> Any:
        return _picked(codes, tile), jax.tree.map(lambda a: _picked(a, tile, slice(None)), cells)

    return inside, index, rows_of


def _channel_windows(plan: Plan, codes: jax.Array, cells: Any) -> tuple[np.ndarray, Any, Callable[[Any], Any]]:
    """A convolution by windows of input channels, all as wide; in a window, the rows of other tiles hold nothing.

    Returns:
        As :func:`_dense_rows`.
    """
    channels, inside = _channels_in_line(plan), np.stack(plan.tile_rows)
    inside = inside if channels is None else inside[..., channels]
    touched: np.ndarray = np.any(inside, axis=(1, 2))
    total = touched.shape[1]
    first, end = touched.argmax(1), total - touched[:, ::-1].argmax(1)
    width = int((end - first).max())
    start = np.minimum(first, total - width)
    kept = np.stack([tile[..., at : at + width, None] for tile, at in zip(inside, start, strict=True)])
    at = start if channels is None else channels[start[:, None] + np.arange(width)]

    def window(array: jax.Array, at: jax.Array, axis: int) -> jax.Array:
        if channels is None:
            return lax.dynamic_slice_in_dim(array, at, width, axis)
        return _picked(array, at, *(slice(None) for _ in range(axis + 1, array.ndim)))

    def rows_of(tile: Any) -> Any:
        at, kept = tile
        own = jax.tree.map(lambda a: window(a, at, a.ndim - 2) * kept.astype(a.dtype), cells)
        return window(codes, at, codes.ndim - 1), own

    return np.ones((*plan.kernel_shape[:2], width), bool), (jnp.asarray(at), jnp.asarray(kept)), rows_of


_CONCURRENT = 16
"""Independent products that XLA's CPU runtime needs before it runs some of them side by side."""


def _pieces(plan: Plan, codes: jax.Array, converters: Converters) -> tuple[tuple[int | None, int | None], ...]:
    """Parts of the batch that are read one by one, so that a CPU with several cores finds enough to do at once.

    A tile's product alone is too small for XLA to spread over cores, and few of them are not run side by side. Noise is
    drawn for the whole batch: a noisy read stays whole, so that its bits do not depend on the machine. So does a batch
    that devices share (``jax.set_mesh``): a slice would have to be gathered from them.
    """
    noisy = converters.variance is not None or plan.spec.adc.noise_lsb > 0
    if plan.conv is None or plan.row_tiles == 1 or plan.fold or noisy or not alone():
        return _WHOLE
    count = math.gcd(codes.shape[0], 2 ** math.ceil(math.log2(max(_CONCURRENT / plan.row_tiles, 1))))
    size = codes.shape[0] // max(count, 1)
    return tuple((i * size, (i + 1) * size) for i in range(count))
