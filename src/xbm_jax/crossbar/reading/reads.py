"""Reading a programmed kernel: what the columns, their converters and the digital accumulation make of an input.

    x_int = clip(round(x / s_x))                                    streamed in cycles j of dac_bits each
    I[j, v, t, n] = sum_{r in tile t} x_int[j, r] * E[v, r, n]      analog, with read noise where the device has it
    D[t, n] = sum_{j, v} c_j * c_v * ADC(I[j, v, t, n]) - offset * sum_{r in tile t} x_int[r]
    y[n] = s_w[n] * s_x * sum_t a[t, n] * D[t, n]                   a = column gain

``v`` counts a column's conversions (its slices, and a pair's two columns where they are subtracted digitally), ``c``
are their weights, powers of two; the offset is that of offset encoding. Gradients are straight through rounding and
clipping: dx is one product with the gain-weighted effective weights, and ``dL/da[t, n] = sum_batch dy[n] * D[t, n]``
with the converted D, noise and all, recomputed rather than kept; inputs and weights have no gradient through noise.
Cells with a current-voltage curve (:mod:`xbm_jax.crossbar.devices.curves`) add products of squared and cubed inputs to
I; gradients pass through the linear part.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.adc import clipped
from xbm_jax.crossbar.primitives.products import product, tile_product
from xbm_jax.crossbar.reading.loops import is_scanned, pieces, scanned_tiles
from xbm_jax.crossbar.reading.sums import (
    Converters,
    cell_noise,
    column_sums,
    converter_noise,
    digital_offset,
    folded_squares,
    input_codes,
    side_by_side,
    tile_sums,
    together,
)
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.errors import SpecError
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import checked_key

__all__ = ["gain_on_kernel", "linear_kernel", "read"]


@numpy_promotion
def read(
    tiles: Tiles,
    x: jax.Array,
    gain: jax.Array | None = None,
    key: jax.Array | None = None,
    *,
    gain_at: Literal["weights", "columns"] = "weights",
) -> jax.Array:
    """The crossbar's answer ``y`` to a real input ``x``.

    Args:
        tiles: a programmed, calibrated kernel.
        x: [..., in] (dense) or [batch, height, width, channels].
        gain: column gains [T, N]; ``None`` counts every column fully.
        key: draws read noise; required where the device's reads are noisy.
        gain_at: where an ideal converter's gain is applied. ``"weights"`` costs one product and is best for one
            task; ``"columns"`` keeps the tiles apart, so that tasks under ``vmap`` share the products.

    Returns:
        ``y`` [..., N] in the input's real units, float32.
    """
    _check_readable(tiles, x, gain, key)
    codes = input_codes(tiles, x)
    key = None if key is None else checked_key(key)
    converters = Converters(tiles.adc, tiles.mismatch, tiles.read_variance, tiles.curvature, key)
    if tiles.plan.fold and (gain is None or gain_at == "weights"):
        sums = _folded_read(tiles.plan, codes, tiles.effective, gain, converters)
    else:
        sums = _tiled_read(tiles.plan, codes, tiles.effective, gain, converters)
    assert tiles.input_scale is not None  # checked above
    scale = tiles.weight_scale * tiles.input_scale
    return jnp.asarray(sums) * (scale if tiles.drift_factor is None else scale * tiles.drift_factor)


def gain_on_kernel(plan: Plan, gain: jax.Array) -> jax.Array:
    """Each kernel entry's column gain: ``[T, N] -> kernel_shape``."""
    return gain[plan.tile_index]


@numpy_promotion
def linear_kernel(plan: Plan, effective: jax.Array) -> jax.Array:
    """The kernel [*shape], in levels, that a read would be with ideal converters."""
    if plan.fold:
        return effective[0]
    terms = [effective[v] * weight for v, weight in enumerate(plan.conversion_weights)]
    return sum(terms[1:], start=terms[0]) - plan.digital_offset


def _folded_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """One product with the gain-weighted effective weights; JAX differentiates it.

    The noise of all tiles is one draw a column, ``sqrt(sum_t a[t, n]**2 * V[t, n]) * eps[n]``. It has the gain's
    gradient, as D has in the tiled read, and none of the inputs or weights.
    """
    spread = None if gain is None else gain_on_kernel(plan, gain)
    sums = product(codes, effective[0] if spread is None else effective[0] * spread, plan.conv)
    if converters.variance is None:
        return sums
    variance, squares = jax.lax.stop_gradient((converters.variance[0], folded_squares(plan, codes)))
    total = product(squares, variance if spread is None else variance * spread**2, plan.conv)
    # A square root has no slope at zero, where a column is masked in all tiles or nothing is read.
    deviation = jnp.where(total > 0.0, jnp.sqrt(jnp.where(total > 0.0, total, 1.0)), 0.0)
    return sums + cell_noise(converters, 0, deviation)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """Tile by tile: analog sums, converters, shift and add, gain, digital accumulation."""
    if is_scanned(plan, codes):
        factors = jnp.ones((plan.row_tiles, 1), codes.dtype) if gain is None else gain
        tiles, partial_sum_of = scanned_tiles(plan, codes, effective, converters)
        one = jax.eval_shape(partial_sum_of, jax.tree.map(lambda a: a[0], tiles))
        return jax.lax.scan(
            lambda total, tile: (total + partial_sum_of(tile[0]) * tile[1], None),
            jnp.zeros(one.shape, one.dtype),
            (tiles, factors),
        )[0]
    parts = []
    for part in pieces(plan, codes, converters):
        total: jax.Array | float = 0.0
        for t, partial_sum in tile_sums(plan, codes[part], effective, converters):
            total = total + (partial_sum if gain is None else partial_sum * gain[t])
        parts.append(jnp.asarray(total))
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


