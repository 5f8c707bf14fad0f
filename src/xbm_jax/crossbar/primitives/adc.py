"""The column's converter: clip to a range, round half to even onto exactly ``2**bits`` codes.

A code is a float and stands for ``offset + lsb * code``; one of at most 8 bits fits into a byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["BYTE", "AdcRange", "Mismatch", "clipped", "code", "code_index", "code_of", "convert"]
__all__ += ["explicit_range", "granular_range", "snapped_range", "value", "word"]

BYTE = 8
"""Bits of a converter whose codes fit into a byte."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AdcRange:
    """The grid ``offset + lsb * code``, ``code = min_code .. min_code + 2**bits - 1``.

    All three are float arrays that broadcast to [cycles J, conversions V, tiles T, columns N], in units of
    (input code x level). ``offset`` is zero wherever zero is a code.
    """

    lsb: jax.Array
    min_code: jax.Array
    offset: jax.Array

    def at(self, cycle: int, tile: int) -> AdcRange:
        """The converters of one cycle and row tile: arrays that broadcast to [V, N]."""
        return jax.tree.map(lambda a: a[cycle % a.shape[0], :, tile % a.shape[2]], self)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mismatch:
    """How converters differ from their nominal: ``seen = gain * sum + offset_lsb * lsb``; both [V, T, N]."""

    gain: jax.Array
    offset_lsb: jax.Array

    def at(self, tile: int) -> Mismatch:
        """The converters of one row tile, [V, N]."""
        return Mismatch(self.gain[:, tile], self.offset_lsb[:, tile])


def convert(
    sums: jax.Array, grid: AdcRange, bits: int | None, mismatch: Mismatch | None = None, noise_lsb: ArrayLike = 0.0
) -> jax.Array:
    """What the ADC makes of analog column sums [..., V, N]; ``bits=None`` is the ideal converter.

    ``offset + lsb * clip(round((gain * sum - offset) / lsb + offset_lsb + noise_lsb))``
    """
    if bits is None:
        return sums
    return value(code(sums, grid, bits, mismatch, noise_lsb), grid)


def code(
    sums: jax.Array, grid: AdcRange, bits: int, mismatch: Mismatch | None = None, noise_lsb: ArrayLike = 0.0
) -> jax.Array:
    """The code, as a float, that a converter gives for a sum; of a sum that is no number, no number."""
    nearest = jnp.round(_position(sums, grid, mismatch, noise_lsb))
    return jnp.clip(nearest, grid.min_code, grid.min_code + (2**bits - 1))


def value(code: jax.Array, grid: AdcRange) -> jax.Array:
    """What a code stands for: ``offset + lsb * code``."""
    return grid.offset + grid.lsb * code


def word(code: jax.Array, grid: AdcRange, bits: int) -> jax.Array:
    """A code of at most 8 bits as a byte: int8, counted from the middle of the grid."""
    return (code - _middle(grid, bits)).astype(jnp.int8)


def code_of(word: jax.Array, grid: AdcRange, bits: int) -> jax.Array:
    """Undo :func:`word`, exactly."""
    return word.astype(grid.lsb.dtype) + _middle(grid, bits)


def _middle(grid: AdcRange, bits: int) -> jax.Array:
    return grid.min_code + 2 ** (bits - 1)


def code_index(sums: jax.Array, grid: AdcRange, bits: int, mismatch: Mismatch | None = None) -> jax.Array:
    """Which of the ``2**bits`` codes a silent converter gives, counted from the lowest: int32, shaped as ``sums``."""
    return (code(sums, grid, bits, mismatch) - grid.min_code).astype(jnp.int32)


def clipped(
    sums: jax.Array, grid: AdcRange, bits: int, mismatch: Mismatch | None = None, noise_lsb: ArrayLike = 0.0
) -> jax.Array:
    """True where what a converter sees of a column sum lies beyond the last code by more than half a step."""
    position = _position(sums, grid, mismatch, noise_lsb)
    # A sum that lies half a step out is still the last code's; float rounding must not decide that.
    low, high = grid.min_code - _HALF, grid.min_code + (2**bits - 1) + _HALF
    return (position < low) | (position > high)


_HALF = 0.5001


def _position(sums: jax.Array, grid: AdcRange, mismatch: Mismatch | None, noise_lsb: ArrayLike) -> jax.Array:
    """Where on the grid, in steps, a converter sees a sum."""
    seen = sums if mismatch is None else sums * mismatch.gain
    position = (seen - grid.offset) / grid.lsb + noise_lsb
    return position if mismatch is None else position + mismatch.offset_lsb


def snapped_range(low: ArrayLike, high: ArrayLike, bits: int) -> AdcRange:
    """A grid over [low, high], widened to hold zero, shifted by at most half a step so that zero is a code.

    ``lsb = (high - low) / (2**bits - 1)``, ``min_code = round(low / lsb)``, ties down. A grid of 2**bits codes that is
    symmetric about zero has no zero: every silent column would add half a step to its sum. An empty range gets
    ``lsb = 1``.
    """
    low, high = jnp.minimum(low, 0.0), jnp.maximum(high, 0.0)
    span = high - low
    lsb = jnp.where(span > 0, span, 2**bits - 1) / (2**bits - 1)
    # A symmetric range ends half a step from a code: float rounding must not decide to which side it goes.
    return AdcRange(lsb, jnp.floor(low / lsb + (1 - _HALF)), jnp.zeros_like(lsb))


def explicit_range(low: float, high: float, bits: int) -> AdcRange:
    """The grid of ``2**bits`` codes from ``low`` to ``high`` inclusive, taken as given."""
    return _everywhere((high - low) / (2**bits - 1), 0.0, low)


def granular_range(bits: int, *, positive: bool = False) -> AdcRange:
    """One level a step: the integers ``-2**(bits-1) .. 2**(bits-1) - 1``, or ``0 .. 2**bits - 1`` for positive sums."""
    return _everywhere(1.0, 0.0 if positive else -(2.0 ** (bits - 1)), 0.0)


def _everywhere(lsb: float, min_code: float, offset: float) -> AdcRange:
    """One grid for all converters of a layer."""
    return AdcRange(*(jnp.full((1, 1, 1, 1), value, jnp.float32) for value in (lsb, min_code, offset)))
