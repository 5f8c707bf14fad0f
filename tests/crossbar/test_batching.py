"""Convolutions under ``vmap``: the same numbers, and on a CPU no grouped convolution."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from crossbar.jaxprs import traced
from xbm_jax.crossbar.primitives.batching import one_by_one
from xbm_jax.crossbar.primitives.products import Conv, product

CONV = Conv(strides=(2, 1), padding=((1, 1), (1, 0)))


def inputs(tasks: int = 3) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(tasks, 2, 6, 5, 4)), rng.normal(size=(tasks, 3, 2, 4, 5))
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(product(x, kernel, CONV)))


def plain_loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
    dims = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (2, 1), CONV.padding, dimension_numbers=dims, precision="highest")
    return jnp.sum(jnp.sin(y))


@pytest.mark.parametrize("tasks", [3, 17])
@pytest.mark.parametrize("in_axes", [(0, 0), (0, None), (None, 0)])
def test_vmap_and_grad_are_those_of_the_native_convolution(tasks: int, in_axes: tuple) -> None:
    args = [value if axis == 0 else value[0] for value, axis in zip(inputs(tasks), in_axes, strict=True)]
    ours, plain = (jax.vmap(jax.value_and_grad(f, (0, 1)), in_axes)(*args) for f in (loss, plain_loss))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_vmap_within_vmap() -> None:
    x, kernel = inputs(4)
    stacked = [value.reshape(2, 2, *value.shape[1:]) for value in (x, kernel)]
    ours = jax.vmap(jax.vmap(jax.grad(loss, 1)))(*stacked)
    np.testing.assert_allclose(
        ours.reshape(kernel.shape), jax.vmap(jax.grad(plain_loss, 1))(x, kernel), rtol=1e-4, atol=1e-5
    )


def test_gradients_of_gradients() -> None:
    x, kernel = (value[0] for value in inputs())
    ours, plain = (jax.grad(lambda k, f=f: jnp.sum(jax.grad(f, 1)(x, k) ** 2))(kernel) for f in (loss, plain_loss))
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_tasks_of_their_own_kernels_make_no_grouped_convolution() -> None:
    def groups(function: object, platform: str = "cpu") -> set[str]:
        traced = jax.jit(jax.vmap(jax.grad(function, (0, 1)))).trace(*inputs())  # type: ignore[arg-type]
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return set(re.findall(r"(?:batch|feature)_group_count = (\d+)", text))

    assert groups(loss) == {"1"}
    assert groups(loss, "cuda") == {"1", "3"}  # the faster one there
    assert groups(plain_loss) == {"1", "3"}


def test_a_shared_argument_keeps_the_batched_form() -> None:
    matmul = one_by_one(jnp.matmul)
    x, y = jnp.ones((3, 4, 5)), jnp.ones((5, 2))
    counts = [
        str(traced(jax.vmap(matmul, axes), *args)).count("dot_general")
        for axes, args in (((0, None), (x, y)), ((0, 0), (x, jnp.stack([y] * 3))))
    ]
    assert counts == [1, 3]
