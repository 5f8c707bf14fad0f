"""Percentiles of all values, without sorting them: a sample that is thinned may never see a channel."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

__all__ = ["percentile_range"]


def percentile_range(values: jax.Array, percentile: float, axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Low and high percentile, lowest and highest of ``values`` over ``axes``, each float32 with these axes kept.

    ``100 - percentile`` and ``percentile``, interpolated linearly between neighbours as ``numpy.percentile`` does,
    over every value: an order statistic is found by bisection on the 32 bits of a float, a count a step.
    """
    values = jnp.asarray(values, jnp.float32)
    count = math.prod(values.shape[axis] for axis in axes)
    places = [share / 100 * (count - 1) for share in (100 - percentile, percentile)]
    least, most = jnp.min(values, axes, keepdims=True), jnp.max(values, axes, keepdims=True)
    below = _order_statistics(values, [math.floor(place) for place in places], least, most, axes)
    low, high = (_between(values, at, place, axes) for at, place in zip(below, places, strict=True))
    return low, high, least, most


def _order_statistics(
    values: jax.Array, ranks: list[int], least: jax.Array, most: jax.Array, axes: tuple[int, ...]
) -> list[jax.Array]:
    """The values that ``rank`` others are not above, for each rank from 0."""

    def step(_: int, ends: list[tuple[jax.Array, jax.Array]]) -> list[tuple[jax.Array, jax.Array]]:
        return [halved(rank, low, high) for rank, (low, high) in zip(ranks, ends, strict=True)]

    def halved(rank: int, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        middle = low + ((high - low) >> 1)
        enough = jnp.sum(values <= _from_ordered(middle), axes, keepdims=True) > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    start = (_to_ordered(least), _to_ordered(most))
    found = [_from_ordered(high) for _, high in jax.lax.fori_loop(0, 32, step, [start] * len(ranks))]
    # Processors that take denormal floats for zero in comparisons find one of them in zero's stead.
    return [jnp.where(jnp.abs(value) < jnp.finfo(jnp.float32).tiny, 0.0, value) for value in found]


def _between(values: jax.Array, at: jax.Array, place: float, axes: tuple[int, ...]) -> jax.Array:
    """What stands at a place between the order statistic ``at`` and the next one."""
    rank, part = math.floor(place), place - math.floor(place)
    if part == 0:
        return at
    repeated = jnp.sum(values <= at, axes, keepdims=True) > rank + 1
    above = jnp.min(jnp.where(values > at, values, jnp.inf), axes, keepdims=True)
    return jnp.where(repeated, at, at + part * (jnp.where(repeated, at, above) - at))


_SIGN = 2**31


def _to_ordered(value: jax.Array) -> jax.Array:
    """Unsigned integers in the order of the floats."""
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32)
    return jnp.where(bits >= jnp.uint32(_SIGN), ~bits, bits | jnp.uint32(_SIGN))


def _from_ordered(ordered: jax.Array) -> jax.Array:
    """Undo :func:`_to_ordered`."""
    bits = jnp.where(ordered >= jnp.uint32(_SIGN), ordered ^ jnp.uint32(_SIGN), ~ordered)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
