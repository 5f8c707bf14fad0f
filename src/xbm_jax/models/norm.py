"""Normalisation as functions: the layers whose scale and bias every task may own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["batch_norm", "folded_norm", "folded_norms", "layer_norm"]


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

    A folded norm's ``affine`` (:func:`folded_norm`) needs no statistics: ``x * slope + shift``.

    With ``use_batch`` mean and variance are the batch's, and the running ones follow,
    ``r <- momentum r + (1 - momentum) b`` (Flax's convention; PyTorch writes 0.1 for 0.9), the running variance by the
    unbiased estimate (Ioffe 2015, algorithm 2).
    """
    if "slope" in affine:
        return x * affine["slope"].astype(x.dtype) + affine["shift"].astype(x.dtype), stats
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


def folded_norm(affine: dict[str, Any], stats: dict[str, jax.Array], epsilon: float) -> dict[str, jax.Array]:
    """Two numbers a channel that stand for a batch norm's four; what is folded already passes unchanged.

    slope = scale / sqrt(var + epsilon),   shift = bias - mean * slope
    """
    if "slope" in affine:
        return affine
    slope = affine["scale"] * jax.lax.rsqrt(stats["var"] + epsilon)
    return {"slope": slope, "shift": affine["bias"] - stats["mean"] * slope}


def folded_norms(
    norms: Mapping[str, dict[str, Any]], stats: Mapping[str, Any], epsilons: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """All norms of a network by path, batch norms folded with their statistics; layer norms have none and stay."""
    return {
        path: folded_norm(affine, stats[path], epsilons[path]) if path in stats else affine
        for path, affine in norms.items()
    }


def layer_norm(x: jax.Array, affine: dict[str, jax.Array], epsilon: float) -> jax.Array:
    """``(x - mean) / sqrt(var + epsilon) * scale + bias`` over the last axis of each example (Ba 2016).

    One of ``scale`` and ``bias`` may be left out.
    """
    mean = jnp.mean(x, -1, keepdims=True)
    var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    y = (x - mean) * jax.lax.rsqrt(var + epsilon)
    y = y * affine["scale"].astype(x.dtype) if "scale" in affine else y
    return y + affine["bias"].astype(x.dtype) if "bias" in affine else y


def _normalise(x: jax.Array, affine: dict, mean: jax.Array, var: jax.Array, epsilon: float) -> jax.Array:
    folded = folded_norm(affine, {"mean": mean, "var": var}, epsilon)
    return x * folded["slope"] + folded["shift"]
