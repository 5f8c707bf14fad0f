"""Reading a programmed kernel: what the columns, their converters and the digital accumulation make of an input.

    x_int = clip(round(x / s_x))                                    streamed in J cycles of dac_bits each
    I[j, s, t, n] = sum_{r in tile t} x_int[j, r] * E[s, r, n]      analog, with read noise where the device has it
    D[t, n] = sum_{j, s} 2**(j * dac_bits + s * cell_bits) * ADC(I[j, s, t, n])
    y[n] = s_w[n] * s_x * sum_t a[t, n] * D[t, n]                   a = column gain

Gradients are straight through rounding and clipping: dx is one product with the gain-weighted effective weights, and
``dL/da[t, n] = sum_batch dy[n] * D[t, n]`` with the converted D, recomputed rather than kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import quantise
from xbm_jax.crossbar.adc import AdcRange, clipped, convert
from xbm_jax.crossbar.products import Conv, product, tile_product
from xbm_jax.crossbar.program import Plan, Tiles
from xbm_jax.errors import SpecError

__all__ = ["clip_rate", "column_sums", "gain_on_kernel", "input_codes", "read"]

Noise = tuple[jax.Array, jax.Array] | None
"""Variance of the effective weights and the key (as data) of this read."""


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
    noise = None
    if tiles.read_variance is not None and key is not None:
        noise = (tiles.read_variance, jax.random.key_data(key))
    if tiles.plan.fold and (gain is None or gain_at == "weights"):
        sums = _folded_read(tiles.plan, codes, tiles.effective, gain, noise)
    else:
        sums = _tiled_read(tiles.plan, codes, tiles.effective, gain, tiles.adc, noise)
    return sums * (tiles.weight_scale * tiles.input_scale)


def input_codes(tiles: Tiles, x: jax.Array) -> jax.Array:
    """The integers that the DACs get, as floats: ``clip(round(x / s_x))``, straight-through gradient."""
    low, high = quantise.input_code_limits(tiles.plan.spec.input_bits, tiles.signed_inputs)
    assert tiles.input_scale is not None
    return quantise.quantise(x, tiles.input_scale, low, high)


def gain_on_kernel(plan: Plan, gain: jax.Array) -> jax.Array:
    """Each kernel entry's column gain: ``[T, N] -> kernel_shape``."""
    return gain[plan.tile_index]


def column_sums(plan: Plan, codes: jax.Array, effective: jax.Array, noise: Noise = None) -> Iterator[tuple]:
    """Analog sums of every (tile, cycle): yields ``(t, j, I [..., S, N])`` in units of (input code x level)."""
    kernel = _side_by_side(effective, plan.conv)
    variance = None if noise is None else _side_by_side(noise[0], plan.conv)
    cycles = _cycles(plan, codes)
    for t in range(plan.tiles):
        tile = plan.tile_index == t
        for j, streamed in enumerate(cycles):
            sums = tile_product(streamed, kernel, plan.conv, tile)
            if noise is not None and variance is not None:
                sums = sums + _noise(tile_product(streamed**2, variance, plan.conv, tile), noise[1], t, j)
            yield t, j, _apart(sums, plan)


def clip_rate(tiles: Tiles, x: jax.Array) -> jax.Array:
    """Share of conversions that clip on inputs ``x``; 0 with ideal converters."""
    bits = tiles.plan.spec.adc.bits
    if bits is None or tiles.adc is None:
        return jnp.zeros(())
    grid = tiles.adc
    codes = input_codes(tiles, x)
    rates = [
        jnp.mean(clipped(sums, grid.at(j, t), bits)) for t, j, sums in column_sums(tiles.plan, codes, tiles.effective)
    ]
    return jnp.mean(jnp.stack(rates))


def _folded_read(plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, noise: Noise) -> jax.Array:
    """One product with the gain-weighted effective weights; JAX differentiates it."""
    kernel = effective[0]
    weights = None if gain is None else gain_on_kernel(plan, gain)
    sums = product(codes, kernel if weights is None else kernel * weights, plan.conv)
    if noise is None:
        return sums
    variance = noise[0][0] if weights is None else noise[0][0] * weights**2
    # Every cycle is a read of its own: its noise is drawn afresh and shifted with its sum.
    squares = sum(4.0 ** (j * (plan.spec.dac_bits or 0)) * c**2 for j, c in enumerate(_cycles(plan, codes, True)))
    return sums + _noise(product(jnp.asarray(squares), variance, plan.conv), noise[1], 0, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, adc: AdcRange | None, noise: Noise
) -> jax.Array:
    """Tile by tile: analog sums, converter, shift and add, gain, digital accumulation."""
    total: jax.Array | float = 0.0
    for t, partial_sum in _tile_sums(plan, codes, effective, adc, noise):
        total = total + (partial_sum if gain is None else partial_sum * gain[t])
    return jnp.asarray(total)


