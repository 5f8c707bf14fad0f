"""Writing a kernel onto arrays: ``plan`` fixes all shapes on the host, ``program`` writes the cells, once.

    w_int = round(W / s_w)                                          one scale per output column
    level[p, s] = (max(+-w_int, 0) >> s * cell_bits) & (L - 1)      p = positive, negative cell of the pair
    g = device(g_min + level * g_step, key)                         programming error, then stuck cells
    E[s] = (g[+, s] - g[-, s]) / g_step                             what a read multiplies by, in levels
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import quantise
from xbm_jax.crossbar.adc import AdcRange, explicit_range, granular_range, snapped_range
from xbm_jax.crossbar.products import Conv, kernel_matrix_shape, row_index
from xbm_jax.crossbar.spec import Cell, CrossbarSpec
from xbm_jax.errors import SpecError

__all__ = ["Plan", "Tiles", "cells_written", "nominal_weights", "plan", "program", "reprogram"]


@dataclass(frozen=True)
class Plan:
    """All that is static about a programmed kernel: its shape, its geometry, its spec, and whether it folds."""

    kernel_shape: tuple[int, ...]
    spec: CrossbarSpec
    conv: Conv | None
    fold: bool
    fold_reason: str

    @property
    def rows(self) -> int:
        """K, the kernel matrix's rows (of one group)."""
        return kernel_matrix_shape(self.kernel_shape)[0]

    @property
    def columns(self) -> int:
        """N, the kernel matrix's columns."""
        return self.kernel_shape[-1]

    @property
    def tiles(self) -> int:
        """T = ceil(K / rows)."""
        return math.ceil(self.rows / self.spec.rows)

    @property
    def slices(self) -> int:
        """Slices that a read keeps apart: S, or 1 where they fold into one product."""
        return 1 if self.fold else self.spec.slices

    @property
    def cycles(self) -> int:
        """Cycles that a read keeps apart: J, or 1 where they fold into one product."""
        return 1 if self.fold else self.spec.cycles

    @property
    def tile_index(self) -> np.ndarray:
        """Row tile of each kernel entry, int array of ``kernel_shape[:-1]``."""
        return row_index(self.kernel_shape, self.spec.row_order) // self.spec.rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tiles:
    """A programmed kernel: frozen, a pytree; ``read`` computes with it.

    Attributes:
        levels: int8-sized nominal levels, uint8 [P, S, *kernel_shape]; slice s weighs ``2**(s * cell_bits)``.
        conductance: what the cells hold, float [P, S, *kernel_shape], siemens.
        effective: signed levels as the columns see them, float [S, *kernel_shape] ([1, ...] where slices fold).
        read_variance: variance of ``effective`` from read to read, same shape, or ``None`` for exact reads.
        weight_scale: s_w, float [N].
        input_scale: s_x, float scalar, or ``None`` before calibration.
        adc: converter grids, or ``None`` before calibration or with ideal converters.
        key_data: the cells' own random key (uint32), so that a rewritten cell pays for its programming error.
        plan: static geometry.
        signed_inputs: whether the DAC is bipolar (static).
    """

    levels: jax.Array
    conductance: jax.Array
    effective: jax.Array
    read_variance: jax.Array | None
    weight_scale: jax.Array
    input_scale: jax.Array | None
    adc: AdcRange | None
    key_data: jax.Array
    plan: Plan = field(metadata={"static": True})
    signed_inputs: bool = field(default=False, metadata={"static": True})

    def replace(self, **changes: object) -> Tiles:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def plan(kernel: jax.Array | np.ndarray, spec: CrossbarSpec, conv: Conv | None = None) -> Plan:
    """Fix shapes and decide, on the host, which reads need simulating.

    Args:
        kernel: [in, out] (dense) or HWIO; for a grouped convolution I counts one group's inputs.
        conv: convolution geometry; ``None`` for a dense kernel.
    """
    shape = tuple(int(n) for n in np.shape(kernel))
    wanted = 2 if conv is None else 4
    if len(shape) != wanted or 0 in shape:
        raise SpecError("kernel.shape", shape, f"{wanted} non-empty axes: {'[in, out]' if conv is None else 'HWIO'}")
    if conv is not None and shape[-1] % conv.groups:
        raise SpecError("Conv.groups", conv.groups, f"a divisor of the {shape[-1]} output channels")
    if not np.isfinite(np.asarray(kernel)).all():
        raise SpecError("kernel", "NaN or infinite entries", "finite numbers")
    if spec.adc.bits is None:
        return Plan(shape, spec, conv, True, "ideal converter: slices, cycles and pairs are one product")
    return Plan(shape, spec, conv, False, f"{spec.adc.bits}-bit converter on each row tile")


