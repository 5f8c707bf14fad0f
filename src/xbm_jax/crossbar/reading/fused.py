"""A read in one kernel: product of a tile, converter, gain and accumulation, partial sums never in memory.

Under gains of columns or of converted lines, behind silent converters, on NVIDIA GPUs from Hopper on
(:mod:`xbm_jax.crossbar.reading.hopper`). It is :func:`xbm_jax.crossbar.reading.columns.accumulated`:

    y[m, n] = sum_{t, j, v} f[t, j, v, n] * ADC(sum_{r in tile t} x[j, m, r] * E[v, r, n]),   f = c_j * c_v * a[t, n]

Inputs are patches of images where the kernel is a convolution's, in bfloat16, which holds codes exactly; conductances
are three numbers of bfloat16 each (:mod:`xbm_jax.crossbar.primitives.exact`). Gradients are those of the plain read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.exact import bfloat16_parts
from xbm_jax.crossbar.primitives.platforms import known
from xbm_jax.crossbar.primitives.products import patches
from xbm_jax.crossbar.reading.sums import Converters, cycle_codes, parts_of
from xbm_jax.crossbar.writing.orders import ChannelOrder
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.errors import SpecError

__all__ = ["MEASURED", "Fused", "Operands", "fused_reads", "fused_sum", "operands", "or_fused", "suits"]

Fused = Literal["auto", "on", "off"]
_chosen = jax.make_user_context("auto")

UNIT = 64
"""Rows that the matrix units take at once; a tile is filled up to a multiple of them with rows that hold nothing."""
TALLEST = 128
"""Rows of a tile whose operands fit into the memory of a multiprocessor."""

MEASURED: Mapping[tuple[int, int], int] = {}
"""``(rows of a tile, parts of a cell)`` to the smallest output [M, N], in numbers, from which the kernel was the faster
one where both were measured (``make gpu``). Nothing was yet: by itself no read takes it."""


@contextmanager
def fused_reads(use: Fused) -> Iterator[None]:
    """Whether reads traced within, for a GPU, are one kernel: ``"on"``, ``"off"``, or ``"auto"``, by :data:`MEASURED`.

    Raises:
        SpecError: none of these.
    """
    if use not in get_args(Fused):
        raise SpecError("fused_reads", use, "one of " + ", ".join(map(repr, get_args(Fused))))
    with _chosen(use):
        yield


class Operands(NamedTuple):
    """What the kernel reads.

    Attributes:
        x: codes, bfloat16 [M, T * J * H], tiles of H rows, cycles within a tile.
        cells: bfloat16 [T * V * P * H, N], the parts of a conversion's cells, smallest first.
        grid: float32 [T * J * V, 4, N]: step, lowest code and offset of each converter, and the factor f.
        height, parts, counts: H, P and (T, J, V).
    """

    x: jax.Array
    cells: jax.Array
    grid: jax.Array
    height: int
    parts: int
    counts: tuple[int, int, int]


def suits(plan: Plan, codes: jax.Array, gain: jax.Array | None, converters: Converters) -> bool:
    """Whether the kernel computes this read: silent converters on linear and silent cells, no gain of an example."""
    lines = converters.lines
    return (
        not plan.fold
        and converters.adc is not None
        and converters.mismatch is None
        and converters.variance is None
        and converters.curvature is None
        and not plan.spec.adc.noise_lsb
        and plan.digital_offset == 0.0
        and plan.groups == 1
        and plan.spec.tile_height <= TALLEST
        and (gain is None or gain.ndim == 2)
        and (lines is None or (lines.negative is None and lines.gain.ndim == 3))
        and codes.dtype == jnp.float32
    )


def or_fused(plan: Plan, plain: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """``plain(codes, effective, gain, converters)``, or one kernel where that is chosen and the program for a GPU."""

    def read(codes: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters) -> jax.Array:
        given = (codes, effective, gain, converters)
        if known.value is True or not _wanted(plan, codes, gain, converters):
            return plain(*given)
        return jax.lax.platform_dependent(*given, cuda=lambda *given: fused_sum(plan, *given), default=plain)

    return read


def _wanted(plan: Plan, codes: jax.Array, gain: jax.Array | None, converters: Converters) -> bool:
    """Whether this read is to be one kernel."""
    use = _chosen.value
    if use == "off" or (use == "auto" and not MEASURED) or not suits(plan, codes, gain, converters):
        return False
    least = MEASURED.get((plan.spec.tile_height, parts_of(plan, converters)), math.inf)
    size = codes[..., 0].size / (1 if plan.conv is None else math.prod(plan.conv.strides)) * plan.columns
    return use == "on" or size >= least


def fused_sum(
    plan: Plan,
    codes: jax.Array,
    effective: jax.Array,
    gain: jax.Array | None,
    converters: Converters,
    *,
    interpret: bool = False,
) -> jax.Array:
    """The read's sum over tiles, [..., N] float32; ``interpret``: on any machine, very slowly."""
    from xbm_jax.crossbar.reading.hopper import converted_sums

    pixels, shape = _patches(plan, codes)
    made = operands(plan, pixels, effective, gain, converters)
    return converted_sums(made, plan.spec.adc.bits or 0, interpret=interpret).reshape(*shape, plan.columns)


