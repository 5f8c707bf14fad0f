"""What a module does with its layers: what a chip can answer for is read right, anything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.tiny import IDEAL, PREPROCESS, random_arrays, resnet20, tiny_images
from xbm_jax.crossbar import Tiles, nominal_weights
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import ModelError
from xbm_jax.masks import Method
from xbm_jax.models import (
    MODELS,
    Backbone,
    Network,
    backbone,
    calibrate,
    digital_weights,
    forward,
    network_from_module,
    program,
    source_trained,
)
from xbm_jax.models.modules.layers import layers
from xbm_jax.models.structure import leaves_of
from xbm_jax.models.trial import TRIED, called_layers
from xbm_jax.tasks import inspect

SOURCE = Method("source", norms="frozen")


class Holds(nnx.Module):
    """A stem, what a test puts between, the mean over pixels, a head, what a test puts after it."""

    def __init__(
        self, make: Callable[[nnx.Rngs], Any], call: Callable[..., jax.Array], after: Callable | None = None
    ) -> None:
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.held = make(rngs)
        self.call, self.after = call, after
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.head(self.call(self.held, nnx.relu(self.stem(x))).mean((1, 2)))
        return x if self.after is None else self.after(x)


def network_of(make: Callable[[nnx.Rngs], Any], call: Callable[..., jax.Array], after: Any = None) -> Network:
    return network_from_module(
        lambda: Holds(make, call, after), name="mine", head="head", preprocess=PREPROCESS, image_size=12
    )


def plainly(layer: Any, x: jax.Array) -> jax.Array:
    return layer(x)


def linear(rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(8, 8, rngs=rngs)


def nominal(made: Backbone, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The answers of the module with the weights that levels stand for, by itself and through exact reads."""
    chip = program(made, IDEAL, jax.random.key(0))
    arrays = dict(made.arrays)
    for path, tiles in chip.tiles.items():
        own = made.network.forms[path].own
        arrays[f"{path}/kernel"] = own(nominal_weights(tiles), arrays[f"{path}/kernel"].shape)

    def exact(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        return product(x, nominal_weights(tiles), tiles.plan.conv)

    got, _ = forward(chip, SOURCE, source_trained(chip), chip.stats, jnp.asarray(images), layer_read=exact)
    return np.asarray(Backbone(made.network, arrays).logits(images)), np.asarray(got)


# ---------------------------------------------------------------------------------------------------------------------
# Supported


class Pair(nnx.Module):
    """Two layers in a container of choice."""

    def __init__(self, hold: Callable[[dict[str, Any]], Any], keys: tuple[str, str], rngs: nnx.Rngs) -> None:
        self.pair = hold({key: linear(rngs) for key in keys})


SUPPORTED: dict[str, tuple[Callable[[nnx.Rngs], Any], Callable[..., jax.Array], set[str]]] = {
    "sequential": (lambda r: nnx.Sequential(linear(r), nnx.relu), plainly, {"held/layers/0"}),
    "keys that are digits": (
        lambda r: Pair(nnx.Dict, ("0", "1"), r),
        lambda held, x: held.pair["1"](held.pair["0"](x)),
        {"held/pair/0", "held/pair/1"},
    ),
    "keys out of order, iterated over": (
        lambda r: Pair(nnx.Dict, ("b a", "a"), r),
        lambda held, x: held.pair["a"](x) if list(held.pair) == ["b a", "a"] else x,
        {"held/pair/a"},
    ),
    "a plain dictionary": (
        lambda r: Pair(nnx.data, ("z", "a"), r),
        lambda held, x: held.pair["a"](x) if list(held.pair) == ["z", "a"] else x,
        {"held/pair/a"},
    ),
    "a tuple": (lambda r: nnx.data((linear(r), linear(r))), lambda held, x: held[1](held[0](x)), {"held/0", "held/1"}),
    "called twice": (linear, lambda held, x: held(nnx.relu(held(x))), {"held"}),
    "two names": (
        lambda r: nnx.List([one := linear(r), one]),
        lambda held, x: held[1](nnx.relu(held[0](x))),
        {"held/0"},
    ),
    "never called": (lambda r: nnx.BatchNorm(8, rngs=r), lambda held, x: x, set()),
    "kernel read, never called": (linear, lambda held, x: x @ held.kernel[...], set()),
    "dropout": (lambda r: nnx.Dropout(0.5, rngs=r), plainly, set()),
    "an index": (lambda r: nnx.Variable(jnp.arange(8)[::-1]), lambda held, x: x[..., held[...]], set()),
    "flags": (lambda r: nnx.Variable(jnp.arange(8) % 2 == 0), lambda held, x: jnp.where(held[...], x, 0), set()),
    "a low-rank layer": (lambda r: nnx.LoRALinear(8, 8, lora_rank=2, rngs=r), plainly, set()),
    "input by keyword": (linear, lambda held, x: held(inputs=x), {"held"}),
    "one dimension": (lambda r: nnx.Conv(8, 8, (3,), strides=2, rngs=r), plainly, {"held"}),
    "three dimensions": (
        lambda r: nnx.Conv(8, 8, (2, 3, 3), feature_group_count=2, rngs=r),
        lambda held, x: held(jnp.stack([x, 2 * x, -x], 1)).sum(1),
        {"held"},
    ),
    "transposed": (lambda r: nnx.ConvTranspose(8, 8, (3, 3), strides=(2, 2), rngs=r), plainly, {"held"}),
    "circular": (lambda r: nnx.Conv(8, 8, (3, 3), padding="CIRCULAR", rngs=r), plainly, {"held"}),
    "axes in between": (
        lambda r: nnx.LinearGeneral((6, 8), 8, axis=(1, -1), rngs=r),
        lambda held, x: held(x)[:, None],
        {"held"},
    ),
    "neither scale nor bias": (lambda r: nnx.LayerNorm(8, use_scale=False, use_bias=False, rngs=r), plainly, set()),
    "root mean square without scale": (lambda r: nnx.RMSNorm(8, use_scale=False, rngs=r), plainly, set()),
    "bias of another shape": (
        lambda r: nnx.Einsum("...a,abc->...bc", (8, 1, 8), (8,), rngs=r),
        lambda held, x: held(x)[..., 0, :],
        {"held"},
    ),
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_what_a_chip_can_answer_for_is_read_right(name: str) -> None:
    make, call, paths = SUPPORTED[name]
    network = network_of(make, call)
    assert set(network.kernels) == paths | {"stem", "head"}
    assert "held" not in network.norms
    own = {p: random_arrays(network)[p] for p, leaf in network.leaves.items() if not leaf.random}
    own |= {p: np.arange(8)[::-1] if name == "an index" else a > 0 for p, a in own.items() if p == "held" and not paths}
    want, got = nominal(backbone(network, own), tiny_images(3))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("axis", [1, 2, -2])
@pytest.mark.parametrize("kind", [nnx.BatchNorm, nnx.LayerNorm])
def test_norms_over_another_axis(kind: Any, axis: int) -> None:
    """Six rows and columns after the stem, eight channels."""
    axes: dict[str, Any] = {"axis": axis} if kind is nnx.BatchNorm else {"reduction_axes": axis, "feature_axes": axis}
    network = network_of(lambda r: kind(6, **axes, rngs=r), plainly)
    want, got = nominal(backbone(network, random_arrays(network)), tiny_images(3))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_layer_that_is_called_twice_is_measured_over_both_calls() -> None:
    """Its first input is ten times the other: a scale of the last call alone would clip it; each call is counted."""
    network = network_of(linear, lambda held, x: held(10 * x) + held(0.1 * x))
    chip = calibrate(program(backbone(network, random_arrays(network)), IDEAL, jax.random.key(0)), tiny_images(16))
    inputs = []

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        if path == "held":
            inputs.append(float(x.max()))
        return product(x, nominal_weights(tiles), tiles.plan.conv)

    images = tiny_images(16)
    forward(chip, SOURCE, source_trained(chip), chip.stats, jnp.asarray(images), layer_read=observe)
    scale = chip.tiles["held"].input_scale
    assert scale is not None and len(inputs) == 2
    np.testing.assert_allclose(float(scale) * 255, max(inputs), rtol=0.05)
    assert {layer.path: layer.macs for layer in inspect(chip, images).layers}["held"] == 2 * 36 * 8 * 8


# ---------------------------------------------------------------------------------------------------------------------
# Refused


class Scaled(nnx.Module):
    """A stack of layers, read one after another by a scan."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stack = nnx.split_rngs(splits=2)(nnx.vmap(linear))(rngs)


def shared(rngs: nnx.Rngs) -> nnx.List:
    one, other = linear(rngs), linear(rngs)
    other.kernel = one.kernel
    return nnx.List([one, other])


REFUSED: dict[str, tuple[Callable[[nnx.Rngs], Any], Callable[..., jax.Array], str, str]] = {
    "jit": (linear, lambda held, x: nnx.jit(plainly)(held, x), "held", "inside of a transformation"),
    "remat": (linear, lambda held, x: nnx.remat(plainly)(held, x), "held", "inside of a transformation"),
    "a closure": (linear, lambda held, x: jax.checkpoint(lambda x: held(x))(x), "held", "inside of a transformation"),
    "rnn": (
        lambda r: nnx.RNN(nnx.LSTMCell(8, 8, rngs=r)),
        lambda held, x: held(x[:, 0])[:, None],
        "held/cell/ii",
        "a recurrent",
    ),
    "stacked": (Scaled, lambda held, x: x, "held/stack", "layers that are stacked"),
    "shared kernel": (shared, lambda held, x: held[1](held[0](x)), "held/1/kernel", "shared with another layer"),
    "read and called": (linear, lambda held, x: held(x) @ held.kernel[...], "held/kernel", "read by the module"),
    "rewritten": (lambda r: nnx.SpectralNorm(linear(r), rngs=r), plainly, "held/layer_instance/kernel", "read by the"),
    "batch norm twice": (lambda r: nnx.BatchNorm(8, rngs=r), lambda held, x: held(held(x)), "held", "called twice"),
    "batch statistics": (
        lambda r: nnx.BatchNorm(8, rngs=r),
        lambda held, x: held(x, use_running_average=False),
        "held",
        "called with ['use_running_average']",
    ),
    "masked": (lambda r: nnx.LayerNorm(8, rngs=r), lambda held, x: held(x, mask=x > 0), "held", "called with ['mask']"),
    "noise": (
        lambda r: nnx.Dropout(0.5, rngs=r),
        lambda held, x: held(x, deterministic=False),
        "held/rngs/count",
        "draws random numbers",
    ),
    "slash": (lambda r: Pair(nnx.Dict, ("a/b", "c"), r), lambda held, x: x, "module", "names without '/'"),
    "dot": (
        lambda r: nnx.Dict({"a.b": linear(r), "a": nnx.Dict({"b": linear(r)})}),
        lambda held, x: x,
        "module",
        "a path",
    ),
    "no array": (lambda r: nnx.Variable({"a": jnp.ones(3)}), lambda held, x: x, "held", "an array"),
    "a key": (lambda r: nnx.Variable(jax.random.key(0)), lambda held, x: x, "held", "keys belong to nnx.Rngs"),
    "unhashable": (lambda r: nnx.Conv(8, 8, (3, 3), strides=[1, 1], rngs=r), plainly, "held.strides", "hashed"),
    "whole numbers": (lambda r: nnx.Linear(8, 8, dtype=jnp.int32, rngs=r), plainly, "held.dtype", "a floating dtype"),
    "complex weights": (
        lambda r: nnx.Linear(8, 8, param_dtype=jnp.complex64, rngs=r),
        lambda held, x: held(x).real,
        "held.kernel.dtype",
        "a floating dtype",
    ),
    "another product": (
        lambda r: nnx.Linear(8, 8, dot_general=lambda *a, **k: 2 * jax.lax.dot_general(*a, **k), rngs=r),
        plainly,
        "held.dot_general",
        "a chip computes no other",
    ),
    "no momentum": (lambda r: nnx.BatchNorm(8, momentum=1.0, rngs=r), plainly, "held.momentum", "below 1"),
    "norm over images": (
        lambda r: nnx.LayerNorm(2, reduction_axes=0, feature_axes=0, rngs=r),
        plainly,
        "held",
        "the batch",
    ),
    "norm over a device axis": (lambda r: nnx.LayerNorm(8, axis_name="i", rngs=r), plainly, "held.axis_name", "None"),
    "one image at a time": (
        lambda r: nnx.Conv(8, 8, (3, 3), rngs=r),
        lambda held, x: jnp.stack([held(each) for each in x]),
        "held",
        "[batch, height, width, channels]",
    ),
    "dense over the batch": (
        lambda r: nnx.LinearGeneral(TRIED, TRIED, axis=0, rngs=r),
        lambda held, x: jnp.moveaxis(held(x), -1, 0),
        "held",
        "not over the batch",
    ),
    "no pixel is left": (
        lambda r: nnx.Conv(8, 8, (7, 7), padding="VALID", rngs=r),
        plainly,
        "held",
        "images that are large enough",
    ),
    "does not fit": (lambda r: nnx.Linear(9, 8, rngs=r), plainly, "module", "TypeError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_chip_answers_for_is_refused_by_name(name: str) -> None:
    make, call, field, says = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        network_of(make, call)
    assert caught.value.field == field
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("after", "says"),
    [(nnx.softmax, "something is computed after the head"), (lambda x: (x, x), "something is computed after the head")],
)
def test_the_head_answers_last(after: Callable, says: str) -> None:
    """Features, which heads are trained on, would go through what is behind the head too."""
    with pytest.raises(ModelError, match=says) as caught:
        network_of(linear, plainly, after)
    assert caught.value.field == "head"


def test_a_head_that_is_not_called() -> None:
    class Silent(nnx.Module):
        def __init__(self) -> None:
            self.head = nnx.Linear(3, 4, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return x.mean((1, 2))

    with pytest.raises(ModelError, match="head = 'head': a layer that the module calls"):
        network_from_module(Silent, name="n", head="head", preprocess=PREPROCESS, image_size=12)


# ---------------------------------------------------------------------------------------------------------------------
# What stays digital, and registered networks


def test_weights_that_stay_digital_are_counted() -> None:
    def make(rngs: nnx.Rngs) -> nnx.List:
        turned = nnx.ConvTranspose(8, 8, (3, 3), padding="CIRCULAR", rngs=rngs)
        return nnx.List([turned, linear(rngs), nnx.GroupNorm(8, 2, rngs=rngs)])

    network = network_of(make, lambda held, x: held[1](held[2](held[0](x))))
    chip = program(backbone(network, random_arrays(network)), IDEAL, jax.random.key(0), rules={"held/1": None})
    assert digital_weights(chip) == {"held/0/kernel": 576, "held/1/kernel": 64}
    lines = str(inspect(calibrate(chip, tiny_images(4)), tiny_images(2)))
    assert "640 of 856 weights stayed digital: held/0/kernel 576, held/1/kernel 64" in lines
    assert digital_weights(program(resnet20(), IDEAL, jax.random.key(0))) == {}


@pytest.mark.parametrize(
    "name", ["cifar-resnet20", "vit-s16", *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS)]
)
def test_registered_modules_call_every_layer(name: str) -> None:
    """So that they need no trial when they are loaded."""
    entry = MODELS[name]
    built = nnx.eval_shape(lambda: entry.build(num_classes=3, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(built)
    leaves = leaves_of(state)
    size, inputs = entry.image_size or 0, entry.inputs
    images = jax.ShapeDtypeStruct((TRIED, size, size, 3), jnp.float32) if inputs is None else inputs.batch(TRIED)
    called = called_layers(
        lambda arrays: nnx.merge(graphdef, nnx.from_flat_state([(leaves[p].route, a) for p, a in arrays.items()])),
        leaves,
        entry.head,
        images,
    )
    assert called == set(layers(built))