def program(
    kernel: jax.Array,
    plan: Plan,
    key: jax.Array,
    *,
    weight_scale: jax.Array | None = None,
    input_scale: jax.Array | float | None = None,
    signed_inputs: bool = False,
) -> Tiles:
    """Write ``kernel`` onto arrays; traceable, so ``vmap`` over keys is a population of chips.

    Args:
        kernel: real weights in the plan's shape.
        key: draws this chip's programming error and faults.
        weight_scale: s_w [N]; ``None`` takes each column's largest weight onto the largest integer.
        input_scale: s_x; ``None`` leaves it to calibration.
        signed_inputs: whether inputs go below zero (bipolar DAC, one pass).
    """
    if input_scale is not None:
        input_scale = jnp.asarray(input_scale, jnp.float32)
    return _program(jnp.asarray(kernel), key, weight_scale, input_scale, plan, signed_inputs)


@partial(jax.jit, static_argnames=("plan", "signed_inputs"))
def _program(
    kernel: jax.Array,
    key: jax.Array,
    weight_scale: jax.Array | None,
    input_scale: jax.Array | None,
    plan: Plan,
    signed_inputs: bool,
) -> Tiles:
    """:func:`program`, compiled once for all layers of one plan."""
    spec = plan.spec
    scale = quantise.weight_scales(kernel, spec.max_weight) if weight_scale is None else jnp.asarray(weight_scale)
    levels = _encode(kernel / scale, spec)
    conductance = _write(levels, spec, key)
    tiles = Tiles(
        levels=levels,
        conductance=conductance,
        effective=_effective(levels, conductance, plan),
        read_variance=_read_variance(conductance, plan),
        weight_scale=scale,
        input_scale=input_scale,
        adc=None,
        key_data=jax.random.key_data(key),
        plan=plan,
        signed_inputs=signed_inputs,
    )
    return tiles.replace(adc=_known_range(tiles))


def reprogram(tiles: Tiles, weights: jax.Array, key: jax.Array | None = None) -> Tiles:
    """Rewrite the cells whose level differs; scales and converter ranges stay, all other cells keep their conductance.

    Args:
        weights: real weights in the kernel's shape; rounded onto the programmed scales. The gradient of what is read
            passes straight through to them.
        key: draws the programming error of the rewritten cells; ``None`` uses each cell's own draw.
    """
    spec = tiles.plan.spec
    ratio = weights / tiles.weight_scale
    levels = _encode(jax.lax.stop_gradient(ratio), spec)
    cell_key = jax.random.wrap_key_data(tiles.key_data) if key is None else key
    written = _write(levels, spec, cell_key)
    conductance = jnp.where(levels == tiles.levels, tiles.conductance, written)
    effective = _effective(levels, conductance, tiles.plan)
    # Slice 0 weighs one level, so the gradient of one product is carried whole by it; the addend is exactly zero.
    carried = effective.at[0].add(ratio - jax.lax.stop_gradient(ratio))
    return tiles.replace(
        levels=levels,
        conductance=conductance,
        effective=carried,
        read_variance=_read_variance(conductance, tiles.plan),
    )


def cells_written(before: Tiles, after: Tiles) -> jax.Array:
    """Number of physical cells whose level differs between two states of one chip."""
    return jnp.sum(before.levels != after.levels)


def nominal_weights(tiles: Tiles) -> jax.Array:
    """The real weights that the nominal levels stand for, ``s_w * w_int``, in the kernel's shape."""
    cell_bits = tiles.plan.spec.cell.bits
    digits = (tiles.levels[0].astype(jnp.int32) - tiles.levels[1].astype(jnp.int32)).astype(tiles.weight_scale.dtype)
    return _shift_add(digits, cell_bits) * tiles.weight_scale


