"""Linen modules: every layer by its own path, read right on a chip; what no chip answers for is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from models.tiny import IDEAL
from xbm_jax.crossbar import Tiles, nominal_weights
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import ModelError
from xbm_jax.masks import Method
from xbm_jax.models import (
    Chip,
    backbone_from_module,
    digital_weights,
    forward,
    network_from_module,
    program,
    source_trained,
)

SOURCE = Method("source", norms="frozen")
EXAMPLE = jax.ShapeDtypeStruct((6, 6, 4), "float32")


class Around(nn.Module):
    """What a test puts before the mean over pixels and the head."""

    body: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(3, name="head")(self.body(self, x, train).mean((1, 2)))


def randomised(variables: Any) -> Any:
    """Arrays of every kind that differ from what a fresh module holds; variances are positive."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.2, 0.8, a.shape), a.dtype) - 0.1, variables)


def made(body: Callable[..., Any]) -> tuple[nn.Module, Any]:
    module = Around(body)
    return module, randomised(module.init(jax.random.key(0), jnp.zeros((1, *EXAMPLE.shape))))


def exactly(chip: Chip, arrays: Mapping[str, Any], inputs: Any) -> jax.Array:
    """What a chip answers that holds the float weights themselves and does not round its inputs."""

    def exact(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        return product(x, chip.network.forms[path].on_arrays(arrays[f"{path}/kernel"]), tiles.plan.conv)

    return forward(chip, SOURCE, source_trained(chip), chip.stats, inputs, layer_read=exact)[0]


LAYERS: dict[str, tuple[Callable[..., Any], set[str], set[str]]] = {
    "dense": (lambda m, x, t: nn.relu(nn.Dense(5)(x)), {"Dense_0"}, set()),
    "no bias": (lambda m, x, t: nn.Dense(5, use_bias=False, dtype=jnp.float32)(x), {"Dense_0"}, set()),
    "axes": (
        lambda m, x, t: nn.DenseGeneral(4, axis=(-2, -1))(nn.DenseGeneral((2, 3), axis=-1)(x)),
        {"DenseGeneral_0", "DenseGeneral_1"},
        set(),
    ),
    "axes in between": (lambda m, x, t: nn.DenseGeneral((2, 4), axis=(1, 3))(x), {"DenseGeneral_0"}, set()),
    "einsum": (lambda m, x, t: nn.Einsum((4, 2, 5), "bhwc,cnd->bhnwd")(x).sum(2), {"Einsum_0"}, set()),
    "conv": (
        lambda m, x, t: nn.Conv(8, (3, 3), strides=2, feature_group_count=2, kernel_dilation=(1, 2))(x),
        {"Conv_0"},
        set(),
    ),
    "conv 1-D": (lambda m, x, t: nn.Conv(8, (3,), padding="CAUSAL")(x), {"Conv_0"}, set()),
    "conv 3-D": (lambda m, x, t: nn.Conv(8, (2, 3, 3))(jnp.stack([x, -x], 1)).sum(1), {"Conv_0"}, set()),
    "transposed": (
        lambda m, x, t: nn.ConvTranspose(8, (3, 3), strides=(2, 2), transpose_kernel=True)(x),
        {"ConvTranspose_0"},
        set(),
    ),
    "norms": (
        lambda m, x, t: nn.LayerNorm()(nn.BatchNorm(use_running_average=not t, axis=1)(x)),
        set(),
        {"BatchNorm_0", "LayerNorm_0"},
    ),
    "other norms": (
        lambda m, x, t: nn.RMSNorm()(nn.GroupNorm(2)(nn.LayerNorm(use_bias=False)(x))),
        set(),
        {"GroupNorm_0", "LayerNorm_0", "RMSNorm_0"},
    ),
    "groups by size": (lambda m, x, t: nn.GroupNorm(None, group_size=2, use_scale=False)(x), set(), {"GroupNorm_0"}),
    "digital norms": (
        lambda m, x, t: nn.RMSNorm(use_scale=False)(nn.LayerNorm(use_bias=False, use_scale=False)(x)),
        set(),
        set(),
    ),
    "attention": (
        lambda m, x, t: nn.MultiHeadDotProductAttention(2, dropout_rate=0.1)(x, x, deterministic=True),
        {f"MultiHeadDotProductAttention_0/{name}" for name in ("query", "key", "value", "out")},
        set(),
    ),
    "dropout": (lambda m, x, t: nn.Dropout(0.5, deterministic=not t)(nn.Dense(4)(x)), {"Dense_0"}, set()),
    "embedding": (
        lambda m, x, t: nn.Embed(3, 4)(jnp.arange(6) % 3) + nn.Dense(4)(x),
        {"Dense_0"},
        set(),
    ),
    "called twice": (lambda m, x, t: (d := nn.Dense(4))(nn.relu(d(x))), {"Dense_0"}, set()),
    "sequential": (
        lambda m, x, t: nn.Sequential([nn.Dense(5), nn.relu, nn.Dense(4)])(x),
        {"Dense_0", "Dense_1"},  # made in the call of the module around it
        set(),
    ),
    "free parameters": (
        lambda m, x, t: x * m.param("scale", nn.initializers.ones, (4,)) + nn.Dense(4)(x),
        {"Dense_0"},
        set(),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_chip_can_answer_for_is_read_right(name: str) -> None:
    body, layers, norms = LAYERS[name]
    module, variables = made(body)
    back = backbone_from_module(module, variables=variables, inputs=EXAMPLE, call={"train": False})
    assert back.network.head == "head"
    assert set(back.network.kernels) == layers | {"head"}
    assert set(back.network.norms) == norms
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, 6, 6, 4)), jnp.float32)
    want = np.asarray(module.apply(variables, x, train=False))
    scale = np.abs(want).max()
    np.testing.assert_allclose(back.logits(x), want, rtol=0, atol=1e-5 * scale)
    chip = program(back, IDEAL, jax.random.key(0))
    assert set(chip.tiles) == layers
    np.testing.assert_allclose(exactly(chip, back.arrays, x), want, rtol=0, atol=1e-5 * scale)


