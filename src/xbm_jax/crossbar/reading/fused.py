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
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.platforms import known
from xbm_jax.crossbar.reading.operands import operands, patches
from xbm_jax.crossbar.reading.sums import Converters, parts_of
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.errors import SpecError

__all__ = ["MEASURED", "Fused", "fused_reads", "fused_sum", "or_fused", "suits", "wanted"]

Fused = Literal["auto", "on", "off"]
_chosen = jax.make_user_context("auto")

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
        if not wanted(plan, codes, gain, converters):
            return plain(*given)
        return jax.lax.platform_dependent(*given, cuda=lambda *given: fused_sum(plan, *given), default=plain)

    return read


def wanted(plan: Plan, codes: jax.Array, gain: jax.Array | None, converters: Converters) -> bool:
    """Whether this read is to be one kernel, in programs for a GPU."""
    use = _chosen.value
    if (
        known.value is True
        or use == "off"
        or (use == "auto" and not MEASURED)
        or not suits(plan, codes, gain, converters)
    ):
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

    pixels, shape = patches(plan, codes)
    made = operands(plan, pixels, effective, gain, converters)
    return converted_sums(made, plan.spec.adc.bits or 0, interpret=interpret).reshape(*shape, plan.columns)
