"""Every kind of layer as a product that arrays compute: the layer's own answer, and its own kernel back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import ModelError
from xbm_jax.models.modules.layers import form_of, kind_of

RNGS = nnx.Rngs(0)
NONE: Any = None

CONVS: dict[str, tuple[type, tuple[int, ...], dict[str, Any]]] = {
    "1-D": (nnx.Conv, (3,), {"strides": 2}),
    "1-D causal": (nnx.Conv, (3,), {"padding": "CAUSAL", "kernel_dilation": 2}),
    "1-D grouped": (nnx.Conv, (2,), {"feature_group_count": 2, "padding": "VALID"}),
    "1-D circular": (nnx.Conv, (4,), {"padding": "CIRCULAR"}),
    "2-D circular": (nnx.Conv, (3, 2), {"padding": "CIRCULAR", "kernel_dilation": (1, 2)}),
    "2-D reflected": (nnx.Conv, (3, 3), {"padding": "REFLECT", "strides": 2}),
    "2-D same lower": (nnx.Conv, (2, 4), {"padding": "SAME_LOWER"}),
    "2-D negative": (nnx.Conv, (3, 3), {"padding": ((-1, 1), (0, 2))}),
    "2-D spread": (nnx.Conv, (3, 3), {"input_dilation": (2, 3), "strides": (1, 2), "padding": (1, 0)}),
    "3-D": (nnx.Conv, (2, 3, 1), {"strides": (1, 2, 1)}),
    "3-D all": (
        nnx.Conv,
        (3, 2, 2),
        {"strides": (2, 1, 1), "kernel_dilation": (2, 1, 1), "feature_group_count": 2, "padding": 1},
    ),
    "3-D spread": (nnx.Conv, (2, 2, 2), {"input_dilation": 2, "padding": 1, "feature_group_count": 2}),
    "transposed 1-D": (nnx.ConvTranspose, (4,), {"strides": 2}),
    "transposed 2-D": (nnx.ConvTranspose, (3, 3), {"strides": (2, 3)}),
    "transposed valid": (nnx.ConvTranspose, (2, 5), {"strides": (3, 2), "padding": "VALID"}),
    "transposed dilated": (nnx.ConvTranspose, (3, 3), {"strides": (2, 2), "kernel_dilation": (2, 1)}),
    "transposed turned": (nnx.ConvTranspose, (3, 2), {"strides": (2, 2), "transpose_kernel": True}),
    "transposed padded": (nnx.ConvTranspose, (3, 3), {"strides": (2, 2), "padding": ((1, 0), (0, 2))}),
    "transposed 3-D turned": (nnx.ConvTranspose, (2, 3, 2), {"strides": (1, 2, 1), "transpose_kernel": True}),
}
SIZES = (6, 5, 4)


def check(layer: Any, x: jax.Array) -> None:
    """The layer's answer is its form's, and its kernel is what its form makes of the kernel on arrays."""
    form, kernel = form_of("layer", layer), layer.kernel[...]
    on_arrays = form.on_arrays(kernel)
    assert on_arrays.ndim == (2 if form.conv is None else 4)
    assert on_arrays.size == kernel.size
    bias = None if layer.bias is None else layer.bias[...]
    got = form.answer(lambda x: product(x, on_arrays, form.conv), x, bias)
    want = layer(x)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(jnp.abs(want).max()))
    np.testing.assert_array_equal(form.own(on_arrays, kernel.shape), kernel)


def drawn(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name: str) -> None:
    kind, taps, options = CONVS[name]
    layer = kind(4, 6, taps, rngs=RNGS, **options)
    layer.bias.set_value(drawn((6,)))
    check(layer, drawn((2, *SIZES[: len(taps)], 4)))


@pytest.mark.parametrize("kind", [nnx.Conv, nnx.ConvTranspose])
@pytest.mark.parametrize("taps", [(3,), (3, 3), (1, 2, 2)])
def test_more_than_one_axis_of_examples(kind: Any, taps: tuple[int, ...]) -> None:
    check(kind(4, 6, taps, rngs=RNGS), drawn((2, 3, *SIZES[: len(taps)], 4)))


@pytest.mark.parametrize("name", CONVS)
def test_driven_lines_are_those_of_a_literal_count(name: str) -> None:
    """Taps that meet no zero put in between, counted by what each answer's window holds of marked inputs."""
    kind, taps, options = CONVS[name]
    layer = kind(4, 6, taps, rngs=RNGS, **options)
    form: Any = form_of("layer", layer)
    shape = (1, *SIZES[: len(taps)], 4)
    driven = form.driven(shape)
    if getattr(form, "spread", (1,)) == (1,) * len(getattr(form, "spread", (1,))):
        assert driven == (1.0, 1.0)
        return
    widths, hits = form._widths(shape[1:-1]), []
    for axis, side in enumerate(shape[1:-1]):
        (low, high), spread = widths[axis], form.spread[axis]
        marked = np.array([(place - low) % spread == 0 for place in range((side - 1) * spread + 1 + low + high)])
        offsets = np.arange(taps[axis]) * form.dilation[axis]
        starts = range(0, len(marked) - offsets[-1], form.strides[axis])
        hits.append(np.array([marked[start + offsets].sum() for start in starts]))
    held = [len(h) for h in hits]
    assert form.answer(lambda x: product(x, form.on_arrays(layer.kernel[...]), form.conv), drawn(shape), None).shape[
        1:-1
    ] == tuple(held)
    read = np.prod([np.sum(h > 0) for h in hits])
    assert driven.answers == pytest.approx(read / np.prod(held))
    assert driven.lines == pytest.approx(np.prod([h.sum() for h in hits]) / (read * np.prod(taps)))


