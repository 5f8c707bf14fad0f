"""A read that keeps its converters' codes, so that the gradient of its gains need not compute its products again.

The gradient of a gain wants the converted sum, ``dL/da[t, n] = sum_batch dy[n] * D[t, n]``. A code of at most 8 bits
is a byte, and D follows from codes and grids alone: read noise and mismatch are in them. Kept are those of reads under
column gains with at most :data:`MOST` conversions an output, so that memory does not grow with an array's tiles; all
others compute their sums again (:mod:`xbm_jax.crossbar.reading.columns`). Values and gradients are the same: to the bit
where a tile has one conversion, to rounding where XLA may add several terms in another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.adc import BYTE, AdcRange, code_of, value, word
from xbm_jax.crossbar.reading.loops import Order, in_order, orders
from xbm_jax.crossbar.reading.mixed import mixed, of_part
from xbm_jax.crossbar.reading.sums import (
    Conversions,
    Converters,
    column_sums,
    conversion_codes,
    digital_sums,
)
from xbm_jax.crossbar.writing.plans import Plan

__all__ = ["MOST", "Kept", "gained", "keeps", "kept_read", "kept_sums"]

MOST = 16
"""Conversions of an output, in row tiles, cycles and slices, that are kept at most: as many bytes."""

Kept = Sequence[jax.Array]
"""Codes of each (tile, cycle), one after another: int8 [batch, ..., V, N]."""


def keeps(plan: Plan, codes: jax.Array, gain: jax.Array | None, converters: Converters) -> bool:
    """Whether the codes of this read are kept where the gradient of its gains is asked."""
    bits = plan.spec.adc.bits
    return (
        gain is not None
        and converters.adc is not None
        and not plan.fold
        and bits is not None
        and bits <= BYTE
        and plan.row_tiles * len(plan.cycle_weights) * len(plan.conversion_weights) <= MOST
        and not any(order.scanned for order in orders(plan, codes, converters))
    )


def kept_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> tuple[jax.Array, Kept]:
    """:func:`xbm_jax.crossbar.reading.columns.accumulated`, and the codes that it came from."""
    # The barrier has XLA write bytes here; else it keeps the sums, in float32, and makes bytes of them at their use.
    return jax.lax.optimization_barrier(mixed(plan, _read)(codes, effective, gain, converters))


def _read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> tuple[jax.Array, Kept]:
    given = (codes, effective, gain, converters)
    return in_order(plan, codes, converters, lambda order: _read_in(plan, order, *given))


@partial(jax.jit, static_argnums=(0, 1))
def _read_in(
    plan: Plan, order: Order, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> tuple[jax.Array, Kept]:
    found = [_part(plan, codes[part], effective, *of_part(part, converters, gain)) for part in order.slices]
    return found[0] if len(found) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)


def _part(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters, gain: jax.Array | None
) -> tuple[jax.Array, Kept]:
    """The read of a part of the batch."""
    (grids, bits), kept = _converter(plan, converters), []

    def converted() -> Conversions:
        for t, j, code in conversion_codes(plan, column_sums(plan, codes, effective, converters), converters):
            grid = grids.at(j, t)
            kept.append(word(code, grid, bits))
            yield t, j, value(code, grid)  # of the code itself: a byte cannot say that it is no number

    return gained(digital_sums(plan, converted(), codes, converters), gain), kept


def kept_sums(plan: Plan, codes: jax.Array, converters: Converters, kept: Kept) -> Iterable[tuple[int, jax.Array]]:
    """Converted partial sums ``(t, D[t] [..., N])`` of kept codes; ``codes`` are those of the inputs."""
    (grids, bits), cycles = _converter(plan, converters), len(plan.cycle_weights)

    def converted() -> Conversions:
        for at, own in enumerate(kept):
            t, j = divmod(at, cycles)
            grid = grids.at(j, t)
            yield t, j, value(code_of(own, grid, bits), grid)

    return digital_sums(plan, converted(), codes, converters)


def _converter(plan: Plan, converters: Converters) -> tuple[AdcRange, int]:
    """Grids and bits of a read that :func:`keeps`."""
    assert converters.adc is not None and plan.spec.adc.bits is not None
    return converters.adc, plan.spec.adc.bits


def gained(sums: Iterable[tuple[int, jax.Array]], gain: jax.Array | None) -> jax.Array:
    """Digital accumulation ``sum_t a[t, n] * D[t, n]`` of partial sums; without gains every column counts fully."""
    total: jax.Array | float = 0.0
    for t, partial_sum in sums:
        total = total + (partial_sum if gain is None else partial_sum * gain[t])
    return jnp.asarray(total)
