"""Rounding real numbers onto the integers that cells and DACs hold, with straight-through gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

__all__ = ["input_code_limits", "quantise", "straight_through", "weight_scales"]


def straight_through(value: jax.Array, carrier: jax.Array) -> jax.Array:
    """Exactly ``value``, with the gradient of ``carrier`` (Bengio 2013, straight-through estimator).

    Unlike ``carrier + stop_gradient(value - carrier)`` this does not move ``value`` by a rounding of the sum.
    """
    return _straight_through(jax.lax.stop_gradient(value), carrier)


@jax.custom_jvp
def _straight_through(value: jax.Array, carrier: jax.Array) -> jax.Array:
    del carrier
    return value


@_straight_through.defjvp
def _straight_through_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return primals[0], tangents[1]


def quantise(x: jax.Array, scale: ArrayLike, low: ArrayLike, high: ArrayLike) -> jax.Array:
    """``clip(round_half_even(x / scale), low, high)``; the gradient passes straight through rounding and clipping."""
    ratio = x / scale
    return straight_through(jnp.clip(jnp.round(ratio), low, high), ratio)


def weight_scales(kernel: jax.Array, max_weight: int) -> jax.Array:
    """One scale per output column [N]: ``s_w[n] = max_k |W[k, n]| / max_weight``; 1 for a column of zeros."""
    peak = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
    # A peak whose scale would underflow is as good as zero.
    return jnp.where(peak > max_weight * jnp.finfo(kernel.dtype).tiny, peak, max_weight) / max_weight


def input_code_limits(input_bits: int, signed: bool) -> tuple[int, int]:
    """Lowest and highest input code: ``0 .. 2**b - 1``, or ``-(2**(b-1) - 1) .. 2**(b-1) - 1`` on a bipolar DAC."""
    if not signed:
        return 0, 2**input_bits - 1
    top = max(2 ** (input_bits - 1) - 1, 1)
    return -top, top