def test_an_answer_that_no_input_goes_into_is_the_bias_without_a_read() -> None:
    """Of a transposed layer whose stride is beyond its taps; converters that add an offset to every read show it."""
    layer: Any = nnx.ConvTranspose(4, 6, (1, 2), strides=(2, 3), padding="VALID", rngs=RNGS)
    layer.bias.set_value(drawn((6,)))
    form, x = form_of("layer", layer), drawn((2, 3, 3, 4))
    bias = layer.bias[...]
    y = form.answer(lambda x: product(x, form.on_arrays(layer.kernel[...]), form.conv) + 7.0, x, bias)
    idle = np.asarray((y == bias).all((0, -1)))
    plain = np.asarray((layer(x) == bias).all((0, -1)))
    np.testing.assert_array_equal(idle, plain)
    assert form.driven(x.shape).answers == pytest.approx(1 - idle.mean()) and 0.4 < idle.mean() < 0.8


DENSE: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "linear": (lambda: nnx.Linear(4, 6, rngs=RNGS), (2, 3, 4)),
    "several axes": (lambda: nnx.LinearGeneral((2, 3), (4, 5), axis=(-2, -1), rngs=RNGS), (2, 7, 2, 3)),
    "axes in between": (lambda: nnx.LinearGeneral((2, 3), 4, axis=(1, -1), rngs=RNGS), (5, 2, 7, 3)),
    "axes the other way": (lambda: nnx.LinearGeneral((2, 3), 4, axis=(-1, 1), rngs=RNGS), (5, 2, 7, 3)),
    "projection": (lambda: nnx.Einsum("btd,dnh->bnth", (4, 2, 3), (2, 3), rngs=RNGS), (2, 5, 4)),
    "back": (lambda: nnx.Einsum("bnth,nhd->btd", (2, 3, 4), (4,), rngs=RNGS), (5, 2, 7, 3)),
    "turned kernel": (lambda: nnx.Einsum("...a,ba->...b", (6, 4), (6,), rngs=RNGS), (2, 3, 4)),
    "examples last": (lambda: nnx.Einsum("ab..., ac -> cb...", (4, 3), rngs=RNGS), (4, 2, 3)),
    "bias of ones": (lambda: nnx.Einsum("...a,abc->...cb", (4, 1, 6), (6,), rngs=RNGS), (2, 3, 4)),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_layers(name: str) -> None:
    make, shape = DENSE[name]
    layer = make()
    if layer.bias is not None:
        layer.bias.set_value(drawn(layer.bias.shape))
    check(layer, drawn(shape))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nnx.Conv(4, 6, (3, 3), mask=jnp.ones((3, 3, 4, 6)), rngs=RNGS), "multiply it into the weights"),
        (lambda: nnx.Conv(4, 6, (1, 1, 1, 1), rngs=RNGS), "4 dimensions, not 1, 2 or 3"),
        (lambda: nnx.Conv(4, 6, (3, 3), padding="CAUSAL", rngs=RNGS), "CAUSAL is for one dimension"),
        (lambda: nnx.Conv(4, 6, (3, 3), padding="NONSENSE", rngs=RNGS), "no padding is called NONSENSE"),
        (lambda: nnx.Conv(4, 6, (3, 3), padding=(1, 1, 1), rngs=RNGS), "not 2 pairs"),
        (lambda: nnx.Conv(4, 6, (3, 3), padding=NONE, rngs=RNGS), "convolution that a crossbar computes"),
        (lambda: nnx.Conv(4, 6, (3, 3), strides=(1, 2, 3), rngs=RNGS), "3 numbers for 2 dimensions"),
        (lambda: nnx.Einsum("ab,ac->abc", (4, 3), rngs=RNGS), "no letter in all three parts"),
        (lambda: nnx.Einsum("ab,cd->abd", (3, 4), rngs=RNGS), "a dense layer"),
        (lambda: nnx.Einsum("ab,bc->c", (3, 4), rngs=RNGS), "a dense layer"),
        (lambda: nnx.LinearGeneral(4, 6, batch_axis={0: 2}, rngs=RNGS), "none: a kernel of its own"),
    ],
)
def test_what_no_array_computes_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        form_of("blocks/3/conv", make())
    assert caught.value.field == "blocks/3/conv"


@pytest.mark.parametrize(
    "make",
    [
        lambda: nnx.ConvTranspose(4, 6, (3, 3), padding="CIRCULAR", rngs=RNGS),
        lambda: nnx.ConvTranspose(4, 6, (3, 3), mask=jnp.ones((3, 3, 4, 6)), rngs=RNGS),
        lambda: nnx.LayerNorm(4, use_bias=False, use_scale=False, rngs=RNGS),
        lambda: nnx.GroupNorm(4, 2, use_bias=False, use_scale=False, rngs=RNGS),
        lambda: nnx.RMSNorm(4, use_scale=False, rngs=RNGS),
    ],
)
def test_what_stays_digital_is_no_layer_of_the_chip(make: Callable[[], Any]) -> None:
    assert kind_of(make()) is None
