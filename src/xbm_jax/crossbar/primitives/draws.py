"""Random draws for arrays of cells and for reads: JAX's own bits, drawn flat.

XLA on CPU compiles a draw of a five-dimensional shape some seven times slower than the flat one, for the same bits.
Noise of reads is drawn anew for every column of every tile at every pixel, so there the draws are most of the work.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

__all__ = ["coarse_normal", "normal", "uniform"]


def normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """``jax.random.normal(key, shape, dtype)``, bit for bit."""
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """``jax.random.uniform(key, shape, dtype)``, bit for bit."""
    return jax.random.uniform(key, (math.prod(shape),), dtype).reshape(shape)


def coarse_normal(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Standard normal draws of 16 bits each, for noise that is drawn by the million: half the random bits.

    ``z = sqrt(2) erfinv((2 k + 1) / 2**16 - 1)``, k uniform in 0..65535: the normal's quantiles at 65,536 midpoints.
    Its standard deviation is 0.99999, its fourth moment 2.9991 and its largest value 4.32; neighbours lie 4e-5 apart in
    the middle and 0.25 at the ends.
    """
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count // 2),), jnp.uint32)
    # Stacked: the same numbers concatenated take XLA's CPU backend half as long again where a read is one product.
    halves = jnp.stack([words & 0xFFFF, words >> 16]).reshape(-1)[:count]
    middles = (halves.astype(jnp.int32).astype(dtype) - 32767.5) / 32768
    drawn = math.sqrt(2.0) * jax.lax.erf_inv(middles)
    # Fused with a product and its converters, XLA's CPU backend draws twice as slowly.
    return jax.lax.optimization_barrier(drawn).reshape(shape)
