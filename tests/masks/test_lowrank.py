"""LoRA beside a crossbar: the product that it stands for, and what is stored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from xbm_jax.crossbar import Adc, Conv, CrossbarSpec, Tiles, nominal_weights, plan, program, read
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.masks import LowRank

SPEC = CrossbarSpec(rows=16, adc=Adc(bits=None))
RULE = LowRank(rank=3, alpha=1.5)
RNG = np.random.default_rng(0)
CASES = {
    "dense": ((20, 6), None, (4, 20)),
    "conv": ((3, 3, 5, 6), Conv((2, 2), ((1, 1), (1, 1))), (2, 7, 7, 5)),
    "grouped": ((3, 3, 2, 8), Conv(groups=2), (2, 6, 6, 4)),
    "depthwise": ((3, 3, 1, 4), Conv(groups=4), (2, 6, 6, 4)),
}


def layer(shape: tuple[int, ...], conv: Conv | None) -> Tiles:
    kernel = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    return program(kernel, plan(kernel, SPEC, conv), jax.random.key(0), input_scale=1 / 255)


def moved(tiles: Tiles) -> dict[str, jax.Array]:
    start = RULE.init(tiles, jax.random.key(1))
    return {k: v + 0.1 * jax.random.normal(jax.random.key(2), v.shape) for k, v in start.items()}


@pytest.mark.parametrize(("shape", "conv", "x_shape"), slow_but(["dense", "grouped"], CASES))
def test_it_adds_a_kernel_of_low_rank(shape: tuple, conv: Conv | None, x_shape: tuple) -> None:
    """``x @ (W + alpha / r down up)``, for every group of a convolution its own."""
    tiles = layer(shape, conv)
    values, groups = moved(tiles), tiles.plan.groups
    x = jnp.asarray(RNG.uniform(0, 1, x_shape), jnp.float32)
    down, up = (np.asarray(values[k], np.float16).astype(np.float64) for k in ("down", "up"))
    rank = up.shape[1]
    assert rank == min(3, np.prod(shape[:-1]), shape[-1] // groups)
    down = down.reshape(*shape[:-1], groups, rank)
    added = 0.5 * np.einsum("...gr,grn->...gn", down, up).reshape(shape)
    assert np.linalg.matrix_rank(added.reshape(-1, shape[-1])) <= groups * rank
    y = RULE.beside(tiles, values, x)
    np.testing.assert_allclose(y, product(x, jnp.asarray(added, jnp.float32), conv), rtol=1e-4, atol=1e-4)
    after, gain = RULE.apply(tiles, values)
    assert after is tiles and gain is None and not RULE.rewrites_cells and RULE.computes_beside


@pytest.mark.parametrize(("shape", "conv", "x_shape"), slow_but(["conv"], CASES))
def test_training_starts_from_the_backbone_with_a_gradient(shape: tuple, conv: Conv | None, x_shape: tuple) -> None:
    tiles, x = layer(shape, conv), jnp.asarray(RNG.uniform(0, 1, x_shape), jnp.float32)
    start = RULE.init(tiles, jax.random.key(0))
    np.testing.assert_array_equal(RULE.beside(tiles, start, x), 0)
    grads = jax.grad(lambda v: jnp.sum(jnp.sin(read(tiles, x) + RULE.beside(tiles, v, x))))(start)
    assert float(jnp.abs(grads["up"]).min()) > 0
    np.testing.assert_array_equal(grads["down"], 0)  # as long as `up` is zero
    assert float(jnp.std(start["down"])) == pytest.approx(tiles.plan.rows**-0.5, rel=0.5)
    assert nominal_weights(tiles).shape == shape


def test_codes_are_half_precision_and_give_the_same_bits() -> None:
    tiles = layer(*CASES["conv"][:2])
    values, x = moved(tiles), jnp.asarray(RNG.uniform(0, 1, CASES["conv"][2]), jnp.float32)
    codes = RULE.encode(tiles, values)
    kept = RULE.stored(tiles.plan)
    for name, code in codes.items():
        assert code.dtype == jnp.uint16 and code.shape == kept[name].shape and kept[name].bits == 16
        assert kept[name].kind == "weights"
        np.testing.assert_array_equal(np.asarray(code).view(np.float16), np.asarray(values[name], np.float16))
    answer = jax.jit(lambda v: RULE.beside(tiles, v, x))
    np.testing.assert_array_equal(answer(codes), answer(values))
