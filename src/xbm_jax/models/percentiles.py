"""Percentiles of all values, without sorting them: a sample that is thinned may never see a channel."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["percentile_range"]


def percentile_range(
    values: jax.Array, percentile: float, axes: tuple[int, ...], counted: jax.Array | None = None
) -> tuple[jax.Array, ...]:
    """Low and high percentile, lowest and highest of ``values`` over ``axes``, each float32 with these axes kept.

    ``100 - percentile`` and ``percentile``, interpolated linearly between neighbours as ``numpy.percentile`` does,
    over every value: an order statistic is found by bisection on the 32 bits of a float, a count a step.

    Args:
        counted: which values count, bool, of a shape that broadcasts to theirs; some along ``axes`` have to.
    """
    values = jnp.asarray(values, jnp.float32)
    most = jnp.max(values if counted is None else jnp.where(counted, values, -jnp.inf), axes, keepdims=True)
    if counted is None:
        places = _places(percentile, math.prod(values.shape[axis] for axis in axes))
    else:
        places = _traced_places(percentile, jnp.sum(jnp.broadcast_to(counted, values.shape), axes, keepdims=True))
        values = jnp.where(counted, values, jnp.inf)  # beyond every place
    least = jnp.min(values, axes, keepdims=True)
    below = _order_statistics(values, [rank for rank, _ in places], least, most, axes)
    low, high = (_between(values, at, rank, part, axes) for at, (rank, part) in zip(below, places, strict=True))
    return low, high, least, most


def _places(percentile: float, count: int) -> list[tuple[Any, Any]]:
    """Ranks from 0 and the parts of a step above them, of the low and the high percentile of so many values."""
    places = [share / 100 * (count - 1) for share in (100 - percentile, percentile)]
    return [(math.floor(place), place - math.floor(place)) for place in places]


def _traced_places(percentile: float, count: jax.Array) -> list[tuple[Any, Any]]:
    """Likewise; the high place is counted from the top, as float32 has no room for a large rank's fraction."""
    place = (100 - percentile) / 100 * (count - 1).astype(jnp.float32)
    below, above = jnp.floor(place), jnp.ceil(place)
    return [(below.astype(jnp.int32), place - below), (count - 1 - above.astype(jnp.int32), above - place)]


def _order_statistics(
    values: jax.Array, ranks: list[Any], least: jax.Array, most: jax.Array, axes: tuple[int, ...]
) -> list[jax.Array]:
    """The values that ``rank`` others are not above, for each rank from 0."""

    def step(_: int, ends: list[tuple[jax.Array, jax.Array]]) -> list[tuple[jax.Array, jax.Array]]:
        return [halved(rank, low, high) for rank, (low, high) in zip(ranks, ends, strict=True)]

    def halved(rank: Any, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        middle = low + ((high - low) >> 1)
        enough = jnp.sum(values <= _from_ordered(middle), axes, keepdims=True) > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    start = (_to_ordered(least), _to_ordered(most))
    found = [_from_ordered(high) for _, high in jax.lax.fori_loop(0, 32, step, [start] * len(ranks))]
    # Processors that take denormal floats for zero in comparisons find one of them in zero's stead.
    return [jnp.where(jnp.abs(value) < jnp.finfo(jnp.float32).tiny, 0.0, value) for value in found]


_ULPS = np.float32(3e-7)


def _between(values: jax.Array, at: jax.Array, rank: Any, part: Any, axes: tuple[int, ...]) -> jax.Array:
    """What stands ``part`` of the way from the order statistic ``at``, of ``rank``, to the next one."""
    # XLA may compute a value anew for each comparison, and then it may differ from itself by its last bits.
    equal = at + _ULPS * jnp.abs(at)
    repeated = jnp.sum(values <= equal, axes, keepdims=True) > rank + 1
    above = jnp.min(jnp.where(values > equal, values, jnp.inf), axes, keepdims=True)
    return jnp.where(repeated | (part == 0), at, at + part * (jnp.where(repeated, at, above) - at))


_SIGN = 2**31


def _to_ordered(value: jax.Array) -> jax.Array:
    """Unsigned integers in the order of the floats."""
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32)
    return jnp.where(bits >= jnp.uint32(_SIGN), ~bits, bits | jnp.uint32(_SIGN))


def _from_ordered(ordered: jax.Array) -> jax.Array:
    """Undo :func:`_to_ordered`."""
    bits = jnp.where(ordered >= jnp.uint32(_SIGN), ordered ^ jnp.uint32(_SIGN), ~ordered)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
