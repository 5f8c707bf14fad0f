"""Converter ranges that need no images, and the mismatch between converters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import draws
from xbm_jax.crossbar.adc import AdcRange, Mismatch, explicit_range, granular_range, snapped_range
from xbm_jax.crossbar.plan import Plan

__all__ = ["draw_mismatch", "known_range"]


def known_range(plan: Plan, effective: jax.Array, curvature: jax.Array | None = None) -> AdcRange | None:
    """Converter grids that need no images; ``None`` where they are calibrated or ideal."""
    adc = plan.spec.adc
    if adc.bits is None or adc.range == "calibrated":
        return None
    if isinstance(adc.range, tuple):
        return explicit_range(*adc.range, adc.bits)
    if adc.range == "granular":
        return granular_range(adc.bits, positive=plan.positive_sums)
    return snapped_range(*_worst_case(plan, effective, curvature), adc.bits)


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


def _worst_case(plan: Plan, effective: jax.Array, curvature: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest column sum that any input can cause, shaped by ``Adc.per``, [1, V, T|1, N|1].

    A cell's part is largest at one end of its input's range; cells with a curve are taken there too.
    """

    def part(code: float) -> jax.Array:
        linear = effective * code
        return linear if curvature is None else linear + curvature[0] * code**2 + curvature[1] * code**3

    at_low, at_high = (part(float(code)) for code in plan.cycle_code_limits)
    axes = tuple(range(1, effective.ndim - 1))

    def per_tile(values: jax.Array) -> jax.Array:
        masks = [(plan.tile_index == t)[..., None] for t in range(plan.tiles)]
        return jnp.stack([jnp.sum(values * mask, axes) for mask in masks], axis=1)[None]

    high, low = per_tile(jnp.maximum(at_low, at_high)), per_tile(jnp.minimum(at_low, at_high))
    shared = {"layer": (2, 3), "tile": (3,), "column": ()}[plan.spec.adc.per]
    return jnp.min(low, shared, keepdims=True), jnp.max(high, shared, keepdims=True)