@numpy_promotion
def _tiled_read_fwd(plan: Plan, codes, effective, gain, converters):
    return _tiled_read(plan, codes, effective, gain, converters), (codes, effective, gain, converters)


@numpy_promotion
def _tiled_read_bwd(plan: Plan, residuals: tuple, dy: jax.Array) -> tuple:
    # The barrier keeps XLA from merging the recomputed tile sums with the forward pass's, which would keep all T alive.
    dy, (codes, effective, gain, converters) = jax.lax.optimization_barrier((dy, residuals))
    kernel = linear_kernel(plan, effective)
    spread = None if gain is None else gain_on_kernel(plan, gain)
    _, transpose = jax.vjp(lambda c, k: product(c, k, plan.conv), codes, kernel if spread is None else kernel * spread)
    dcodes, dmasked = transpose(dy)
    if plan.spec.adc.clip_gradient == "zero" and not plan.fold and converters.adc is not None:
        dcodes = _unclipped_gradient(plan, codes, effective, gain, converters, dy)
    dkernel = dmasked if spread is None else dmasked * spread
    deffective = jnp.stack([dkernel * weight for weight in plan.conversion_weights])
    if gain is None:
        return dcodes, deffective, None, None
    if plan.fold and converters.variance is None:
        by_tile = [jnp.where(rows[..., None], dmasked * kernel, 0.0) for rows in plan.tile_rows]
        dgain = jnp.stack([jnp.sum(part, tuple(range(kernel.ndim - 1))) for part in by_tile])
    else:
        dgain = _gain_gradient(plan, codes, effective, converters, dy)
    return dcodes, deffective, dgain.astype(gain.dtype), None


def _gain_gradient(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters, dy: jax.Array
) -> jax.Array:
    """``dL/da[t, n] = sum_batch dy[n] * D[t, n]``, [T, N], from recomputed tile sums."""
    batch = tuple(range(dy.ndim - 1))
    if is_scanned(plan, codes):
        tiles, partial_sum_of = scanned_tiles(plan, codes, effective, converters)
        return jax.lax.map(lambda tile: jnp.sum(dy * partial_sum_of(tile), batch), tiles)
    total: jax.Array | float = 0.0
    for part in pieces(plan, codes, converters):
        sums = tile_sums(plan, codes[part], effective, converters)
        total = total + jnp.stack([jnp.sum(dy[part] * d, batch) for _, d in sums])
    return jnp.asarray(total)


_tiled_read.defvjp(_tiled_read_fwd, _tiled_read_bwd)


def _unclipped_gradient(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters, dy: jax.Array
) -> jax.Array:
    """The inputs' gradient with every clipped conversion left out: one transposed product per (tile, cycle)."""
    kernel, bits = side_by_side(effective, plan), plan.spec.adc.bits
    weights = jnp.asarray(plan.conversion_weights, dy.dtype)[:, None]
    share, tile_rows = len(plan.cycle_weights), plan.tile_rows
    assert converters.adc is not None and bits is not None  # ideal converters clip nothing
    total = jnp.zeros_like(codes)
    for t, j, sums in column_sums(plan, codes, effective, converters):
        mismatch = None if converters.mismatch is None else converters.mismatch.at(t)
        noise = converter_noise(plan, converters, t, j, sums)
        free = ~clipped(sums, converters.adc.at(j, t), bits, mismatch, noise)
        dsums = together((dy if gain is None else dy * gain[t])[..., None, :] * weights * free, plan)
        _, transpose = jax.vjp(
            lambda c, t=t: tile_product(c, kernel, plan.conv, tile_rows[t], apart=plan.by_channel), codes
        )
        # sum_j c_j dx_j / dx = 1: each cycle answers for an equal share of the input.
        total = total + transpose(dsums)[0] / share
        if j == 0 and plan.digital_offset:
            offset = dy if gain is None else dy * gain[t]
            total = total - jax.vjp(lambda c, t=t: digital_offset(plan, c, tile_rows[t]), codes)[1](offset)[0]
    return total


def _check_readable(tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> None:
    plan = tiles.plan
    if not tiles.calibrated:
        raise SpecError("tiles", "not calibrated", "calibrate the chip on images first: xbm.calibrate(chip, images)")
    wanted = plan.kernel_shape[-2] * (1 if plan.conv is None else plan.conv.groups)
    if plan.conv is not None and x.ndim != 4:
        raise SpecError("x.shape", x.shape, "[batch, height, width, channels]")
    if x.shape[-1] != wanted:
        raise SpecError("x.shape", x.shape, f"{wanted} features on the last axis")
    if gain is not None and gain.shape != (plan.row_tiles, plan.columns):
        raise SpecError("gain.shape", gain.shape, f"[row tiles, columns] = {(plan.row_tiles, plan.columns)}")
    if (tiles.read_variance is not None or plan.spec.adc.noise_lsb) and key is None:
        raise SpecError("key", None, "a PRNG key: this chip's reads are noisy")
