"""The forms of a product on a CPU, against XLA's own convolution. On integers every order of the sum is exact."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from crossbar.jaxprs import products as products_of
from xbm_jax.crossbar.primitives.platforms import known
from xbm_jax.crossbar.primitives.products import Conv, product, tile_product


def integers(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(-9, 10, shape), jnp.float32)


def xla(x: jax.Array, kernel: jax.Array, conv: Conv) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        conv.strides,
        conv.padding,
        rhs_dilation=conv.dilation,
        feature_group_count=conv.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


steps = st.tuples(st.integers(1, 2), st.integers(1, 2))
sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
paddings = st.one_of(st.sampled_from(["SAME", "VALID"]), st.tuples(sides, sides))


@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    conv=st.builds(Conv, strides=steps, dilation=steps, padding=paddings, groups=st.integers(2, 3)),
    per_channel=st.integers(1, 2),
)
def test_depthwise_is_the_convolution(kernel: tuple[int, int], conv: Conv, per_channel: int) -> None:
    x, weights = integers(0, 2, 6, 7, conv.groups), integers(1, *kernel, 1, conv.groups * per_channel)
    got = jax.jit(product, static_argnums=2)(x, weights, conv)
    np.testing.assert_array_equal(got, xla(x, weights, conv))


@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    conv=st.builds(Conv, strides=steps, dilation=steps, padding=paddings, groups=st.integers(2, 3)),
    per_channel=st.integers(1, 2),
)
@pytest.mark.slow
def test_depthwise_gradients_are_the_convolutions(kernel: tuple[int, int], conv: Conv, per_channel: int) -> None:
    """Strides that leave input pixels unread and dilated taps among them."""
    x, weights = integers(0, 2, 6, 7, conv.groups), integers(1, *kernel, 1, conv.groups * per_channel)
    dy = integers(2, *xla(x, weights, conv).shape)

    @jax.jit
    def gradients(x: jax.Array, weights: jax.Array, dy: jax.Array) -> list[Any]:
        return [jax.vjp(lambda x, w, f=f: f(x, w, conv), x, weights)[1](dy) for f in (product, xla)]

    for got, want in zip(*gradients(x, weights, dy), strict=True):
        np.testing.assert_array_equal(got, want)


@given(
    taps=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    padding=paddings,
    pixels=st.tuples(st.integers(4, 6), st.integers(4, 7)),
    columns=st.integers(1, 16),
)
def test_pixel_pairs_are_the_convolution(
    taps: tuple[int, int], padding: Any, pixels: tuple[int, int], columns: int
) -> None:
    """Also where a row has an odd number of pixels: the plain form then."""
    conv, everything = Conv(padding=padding), np.ones((*taps, 2), bool)
    x, weights = integers(0, 2, *pixels, 2), integers(1, *taps, 2, columns)
    np.testing.assert_array_equal(tile_product(x, weights, conv, everything), xla(x, weights, conv))


def strides_of(x: jax.Array, weights: jax.Array, conv: Conv, on_cpu: bool = True) -> list[tuple[int, int]]:
    """Window strides of the convolutions that a tile of all rows is computed by."""
    everything = np.ones(weights.shape[:3], bool)
    with known(on_cpu):
        jaxpr = jax.make_jaxpr(lambda x, w: tile_product(x, w, conv, everything))(x, weights)
    return [equation.params["window_strides"] for equation in products_of(jaxpr)]


@pytest.mark.parametrize(
    ("conv", "columns", "channels", "width", "paired"),
    [
        (Conv(), 16, 2, 6, True),
        (Conv(), 17, 2, 6, False),  # XLA's own is fast
        (Conv(), 16, 3, 6, False),  # odd channels
        (Conv(), 16, 2, 7, False),  # an odd row of pixels
        (Conv(strides=(2, 2)), 16, 2, 7, False),
        (Conv(dilation=(1, 2)), 16, 2, 8, False),
    ],
)
def test_pixel_pairs_are_chosen_by_shape(conv: Conv, columns: int, channels: int, width: int, paired: bool) -> None:
    found = strides_of(jnp.zeros((1, 6, width, channels)), jnp.zeros((3, 3, channels, columns)), conv)
    assert found == [(1, 2) if paired else conv.strides]


def test_other_platforms_take_the_plain_forms() -> None:
    x = jnp.zeros((1, 6, 6, 2))
    pairs, depthwise = (jnp.zeros((3, 3, 2, 4)), Conv()), (jnp.zeros((3, 3, 1, 2)), Conv(groups=2))
    assert (strides_of(x, *pairs), strides_of(x, *depthwise)) == ([(1, 2)], [])
    assert strides_of(x, *pairs, on_cpu=False) == strides_of(x, *depthwise, on_cpu=False) == [(1, 1)]


def test_the_form_is_chosen_by_the_platform_that_a_program_is_lowered_for() -> None:
    """Not by the process's: this one has a CPU alone. The strides tell the forms apart."""
    x, kernel, everything = jnp.zeros((1, 6, 6, 2)), jnp.zeros((3, 3, 2, 4)), np.ones((3, 3, 2), bool)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(tile_product(x, kernel, Conv(), everything) ** 2)

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}
    assert [name for name, text in texts.items() if "stride = [1, 2]" in text] == ["cpu"]
    assert " conditional(" not in str(jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text())
