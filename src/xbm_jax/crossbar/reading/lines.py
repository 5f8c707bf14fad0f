"""Reads under gains by line [T, 2, N]: of the positive and the negative source line of every differential pair.

    subtract="digital":  D[t, n] = sum_{j, v} c_j c_v a[t, line(v), n] ADC(I[j, v, t, n])     behind the converters
    subtract="analog":   I[j, v, t, n] = a[t, 0, n] I+[j, v, t, n] - a[t, 1, n] I-[j, v, t, n]    before the only one
    y[n] = s_w[n] * s_x * sum_t D[t, n]

Slices share their lines' gains. Gates before the converter weigh the read noise of the line, ``V = a+^2 V+ + a-^2 V-``,
and what its cells' curves add. A column both of whose lines are off is not converted. Gradients are straight through
the converter: ``dL/da[t, l, n] = sum_batch dy[n] * dD/da[t, l, n]``, noise and curves and all; with
``clip_gradient="zero"`` a gain before the converter has none through clipped conversions, as inputs have none. All else
as in :mod:`xbm_jax.crossbar.reading.reads`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.products import product
from xbm_jax.crossbar.reading.columns import (
    accumulated,
    gain_on_kernel,
    linear_kernel,
    not_clipped,
    one_product,
    unclipped_gradient,
)
from xbm_jax.crossbar.reading.gates import LineGains, gated, gated_variance
from xbm_jax.crossbar.reading.loops import Order, in_order, scanned_tiles
from xbm_jax.crossbar.reading.sums import Converters, column_sums, tile_sums
from xbm_jax.crossbar.writing.lines import Lines
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.promotion import numpy_promotion

__all__ = ["folded_by_line", "kernel_by_line", "tiled_by_line"]


def folded_by_line(tiles: Tiles, codes: jax.Array, gain: jax.Array, converters: Converters) -> jax.Array:
    """One product with the line-gated effective weights; JAX differentiates it. ``tiles`` as :func:`by_line` gives."""
    plan, negative = tiles.plan, tiles.lines
    assert negative is not None  # a folded read subtracts pairs before its product
    frozen = converters._replace(variance=jax.lax.stop_gradient(converters.variance))
    kernel, own = _gated_cells(plan, tiles.effective, gain, negative, frozen)
    return one_product(plan, codes, kernel[0], None if own.variance is None else own.variance[0], converters)


def tiled_by_line(
    tiles: Tiles, codes: jax.Array, gain: jax.Array, converters: Converters, *, at_weights: bool
) -> jax.Array:
    """Tile by tile. Gates before the converter act on the weights, or on the lines' sums, which tasks then share."""
    return _tiled_read(tiles.plan, at_weights, codes, tiles.effective, gain, tiles.lines, converters)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tiled_read(
    plan: Plan,
    at_weights: bool,
    codes: jax.Array,
    effective: jax.Array,
    gain: jax.Array,
    negative: Lines | None,
    converters: Converters,
) -> jax.Array:
    if negative is None:
        return accumulated(plan, codes, effective, None, converters._replace(lines=LineGains(gain, None)))
    converted = None if plan.fold or converters.adc is None else jnp.any(gain != 0, axis=1).astype(gain.dtype)
    if at_weights:
        effective, converters = _gated_cells(plan, effective, gain, negative, converters)
    else:
        converters = converters._replace(lines=LineGains(gain, negative))
    return accumulated(plan, codes, effective, converted, converters)


@numpy_promotion
def _tiled_read_fwd(plan: Plan, at_weights: bool, *arrays):
    return _tiled_read(plan, at_weights, *arrays), arrays


@numpy_promotion
def _tiled_read_bwd(plan: Plan, at_weights: bool, residuals: tuple, dy: jax.Array) -> tuple:
    del at_weights
    # The barrier keeps XLA from merging the recomputed tile sums with the forward pass's, which would keep all T alive.
    dy, (codes, effective, gain, negative, converters) = jax.lax.optimization_barrier((dy, residuals))
    before = negative is not None  # gates stand before the converter, or there is none
    zero = plan.spec.adc.clip_gradient == "zero" and not plan.fold and converters.adc is not None
    alone = negative.effective if negative is not None else None
    dcodes, deffective, dgain, dalone = jax.vjp(partial(_linear_read, plan), codes, effective, gain, alone)[1](dy)
    linear = converters.variance is None and converters.curvature is None and (before or converters.adc is None)
    if zero:
        dcodes = _unclipped_inputs(plan, codes, effective, gain, negative, converters, dy)
    if zero and before:
        dgain = _unclipped_gains(plan, codes, effective, gain, negative, converters, dy)
    elif not linear:
        seen = converters._replace(adc=None) if before else converters
        given = (plan, codes, effective, gain, negative, seen, dy)
        dgain = in_order(plan, codes, seen, partial(_gain_gradient, *given))
    return dcodes, deffective, dgain.astype(gain.dtype), dalone if alone is None else Lines(dalone), None


