"""Reading a programmed kernel: what the columns, their converters and the digital accumulation make of an input.

    x_int = clip(round(x / s_x))                                    streamed in cycles j of dac_bits each
    I[j, v, t, n] = sum_{r in tile t} x_int[j, r] * E[v, r, n]      analog, with read noise where the device has it
    D[t, n] = sum_{j, v} c_j * c_v * ADC(I[j, v, t, n]) - offset * sum_{r in tile t} x_int[r]
    y[n] = s_w[n] * s_x * sum_t a[t, n] * D[t, n]                   a = column gain

``v`` counts a column's conversions (its slices, and a pair's two columns where they are subtracted digitally), ``c``
are their weights, powers of two; the offset is that of offset encoding. Gradients are straight through rounding and
clipping: dx is one product with the gain-weighted effective weights, and ``dL/da[t, n] = sum_batch dy[n] * D[t, n]``
with the converted D, recomputed rather than kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import draws, quantise
from xbm_jax.crossbar.adc import AdcRange, Mismatch, clipped, convert
from xbm_jax.crossbar.plan import Plan
from xbm_jax.crossbar.products import product, tile_product
from xbm_jax.crossbar.program import Tiles
from xbm_jax.errors import SpecError

__all__ = ["Converters", "clip_rate", "column_sums", "gain_on_kernel", "input_codes", "linear_kernel", "read"]


class Converters(NamedTuple):
    """What a read needs besides weights: grids, mismatch, the variance of the weights, and this read's key (data)."""

    adc: AdcRange | None = None
    mismatch: Mismatch | None = None
    variance: jax.Array | None = None
    key_data: jax.Array | None = None


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
    key_data = None if key is None else jax.random.key_data(key)
    converters = Converters(tiles.adc, tiles.mismatch, tiles.read_variance, key_data)
    if tiles.plan.fold and (gain is None or gain_at == "weights"):
        sums = _folded_read(tiles.plan, codes, tiles.effective, gain, converters)
    else:
        sums = _tiled_read(tiles.plan, codes, tiles.effective, gain, converters)
    assert tiles.input_scale is not None  # checked above
    scale = tiles.weight_scale * tiles.input_scale
    return jnp.asarray(sums) * (scale if tiles.drift_factor is None else scale * tiles.drift_factor)


def input_codes(tiles: Tiles, x: jax.Array) -> jax.Array:
    """The integers that the DACs get, as floats: ``clip(round(x / s_x))``, straight-through gradient."""
    low, high = quantise.input_code_limits(tiles.plan.spec.input_bits, tiles.plan.signed_inputs)
    assert tiles.input_scale is not None
    return quantise.quantise(x, tiles.input_scale, low, high)


def gain_on_kernel(plan: Plan, gain: jax.Array) -> jax.Array:
    """Each kernel entry's column gain: ``[T, N] -> kernel_shape``."""
    return gain[plan.tile_index]


def linear_kernel(plan: Plan, effective: jax.Array) -> jax.Array:
    """The kernel [*shape], in levels, that a read would be with ideal converters."""
    if plan.fold:
        return effective[0]
    terms = [effective[v] * weight for v, weight in enumerate(plan.conversion_weights)]
    return sum(terms[1:], start=terms[0]) - plan.digital_offset


def column_sums(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters | None = None
) -> Iterator[tuple[int, int, jax.Array]]:
    """Analog sums of every (tile, cycle): yields ``(t, j, I [..., V, N])`` in units of (input code x level)."""
    kernel = _side_by_side(effective, plan)
    converters = converters or Converters()
    variance = None if converters.variance is None else _side_by_side(converters.variance, plan)
    cycles = _cycles(plan, codes)
    for t in range(plan.tiles):
        tile = plan.tile_index == t
        for j, streamed in enumerate(cycles):
            sums = tile_product(streamed, kernel, plan.conv, tile)
            if variance is not None:
                squares = _folded_squares(plan, codes) if plan.fold else streamed**2
                spread = jnp.sqrt(tile_product(squares, variance, plan.conv, tile))
                sums = sums + spread * _normal(converters, 2 * (len(cycles) * t + j), spread)
            yield t, j, _apart(sums, plan)


def clip_rate(tiles: Tiles, x: jax.Array) -> jax.Array:
    """Share of conversions that clip on inputs ``x``; 0 with ideal converters."""
    bits = tiles.plan.spec.adc.bits
    if bits is None or tiles.adc is None or tiles.plan.fold:
        return jnp.zeros(())
    grid, codes = tiles.adc, input_codes(tiles, x)
    rates = [
        jnp.mean(clipped(sums, grid.at(j, t), bits, None if tiles.mismatch is None else tiles.mismatch.at(t)))
        for t, j, sums in column_sums(tiles.plan, codes, tiles.effective)
    ]
    return jnp.mean(jnp.stack(rates))


