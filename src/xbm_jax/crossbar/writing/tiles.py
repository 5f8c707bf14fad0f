"""A kernel on arrays: written once, aged, rewritten. All functions are traceable; shapes come from the plan.

w_int = round(W / s_w)              one scale per output column
levels -> conductances -> E         see :mod:`xbm_jax.crossbar.writing.cells`
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar.devices.ages import check_age
from xbm_jax.crossbar.primitives import quantise
from xbm_jax.crossbar.primitives.adc import AdcRange, Mismatch
from xbm_jax.crossbar.primitives.compensation import drift_compensation
from xbm_jax.crossbar.writing import cells
from xbm_jax.crossbar.writing.lines import Lines, aged_lines, converts_lines, lines_as_before, negative_lines
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.crossbar.writing.plans import plan as make_plan
from xbm_jax.crossbar.writing.ranges import draw_mismatch, known_range
from xbm_jax.errors import SpecError
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import Cells, checked_key, stream

__all__ = ["Tiles", "at_time", "cells_written", "nominal_weights", "program", "reprogram", "with_signed_inputs"]
__all__ += ["worn_cells"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tiles:
    """A programmed kernel: frozen, a pytree; ``read`` computes with it.

    Attributes:
        levels: nominal levels, uint8 [P, S, *kernel_shape]; slice s weighs ``2**(s * cell_bits)``.
        programmed: what the cells held right after writing, float [P, S, *kernel_shape], siemens.
        conductance: what they hold now, same shape.
        effective: what each conversion multiplies by, in levels, float [V, *kernel_shape] ([1, ...] where reads fold).
        curvature: likewise of squared and cubed inputs, float [2, V, *kernel_shape], or ``None`` for linear cells.
        read_variance: variance of ``effective`` from read to read, same shape, or ``None`` for exact reads.
        weight_scale: s_w, float [N].
        input_scale: s_x, float scalar, or ``None`` before calibration.
        adc: converter grids, or ``None`` before calibration or with ideal converters.
        mismatch: how this chip's converters differ, or ``None``.
        drift_factor: global drift compensation, a scalar, or ``None``.
        writes: how often each cell was written, int32 [P, S, *kernel_shape], or ``None`` where cells do not wear.
        key_data: the cells' own random key (uint32), so that a rewritten cell pays for its programming error.
        plan: static geometry.
        key_impl: the generator that the key belongs to, by JAX's name; static.
        lines: the negative lines alone, for gains by line; ``None`` where each such read derives them anew
            (:func:`xbm_jax.crossbar.with_lines` keeps them).
    """

    levels: jax.Array
    programmed: jax.Array
    conductance: jax.Array
    effective: jax.Array
    curvature: jax.Array | None
    read_variance: jax.Array | None
    weight_scale: jax.Array
    input_scale: jax.Array | None
    adc: AdcRange | None
    mismatch: Mismatch | None
    drift_factor: jax.Array | None
    writes: jax.Array | None
    key_data: jax.Array
    plan: Plan = field(metadata={"static": True})
    key_impl: str = field(default="threefry2x32", metadata={"static": True})
    lines: Lines | None = None

    def replace(self, **changes: Any) -> Tiles:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def in_real_units(self, sums: jax.Array) -> jax.Array:
        """The answer that the sum over the row tiles of a calibrated kernel stands for."""
        assert self.input_scale is not None
        scale = self.weight_scale * self.input_scale
        return jnp.asarray(sums) * (scale if self.drift_factor is None else scale * self.drift_factor)

    @property
    def noisy(self) -> bool:
        """Whether reads draw noise, and so need a key."""
        return self.read_variance is not None or self.plan.spec.adc.noise_lsb > 0

    @property
    def calibrated(self) -> bool:
        """Whether input scale and converter grids are known, as far as a read needs them."""
        converters = self.plan.fold or self.plan.spec.adc.bits is None or self.adc is not None
        return self.input_scale is not None and converters

    @property
    def key(self) -> jax.Array:
        """The cells' own random key."""
        return jax.random.wrap_key_data(self.key_data, impl=self.key_impl)


@numpy_promotion
def program(
    kernel: jax.Array,
    plan: Plan,
    key: jax.Array,
    *,
    weight_scale: jax.Array | None = None,
    input_scale: jax.Array | float | None = None,
) -> Tiles:
    """Write ``kernel`` onto arrays; traceable, so ``vmap`` over keys is a population of chips.

    Args:
        kernel: real weights in the plan's shape.
        key: draws this chip's programming error, faults and converter mismatch.
        weight_scale: s_w [N]; ``None`` takes each column's largest weight onto the largest integer.
        input_scale: s_x; ``None`` leaves it to calibration.
    """
    _check_shape("kernel", kernel, plan)
    if input_scale is not None:
        input_scale = jnp.asarray(input_scale, jnp.float32)
    kernel = jnp.asarray(kernel)
    kernel = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    return _program(kernel, checked_key(key), weight_scale, input_scale, plan)


