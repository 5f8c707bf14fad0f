"""What is static about a programmed kernel, fixed on the host: shapes, geometry, and which reads need simulating."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import jax
import numpy as np

from xbm_jax.crossbar.devices.laws import Faults, Ideal
from xbm_jax.crossbar.primitives.products import Conv, kernel_matrix_shape
from xbm_jax.crossbar.primitives.quantise import input_code_limits
from xbm_jax.crossbar.writing.orders import check_order_fits, row_index
from xbm_jax.crossbar.writing.spec import CrossbarSpec
from xbm_jax.errors import SpecError

__all__ = ["Plan", "plan"]

_EXACT_FLOAT32 = 2**24
"""Integers up to here add up exactly in float32, in any order."""
_EXACT_BFLOAT16 = 2**8
"""Integers up to here are numbers of bfloat16."""


@dataclass(frozen=True)
class Plan:
    """Shape, geometry and spec of a programmed kernel, and whether its slices, cycles and tiles fold into one product.

    A *conversion* is one pass of a column through its converter. A row tile has ``V`` of them per cycle: one per slice,
    times two where both columns of a pair are converted.
    """

    kernel_shape: tuple[int, ...]
    spec: CrossbarSpec
    conv: Conv | None
    fold: bool
    fold_reason: str
    signed_inputs: bool = False

    @property
    def rows(self) -> int:
        """K, the kernel matrix's rows (of one group)."""
        return kernel_matrix_shape(self.kernel_shape)[0]

    @property
    def columns(self) -> int:
        """N, the kernel matrix's columns."""
        return self.kernel_shape[-1]

    @property
    def groups(self) -> int:
        """Groups of a convolution, each on arrays of its own."""
        return 1 if self.conv is None else self.conv.groups

    @property
    def row_tiles(self) -> int:
        """T = ceil(K / tile height): groups of rows that are read, converted and masked together."""
        return math.ceil(self.rows / self.spec.tile_height)

    @property
    def tile_index(self) -> np.ndarray:
        """Row tile of each kernel entry, int array of ``kernel_shape[:-1]``."""
        return row_index(self.kernel_shape, self.spec.row_order) // self.spec.tile_height

    @property
    def tile_rows(self) -> list[np.ndarray]:
        """Which kernel rows each row tile holds: T bool arrays of ``kernel_shape[:-1]``."""
        index = self.tile_index
        return [index == t for t in range(self.row_tiles)]

    @property
    def by_channel(self) -> bool:
        """Whether an input channel's taps are neighbouring rows, so that a tile touches few channels."""
        return self.spec.row_order != "tap"

    @property
    def tiles_per_array(self) -> int:
        """Row tiles that stand above each other in an array, read one after another."""
        return self.spec.rows // self.spec.tile_height

    @property
    def array_of_tile(self) -> np.ndarray:
        """Which array of its columns each row tile stands in, int [T]."""
        return np.arange(self.row_tiles) // self.tiles_per_array

    @property
    def columns_per_array(self) -> int:
        """Neighbouring logical columns that an array has bit lines for."""
        return self.spec.cols // self.spec.bitlines_per_column

    @property
    def array_of_column(self) -> np.ndarray:
        """Which array beside others each column stands on, int [N]; every group of a convolution has its own."""
        per_group = self.columns // self.groups
        column = np.arange(self.columns)
        own = column % per_group // self.columns_per_array
        return column // per_group * math.ceil(per_group / self.columns_per_array) + own

    @property
    def array_grid(self) -> tuple[int, int]:
        """Arrays of the layer: above each other, ceil(K / rows), and beside each other in a row tile, A."""
        return int(self.array_of_tile[-1]) + 1, int(self.array_of_column[-1]) + 1

    def spread_arrays(self, arrays: jax.Array) -> jax.Array:
        """One value per array, shaped as ``array_grid``, for each column of each row tile in it, [T, N]."""
        return arrays[self.array_of_tile[:, None], self.array_of_column]

    @property
    def conversion_weights(self) -> tuple[float, ...]:
        """What each of the V conversions of a tile weighs: ``2**(s * cell_bits)``, negative for negative columns."""
        if self.fold:
            return (1.0,)
        slices = tuple(2.0 ** (s * self.spec.cell_bits) for s in range(self.spec.slices))
        return slices + tuple(-w for w in slices) if self.spec.subtract == "digital" else slices

    @property
    def cycle_weights(self) -> tuple[float, ...]:
        """What each DAC cycle weighs: ``2**(j * dac_bits)``, negative in the second of two passes."""
        if self.fold:
            return (1.0,)
        cycles = tuple(2.0 ** (j * (self.spec.dac_bits or 0)) for j in range(self.spec.cycles))
        return cycles + tuple(-w for w in cycles) if self.two_pass else cycles

    @property
    def two_pass(self) -> bool:
        """Whether positive and negative inputs are read apart."""
        return self.signed_inputs and self.spec.negative_inputs == "two_pass"

    @property
    def cycle_code_limits(self) -> tuple[int, int]:
        """Lowest and highest code that one cycle streams."""
        low, high = input_code_limits(self.spec.input_bits, self.signed_inputs)
        if self.spec.cycles > 1 and self.spec.dac_bits:
            high = min(high, 2**self.spec.dac_bits - 1)
        return (0 if self.two_pass or low == 0 else -high), high

    @property
    def positive_sums(self) -> bool:
        """Whether no conversion can see a negative sum: columns of positive conductances under positive codes."""
        return (self.spec.encoding == "offset" or self.spec.subtract == "digital") and self.cycle_code_limits[0] == 0

    @property
    def integer_cells(self) -> bool:
        """Whether every conversion multiplies its inputs by integers of at most eight bits: ideal cells, read so."""
        top = self.spec.max_weight if self.fold else self.spec.max_level
        return not _off_grid(self.spec) and self.spec.curve is None and top <= _EXACT_BFLOAT16

    @property
    def digital_offset(self) -> float:
        """What is taken off each conversion sum per unit of the tile's input sum, in levels; 0 for pairs.

        Offset encoding: the weight's offset ``2**(weight_bits - 1)``, and ``g_min / g_step`` for each cell.
        """
        spec = self.spec
        if spec.encoding != "offset":
            return 0.0
        slices = sum(2 ** (s * spec.cell_bits) for s in range(spec.slices))
        return 2 ** (spec.weight_bits - 1) + slices * spec.cell.g_min_siemens / spec.g_step_siemens