def test_a_module_set_up_beforehand_and_programmed_directly() -> None:
    class Setup(nn.Module):
        def setup(self) -> None:
            self.parts = [nn.Dense(5), nn.Dense(5)]
            self.last = nn.Dense(3)

        def __call__(self, tokens: jax.Array, weight: jax.Array) -> jax.Array:
            x = jax.nn.one_hot(tokens, 7) * weight[..., None]
            for part in self.parts:
                x = nn.relu(part(x))
            return self.last(x.mean(1))

    module = Setup()
    example = {"tokens": jax.ShapeDtypeStruct((4,), "int32"), "weight": jax.ShapeDtypeStruct((4,), "float32")}
    variables = module.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4)))
    chip = program(module, IDEAL, jax.random.key(0), variables=variables, inputs=example)
    assert list(chip.tiles) == ["parts_0", "parts_1"] and chip.network.head == "last"
    assert chip.network.name == "Setup" and digital_weights(chip) == {}
    np.testing.assert_array_equal(chip.head["kernel"], variables["params"]["last"]["kernel"])
    again = program(module, IDEAL, jax.random.key(0), variables=variables, inputs=example)
    assert again.network == chip.network and hash(again.network) == hash(chip.network)
    np.testing.assert_allclose(
        nominal_weights(chip.tiles["parts_0"]), np.asarray(variables["params"]["parts_0"]["kernel"]), atol=0.01
    )


class Own(nn.Dense):
    """A subclass that computes otherwise."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return 2 * super().__call__(x)


def test_a_subclass_of_its_own_stays_digital() -> None:
    module, variables = made(lambda m, x, t: Own(4)(x))
    back = backbone_from_module(module, variables=variables, inputs=EXAMPLE)
    assert back.network.kernels == ["head"]
    x = jnp.ones((2, 6, 6, 4))
    np.testing.assert_allclose(back.logits(x), np.asarray(module.apply(variables, x)), rtol=1e-5)


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return nn.Dense(4)(x), None


def scanned(module: nn.Module, x: jax.Array, train: bool) -> jax.Array:
    stack = nn.scan(Scanned, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
    return stack()(x, None)[0]


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(4)(x)


def tied(module: nn.Module, x: jax.Array, train: bool) -> jax.Array:
    layer = nn.Dense(4)
    return layer(x) @ layer.variables["params"]["kernel"].T


REFUSED: dict[str, tuple[Callable[..., Any], str, str]] = {
    "scan": (scanned, "ScanScanned_0/Dense_0", "called inside of a Linen transformation"),
    "remat": (lambda m, x, t: nn.remat(Plain)()(x), "CheckpointPlain_0/Dense_0", "called inside of a Linen trans"),
    "jit": (lambda m, x, t: nn.jit(Plain)()(x), "JitPlain_0/Dense_0", "called inside of a Linen transformation"),
    "tied": (tied, "Dense_0/kernel", "read by the module itself"),
    "statistics of the batch": (
        lambda m, x, t: nn.BatchNorm(use_running_average=False)(x),
        "BatchNorm_0",
        "use_running_average",
    ),
    "norm without scale": (
        lambda m, x, t: nn.BatchNorm(use_running_average=True, use_scale=False)(x),
        "BatchNorm_0",
        "tasks learn both",
    ),
    "another product": (
        lambda m, x, t: nn.Dense(4, dot_general=lambda *a, **k: 2 * jax.lax.dot_general(*a, **k))(x),
        "Dense_0.dot_general",
        "a chip computes no other",
    ),
    "per entry": (lambda m, x, t: nn.DenseGeneral(4, batch_dims=(0,))(x), "DenseGeneral_0", "a kernel of its own"),
    "dropout": (lambda m, x, t: nn.Dropout(0.5, deterministic=False)(x), "module", "call={'train': False}"),
    "a name": (lambda m, x, t: nn.Dense(4, name="eval")(x), "eval", "names that no attribute"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_chip_answers_for_is_refused_by_name(name: str) -> None:
    body, field, says = REFUSED[name]
    module = Around(body)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = jax.eval_shape(module.init, rngs, jnp.zeros((2, *EXAMPLE.shape)))
    with pytest.raises(ModelError) as caught:
        network_from_module(module, variables=variables, inputs=EXAMPLE)
    assert caught.value.field == field
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({}, "variables", "what module.init gives"),
        ({"variables": {"kernel": 1}}, "variables", "what module.init gives"),
        ({"variables": {"params": {"head": {"kernel": 1}}}}, "head/kernel", "an array"),
        ({"call": {"train": [1]}}, "call", "can be hashed"),
        ({"call": {"training": False}}, "module", "unexpected keyword argument"),
        ({"head": "Dense_0/kernel"}, "head", "one of Dense_0, head"),
    ],
)
def test_bad_descriptions(given: dict[str, Any], field: str, says: str) -> None:
    module, variables = made(lambda m, x, t: nn.Dense(4)(x))
    described: dict[str, Any] = {"inputs": EXAMPLE} | ({"variables": variables} if given else {}) | given
    with pytest.raises(ModelError) as caught:
        network_from_module(module, **described)
    assert caught.value.field == field
    assert says in str(caught.value)
