"""What a layer's converters do on an input: how often each clips, and which codes are met."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.adc import AdcRange, Mismatch, clipped, code_index
from xbm_jax.crossbar.reading.gates import LineGains
from xbm_jax.crossbar.reading.kept import gained
from xbm_jax.crossbar.reading.loops import orders
from xbm_jax.crossbar.reading.sums import Conversions as Sums
from xbm_jax.crossbar.reading.sums import Converters, column_sums, conversion_values, digital_sums, input_codes
from xbm_jax.crossbar.writing.by_line import by_line
from xbm_jax.crossbar.writing.lines import converts_lines
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.promotion import numpy_promotion

__all__ = ["Conversions", "clip_rate", "conversions", "converted", "image_total", "observed_read"]


class Conversions(NamedTuple):
    """The conversions of some images, added up.

    Attributes:
        clipped: float [T, N], the sum over images of the share of a column's conversions that clip; [T, 2, N], of a
            line's, under gains by line where each has converters of its own.
        met: bool [2**bits], the codes that occurred, counted from the lowest.
    """

    clipped: jax.Array
    met: jax.Array


@numpy_promotion
def conversions(
    tiles: Tiles, x: jax.Array, gain: jax.Array | None = None, counted: jax.Array | None = None
) -> Conversions | None:
    """Clipping and codes of a simulated read, noise left out; ``None`` where no conversion is simulated.

    Args:
        tiles: a programmed, calibrated kernel.
        x: its input; the images' axis leads.
        gain: gains of columns [T, N] or of lines [T, 2, N]; a column whose gain is zero is not converted, nor a line's
            own conversion, nor one that both lines share where both gains are zero.
        counted: float [images], 1 for those that count and 0 for padding, or [images, positions] where an image's
            positions may be padding; ``None`` takes all of ``x`` for one image.
    """
    lines = gain is not None and gain.ndim == 3
    tiles = by_line(tiles) if lines else tiles
    if not _simulated(tiles):
        return None
    seen, gates = _Seen(tiles, gain, counted), LineGains(gain, tiles.lines) if gain is not None and lines else None
    seen_by = Converters(curvature=tiles.curvature, lines=gates)
    for _ in seen.passing(column_sums(tiles.plan, input_codes(tiles, x), tiles.effective, seen_by)):
        pass
    return seen.found()


@numpy_promotion
def observed_read(
    tiles: Tiles, x: jax.Array, gain: jax.Array | None, counted: jax.Array
) -> tuple[jax.Array, Conversions] | None:
    """:func:`xbm_jax.crossbar.read` and :func:`conversions` of it from the same sums; ``None`` where these differ.

    They do where noise is drawn, which conversions leave out; nor is it for gains of lines, and reads in loops.
    """
    codes = input_codes(tiles, x)
    converters = Converters(tiles.adc, tiles.mismatch, curvature=tiles.curvature)
    looped = any(order.scanned for order in orders(tiles.plan, codes, converters))
    if not _simulated(tiles) or tiles.noisy or looped or (gain is not None and gain.ndim == 3):
        return None
    seen = _Seen(tiles, gain, counted)
    sums = seen.passing(column_sums(tiles.plan, codes, tiles.effective, converters))
    values = conversion_values(tiles.plan, sums, converters)
    total = gained(digital_sums(tiles.plan, values, codes, converters), gain)
    return tiles.in_real_units(total), seen.found()


def _simulated(tiles: Tiles) -> bool:
    """Whether reads compute each conversion."""
    return tiles.plan.spec.adc.bits is not None and tiles.adc is not None and not tiles.plan.fold


class _Seen:
    """Counts the conversions of sums that pass."""

    def __init__(self, tiles: Tiles, gain: jax.Array | None, counted: jax.Array | None) -> None:
        self.tiles, plan = tiles, tiles.plan
        self.counted = jnp.ones(1, jnp.float32) if counted is None else counted
        self.active = jnp.ones((plan.row_tiles, plan.columns), bool) if gain is None else converted(plan, gain)
        self.share: list[jax.Array | float] = [0.0] * plan.row_tiles
        self.codes = 2 ** (plan.spec.adc.bits or 0)
        self.met = jnp.zeros(self.codes, bool)

    def passing(self, sums: Sums) -> Sums:
        """The same sums, counted."""
        for t, j, own in sums:
            self._count(t, own, _converter(self.tiles, t, j))
            yield t, j, own

    def found(self) -> Conversions:
        """What was counted."""
        share = jnp.stack(self.share).reshape(self.active.shape)
        return Conversions(share / len(self.tiles.plan.cycle_weights), self.met)

    def _count(self, t: int, sums: jax.Array, converter: tuple[AdcRange, int, Mismatch | None]) -> None:
        beyond, index = clipped(sums, *converter), code_index(sums, *converter)
        if self.active.ndim == 3:
            beyond, index = _lines_side_by_side(beyond), _lines_side_by_side(index)
        on = self.active[t].reshape(-1)
        self.share[t] = self.share[t] + on * image_total(beyond, self.counted)
        index = index.reshape(self.counted.shape[0], -1, on.size)
        happened = on & (_of_reads(self.counted, index.shape[1]) > 0)[..., None]
        self.met = self.met.at[jnp.where(happened, index, self.codes)].set(True, mode="drop")


def _converter(tiles: Tiles, t: int, j: int) -> tuple[AdcRange, int, Mismatch | None]:
    """Grid, bits and mismatch of the converters of one (tile, cycle)."""
    assert tiles.adc is not None and tiles.plan.spec.adc.bits is not None
    return tiles.adc.at(j, t), tiles.plan.spec.adc.bits, None if tiles.mismatch is None else tiles.mismatch.at(t)


def converted(plan: Plan, gain: Any) -> Any:
    """What a read converts under gains: columns, bool [T, N], or lines [T, 2, N] where each has its own converters."""
    on = gain != 0
    return on.any(axis=1) if gain.ndim == 3 and not converts_lines(plan) else on


def _lines_side_by_side(values: jax.Array) -> jax.Array:
    """The conversions of lines as columns of their own: ``[..., 2 * S, N] -> [..., S, 2 * N]``."""
    apart = values.reshape(*values.shape[:-2], 2, values.shape[-2] // 2, values.shape[-1])
    return jnp.moveaxis(apart, -3, -2).reshape(*values.shape[:-2], apart.shape[-2], -1)


@numpy_promotion
def clip_rate(tiles: Tiles, x: jax.Array) -> jax.Array:
    """Share of conversions that clip on inputs ``x``; 0 with ideal converters."""
    seen = conversions(tiles, x)
    return jnp.zeros((), jnp.float32) if seen is None else jnp.mean(seen.clipped)


def image_total(values: jax.Array, counted: jax.Array) -> jax.Array:
    """The sum over images of each image's mean, a column: ``[images * a, ..., N] -> [N]``.

    ``counted``: of images, or of their positions, as :func:`conversions` takes it.
    """
    values = values.reshape(counted.shape[0], -1, values.shape[-1])
    if counted.ndim == 1:
        return jnp.sum(counted[:, None] * jnp.mean(values, axis=1), axis=0)
    each = _of_reads(counted, values.shape[1])
    means = jnp.sum(each[..., None] * values, axis=1) / jnp.maximum(jnp.sum(each, axis=1), 1.0)[:, None]
    return jnp.sum(means, axis=0)


def _of_reads(counted: jax.Array, reads: int) -> jax.Array:
    """Which of each image's reads count, [images, reads or 1].

    Reads are in the order of positions; a layer behind a mean over these has fewer, and then the image counts whole.
    """
    if counted.ndim == 1:
        return counted[:, None]
    if reads % counted.shape[1]:
        return jnp.broadcast_to(jnp.max(counted, axis=1, keepdims=True), (counted.shape[0], reads))
    return jnp.repeat(counted, reads // counted.shape[1], axis=1)