def _tile_sums(
    plan: Plan, codes: jax.Array, effective: jax.Array, adc: AdcRange | None, noise: Noise
) -> Iterator[tuple[int, jax.Array]]:
    """Converted partial sums ``(t, D[t] [..., N])``, one row tile after another."""
    bits = plan.spec.adc.bits
    shifts = 2.0 ** (plan.spec.cell.bits * jnp.arange(plan.slices))
    total: jax.Array | float = 0.0
    for t, j, sums in column_sums(plan, codes, effective, noise):
        converted = sums if adc is None else convert(sums, adc.at(j, t), bits)
        digits = converted[..., 0, :] if plan.slices == 1 else jnp.sum(converted * shifts[:, None], -2)
        total = total + digits * 2.0 ** (j * (plan.spec.dac_bits or 0)) if j else digits
        if j == plan.cycles - 1:
            yield t, total


def _tiled_read_fwd(plan: Plan, codes, effective, gain, adc, noise):  # noqa: ANN001, ANN202 - custom_vjp residuals
    return _tiled_read(plan, codes, effective, gain, adc, noise), (codes, effective, gain, adc, noise)


def _tiled_read_bwd(plan: Plan, residuals: tuple, dy: jax.Array) -> tuple:
    codes, effective, gain, adc, noise = residuals
    shifts = 2.0 ** (plan.spec.cell.bits * jnp.arange(plan.slices, dtype=effective.dtype))
    kernel = effective[0] if plan.slices == 1 else jnp.tensordot(shifts, effective, 1)
    spread = None if gain is None else gain_on_kernel(plan, gain)
    masked = kernel if spread is None else kernel * spread
    _, transpose = jax.vjp(lambda c, k: product(c, k, plan.conv), codes, masked)
    dcodes, dmasked = transpose(dy)
    dkernel = dmasked if spread is None else dmasked * spread
    deffective = jnp.stack([dkernel * shift for shift in shifts])
    dgain = None
    if gain is not None:
        axes = tuple(range(dy.ndim - 1))
        columns = [jnp.sum(dy * d, axes) for _, d in _tile_sums(plan, codes, effective, adc, noise)]
        dgain = jnp.stack(columns).astype(gain.dtype)
    return dcodes, deffective, dgain, None, None


_tiled_read.defvjp(_tiled_read_fwd, _tiled_read_bwd)


def _cycles(plan: Plan, codes: jax.Array, apart: bool = False) -> list[jax.Array]:
    """What each DAC cycle streams: ``sign(x) * ((|x| >> j * dac_bits) & (2**dac_bits - 1))``, lowest bits first."""
    count = plan.spec.cycles if apart else plan.cycles
    if count == 1:
        return [codes]
    base = 2.0 ** (plan.spec.dac_bits or 0)
    magnitude = jnp.abs(codes)
    digits = [jnp.floor(magnitude / base**j) - base * jnp.floor(magnitude / base ** (j + 1)) for j in range(count)]
    return [jnp.sign(codes) * digit for digit in digits]


def _side_by_side(effective: jax.Array, conv: Conv | None) -> jax.Array:
    """Slices as neighbouring columns, ``[S, ..., N] -> [..., S * N]``, within each group of a convolution."""
    slices, columns = effective.shape[0], effective.shape[-1]
    if slices == 1:
        return effective[0]
    groups = 1 if conv is None else conv.groups
    split = effective.reshape(*effective.shape[:-1], groups, columns // groups)
    return jnp.moveaxis(split, 0, -2).reshape(*effective.shape[1:-1], slices * columns)


def _apart(sums: jax.Array, plan: Plan) -> jax.Array:
    """Undo :func:`_side_by_side` on column sums: ``[..., S * N] -> [..., S, N]``."""
    if plan.slices == 1:
        return sums[..., None, :]
    groups = 1 if plan.conv is None else plan.conv.groups
    split = sums.reshape(*sums.shape[:-1], groups, plan.slices, plan.columns // groups)
    return jnp.moveaxis(split, -2, -3).reshape(*sums.shape[:-1], plan.slices, plan.columns)


def _noise(variance: jax.Array, key_data: jax.Array, t: int, j: int) -> jax.Array:
    """Gaussian read noise of column sums; one draw per column, equal in distribution to one per cell."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data), 4096 * j + t)
    return jnp.sqrt(variance) * jax.random.normal(key, variance.shape, variance.dtype)


def _check_readable(tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> None:
    plan = tiles.plan
    if tiles.input_scale is None or (plan.spec.adc.bits is not None and tiles.adc is None):
        raise SpecError("tiles", "not calibrated", "calibrate the chip on images first: xbm.calibrate(chip, images)")
    wanted = plan.kernel_shape[-2] * (1 if plan.conv is None else plan.conv.groups)
    if x.shape[-1] != wanted:
        raise SpecError("x.shape", x.shape, f"{wanted} features on the last axis")
    if gain is not None and gain.shape != (plan.tiles, plan.columns):
        raise SpecError("gain.shape", gain.shape, f"[row tiles, columns] = {(plan.tiles, plan.columns)}")
    if tiles.read_variance is not None and key is None:
        raise SpecError("key", None, "a PRNG key: this device's reads are noisy")
