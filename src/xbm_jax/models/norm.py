"""Normalisation as functions: the layers whose scale and bias every task may own."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["batch_norm", "layer_norm"]


def batch_norm(
    x: jax.Array,
    affine: dict[str, jax.Array],
    stats: dict[str, jax.Array],
    epsilon: float,
    *,
    use_batch: bool,
    momentum: float = 0.9,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """``(x - mean) / sqrt(var + epsilon) * scale + bias`` per channel (last axis), and the statistics after it.

    With ``use_batch`` mean and variance are the batch's, and the running ones follow,
    ``r <- momentum r + (1 - momentum) b`` (Flax's convention; PyTorch writes 0.1 for 0.9), the running variance by the
    unbiased estimate (Ioffe 2015, algorithm 2).
    """
    if not use_batch:
        return _normalise(x, affine, stats["mean"], stats["var"], epsilon), stats
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    var = jnp.mean((x - mean) ** 2, axes)
    count = x.size // x.shape[-1]
    followed = jax.lax.stop_gradient(
        {
            "mean": momentum * stats["mean"] + (1 - momentum) * mean,
            "var": momentum * stats["var"] + (1 - momentum) * var * (count / max(count - 1, 1)),
        }
    )
    return _normalise(x, affine, mean, var, epsilon), followed


def layer_norm(x: jax.Array, affine: dict[str, jax.Array], epsilon: float) -> jax.Array:
    """``(x - mean) / sqrt(var + epsilon) * scale + bias`` over the last axis of each example (Ba 2016)."""
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + epsilon) * affine["scale"] + affine["bias"]


def _normalise(x: jax.Array, affine: dict, mean: jax.Array, var: jax.Array, epsilon: float) -> jax.Array:
    slope = affine["scale"] * jax.lax.rsqrt(var + epsilon)
    return x * slope + (affine["bias"] - mean * slope)
