"""What a layer's converters do on an input: how often each clips, and which codes are met."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.adc import clipped, code_index
from xbm_jax.crossbar.reading.sums import Converters, column_sums, input_codes
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.promotion import numpy_promotion

__all__ = ["Conversions", "clip_rate", "conversions", "image_total"]


class Conversions(NamedTuple):
    """The conversions of some images, added up.

    Attributes:
        clipped: float [T, N], the sum over images of the share of a column's conversions that clip.
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
        gain: column gains [T, N]; a column whose gain is zero is not converted.
        counted: float [images], 1 for those that count and 0 for padding; ``None`` takes all of ``x`` for one image.
    """
    plan, grid = tiles.plan, tiles.adc
    bits = plan.spec.adc.bits
    if bits is None or grid is None or plan.fold:
        return None
    counted = jnp.ones(1, jnp.float32) if counted is None else counted
    active = jnp.ones((plan.row_tiles, plan.columns), bool) if gain is None else gain != 0
    met = jnp.zeros(2**bits, bool)
    share: list[jax.Array | float] = [0.0] * plan.row_tiles
    for t, j, sums in column_sums(plan, input_codes(tiles, x), tiles.effective, Converters(curvature=tiles.curvature)):
        converter = (grid.at(j, t), bits, None if tiles.mismatch is None else tiles.mismatch.at(t))
        share[t] = share[t] + active[t] * image_total(clipped(sums, *converter), counted)
        index = code_index(sums, *converter).reshape(counted.shape[0], -1, plan.columns)
        happened = active[t] & (counted > 0)[:, None, None]
        met = met.at[jnp.where(happened, index, 2**bits)].set(True, mode="drop")
    return Conversions(jnp.stack(share) / len(plan.cycle_weights), met)


@numpy_promotion
def clip_rate(tiles: Tiles, x: jax.Array) -> jax.Array:
    """Share of conversions that clip on inputs ``x``; 0 with ideal converters."""
    seen = conversions(tiles, x)
    return jnp.zeros((), jnp.float32) if seen is None else jnp.mean(seen.clipped)


def image_total(values: jax.Array, counted: jax.Array) -> jax.Array:
    """The sum over images of each image's mean, a column: ``[images * a, ..., N] -> [N]``."""
    means = jnp.mean(values.reshape(counted.shape[0], -1, values.shape[-1]), axis=1)
    return jnp.sum(counted[:, None] * means, axis=0)
