"""Converter ranges that need no images, and the mismatch between converters."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.primitives.adc import AdcRange, Mismatch, explicit_range, granular_range, snapped_range
from xbm_jax.crossbar.writing.cells import levels_at
from xbm_jax.crossbar.writing.plans import Plan

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
    shape = (len(plan.conversion_weights), plan.row_tiles, plan.columns)
    gain_key, offset_key = jax.random.split(key)
    return Mismatch(
        gain=1.0 + adc.gain_mismatch * draws.normal(gain_key, shape),
        offset_lsb=adc.offset_mismatch_lsb * draws.normal(offset_key, shape),
    )


def _worst_case(plan: Plan, effective: jax.Array, curvature: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest column sum that any input can cause, shaped by ``Adc.per``, [1, V, T|1, N|1]."""
    low, high = plan.cycle_code_limits
    codes: list[jax.Array | float] = [float(low), float(high)]
    if curvature is not None:
        codes += _turning_codes(effective, curvature, low, high)
    parts = [code * levels_at(effective, curvature, code) for code in codes]
    least, most = functools.reduce(jnp.minimum, parts), functools.reduce(jnp.maximum, parts)
    axes = tuple(range(1, effective.ndim - 1))

    def per_tile(values: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(values * rows[..., None], axes) for rows in plan.tile_rows], axis=1)[None]

    shared = {"layer": (2, 3), "tile": (3,), "column": ()}[plan.spec.adc.per]
    return jnp.min(per_tile(least), shared, keepdims=True), jnp.max(per_tile(most), shared, keepdims=True)


def _turning_codes(linear: jax.Array, curvature: jax.Array, low: int, high: int) -> list[jax.Array]:
    """Four codes beside each cell's two turning points, shaped as ``linear``: a cubic's extremes need not be its ends.

        d/dc (c E + c^2 E2 + c^3 E3) = E + 2 c E2 + 3 c^2 E3 = 0

    A code streamed is a candidate wherever it lies, so that a missing or complex root needs no case of its own.
    """
    second, third = curvature
    root = jnp.sqrt(jnp.maximum(second**2 - 3.0 * linear * third, 0.0))
    both = -(second + jnp.copysign(root, second))  # of the two signs the one that does not cancel
    turns = [jnp.nan_to_num(both / (3.0 * third)), jnp.nan_to_num(linear / both)]
    return [jnp.clip(beside(turn), low, high) for turn in turns for beside in (jnp.floor, jnp.ceil)]