def _encode(ratio: jax.Array, spec: CrossbarSpec) -> jax.Array:
    """Levels [P, S, *shape] of real weights in units of their scale."""
    w_int = jnp.clip(jnp.round(ratio), -spec.max_weight, spec.max_weight).astype(jnp.int32)
    magnitude = jnp.stack([jnp.maximum(w_int, 0), jnp.maximum(-w_int, 0)])
    digits = [(magnitude >> (s * spec.cell.bits)) & spec.cell.max_level for s in range(spec.slices)]
    return jnp.stack(digits, axis=1).astype(jnp.uint8)


def _target(levels: jax.Array, cell: Cell) -> jax.Array:
    """Conductance asked of each cell, siemens; from a table, so that its bits never depend on how XLA fuses."""
    steps = np.arange(cell.max_level + 1) * cell.g_step_siemens
    return jnp.asarray(cell.g_min_siemens + steps, jnp.float32)[levels.astype(jnp.int32)]


def _write(levels: jax.Array, spec: CrossbarSpec, key: jax.Array) -> jax.Array:
    """Conductances in siemens after programming error and faults."""
    cell = spec.cell
    write_key, fault_key = jax.random.split(key)
    written = spec.device.program(_target(levels, cell), cell.g_max_siemens, write_key)
    return spec.faults.apply(written, cell.g_min_siemens, cell.g_max_siemens, fault_key)


def _effective(levels: jax.Array, conductance: jax.Array, plan: Plan) -> jax.Array:
    """Signed levels [S, *shape] ([1, *shape] where slices fold): nominal integers plus the cells' deviations."""
    cell = plan.spec.cell
    nominal = levels[0].astype(jnp.float32) - levels[1].astype(jnp.float32)
    deviation = (conductance - _target(levels, cell)) / cell.g_step_siemens
    pair = nominal + (deviation[0] - deviation[1])
    return _shift_add(pair, cell.bits)[None] if plan.fold else pair


def _read_variance(conductance: jax.Array, plan: Plan) -> jax.Array | None:
    """Variance of :func:`_effective` between reads; a pair's two cells and a folded column's slices add up."""
    spec = plan.spec
    sigma = spec.device.read_sigma(conductance, spec.cell.g_max_siemens, 0.0)
    if sigma is None:
        return None
    variance = jnp.sum((sigma / spec.cell.g_step_siemens) ** 2, axis=0)
    return _shift_add(variance, 2 * spec.cell.bits)[None] if plan.fold else variance


def _shift_add(digits: jax.Array, bits: int) -> jax.Array:
    """``sum_s 2**(s * bits) * digits[s]`` over the leading axis."""
    weights = 2.0 ** (bits * jnp.arange(digits.shape[0], dtype=digits.dtype))
    return jnp.tensordot(weights, digits, axes=1, precision=jax.lax.Precision.HIGHEST)


def _known_range(tiles: Tiles) -> AdcRange | None:
    """Converter grids that need no images; ``None`` where they are calibrated or ideal."""
    adc = tiles.plan.spec.adc
    if adc.bits is None or adc.range == "calibrated":
        return None
    if isinstance(adc.range, tuple):
        return explicit_range(*adc.range, adc.bits)
    if adc.range == "granular":
        return granular_range(adc.bits)
    return snapped_range(*_worst_case(tiles), adc.bits)


def _worst_case(tiles: Tiles) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest column sum that any input can cause, shaped by ``Adc.per``, [1, S, T|1, N|1]."""
    plan, spec = tiles.plan, tiles.plan.spec
    low_code, high_code = quantise.input_code_limits(spec.input_bits, tiles.signed_inputs)
    if spec.cycles > 1:
        top = 2**spec.dac_bits - 1 if spec.dac_bits else high_code
        low_code, high_code = (-top if tiles.signed_inputs else 0), top
    up, down = jnp.maximum(tiles.effective, 0.0), jnp.maximum(-tiles.effective, 0.0)
    axes = tuple(range(1, tiles.effective.ndim - 1))

    def per_tile(values: jax.Array) -> jax.Array:
        masks = [(plan.tile_index == t)[..., None] for t in range(plan.tiles)]
        return jnp.stack([jnp.sum(values * mask, axes) for mask in masks], axis=1)[None]

    high = per_tile(up * high_code - down * low_code)
    low = per_tile(up * low_code - down * high_code)
    shared = {"layer": (2, 3), "tile": (3,), "column": ()}[spec.adc.per]
    return jnp.min(low, shared, keepdims=True), jnp.max(high, shared, keepdims=True)