@partial(jax.jit, static_argnames="plan")
def _program(
    kernel: jax.Array, key: jax.Array, weight_scale: jax.Array | None, input_scale: jax.Array | None, plan: Plan
) -> Tiles:
    """:func:`program`, compiled once for all layers of one plan."""
    spec = plan.spec
    scale = quantise.weight_scales(kernel, spec.max_weight) if weight_scale is None else jnp.asarray(weight_scale)
    levels = cells.encode(kernel / scale, spec)
    written = cells.write(levels, spec, key)
    effective, curvature = cells.effective_levels(levels, written, plan), cells.curvature(written, plan)
    return Tiles(
        levels=levels,
        programmed=written,
        conductance=written,
        effective=effective,
        curvature=curvature,
        read_variance=cells.read_variance(written, plan, 0.0, written),
        weight_scale=scale,
        input_scale=input_scale,
        adc=known_range(plan, effective, curvature),
        mismatch=draw_mismatch(plan, stream(key, Cells.MISMATCH)),
        drift_factor=None,
        writes=None if spec.cell.max_writes is None else jnp.ones(levels.shape, jnp.int32),
        key_data=jax.random.key_data(key),
        plan=plan,
        key_impl=str(jax.random.key_impl(key)),
    )


@numpy_promotion
def at_time(tiles: Tiles, t_seconds: jax.Array | float, *, compensate: bool = False) -> Tiles:
    """The kernel ``t_seconds`` after it was programmed: cells drift, stuck ones stay, wires are folded anew.

    Always counted from programming, so that ages do not add up. A cell's drift draw is its own, the same at all times.

    Args:
        t_seconds: a finite number from 0 on. A traced one cannot be refused: below zero it counts as zero.
        compensate: global drift compensation (Joshi 2020), one digital factor per layer: the ratio of the summed
            magnitudes of its columns' currents under one fixed input, all DACs at full scale, before and after.
    """
    spec, t_seconds = tiles.plan.spec, check_age(t_seconds)
    wanted = cells.target(tiles.levels, spec)
    drift_key = stream(tiles.key, Cells.DRIFT)
    drifted = spec.device.drift(tiles.programmed, wanted, spec.cell.g_max_siemens, t_seconds, drift_key)
    conductance = cells.stuck(drifted, spec, tiles.key)
    aged = tiles.replace(
        conductance=conductance,
        effective=cells.effective_levels(tiles.levels, conductance, tiles.plan),
        curvature=cells.curvature(conductance, tiles.plan),
        read_variance=cells.read_variance(conductance, tiles.plan, t_seconds, tiles.programmed),
        drift_factor=None,
        lines=tiles.lines and aged_lines(tiles.levels, conductance, tiles.plan, t_seconds, tiles.programmed),
    )
    return aged.replace(drift_factor=_drift_factor(aged)) if compensate else aged


def _drift_factor(tiles: Tiles) -> jax.Array:
    """Global drift compensation of aged tiles: their columns under all DACs at full scale, as written and as now."""
    plan = tiles.plan
    full_scale, rows = plan.cycle_code_limits[1], tuple(range(1, tiles.effective.ndim - 1))
    fresh = cells.effective_levels(tiles.levels, tiles.programmed, plan), cells.curvature(tiles.programmed, plan)
    before, now = (
        jnp.sum(cells.levels_at(*state, full_scale), rows) for state in (fresh, (tiles.effective, tiles.curvature))
    )
    return drift_compensation(before, now)


@numpy_promotion
def with_signed_inputs(tiles: Tiles, signed: bool) -> Tiles:
    """The same cells under inputs that go below zero, or do not; decided on the host, as ``plan`` is."""
    if signed == tiles.plan.signed_inputs:
        return tiles
    old = tiles.plan
    weights = np.asarray(nominal_weights(tiles))
    plan = make_plan(weights, old.spec, old.conv, signed_inputs=signed, weight_scale=tiles.weight_scale)
    tiles = tiles.replace(plan=plan, curvature=cells.curvature(tiles.conductance, plan))
    if plan.fold != old.fold:
        effective = cells.effective_levels(tiles.levels, tiles.conductance, plan)
        tiles = tiles.replace(effective=effective)
    if tiles.lines is not None:  # the variance is of one shape under both: where there is any, inputs decide no folding
        lines = negative_lines(tiles.levels, tiles.conductance, plan, tiles.lines.variance)
        tiles = tiles.replace(lines=lines)
    adc = known_range(plan, tiles.effective, tiles.curvature)
    return tiles if adc is None else tiles.replace(adc=adc)


