"""Converter ranges that need no images, and the mismatch between converters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import draws
from xbm_jax.crossbar.adc import AdcRange, Mismatch, explicit_range, granular_range, snapped_range
from xbm_jax.crossbar.plan import Plan

__all__ = ["draw_mismatch", "known_range"]


def known_range(plan: Plan, effective: jax.Array) -> AdcRange | None:
    """Converter grids that need no images; ``None`` where they are calibrated or ideal."""
    adc = plan.spec.adc
    if adc.bits is None or adc.range == "calibrated":
        return None
    if isinstance(adc.range, tuple):
        return explicit_range(*adc.range, adc.bits)
    if adc.range == "granular":
        return granular_range(adc.bits, positive=plan.positive_sums)
    return snapped_range(*_worst_case(plan, effective), adc.bits)


def draw_mismatch(plan: Plan, key: jax.Array) -> Mismatch | None:
    """Gain and offset errors of every converter, [V, T, N]; ``None`` where all are alike."""
    adc = plan.spec.adc
    if not adc.gain_mismatch and not adc.offset_mismatch_lsb:
        return None
    shape = (len(plan.conversion_weights), plan.tiles, plan.columns)
    gain_key, offset_key = jax.random.split(key)
    return Mismatch(
        gain=1.0 + adc.gain_mismatch * draws.normal(gain_key, shape),
        offset_lsb=adc.offset_mismatch_lsb * draws.normal(offset_key, shape),
    )


def _worst_case(plan: Plan, effective: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest column sum that any input can cause, shaped by ``Adc.per``, [1, V, T|1, N|1]."""
    low_code, high_code = plan.cycle_code_limits
    up, down = jnp.maximum(effective, 0.0), jnp.maximum(-effective, 0.0)
    axes = tuple(range(1, effective.ndim - 1))

    def per_tile(values: jax.Array) -> jax.Array:
        masks = [(plan.tile_index == t)[..., None] for t in range(plan.tiles)]
        return jnp.stack([jnp.sum(values * mask, axes) for mask in masks], axis=1)[None]

    high = per_tile(up * high_code - down * low_code)
    low = per_tile(up * low_code - down * high_code)
    shared = {"layer": (2, 3), "tile": (3,), "column": ()}[plan.spec.adc.per]
    return jnp.min(low, shared, keepdims=True), jnp.max(high, shared, keepdims=True)