def _folded_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """One product with the gain-weighted effective weights; JAX differentiates it."""
    spread = None if gain is None else gain_on_kernel(plan, gain)
    sums = product(codes, effective[0] if spread is None else effective[0] * spread, plan.conv)
    if converters.variance is None:
        return sums
    variance = converters.variance[0] if spread is None else converters.variance[0] * spread**2
    deviation = jnp.sqrt(product(_folded_squares(plan, codes), variance, plan.conv))
    # Noise carries no gradient, here as in the tiled read; its square root has none at zero.
    return sums + jax.lax.stop_gradient(deviation * _normal(converters, 0, deviation))


def _folded_squares(plan: Plan, codes: jax.Array) -> jax.Array:
    """Squared inputs that weigh a folded read's variance: each cycle's noise is its own and is shifted with its sum."""
    squares = [4.0 ** (j * (plan.spec.dac_bits or 0)) * c**2 for j, c in enumerate(_digits(plan, codes))]
    return sum(squares[1:], start=squares[0])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """Tile by tile: analog sums, converters, shift and add, gain, digital accumulation."""
    total: jax.Array | float = 0.0
    for t, partial_sum in _tile_sums(plan, codes, effective, converters):
        total = total + (partial_sum if gain is None else partial_sum * gain[t])
    return jnp.asarray(total)


def _tile_sums(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters
) -> Iterator[tuple[int, jax.Array]]:
    """Converted partial sums ``(t, D[t] [..., N])``, one row tile after another."""
    cycle_weights = plan.cycle_weights
    total: jax.Array | float = 0.0
    for t, j, sums in column_sums(plan, codes, effective, converters):
        digits = _shift_add(plan, _convert(plan, sums, converters, t, j)) * cycle_weights[j]
        total = total + digits if j else digits
        if j == len(cycle_weights) - 1:
            yield t, jnp.asarray(total) - _digital_offset(plan, codes, t)


def _convert(plan: Plan, sums: jax.Array, converters: Converters, t: int, j: int) -> jax.Array:
    """What the converters of one (tile, cycle) make of their sums [..., V, N]."""
    adc = plan.spec.adc
    if converters.adc is None or plan.fold:
        return sums
    noise = (
        adc.noise_lsb * _normal(converters, 2 * (len(plan.cycle_weights) * t + j) + 1, sums) if adc.noise_lsb else 0.0
    )
    mismatch = None if converters.mismatch is None else converters.mismatch.at(t)
    return convert(sums, converters.adc.at(j, t), adc.bits, mismatch, noise)


def _shift_add(plan: Plan, converted: jax.Array) -> jax.Array:
    """Weighted sum over a tile's conversions, ``[..., V, N] -> [..., N]``."""
    # Term by term: as one reduction over the conversions, XLA's CPU backend (jaxlib 0.10.2) fuses this with its
    # neighbours and computes wrong sums where an axis has size 1.
    terms = [converted[..., v, :] * weight for v, weight in enumerate(plan.conversion_weights)]
    return sum(terms[1:], start=terms[0])


