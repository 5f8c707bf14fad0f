"""In which order a read takes its row tiles, so that a compiler finds large and independent products.

Both forms give the same sums as one tile after another over the whole batch; `benchmarks/` measures what they gain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.plan import Plan
from xbm_jax.crossbar.products import on_cpu
from xbm_jax.crossbar.sums import Converters, tile_sums

__all__ = ["dense_tiles", "pieces"]


def dense_tiles(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters
) -> tuple[Any, Callable[[Any], jax.Array]]:
    """The row tiles of a dense kernel as one pytree with a leading tile axis, and the read ``D[t]`` of one of them.

    For ``lax.scan``: a tile's sums stay in the cache, and a tall kernel compiles as fast as a short one. The last tile
    is filled up with rows that hold and get nothing.
    """
    count, rows = plan.tiles, plan.spec.rows
    one_tile = dataclasses.replace(plan, kernel_shape=(rows, plan.columns))

    def split(array: jax.Array, axis: int) -> jax.Array:
        padding = [(0, 0)] * array.ndim
        padding[axis] = (0, count * rows - plan.rows)
        shape = (*array.shape[:axis], count, rows, *array.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(array, padding).reshape(shape), axis, 0)

    def by_tile(array: jax.Array, axis: int) -> jax.Array:
        shape = (*array.shape[:axis], count, *array.shape[axis + 1 :])
        return jnp.expand_dims(jnp.moveaxis(jnp.broadcast_to(array, shape), axis, 0), axis + 1)

    tiles = (
        split(codes, codes.ndim - 1),
        split(effective, 1),
        Converters(
            adc=jax.tree.map(lambda a: by_tile(a, 2), converters.adc),
            mismatch=jax.tree.map(lambda a: by_tile(a, 1), converters.mismatch),
            variance=None if converters.variance is None else split(converters.variance, 1),
            curvature=None if converters.curvature is None else split(converters.curvature, 2),
            first_tile=jnp.arange(count),
        ),
    )

    def partial_sum_of(tile: Any) -> jax.Array:
        codes, effective, own = tile
        ((_, partial_sum),) = tile_sums(one_tile, codes, effective, own._replace(key_data=converters.key_data))
        return partial_sum

    return tiles, partial_sum_of


_CONCURRENT = 16
"""Independent products that XLA's CPU runtime needs before it runs some of them side by side."""


def pieces(plan: Plan, codes: jax.Array, converters: Converters) -> list[slice]:
    """Slices of the batch that are read one by one, so that a CPU with several cores finds enough to do at once.

    A tile's product alone is too small for XLA to spread over cores, and few of them are not run side by side. Noise is
    drawn for the whole batch: a noisy read stays whole, so that its bits do not depend on the machine.
    """
    noisy = converters.variance is not None or plan.spec.adc.noise_lsb > 0
    if plan.conv is None or plan.tiles == 1 or plan.fold or noisy or not on_cpu() or jax.device_count() > 1:
        return [slice(None)]
    count = math.gcd(codes.shape[0], 2 ** math.ceil(math.log2(max(_CONCURRENT / plan.tiles, 1))))
    size = codes.shape[0] // max(count, 1)
    return [slice(i * size, (i + 1) * size) for i in range(count)]