def operands(
    plan: Plan, pixels: jax.Array, effective: jax.Array, gain: jax.Array | None, converters: Converters
) -> Operands:
    """What the kernel reads of codes ``pixels`` [M, K], in the order of the word lines."""
    parts, tiles, rows = parts_of(plan, converters), plan.row_tiles, plan.spec.tile_height
    height = UNIT * math.ceil(rows / UNIT)
    streamed = cycle_codes(plan, pixels)
    count, conversions = len(streamed), effective.shape[0]

    def by_tile(array: jax.Array, axis: int) -> jax.Array:
        """[..., K, ...] as [..., T, H, ...], filled up with zeros."""
        after = array.ndim - axis - 1
        padded = jnp.pad(array, ((0, 0),) * axis + ((0, tiles * rows - plan.rows),) + ((0, 0),) * after)
        split = padded.reshape(*array.shape[:axis], tiles, rows, *array.shape[axis + 1 :])
        return jnp.pad(split, ((0, 0),) * (axis + 1) + ((0, height - rows),) + ((0, 0),) * after)

    x = by_tile(jnp.stack(streamed, 1).astype(jnp.bfloat16), 2)  # [M, J, T, H]
    x = x.transpose(0, 2, 1, 3).reshape(len(pixels), -1)
    cut = jnp.stack(bfloat16_parts(_in_line(plan, effective), parts)[::-1], 1).astype(jnp.bfloat16)
    cells = by_tile(cut, 2).transpose(2, 0, 1, 3, 4).reshape(-1, plan.columns)  # of [V, P, T, H, N]
    counts = (tiles, count, conversions)
    return Operands(x, cells, _grid(plan, counts, gain, converters), height, parts, counts)


def _grid(plan: Plan, counts: tuple[int, int, int], gain: jax.Array | None, converters: Converters) -> jax.Array:
    """Converters and factors of every (tile, cycle, conversion), [T * J * V, 4, N]."""
    assert converters.adc is not None  # as `suits` has it
    tiles, count, conversions = counts
    shape = (tiles, count, conversions, plan.columns)
    adc = [
        jnp.broadcast_to(jnp.moveaxis(jnp.asarray(a), 2, 0), shape)  # of [J, V, T, N]
        for a in (converters.adc.lsb, converters.adc.min_code, converters.adc.offset)
    ]
    factor = jnp.asarray(plan.cycle_weights)[:, None, None] * jnp.asarray(plan.conversion_weights)[:, None]
    if gain is not None:
        factor = factor * gain[:, None, None, :]
    if converters.lines is not None:
        factor = factor * jnp.repeat(converters.lines.gain, conversions // 2, axis=1)[:, None]
    made = jnp.stack([*adc, jnp.broadcast_to(factor, shape)], -2).astype(jnp.float32)
    return made.reshape(-1, 4, plan.columns)


def _patches(plan: Plan, codes: jax.Array) -> tuple[jax.Array, tuple[int, ...]]:
    """What each output sees, [M, K] in the order of the word lines, and the outputs' shape without columns."""
    order = plan.spec.row_order
    if isinstance(order, ChannelOrder):
        codes = codes[..., jnp.asarray(order.order)]
    if plan.conv is None:
        return codes.reshape(-1, codes.shape[-1]), codes.shape[:-1]
    taps = patches(codes, plan.kernel_shape, plan.conv)
    stacked = jnp.stack(taps, -1 if plan.by_channel else -2)
    return stacked.reshape(-1, plan.rows), stacked.shape[:3]


def _in_line(plan: Plan, effective: jax.Array) -> jax.Array:
    """Cells [V, *kernel_shape] in the order of the word lines, [V, K, N]."""
    order = plan.spec.row_order
    if isinstance(order, ChannelOrder):
        effective = effective[..., jnp.asarray(order.order), :]
    if plan.conv is not None and plan.by_channel:
        effective = jnp.moveaxis(effective, -2, 1)
    return effective.reshape(effective.shape[0], plan.rows, plan.columns)
