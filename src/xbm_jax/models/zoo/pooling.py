"""Poolings that several backbones share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["adaptive_mean", "max_pool"]


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3x3 pixels of [batch, H, W, C], every second pixel, one pixel of padding that never wins."""
    pad = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pad)


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """Mean pooling of [batch, H, W, C] to [batch, size, size, C].

    Bin i of an axis of n pixels holds pixels ``floor(i n / size)`` up to, not including, ``ceil((i + 1) n / size)``.
    """
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_bins(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def _bins(pixels: int, size: int) -> np.ndarray:
    """Weights [size, pixels] of every pixel in every bin."""
    weights = np.zeros((size, pixels))
    for i in range(size):
        first, last = i * pixels // size, -(-(i + 1) * pixels // size)
        weights[i, first:last] = 1 / (last - first)
    return weights
