"""Reading a programmed kernel: what the columns, their converters and the digital accumulation make of an input.

    x_int = clip(round(x / s_x))                                    streamed in cycles j of dac_bits each
    I[j, v, t, n] = sum_{r in tile t} x_int[j, r] * E[v, r, n]      analog, with read noise where the device has it
    D[t, n] = sum_{j, v} c_j * c_v * ADC(I[j, v, t, n]) - offset * sum_{r in tile t} x_int[r]
    y[n] = s_w[n] * s_x * sum_t a[t, n] * D[t, n]                   a = column gain

``v`` counts a column's conversions (its slices, and a pair's two columns where they are subtracted digitally), ``c``
are their weights, powers of two; the offset is that of offset encoding. Gradients are straight through rounding and
clipping: dx is one product with the gain-weighted effective weights, and ``dL/da[t, n] = sum_batch dy[n] * D[t, n]``
with the converted D, noise and all, from codes that were kept (:mod:`xbm_jax.crossbar.reading.kept`) or computed again;
inputs and weights have no gradient through noise.
A gain may also be of a line, [T, 2, N]: the positive and the negative source line of each differential pair
(:mod:`xbm_jax.crossbar.reading.lines`).
Cells with a current-voltage curve (:mod:`xbm_jax.crossbar.devices.curves`) add products of squared and cubed inputs to
I; gradients pass through the linear part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.reading.columns import folded_read, gain_on_kernel, linear_kernel, tiled_read
from xbm_jax.crossbar.reading.lines import folded_by_line, kernel_by_line, tiled_by_line
from xbm_jax.crossbar.reading.sums import Converters, input_codes
from xbm_jax.crossbar.writing.by_line import by_line
from xbm_jax.crossbar.writing.lines import plan_by_line
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.errors import SpecError
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import checked_key

__all__ = ["gain_on_kernel", "gained_kernel", "gained_weights", "linear_kernel", "read"]


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
        gain: column gains [T, N], or [T, 2, N] for the positive and the negative source lines of differential
            pairs; ``None`` counts every column fully.
        key: draws read noise; required where the device's reads are noisy.
        gain_at: where a gain before the converter, or beside an ideal one, is applied. ``"weights"`` costs one
            product and is best for one task; ``"columns"`` keeps tiles (and lines) apart, so that tasks under ``vmap``
            share the products.

    Returns:
        ``y`` [..., N] in the input's real units, float32.
    """
    _check_readable(tiles, x, gain, key)
    codes = input_codes(tiles, x)
    key = None if key is None else checked_key(key)
    converters = Converters(tiles.adc, tiles.mismatch, tiles.read_variance, tiles.curvature, key)
    return tiles.in_real_units(_form(tiles.plan, gain, gain_at)(tiles, codes, gain, converters))


_Form = Callable[[Tiles, jax.Array, jax.Array | None, Converters], jax.Array]
"""``(tiles, codes, gain, converters) -> sum_t a[t, n] * D[t, n]``"""


def _form(plan: Plan, gain: jax.Array | None, gain_at: Literal["weights", "columns"]) -> _Form:
    """What computes a read: as one product or tile by tile, under gains of columns or of lines."""
    at_weights = gain is None or gain_at == "weights"
    if gain is None or gain.ndim == 2:
        columns = folded_read if plan.fold and at_weights else tiled_read
        return lambda tiles, codes, gain, converters: columns(tiles.plan, codes, tiles.effective, gain, converters)
    lines = folded_by_line if plan_by_line(plan).fold and at_weights else partial(tiled_by_line, at_weights=at_weights)
    return lambda tiles, codes, gain, converters: lines(by_line(tiles), codes, jnp.asarray(gain), converters)


def gained_kernel(tiles: Tiles, gain: jax.Array | None = None) -> jax.Array:
    """The kernel [*shape], in levels, that a read under gains (as :func:`read` takes them) is with ideal converters."""
    if gain is not None and gain.ndim == 3:
        apart = by_line(tiles)
        return kernel_by_line(apart.plan, apart.effective, gain, apart.lines and apart.lines.effective)
    kernel = linear_kernel(tiles.plan, tiles.effective)
    return kernel if gain is None else kernel * gain_on_kernel(tiles.plan, gain)


def gained_weights(plan: Plan, weights: jax.Array, gain: jax.Array | None) -> jax.Array:
    """Weights [*kernel_shape] times the gains of their columns, or of the line on which each of them is held."""
    if gain is None:
        return weights
    if gain.ndim == 2:
        return weights * gain_on_kernel(plan, gain)
    positive, negative = (gain_on_kernel(plan, gain[:, line]) for line in (0, 1))
    return weights * jnp.where(weights < 0, negative, positive)


def _check_readable(tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> None:
    plan = tiles.plan
    if not tiles.calibrated:
        raise SpecError("tiles", "not calibrated", "calibrate the chip on images first: xbm.calibrate(chip, images)")
    wanted = plan.kernel_shape[-2] * (1 if plan.conv is None else plan.conv.groups)
    if plan.conv is not None and x.ndim != 4:
        raise SpecError("x.shape", x.shape, "[batch, height, width, channels]")
    if x.shape[-1] != wanted:
        raise SpecError("x.shape", x.shape, f"{wanted} features on the last axis")
    if gain is not None:
        _check_gain(plan, gain)
    if tiles.noisy and key is None:
        raise SpecError("key", None, "a PRNG key: this chip's reads are noisy")


def _check_gain(plan: Plan, gain: jax.Array) -> None:
    columns, lines = (plan.row_tiles, plan.columns), (plan.row_tiles, 2, plan.columns)
    pairs = plan.spec.encoding == "differential"
    if gain.shape != columns and not (pairs and gain.shape == lines):
        allowed = f"[row tiles, columns] = {columns}"
        by_line = (
            f", or [row tiles, lines of a pair, columns] = {lines}"
            if pairs
            else f": {plan.spec.encoding} encoding has no pairs"
        )
        raise SpecError("gain.shape", gain.shape, allowed + by_line)