def plan(
    kernel: jax.Array | np.ndarray,
    spec: CrossbarSpec,
    conv: Conv | None = None,
    *,
    signed_inputs: bool = False,
    weight_scale: jax.Array | np.ndarray | None = None,
) -> Plan:
    """Fix shapes and decide, on the host, which reads need simulating.

    A read folds into one product, exactly, where nothing between cells and digital sum is non-linear: with an ideal
    converter, or with a lossless one: conductances on its grid (ideal cells and wires, ``g_min`` cancelled by the pair
    or zero), one level a step, and a range that covers the column's worst case, known because weights are frozen.

    Args:
        kernel: [in, out] (dense) or HWIO; for a grouped convolution I counts one group's inputs.
        conv: convolution geometry; ``None`` for a dense kernel.
        signed_inputs: whether the layer's inputs go below zero.
        weight_scale: s_w [N] where it is given to ``program`` too.
    """
    shape = tuple(int(n) for n in np.shape(kernel))
    wanted = 2 if conv is None else 4
    if len(shape) != wanted or 0 in shape:
        raise SpecError("kernel.shape", shape, f"{wanted} non-empty axes: {'[in, out]' if conv is None else 'HWIO'}")
    if conv is not None and shape[-1] % conv.groups:
        raise SpecError("Conv.groups", conv.groups, f"a divisor of the {shape[-1]} output channels")
    if not np.isfinite(np.asarray(kernel)).all():
        raise SpecError("kernel", "NaN or infinite entries", "finite numbers")
    check_order_fits("CrossbarSpec.row_order", spec.row_order, shape)
    made = Plan(shape, spec, conv, False, "", signed_inputs)
    fold, reason = _folds(made, kernel, weight_scale)
    return dataclasses.replace(made, fold=fold, fold_reason=reason)


