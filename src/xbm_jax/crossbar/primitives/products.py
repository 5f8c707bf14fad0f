"""The two linear maps that a crossbar computes, dense and convolution, each over a block of kernel rows.

Kernels keep XLA's own layouts ([in, out] and HWIO), so that a tile's partial sum is a native operation and no
unfolded copy of the input is made. On a CPU two shapes take another form, equal up to the order of the sum, because
XLA's own is several times slower there (`benchmarks/` measures both): a depthwise convolution is a multiply-add per
tap, and a convolution onto few columns computes two neighbouring pixels at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xbm_jax.crossbar.primitives.batching import one_by_one
from xbm_jax.crossbar.primitives.exact import few_digits_product
from xbm_jax.crossbar.primitives.platforms import by_platform
from xbm_jax.errors import SpecError
from xbm_jax.promotion import numpy_promotion

__all__ = ["Conv", "kernel_matrix_shape", "product", "tap_by_tap", "tile_product"]

# A converter turns a small error of the product into a wrong code: bf16 (TPU) or TF32 (GPU) passes of numbers that have
# more digits would do that.
PRECISION = lax.Precision.HIGHEST


@dataclass(frozen=True)
class Conv:
    """Geometry of a convolution: NHWC inputs, HWIO kernels; padding as ((top, bottom), (left, right)) pixels."""

    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] | str = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("strides", "dilation"):
            pair = _integers(getattr(self, name), low=1)
            if pair is None:
                raise SpecError(f"Conv.{name}", getattr(self, name), "a tuple of two integers, each at least 1")
            object.__setattr__(self, name, pair)
        if self.padding not in ("SAME", "VALID"):
            sides = self.padding if isinstance(self.padding, tuple) else ()
            pairs = tuple(_integers(side, low=0) for side in sides)
            if len(pairs) != 2 or None in pairs:
                raise SpecError("Conv.padding", self.padding, "'SAME', 'VALID' or ((top, bottom), (left, right))")
            object.__setattr__(self, "padding", pairs)
        if isinstance(self.groups, bool) or not isinstance(self.groups, Integral) or self.groups < 1:
            raise SpecError("Conv.groups", self.groups, "an integer, at least 1")
        object.__setattr__(self, "groups", int(self.groups))


def _integers(value: Any, low: int) -> tuple[int, int] | None:
    """``value`` as plain integers where it is a tuple of two of at least ``low``, else ``None``."""
    pair = isinstance(value, tuple) and len(value) == 2
    if not pair or not all(isinstance(v, Integral) and not isinstance(v, bool) and int(v) >= low for v in value):
        return None
    return int(value[0]), int(value[1])


def kernel_matrix_shape(kernel_shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns [K, N] of a kernel as it lies on arrays; K counts one group's inputs."""
    return int(np.prod(kernel_shape[:-1])), kernel_shape[-1]


def product(x: jax.Array, kernel: jax.Array, conv: Conv | None) -> jax.Array:
    """``x @ kernel`` over the last axis (dense), or the convolution of NHWC ``x`` with HWIO ``kernel``."""
    if conv is None:
        return jnp.matmul(x, kernel, precision=PRECISION)
    native = partial(_convolution, conv=conv)
    if conv.groups > 1 and kernel.shape[2] == 1:
        return by_platform(partial(_by_taps, conv=conv), native, x, kernel)
    return native(x, kernel)


