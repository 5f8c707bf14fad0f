"""Tiles under gains by line: what is kept of their lines, and what such a read takes them for."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.quantise import straight_through
from xbm_jax.crossbar.writing import cells
from xbm_jax.crossbar.writing.lines import negative_lines, plan_by_line, share_of_variance
from xbm_jax.crossbar.writing.tiles import Tiles
from xbm_jax.promotion import numpy_promotion

__all__ = ["by_line", "with_lines"]


@numpy_promotion
def with_lines(tiles: Tiles) -> Tiles:
    """The same cells with what gains by line need kept beside them, instead of derived anew in every such read.

    One more array as large as ``effective`` (and as the read variance and the curvature, where there are any); ageing
    and rewriting keep it up to date. Nothing is kept where each line has converters of its own, for which the ordinary
    arrays are by line already, and for offset encoding, which has no pairs.

    A device of one's own whose read noise is no product of a function of the cell and one of its age has to be given
    its lines before it ages: otherwise an aged pair's variance is shared out between its lines as at age zero.
    """
    if tiles.plan.spec.encoding != "differential":
        return tiles
    return tiles.replace(lines=by_line(tiles.replace(lines=None)).lines)


def by_line(tiles: Tiles) -> Tiles:
    """Tiles as a read with gains by line takes them: their lines there (or converted apart), the plan as it holds then.

    Where a rewrite learns weights, the gradient of a weight goes to the line that holds it.
    """
    plan, pairs = plan_by_line(tiles.plan), tiles.effective
    if plan is not tiles.plan:
        pairs = cells.effective_levels(tiles.levels, tiles.conductance, plan)
        pairs = straight_through(pairs, _first(tiles.effective[0], pairs))
    lines = tiles.lines
    if lines is None:
        variance = share_of_variance(tiles.read_variance, tiles.conductance, plan, tiles.programmed)
        lines = negative_lines(tiles.levels, tiles.conductance, plan, variance)
    if lines is not None:
        held = jnp.where(cells.decode(tiles.levels, plan.spec) < 0, -tiles.effective[0], 0.0)
        lines = lines._replace(effective=straight_through(lines.effective, _first(held, lines.effective)))
    return tiles.replace(plan=plan, effective=pairs, lines=lines)


def _first(array: jax.Array, like: jax.Array) -> jax.Array:
    """``array`` as the first conversion of many that are zero else."""
    return jnp.zeros_like(like).at[0].set(array)
