"""Reads under column gains [T, N], which act behind the converters: as one product, or tile by tile.

Symbols, equations and gradients as in :mod:`xbm_jax.crossbar.reading.reads`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.adc import clipped
from xbm_jax.crossbar.primitives.products import product, tile_product
from xbm_jax.crossbar.reading.fused import or_fused, wanted
from xbm_jax.crossbar.reading.kept import Kept, gained, keeps, kept_read, kept_sums
from xbm_jax.crossbar.reading.loops import Order, in_order, scanned_tiles
from xbm_jax.crossbar.reading.mixed import mixed, of_part
from xbm_jax.crossbar.reading.sums import (
    Converters,
    cell_noise,
    column_sums,
    converter_noise,
    digital_offset,
    folded_squares,
    side_by_side,
    tile_sums,
    together,
)
from xbm_jax.crossbar.writing.orders import on_kernel
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.promotion import numpy_promotion

__all__ = ["accumulated", "folded_read", "gain_on_kernel", "linear_kernel", "not_clipped", "one_product"]
__all__ += ["tiled_read", "unclipped_gradient"]


def gain_on_kernel(plan: Plan, gain: jax.Array) -> jax.Array:
    """Each kernel entry's column gain: ``[T, N] -> kernel_shape``.

    A tile's rows are neighbouring word lines. So a gain is broadcast to them, and its gradient a sum over them; looked
    up by ``gain[plan.tile_index]`` it would be scattered, row by row, one after another on a CPU.
    """
    height = plan.spec.tile_height
    lines = jnp.broadcast_to(gain[:, None], (len(gain), height, *gain.shape[1:])).reshape(-1, *gain.shape[1:])
    return on_kernel(lines[: plan.tile_index.size], plan.kernel_shape, plan.spec.row_order)


@numpy_promotion
def linear_kernel(plan: Plan, effective: jax.Array) -> jax.Array:
    """The kernel [*shape], in levels, that a read would be with ideal converters."""
    if plan.fold:
        return effective[0]
    terms = [effective[v] * weight for v, weight in enumerate(plan.conversion_weights)]
    return sum(terms[1:], start=terms[0]) - plan.digital_offset


def folded_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """One product with the gain-weighted effective weights; JAX differentiates it.

    The noise of all tiles is one draw a column, ``sqrt(sum_t a[t, n]**2 * V[t, n]) * eps[n]``. It has the gain's
    gradient, as D has in the tiled read, and none of the inputs or weights.
    """
    spread = None if gain is None else gain_on_kernel(plan, gain)
    kernel = effective[0] if spread is None else effective[0] * spread
    if converters.variance is None:
        return one_product(plan, codes, kernel, None, converters)
    variance = jax.lax.stop_gradient(converters.variance[0])
    return one_product(plan, codes, kernel, variance if spread is None else variance * spread**2, converters)


def one_product(
    plan: Plan, codes: jax.Array, kernel: jax.Array, variance: jax.Array | None, converters: Converters
) -> jax.Array:
    """A folded read of a kernel [*kernel_shape] that holds its gains, as does its ``variance``."""
    sums = product(codes, kernel, plan.conv)
    if variance is None:
        return sums
    total = product(jax.lax.stop_gradient(folded_squares(plan, codes)), variance, plan.conv)
    # A square root has no slope at zero, where a column is masked in all tiles or nothing is read.
    deviation = jnp.where(total > 0.0, jnp.sqrt(jnp.where(total > 0.0, total, 1.0)), 0.0)
    return sums + cell_noise(converters, 0, deviation)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def tiled_read(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """:func:`accumulated`, with the gradients of :mod:`xbm_jax.crossbar.reading.reads`."""
    return accumulated(plan, codes, effective, gain, converters)


def accumulated(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """Tile by tile: analog sums, converters, shift and add, column gain, digital accumulation.

    Under ``vmap`` examples with gains of their own are read as one batch (:mod:`xbm_jax.crossbar.reading.mixed`).
    """
    return mixed(plan, _accumulated, or_fused(plan, partial(_accumulated, plan)))(codes, effective, gain, converters)


def _accumulated(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    given = (codes, effective, gain, converters)
    return in_order(plan, codes, converters, lambda order: _tiles_in(plan, order, *given))


# Layers of one plan and shape are traced and lowered once.
@partial(jax.jit, static_argnums=(0, 1))
def _tiles_in(
    plan: Plan, order: Order, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> jax.Array:
    """The tiles in a loop, or one by one, of one part of the batch after another."""
    if order.scanned:
        factors = jnp.ones((plan.row_tiles, 1), codes.dtype) if gain is None else gain
        tiles, partial_sum_of = scanned_tiles(plan, codes, effective, converters)
        one = jax.eval_shape(partial_sum_of, jax.tree.map(lambda a: a[0], tiles))
        return jax.lax.scan(
            lambda total, tile: (total + partial_sum_of(tile[0]) * tile[1], None),
            jnp.zeros(one.shape, one.dtype),
            (tiles, factors),
        )[0]
    found = []
    for part in order.slices:
        own, of_columns = of_part(part, converters, gain)
        found.append(gained(tile_sums(plan, codes[part], effective, own), of_columns))
    return found[0] if len(found) == 1 else jnp.concatenate(found)


@numpy_promotion
def _tiled_read_fwd(plan: Plan, codes, effective, gain, converters):
    given = (codes, effective, gain, converters)
    if wanted(plan, codes, gain, converters) or not keeps(plan, codes, gain, converters):  # one kernel gives no codes
        return tiled_read(plan, *given), (*given, None)
    y, kept = kept_read(plan, *given)
    return y, (*given, kept)


@numpy_promotion
def _tiled_read_bwd(plan: Plan, residuals: tuple, dy: jax.Array) -> tuple:
    *given, kept = residuals
    if kept is None or plan.spec.adc.clip_gradient == "zero":
        # The barrier keeps XLA from merging the tile sums computed here with the forward pass's, all T of them alive.
        dy, given = jax.lax.optimization_barrier((dy, given))
    codes, effective, gain, converters = given
    kernel = linear_kernel(plan, effective)
    spread = None if gain is None else gain_on_kernel(plan, gain)
    _, transpose = jax.vjp(lambda c, k: product(c, k, plan.conv), codes, kernel if spread is None else kernel * spread)
    dcodes, dmasked = transpose(dy)
    if plan.spec.adc.clip_gradient == "zero" and not plan.fold and converters.adc is not None:
        dcodes = unclipped_gradient(plan, codes, effective, gain, converters, dy)
    dkernel = dmasked if spread is None else dmasked * spread
    deffective = jnp.stack([dkernel * weight for weight in plan.conversion_weights])
    if gain is None:
        return dcodes, deffective, None, None
    if plan.fold and converters.variance is None:
        by_tile = [jnp.where(rows[..., None], dmasked * kernel, 0.0) for rows in plan.tile_rows]
        dgain = jnp.stack([jnp.sum(part, tuple(range(kernel.ndim - 1))) for part in by_tile])
    else:
        dgain = _gain_gradient(plan, codes, effective, converters, kept, dy)
    return dcodes, deffective, dgain.astype(gain.dtype), None


def _gain_gradient(
    plan: Plan, codes: jax.Array, effective: jax.Array, converters: Converters, kept: Kept | None, dy: jax.Array
) -> jax.Array:
    """``dL/da[t, n] = sum_batch dy[n] * D[t, n]``, [T, N], from codes that were kept, or from recomputed tile sums."""
    given = (codes, effective, converters, kept, dy)
    return in_order(plan, codes, converters, lambda order: _gain_gradient_in(plan, order, *given))


@partial(jax.jit, static_argnums=(0, 1))
def _gain_gradient_in(
    plan: Plan,
    order: Order,
    codes: jax.Array,
    effective: jax.Array,
    converters: Converters,
    kept: Kept | None,
    dy: jax.Array,
) -> jax.Array:
    batch = tuple(range(dy.ndim - 1))
    if order.scanned:
        tiles, partial_sum_of = scanned_tiles(plan, codes, effective, converters)
        return jax.lax.map(lambda tile: jnp.sum(dy * partial_sum_of(tile), batch), tiles)
    total: jax.Array | float = 0.0
    for part in order.slices:
        if kept is None:
            sums = tile_sums(plan, codes[part], effective, converters)
        else:
            sums = kept_sums(plan, codes[part], converters, [own[part] for own in kept])
        total = total + jnp.stack([jnp.sum(dy[part] * d, batch) for _, d in sums])
    return jnp.asarray(total)


tiled_read.defvjp(_tiled_read_fwd, _tiled_read_bwd)


def unclipped_gradient(
    plan: Plan, codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters, dy: jax.Array
) -> jax.Array:
    """The inputs' gradient with every clipped conversion left out: one transposed product per (tile, cycle).

    ``gain``: of columns [T, N], or of each of their conversions [T, V, N].
    """
    kernel = side_by_side(effective, plan)
    weights = jnp.asarray(plan.conversion_weights, dy.dtype)[:, None]
    share, tile_rows = len(plan.cycle_weights), plan.tile_rows
    total = jnp.zeros_like(codes)
    for t, j, sums in column_sums(plan, codes, effective, converters):
        own = dy[..., None, :] if gain is None else dy[..., None, :] * (gain[t] if gain.ndim == 3 else gain[t, None])
        dsums = together(own * weights * not_clipped(plan, converters, t, j, sums), plan)
        rows = tile_rows[t]
        own_product = partial(tile_product, kernel=kernel, conv=plan.conv, tile=rows, apart=plan.by_channel)
        _, transpose = jax.vjp(own_product, codes)
        # sum_j c_j dx_j / dx = 1: each cycle answers for an equal share of the input.
        total = total + transpose(dsums)[0] / share
        if j == 0 and plan.digital_offset:
            offset = dy if gain is None else dy * gain[t]  # of single columns, whose gains are theirs
            total = total - jax.vjp(lambda c, rows=rows: digital_offset(plan, c, rows), codes)[1](offset)[0]
    return total


def not_clipped(plan: Plan, converters: Converters, t: int, j: int, sums: jax.Array) -> jax.Array:
    """Which conversions of one (tile, cycle) do not clip, shaped as ``sums``."""
    bits = plan.spec.adc.bits
    assert converters.adc is not None and bits is not None  # ideal converters clip nothing
    mismatch = None if converters.mismatch is None else converters.mismatch.at(t)
    noise = converter_noise(plan, converters, t, j, sums)
    return ~clipped(sums, converters.adc.at(j, t), bits, mismatch, noise)