def _convolution(
    x: jax.Array, kernel: jax.Array, conv: Conv, strides: tuple[int, int] | None = None, precision: Any = PRECISION
) -> jax.Array:
    native = partial(
        lax.conv_general_dilated,
        window_strides=strides or conv.strides,
        padding=conv.padding,
        rhs_dilation=conv.dilation,
        feature_group_count=conv.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
    return one_by_one(native)(x, kernel)  # tasks that are stepped together have kernels of their own


def _on_matrix_units(x: jax.Array, kernel: jax.Array, precision: lax.Precision, conv: Conv | None) -> jax.Array:
    """:func:`product` as accelerators compute it of numbers that bfloat16 holds exactly, unless all digits count."""
    if conv is not None:
        # Not as bfloat16, for which XLA finds no convolution on GPUs (jax-ml/jax#37922): of float32 at the precision
        # that the units have, TF32 or bfloat16, either of which these numbers fit.
        return _convolution(x, kernel, conv, precision=precision)
    if precision == lax.Precision.DEFAULT:
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return jnp.matmul(x, kernel, precision=precision, preferred_element_type=jnp.float32)


def tile_product(
    x: jax.Array, kernel: jax.Array, conv: Conv | None, tile: np.ndarray, *, apart: bool = False, parts: int = 0
) -> jax.Array:
    """The partial sum of the rows where ``tile`` (bool, ``kernel_shape[:-1]``) is true.

    One native operation over the input channels that the tile touches, the kernel's foreign rows zeroed: a tile of 64
    rows of a 3x3 kernel is 7.1 channels, so it reads 8 or 9 of them. Equal to the sum over the tile's rows alone.

    Args:
        apart: channels that are no neighbours are picked out; else those between them are read too, which costs little
            where a tile touches most channels.
        parts: bfloat16 holds ``x`` exactly, and ``kernel`` in so many parts: on accelerators their matrix units compute
            the same sum of those (:mod:`xbm_jax.crossbar.primitives.exact`). 0: float32 throughout.
    """
    touched = np.flatnonzero(tile.reshape(-1, tile.shape[-1]).any(0))
    first, last = int(touched[0]), int(touched[-1]) + 1
    chosen = touched if apart and len(touched) < last - first else slice(first, last)
    part = _picked(kernel, chosen, -2)
    inside = tile[..., chosen]
    if not inside.all():
        part = part * inside[..., None].astype(kernel.dtype)
    if inside.shape[-1] < tile.shape[-1]:
        x = _channels(x, conv, tile.shape[-1], chosen)
    native = on_cpu = partial(product, conv=conv)
    if conv is not None and _suits_pixel_pairs(x, part, conv):
        on_cpu = partial(_by_pixel_pairs, conv=conv)
    if parts and x.dtype == part.dtype == jnp.float32:
        units = partial(_on_matrix_units, conv=conv)
        return by_platform(on_cpu, lambda x, kernel: few_digits_product(units, x, kernel, parts), x, part)
    return native(x, part) if on_cpu is native else by_platform(on_cpu, native, x, part)


def tap_by_tap(x: jax.Array, kernel_shape: tuple[int, ...], conv: Conv) -> list[jax.Array]:
    """The NHWC input as each tap of a kernel sees it, tap by tap, each as large as the output."""
    padded = jnp.pad(x, ((0, 0), *_pads(x, kernel_shape, conv), (0, 0)))
    return _shifted(conv.strides, conv.dilation, padded, kernel_shape)


def _by_taps(x: jax.Array, kernel: jax.Array, conv: Conv) -> jax.Array:
    """A depthwise convolution, ``kernel`` [kh, kw, 1, N]: one multiply-add per tap over the shifted input."""
    padded = jnp.pad(x, ((0, 0), *_pads(x, kernel.shape, conv), (0, 0)))
    padded = jnp.repeat(padded, kernel.shape[3] // conv.groups, axis=-1)  # a channel's columns are neighbours
    return _taps(conv.strides, conv.dilation, padded, kernel[:, :, 0])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _taps(strides: tuple[int, int], dilation: tuple[int, int], x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``y[b, h, w, n] = sum_ij kernel[i, j, n] x[b, s h + d i, s w + d j, n]``.

    By itself JAX would make of the input's gradient a sum of one padded array per tap.
    """
    shifted = _shifted(strides, dilation, x, kernel.shape)
    weights = kernel.reshape(-1, kernel.shape[2])
    taps = [part * weights[i] for i, part in enumerate(shifted)]
    return sum(taps[1:], start=taps[0])


@numpy_promotion
def _taps_fwd(strides: tuple[int, int], dilation: tuple[int, int], x: jax.Array, kernel: jax.Array) -> Any:
    return _taps(strides, dilation, x, kernel), (x, kernel)


@numpy_promotion
def _taps_bwd(strides: tuple[int, int], dilation: tuple[int, int], residuals: Any, dy: jax.Array) -> Any:
    x, kernel = residuals
    dkernel = [jnp.sum(part * dy, (0, 1, 2)) for part in _shifted(strides, dilation, x, kernel.shape)]
    # dx is the same sum over dy, spread out by the strides, with the kernel turned round.
    sides = zip(x.shape[1:3], dy.shape[1:3], kernel.shape[:2], strides, dilation, strict=True)
    widths = [((taps - 1) * step, size - (n - 1) * stride - 1, stride - 1) for size, n, taps, stride, step in sides]
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *widths, (0, 0, 0)))
    return _taps((1, 1), dilation, spread, kernel[::-1, ::-1]), jnp.stack(dkernel).reshape(kernel.shape)


_taps.defvjp(_taps_fwd, _taps_bwd)


def _shifted(strides: tuple[int, int], dilation: tuple[int, int], x: jax.Array, kernel_shape: Any) -> list[jax.Array]:
    """The input as each tap sees it, tap by tap."""
    rows, cols = (
        [slice(i * step, i * step + size - (taps - 1) * step, stride) for i in range(taps)]
        for size, taps, stride, step in zip(x.shape[1:3], kernel_shape[:2], strides, dilation, strict=True)
    )
    return [x[:, row, col] for row in rows for col in cols]


_FEW_COLUMNS = 16
"""XLA's fast CPU convolution starts above: 16 columns cost it what 32 do."""


def _suits_pixel_pairs(x: jax.Array, kernel: jax.Array, conv: Conv) -> bool:
    """Whether :func:`_by_pixel_pairs` computes this convolution, and faster."""
    left, right = _pads(x, kernel.shape, conv)[1]
    width = x.shape[2] + left + right - kernel.shape[1] + 1
    plain = conv.strides == conv.dilation == (1, 1) and conv.groups == 1
    return (
        plain
        and kernel.shape[3] <= _FEW_COLUMNS
        and kernel.shape[2] % 2 == 0
        and kernel.shape[1] > 1
        and width % 2 == 0
    )


def _by_pixel_pairs(x: jax.Array, kernel: jax.Array, conv: Conv) -> jax.Array:
    """A convolution of stride 1 as one of stride 2 along the width, with twice the columns for two pixels at once.

    The second pixel's kernel is the first's, one tap further on; ``kw`` taps become ``kw + 1``.
    """
    pair = jnp.concatenate([jnp.pad(kernel, ((0, 0), side, (0, 0), (0, 0))) for side in ((0, 1), (1, 0))], axis=-1)
    y = _convolution(x, pair, conv, (1, 2))
    return y.reshape(*y.shape[:2], 2 * y.shape[2], kernel.shape[3])


def _pads(x: jax.Array, kernel_shape: tuple[int, ...], conv: Conv) -> Any:
    """Pixels added ((top, bottom), (left, right)), also where the geometry says 'SAME' or 'VALID'."""
    if not isinstance(conv.padding, str):
        return conv.padding
    window = [(size - 1) * step + 1 for size, step in zip(kernel_shape[:2], conv.dilation, strict=True)]
    return lax.padtype_to_pads(x.shape[1:3], window, conv.strides, conv.padding)


def _channels(x: jax.Array, conv: Conv | None, per_group: int, chosen: slice | np.ndarray) -> Any:
    """The chosen input channels of every group."""
    groups = 1 if conv is None else conv.groups
    if groups == 1:
        return _picked(x, chosen, -1)
    return _picked(x.reshape(*x.shape[:-1], groups, per_group), chosen, -1).reshape(*x.shape[:-1], -1)


def _picked(x: jax.Array, chosen: slice | np.ndarray, axis: int) -> jax.Array:
    """Some entries of an axis that is counted from the last; ``chosen`` ascends."""
    where = (..., chosen, *[slice(None)] * (-1 - axis))
    if isinstance(chosen, slice):
        return x[where]
    return x.at[where].get(mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True)