def _digital_offset(plan: Plan, codes: jax.Array, t: int) -> jax.Array | float:
    """Offset encoding: the offset times the tile's input sum, which digital logic adds up beside the array."""
    if plan.digital_offset == 0.0 or plan.fold:
        return 0.0
    ones = jnp.ones((*plan.kernel_shape[:-1], plan.groups), codes.dtype)
    sums = tile_product(codes, ones, plan.conv, plan.tile_index == t)
    return plan.digital_offset * jnp.repeat(sums, plan.columns // plan.groups, axis=-1)


def _tiled_read_fwd(plan: Plan, codes, effective, gain, converters):
    return _tiled_read(plan, codes, effective, gain, converters), (codes, effective, gain, converters)


def _tiled_read_bwd(plan: Plan, residuals: tuple, dy: jax.Array) -> tuple:
    codes, effective, gain, converters = residuals
    kernel = linear_kernel(plan, effective)
    spread = None if gain is None else gain_on_kernel(plan, gain)
    _, transpose = jax.vjp(lambda c, k: product(c, k, plan.conv), codes, kernel if spread is None else kernel * spread)
    dcodes, dmasked = transpose(dy)
    if plan.spec.adc.clip_gradient == "zero" and not plan.fold:
        dcodes = _unclipped_gradient(plan, codes, effective, gain, converters, dy)
    dkernel = dmasked if spread is None else dmasked * spread
    deffective = jnp.stack([dkernel * weight for weight in plan.conversion_weights])
    if gain is None:
        return dcodes, deffective, None, None
    if plan.fold and converters.variance is None:
        by_tile = [jnp.where((plan.tile_index == t)[..., None], dmasked * kernel, 0.0) for t in range(plan.tiles)]
        dgain = jnp.stack([jnp.sum(part, tuple(range(kernel.ndim - 1))) for part in by_tile])
    else:
        batch = tuple(range(dy.ndim - 1))
        dgain = jnp.stack([jnp.sum(dy * d, batch) for _, d in _tile_sums(plan, codes, effective, converters)])
    return dcodes, deffective, dgain.astype(gain.dtype), None


_tiled_read.defvjp(_tiled_read_fwd, _tiled_read_bwd)


def _unclipped_gradient(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters, dy: jax.Array
) -> jax.Array:
    """The inputs' gradient with every clipped conversion left out: one transposed product per (tile, cycle)."""
    kernel, bits = _side_by_side(effective, plan), plan.spec.adc.bits
    weights = jnp.asarray(plan.conversion_weights, dy.dtype)[:, None]
    share = len(plan.cycle_weights)
    total = jnp.zeros_like(codes)
    for t, j, sums in column_sums(plan, codes, effective, converters):
        mismatch = None if converters.mismatch is None else converters.mismatch.at(t)
        free = ~clipped(sums, converters.adc.at(j, t), bits, mismatch)  # type: ignore[union-attr, arg-type]
        dsums = _together((dy if gain is None else dy * gain[t])[..., None, :] * weights * free, plan)
        _, transpose = jax.vjp(lambda c, t=t: tile_product(c, kernel, plan.conv, plan.tile_index == t), codes)
        # sum_j c_j dx_j / dx = 1: each cycle answers for an equal share of the input.
        total = total + transpose(dsums)[0] / share
        if j == 0 and plan.digital_offset:
            offset = dy if gain is None else dy * gain[t]
            total = total - jax.vjp(lambda c, t=t: _digital_offset(plan, c, t), codes)[1](offset)[0]
    return total


def _digits(plan: Plan, codes: jax.Array) -> list[jax.Array]:
    """What each cycle of one pass streams: ``sign(x) * ((|x| >> j * dac_bits) & (2**dac_bits - 1))``, lowest first."""
    count = plan.spec.cycles
    if count == 1:
        return [codes]
    base = 2.0 ** (plan.spec.dac_bits or 0)
    magnitude = jnp.abs(codes)
    shifted = [jnp.floor(magnitude / base**j) for j in range(count)] + [jnp.zeros_like(magnitude)]
    return [jnp.sign(codes) * (shifted[j] - base * shifted[j + 1]) for j in range(count)]


def _cycles(plan: Plan, codes: jax.Array) -> list[jax.Array]:
    """What a read streams: one array per entry of ``plan.cycle_weights``."""
    if plan.fold:
        return [codes]
    digits = _digits(plan, codes)
    if not plan.two_pass:
        return digits
    return [jnp.maximum(d, 0.0) for d in digits] + [jnp.maximum(-d, 0.0) for d in digits]


def _side_by_side(effective: jax.Array, plan: Plan) -> jax.Array:
    """Conversions as neighbouring columns, ``[V, ..., N] -> [..., V * N]``, within each group of a convolution."""
    count = effective.shape[0]
    if count == 1:
        return effective[0]
    split = effective.reshape(*effective.shape[:-1], plan.groups, plan.columns // plan.groups)
    return jnp.moveaxis(split, 0, -2).reshape(*effective.shape[1:-1], count * plan.columns)


def _apart(sums: jax.Array, plan: Plan) -> jax.Array:
    """Undo :func:`_side_by_side` on column sums: ``[..., V * N] -> [..., V, N]``."""
    count = sums.shape[-1] // plan.columns
    if count == 1:
        return sums[..., None, :]
    split = sums.reshape(*sums.shape[:-1], plan.groups, count, plan.columns // plan.groups)
    return jnp.moveaxis(split, -2, -3).reshape(*sums.shape[:-1], count, plan.columns)


def _together(sums: jax.Array, plan: Plan) -> jax.Array:
    """:func:`_side_by_side` for column sums: ``[..., V, N] -> [..., V * N]``."""
    split = sums.reshape(*sums.shape[:-1], plan.groups, plan.columns // plan.groups)
    return jnp.moveaxis(split, -3, -2).reshape(*sums.shape[:-2], -1)


def _normal(converters: Converters, index: int, like: jax.Array) -> jax.Array:
    """Standard normal draws of this read; one per column, equal in distribution to one per cell."""
    assert converters.key_data is not None
    key = jax.random.fold_in(jax.random.wrap_key_data(converters.key_data), index)
    return draws.normal(key, like.shape, like.dtype)


def _check_readable(tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> None:
    plan = tiles.plan
    if tiles.input_scale is None or (not plan.fold and tiles.adc is None):
        raise SpecError("tiles", "not calibrated", "calibrate the chip on images first: xbm.calibrate(chip, images)")
    wanted = plan.kernel_shape[-2] * (1 if plan.conv is None else plan.conv.groups)
    if plan.conv is not None and x.ndim != 4:
        raise SpecError("x.shape", x.shape, "[batch, height, width, channels]")
    if x.shape[-1] != wanted:
        raise SpecError("x.shape", x.shape, f"{wanted} features on the last axis")
    if gain is not None and gain.shape != (plan.tiles, plan.columns):
        raise SpecError("gain.shape", gain.shape, f"[row tiles, columns] = {(plan.tiles, plan.columns)}")
    if (tiles.read_variance is not None or plan.spec.adc.noise_lsb) and key is None:
        raise SpecError("key", None, "a PRNG key: this chip's reads are noisy")