_tiled_read.defvjp(_tiled_read_fwd, _tiled_read_bwd)


def _on_lines(plan: Plan, gain: jax.Array) -> jax.Array:
    """Each kernel entry's line gains: ``[T, 2, N] -> [2, *kernel_shape]``."""
    return jnp.stack([gain_on_kernel(plan, gain[:, line]) for line in (0, 1)])


def _by_conversion(plan: Plan, gain: jax.Array) -> jax.Array:
    """The gain of each conversion's line where lines are converted apart: ``[T, 2, N] -> [T, V, N]``."""
    return jnp.repeat(gain, len(plan.conversion_weights) // 2, axis=1)


def _gated_cells(
    plan: Plan, effective: jax.Array, gain: jax.Array, negative: Lines, converters: Converters
) -> tuple[jax.Array, Converters]:
    """Pairs as gates before their converter make of them: weights, and in the converters variance and curvature."""
    spread = _on_lines(plan, gain)
    variance, curvature = converters.variance, converters.curvature
    if variance is not None and negative.variance is not None:
        variance = gated_variance(variance, jax.lax.stop_gradient(negative.variance), spread)
    if curvature is not None and negative.curvature is not None:
        curvature = gated(curvature, negative.curvature, spread)
    weights = gated(effective, negative.effective, spread)
    return weights, converters._replace(variance=variance, curvature=curvature, other_weights=())


def _linear_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array, negative: jax.Array | None
) -> jax.Array:
    """The read as straight-through gradients see it: one product."""
    return product(codes, kernel_by_line(plan, effective, gain, negative), plan.conv)


def kernel_by_line(plan: Plan, effective: jax.Array, gain: jax.Array, negative: jax.Array | None) -> jax.Array:
    """The kernel [*shape], in levels, that a read under line gains [T, 2, N] would be with ideal converters.

    ``negative``: the negative lines, where a pair shares its converter.
    """
    spread = _on_lines(plan, gain)
    if negative is None:
        weights = effective * jnp.repeat(spread, len(plan.conversion_weights) // 2, axis=0)
    else:
        weights = gated(effective, negative, spread)
    return linear_kernel(plan, weights)


def _gain_gradient(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    gain: jax.Array,
    negative: Lines | None,
    converters: Converters,
    dy: jax.Array,
    order: Order,
) -> jax.Array:
    """``dL/da[t, l, n]``, [T, 2, N], from recomputed tile sums."""

    def under(gain: jax.Array) -> Converters:
        return converters._replace(lines=LineGains(gain, negative))

    if order.scanned:
        tiles, partial_sum_of = scanned_tiles(plan, codes, effective, under(gain))

        def of_tile(tile: tuple) -> jax.Array:
            rows, own = tile

            def sums(gain: jax.Array) -> jax.Array:
                return partial_sum_of((rows, own._replace(lines=own.lines._replace(gain=gain))))

            return jax.vjp(sums, own.lines.gain)[1](dy)[0]

        return jax.lax.map(of_tile, tiles).reshape(gain.shape)

    def sums_of(gain: jax.Array, own_codes: jax.Array) -> jax.Array | float:
        return sum(d for _, d in tile_sums(plan, own_codes, effective, under(gain)))

    total: jax.Array | float = 0.0
    for part in order.slices:
        total = total + jax.vjp(partial(sums_of, own_codes=codes[part]), gain)[1](dy[part])[0]
    return jnp.asarray(total)


def _unclipped_inputs(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    gain: jax.Array,
    negative: Lines | None,
    converters: Converters,
    dy: jax.Array,
) -> jax.Array:
    """The inputs' gradient with every clipped conversion left out."""
    if negative is None:
        return unclipped_gradient(plan, codes, effective, _by_conversion(plan, gain), converters, dy)
    weights, gated_converters = _gated_cells(plan, effective, gain, negative, converters)
    return unclipped_gradient(plan, codes, weights, None, gated_converters, dy)


def _unclipped_gains(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    gain: jax.Array,
    negative: Lines | None,
    converters: Converters,
    dy: jax.Array,
) -> jax.Array:
    """The gradient of gains before the converter with every clipped conversion left out."""

    def sums_of(gain: jax.Array) -> dict[tuple[int, int], jax.Array]:
        under = converters._replace(lines=LineGains(gain, negative))
        return {(t, j): sums for t, j, sums in column_sums(plan, codes, effective, under)}

    sums, transpose = jax.vjp(sums_of, gain)
    weights = jnp.asarray(plan.conversion_weights, dy.dtype)[:, None]
    outer = {
        (t, j): dy[..., None, :] * weights * plan.cycle_weights[j] * not_clipped(plan, converters, t, j, seen)
        for (t, j), seen in sums.items()
    }
    return transpose(outer)[0]
