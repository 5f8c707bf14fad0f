"""Normalisation against Flax's layer and against NumPy in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xbm_jax.models.norm import batch_norm, layer_norm

EPSILON = 1e-3


def problem(shape: tuple[int, ...], seed: int = 0) -> tuple[jax.Array, dict, dict]:
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    x = rng.normal(size=shape) * rng.uniform(0.1, 3, channels) + rng.normal(size=channels) * 2
    affine = {"scale": rng.uniform(0.5, 1.5, channels), "bias": rng.normal(size=channels)}
    stats = {"mean": rng.normal(size=channels), "var": rng.uniform(0.1, 2, channels)}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, affine, stats))


def test_evaluation_mode_equals_flax() -> None:
    x, affine, stats = problem((4, 5, 6, 7))
    layer = nnx.BatchNorm(7, epsilon=EPSILON, use_running_average=True, rngs=nnx.Rngs(0))
    layer.scale.set_value(affine["scale"])  # type: ignore[union-attr]
    layer.bias.set_value(affine["bias"])  # type: ignore[union-attr]
    layer.mean.set_value(stats["mean"])
    layer.var.set_value(stats["var"])
    y, after = batch_norm(x, affine, stats, EPSILON, use_batch=False)
    np.testing.assert_allclose(y, layer(x), rtol=1e-5, atol=1e-5)
    assert after is stats


@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (9, 3), (2, 1, 1, 4)])
def test_batch_mode_equals_numpy(shape: tuple[int, ...]) -> None:
    x, affine, stats = problem(shape)
    y, after = batch_norm(x, affine, stats, EPSILON, use_batch=True)
    rows = np.asarray(x, np.float64).reshape(-1, shape[-1])
    normal = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + EPSILON)
    expected = normal * np.asarray(affine["scale"]) + np.asarray(affine["bias"])
    np.testing.assert_allclose(np.asarray(y).reshape(rows.shape), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after["mean"], 0.9 * np.asarray(stats["mean"]) + 0.1 * rows.mean(0), rtol=1e-5)
    unbiased = rows.var(0, ddof=1)
    np.testing.assert_allclose(after["var"], 0.9 * np.asarray(stats["var"]) + 0.1 * unbiased, rtol=1e-5)
    assert not np.allclose(0.9 * np.asarray(stats["var"]) + 0.1 * rows.var(0), after["var"], rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_running_statistics_follow_by_their_momentum(momentum: float) -> None:
    """As Flax's layer does, whose mean has no other estimate."""
    x, affine, stats = problem((4, 5, 6, 7))
    layer = nnx.BatchNorm(7, momentum=momentum, use_running_average=False, rngs=nnx.Rngs(0))
    layer.mean.set_value(stats["mean"])
    layer(x)
    _, after = batch_norm(x, affine, stats, EPSILON, use_batch=True, momentum=momentum)
    np.testing.assert_allclose(after["mean"], layer.mean.get_value(), rtol=1e-5, atol=1e-6)
    count = x.size // 7
    biased = (after["var"] - momentum * stats["var"]) * (count - 1) / count
    np.testing.assert_allclose(biased, (1 - momentum) * np.var(np.asarray(x), (0, 1, 2)), rtol=1e-3, atol=1e-6)


def test_a_batch_of_one_value_has_no_variance() -> None:
    x, affine, stats = problem((1, 1, 1, 3))
    y, after = batch_norm(x, affine, stats, EPSILON, use_batch=True)
    # Two products of about |mean| / sqrt(epsilon) cancel: one of their last places remains.
    last_place = float(jnp.abs(x).max()) * EPSILON**-0.5 * 2.0**-23
    np.testing.assert_allclose(y.reshape(-1), affine["bias"], atol=last_place)
    np.testing.assert_allclose(after["var"], 0.9 * stats["var"], rtol=1e-6)


def test_running_statistics_pass_no_gradient() -> None:
    x, affine, stats = problem((8, 3))

    def followed(x: jax.Array) -> jax.Array:
        after = batch_norm(x, affine, stats, EPSILON, use_batch=True)[1]
        return jnp.sum(after["mean"]) + jnp.sum(after["var"])

    np.testing.assert_array_equal(jax.grad(followed)(x), 0)


def test_batch_statistics_pass_their_gradient() -> None:
    """Each channel is centred over the batch, so any gradient sums to zero and has no slope along x."""
    x, affine, stats = problem((16, 3))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)

    def loss(x: jax.Array, use_batch: bool) -> jax.Array:
        return jnp.sum(weights * batch_norm(x, affine, stats, 0.0, use_batch=use_batch)[0])

    grad = jax.grad(loss)(x, True)
    np.testing.assert_allclose(jnp.sum(grad, 0), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.sum(grad * x, 0), 0, atol=1e-4)
    assert float(jnp.abs(jnp.sum(jax.grad(loss)(x, False), 0)).min()) > 1e-2


def test_layer_norm_equals_numpy() -> None:
    """In double precision, by its definition."""
    x, affine, _ = problem((4, 5, 7))
    wide = np.asarray(x, np.float64)
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    expected = (wide - mean) / np.sqrt(var + EPSILON) * np.asarray(affine["scale"]) + np.asarray(affine["bias"])
    np.testing.assert_allclose(layer_norm(x, affine, EPSILON), expected, rtol=1e-5, atol=1e-5)