@numpy_promotion
def reprogram(tiles: Tiles, weights: jax.Array, key: jax.Array | None = None) -> Tiles:
    """Rewrite the cells whose level differs; scales and converter ranges stay, all other cells keep their conductance.

    A worn cell (``Cell.max_writes``) keeps level and conductance too. A rewritten cell is as old as the others for
    ``at_time``, which counts from the chip's programming, and reads with the noise of age zero until then, like the
    cells that share its conversions.

    A read that folds because its converter is lossless *for the weights that were planned* is simulated again, since
    the new ones may leave its range.

    Args:
        weights: real weights in the kernel's shape; rounded onto the programmed scales. The gradient of what is read
            passes straight through to them.
        key: draws the programming error of the rewritten cells; ``None`` uses each cell's own draw.
    """
    plan = tiles.plan
    _check_shape("weights", weights, plan)
    if plan.fold and plan.spec.adc.bits is not None:
        plan = dataclasses.replace(
            plan, fold=False, fold_reason="reprogrammed: the range may not cover the new weights"
        )
    ratio = weights / tiles.weight_scale
    levels = cells.encode(jax.lax.stop_gradient(ratio), plan.spec)
    kept, writes, limit = levels == tiles.levels, tiles.writes, plan.spec.cell.max_writes
    if writes is not None and limit is not None:
        kept |= writes >= limit
        levels, writes = jnp.where(kept, tiles.levels, levels), writes + ~kept
    written = cells.write(levels, plan.spec, tiles.key, key)
    programmed = jnp.where(kept, tiles.programmed, written)
    conductance = jnp.where(kept, tiles.conductance, written)
    after = tiles.replace(
        levels=levels,
        programmed=programmed,
        conductance=conductance,
        effective=cells.effective_levels(levels, conductance, plan),
        curvature=cells.curvature(conductance, plan),
        read_variance=cells.read_variance(conductance, plan, 0.0, programmed),
        writes=writes,
        plan=plan,
        lines=tiles.lines and aged_lines(levels, conductance, plan, 0.0, programmed),
    )
    after = _untouched_as_before(tiles, after, kept)
    return after.replace(effective=_carrying(after.effective, ratio, levels, plan))


def _carrying(effective: jax.Array, ratio: jax.Array, levels: jax.Array, plan: Plan) -> jax.Array:
    """``effective`` with the gradient of the weights that were asked for; all addends are exactly zero."""
    # A column's first conversion weighs one level, so the gradient of one product is carried whole by it.
    carrier = ratio - jax.lax.stop_gradient(ratio)
    if not converts_lines(plan):
        return effective.at[0].add(carrier)
    positive = cells.decode(levels, plan.spec) >= 0
    first = effective.at[0].add(jnp.where(positive, carrier, 0.0))
    return first.at[plan.spec.slices].add(jnp.where(positive, 0.0, -carrier))


def _untouched_as_before(before: Tiles, after: Tiles, kept: jax.Array) -> Tiles:
    """``after`` where nothing was rewritten: not even the last bit may move, however XLA fuses what surrounds it."""
    if after.effective.shape != before.effective.shape or after.plan.fold != before.plan.fold:
        return after
    untouched = cells.untouched(kept, after.plan)

    def same(name: str) -> jax.Array | None:
        was, now = getattr(before, name), getattr(after, name)
        return now if was is None or now is None else jnp.where(untouched, was, now)

    # Through wires a rewritten cell moves its neighbours' currents too.
    effective = same("effective") if after.plan.spec.wires.ideal else after.effective
    lines = lines_as_before(before.lines, after.lines, untouched, after.plan)
    curvature, variance = same("curvature"), same("read_variance")
    return after.replace(effective=effective, curvature=curvature, read_variance=variance, lines=lines)


def _check_shape(field: str, array: jax.Array, plan: Plan) -> None:
    if jnp.shape(array) != plan.kernel_shape:
        raise SpecError(f"{field}.shape", jnp.shape(array), f"the planned {plan.kernel_shape}")


def cells_written(before: Tiles, after: Tiles) -> jax.Array:
    """Number of physical cells whose level differs between two states of one chip."""
    return jnp.sum(before.levels != after.levels)


@numpy_promotion
def worn_cells(tiles: Tiles) -> jax.Array:
    """Number of physical cells that can be written no more; 0 where cells do not wear (``Cell.max_writes``)."""
    limit = tiles.plan.spec.cell.max_writes
    return jnp.zeros((), int) if tiles.writes is None or limit is None else jnp.sum(tiles.writes >= limit)


@numpy_promotion
def nominal_weights(tiles: Tiles) -> jax.Array:
    """The real weights that the nominal levels stand for, ``s_w * w_int``, in the kernel's shape."""
    return cells.decode(tiles.levels, tiles.plan.spec).astype(tiles.weight_scale.dtype) * tiles.weight_scale
