"""The two source lines of differential pairs, apart: what a read needs where their gains differ.

    E+ = E + E-,    V+ = V - V-,    E2+ = E2 + E2-,    E3+ = E3 + E3-

E, V, E2 and E3 are the pair's (:mod:`xbm_jax.crossbar.writing.cells`), so the negative line alone is kept beside them:
with equal gains on both lines it drops out exactly. A line's E holds what level 0 conducts, which a pair cancels.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.writing import cells
from xbm_jax.crossbar.writing.plans import Plan

__all__ = ["Lines", "aged_lines", "converts_lines", "lines_as_before", "negative_lines", "plan_by_line"]
__all__ += ["share_of_variance"]


class Lines(NamedTuple):
    """What the negative lines alone multiply by, each shaped as the pairs' in ``Tiles``.

    Attributes:
        effective: float [V, *kernel_shape], in levels above no current at all.
        variance: of ``effective`` from read to read, or ``None`` for exact reads.
        curvature: of squared and cubed inputs, float [2, V, *kernel_shape], or ``None`` for linear cells.
    """

    effective: jax.Array
    variance: jax.Array | None = None
    curvature: jax.Array | None = None


def converts_lines(plan: Plan) -> bool:
    """Whether each line has conversions of its own: then all that pairs are read with is kept by line anyway."""
    return plan.spec.subtract == "digital" and not plan.fold


def plan_by_line(plan: Plan) -> Plan:
    """The plan under gains by line: a lossless converter behind an analog pair is simulated.

    It is lossless for whole pairs. One line alone conducts what level 0 does, and has sums of its own.
    """
    if not plan.fold or plan.spec.adc.bits is None or plan.spec.subtract == "digital":
        return plan
    return dataclasses.replace(plan, fold=False, fold_reason="gains by line: the range may not cover one line's sums")


def negative_lines(
    levels: jax.Array, conductance: jax.Array, plan: Plan, variance: jax.Array | None = None
) -> Lines | None:
    """The negative lines of cells as :func:`plan_by_line` reads them; ``None`` where lines are converted apart."""
    plan = plan_by_line(plan)
    if converts_lines(plan):
        return None
    apart = _apart(plan)
    effective = _negative(cells.effective_levels(levels, conductance, apart), plan, plan.spec.cell_bits)
    curved = cells.curvature(conductance, apart)
    return Lines(effective, variance, None if curved is None else curved[:, plan.spec.slices :])


def aged_lines(
    levels: jax.Array, conductance: jax.Array, plan: Plan, t_seconds: jax.Array | float, programmed: jax.Array
) -> Lines | None:
    """:func:`negative_lines` of cells of a known age, read noise and all."""
    both = cells.read_variance(conductance, _apart(plan), t_seconds, programmed)
    variance = None if both is None or converts_lines(plan) else _negative(both, plan, 2 * plan.spec.cell_bits)
    return negative_lines(levels, conductance, plan, variance)


def lines_as_before(before: Lines | None, after: Lines | None, untouched: jax.Array, plan: Plan) -> Lines | None:
    """``after`` where cells were rewritten; with ideal wires the bits of ``before`` elsewhere."""
    if before is None or after is None:
        return after
    kept = jax.tree.map(lambda was, now: jnp.where(untouched, was, now), before, after)
    return kept if plan.spec.wires.ideal else kept._replace(effective=after.effective)


def share_of_variance(
    variance: jax.Array | None, conductance: jax.Array, plan: Plan, programmed: jax.Array
) -> jax.Array | None:
    """V- of cells whose age is not known, from their pairs' ``variance``: the negative cells' share of it at age zero.

    Exact where a device's read noise is a function of the cell times one of its age, as in all published ones.
    """
    both = cells.read_variance(conductance, _apart(plan), 0.0, programmed)
    if variance is None or both is None or converts_lines(plan):
        return None
    alone = _negative(both, plan, 2 * plan.spec.cell_bits)
    total = alone + _fold(both[: plan.spec.slices], plan, 2 * plan.spec.cell_bits)
    return variance * jnp.where(total > 0.0, alone / jnp.where(total > 0.0, total, 1.0), 0.5)


def _apart(plan: Plan) -> Plan:
    """The plan of the same cells with a conversion for each line of each slice, positive lines first."""
    return dataclasses.replace(plan, spec=plan.spec.replace(subtract="digital"), fold=False)


def _negative(both: jax.Array, plan: Plan, bits: int) -> jax.Array:
    return _fold(both[plan.spec.slices :], plan, bits)


def _fold(slices: jax.Array, plan: Plan, bits: int) -> jax.Array:
    """Slices as the plan reads them: ``sum_s 2**(s * bits) * slices[s]`` as one, or each by itself."""
    return cells.shift_add(slices, bits)[None] if plan.fold else slices