def _folds(made: Plan, kernel: jax.Array | np.ndarray, weight_scale: jax.Array | np.ndarray | None) -> tuple[bool, str]:
    """Whether a read is one product, and why."""
    spec = made.spec
    bits = spec.adc.bits
    if spec.curve is not None:
        return False, f"{type(spec.curve).__name__}: a column's current is not linear in its inputs"
    if bits is None:
        return True, "ideal converter: tiles, slices, cycles and pairs are one product"
    limits = _unit_range(made)
    if limits is None:
        return False, f"{bits}-bit converter whose step is not one level"
    found = [*_off_grid(spec), *([] if spec.adc.exact else ["converter mismatch or noise"])]
    if found:
        return False, f"one level a step, but {' and '.join(found)} put sums off the converter's grid"
    low, high = _worst_sums(made, np.asarray(kernel, np.float32), weight_scale)
    if low < limits[0] or high > limits[1]:
        return False, f"column sums from {low:g} to {high:g} leave the converter's {limits[0]:g} to {limits[1]:g}"
    return True, f"lossless {bits}-bit converter: column sums from {low:g} to {high:g} are codes"


def _off_grid(spec: CrossbarSpec) -> list[str]:
    """What puts the cells that a conversion sees off the integers."""
    obstacles = {
        "device errors": not isinstance(spec.device, Ideal),
        "stuck cells": spec.faults != Faults(),
        "wire resistance": not spec.wires.ideal,
        "the current of level 0": not (spec.encoding == "differential" and spec.subtract == "analog")
        and spec.cell.g_min_siemens > 0,
    }
    return [name for name, there in obstacles.items() if there]


def _unit_range(made: Plan) -> tuple[float, float] | None:
    """Lowest and highest code of a converter of one level a step with zero among its codes, else ``None``."""
    spec = made.spec
    assert spec.adc.bits is not None
    count = 2**spec.adc.bits
    if spec.adc.range == "granular":
        low = 0 if made.positive_sums else -(count // 2)
        return low, low + count - 1
    if isinstance(spec.adc.range, tuple):
        low, high = spec.adc.range
        return (low, high) if high - low == count - 1 and low == round(low) else None
    return None


def _worst_sums(made: Plan, kernel: np.ndarray, weight_scale: jax.Array | np.ndarray | None) -> tuple[float, float]:
    """Lowest and highest sum of any conversion of any tile under any input."""
    spec = made.spec
    peak = np.max(np.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
    empty = peak <= spec.max_weight * np.finfo(np.float32).tiny
    scale = np.where(empty, spec.max_weight, peak) / np.float32(spec.max_weight)
    scale = scale if weight_scale is None else np.asarray(weight_scale, np.float32)
    w_int = np.clip(np.round(kernel / scale), -spec.max_weight, spec.max_weight).astype(np.int64)
    up, down = (w_int + 2 ** (spec.weight_bits - 1), 0 * w_int)
    if spec.encoding == "differential":
        up, down = np.maximum(w_int, 0), np.maximum(-w_int, 0)
    low_code, high_code = made.cycle_code_limits
    low = high = 0
    for s in range(spec.slices):
        plus, minus = ((part >> (s * spec.cell_bits)) & spec.max_level for part in (up, down))
        for part in (plus, minus) if spec.subtract == "digital" else (plus - minus,):
            for rows in made.tile_rows:
                inside = part[rows].reshape(-1, made.columns)
                positive, negative = np.maximum(inside, 0).sum(0), np.maximum(-inside, 0).sum(0)
                high = max(high, int((positive * high_code - negative * low_code).max()))
                low = min(low, int((positive * low_code - negative * high_code).min()))
    return (low, high) if max(high, -low) < _EXACT_FLOAT32 else (-math.inf, math.inf)
