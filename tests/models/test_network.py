"""The edge of a module: layers by path, geometry, equality, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from models.tiny import CONVS, IDEAL, NORMS, PREPROCESS, Tiny, random_arrays, tiny_backbone, tiny_images, tiny_network
from xbm_jax.crossbar import Conv
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import ModelError, WeightsError
from xbm_jax.masks import methods
from xbm_jax.models import (
    Network,
    Preprocess,
    backbone,
    forward,
    named_network,
    network_from_module,
    program,
    source_trained,
)
from xbm_jax.models.modules.layers import form_of


def test_layers_are_named_by_their_path() -> None:
    network = tiny_network()
    assert network.kernels[-1] == "head"
    assert sorted(network.kernels[:-1]) == CONVS
    assert sorted(network.norms) == NORMS
    assert network.epsilons == {"bn": 1e-3, "blocks/0/bn": 1e-5, "blocks/1/bn": 1e-5}
    assert network.convs["stem"] == Conv((2, 2), ((1, 1), (1, 1)))
    assert network.convs["blocks/0/conv"] == Conv((2, 2), ((1, 1), (1, 1)))
    assert network.shapes["blocks/1/conv/kernel"] == (3, 3, 8, 8)
    assert network.shapes["blocks/1/conv/bias"] == (8,)
    assert "stem/bias" not in network.shapes


def test_num_parameters_leaves_running_statistics_out() -> None:
    by_hand = 27 * 8 + 2 * (72 * 8 + 8) + 3 * 2 * 8 + 8 * 4 + 4
    assert tiny_backbone().num_parameters == by_hand


def test_logits_are_the_modules_own() -> None:
    """Against the same module, filled by hand and called as Flax users do."""
    module = nnx.eval_shape(lambda: Tiny(rngs=nnx.Rngs(0)))
    arrays = tiny_backbone().arrays
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        variable.set_value(arrays["/".join(map(str, path))])
    module.eval()
    images = tiny_images()
    x = (images / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
    expected = module(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(tiny_backbone().logits(images), expected, atol=2e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_preprocess(reverse: bool) -> None:
    images = tiny_images(2)
    step = Preprocess(mean=(0.1, 0.5, 0.9), std=(0.2, 1.0, 3.0), divisor=51.0, reverse=reverse)
    pixels = images[..., ::-1] if reverse else images
    expected = (pixels / 51.0 - np.array([0.1, 0.5, 0.9])) / np.array([0.2, 1.0, 3.0])
    np.testing.assert_allclose(step(jnp.asarray(images)), expected, rtol=1e-5, atol=2e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Equal networks are one


def test_networks_built_twice_share_compiled_code() -> None:
    traces = []

    @jax.jit
    def logits(chip: Any, images: jax.Array) -> jax.Array:
        traces.append(1)
        return forward(chip, methods.head_only(), source_trained(chip), chip.stats, images)[0]

    first, second = tiny_network(), tiny_network()
    assert first is not second
    assert first == second and hash(first) == hash(second)
    images = jnp.asarray(tiny_images(2))
    for network in (first, second):
        made = backbone(network, random_arrays(network))
        chip = program(made, IDEAL, jax.random.key(0))
        logits(chip.replace(tiles={p: t.replace(input_scale=jnp.float32(0.02)) for p, t in chip.tiles.items()}), images)
    assert len(traces) == 1


class Wide(Tiny):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        super().__init__(rngs=rngs)
        self.stem = nnx.Conv(3, 8, (5, 5), strides=2, padding=1, use_bias=False, rngs=rngs)


class OtherEpsilon(Tiny):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        super().__init__(rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-4, rngs=rngs)


class OtherStride(Tiny):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        super().__init__(rngs=rngs)
        self.stem = nnx.Conv(3, 8, (3, 3), strides=1, padding=1, use_bias=False, rngs=rngs)


def other(build: type[Tiny]) -> Network:
    return network_from_module(
        lambda: build(rngs=nnx.Rngs(0)), name="tiny", head="head", preprocess=PREPROCESS, image_size=12
    )


@pytest.mark.parametrize(
    "different",
    [
        lambda: tiny_network(name="other"),
        lambda: tiny_network(image_size=13),
        lambda: tiny_network(preprocess=dataclasses.replace(PREPROCESS, reverse=True)),
        lambda: other(Wide),
        lambda: other(OtherEpsilon),
        lambda: other(OtherStride),
    ],
    ids=["name", "size", "preprocess", "kernel", "epsilon", "stride"],
)
def test_networks_that_compute_something_else_differ(different: Callable[[], Network]) -> None:
    assert different() == different()
    assert different() != tiny_network()
    assert tiny_network() != "tiny"


class OtherMomentum(Tiny):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        super().__init__(rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.5, epsilon=1e-3, rngs=rngs)


def test_momenta_are_the_layers_own() -> None:
    assert other(OtherMomentum).momenta == {"bn": 0.5, "blocks/0/bn": 0.9, "blocks/1/bn": 0.9}
    assert other(OtherMomentum) != tiny_network()


def test_a_network_is_itself_in_another_process() -> None:
    """Text is hashed in another way there; what is compared and what finds compiled code must not depend on it."""
    network = named_network("cifar-resnet20", 10)
    here = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    assert all(one == network and hash(one) == hash(network) for one in here)
    program = (
        "import pickle, sys; from xbm_jax.models import named_network; own = named_network('cifar-resnet20', 10); "
        "given = pickle.load(sys.stdin.buffer); print(given == own, hash(given) == hash(own), {given: 1}[own])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "5" if os.environ.get("PYTHONHASHSEED") != "5" else "6"}
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(network), capture_output=True, check=True, env=environment
    )
    assert done.stdout.split() == [b"True", b"True", b"1"]


# ---------------------------------------------------------------------------------------------------------------------
# Geometry of convolutions: against the module's own answer

GEOMETRIES: dict[str, tuple[dict[str, Any], Conv | None]] = {
    "integer padding": ({"padding": 2}, Conv((1, 1), ((2, 2), (2, 2)))),
    "padding per axis": ({"padding": (0, 1)}, Conv((1, 1), ((0, 0), (1, 1)))),
    "padding per side": ({"padding": ((0, 1), (2, 0))}, Conv((1, 1), ((0, 1), (2, 0)))),
    "SAME, strided": ({"padding": "SAME", "strides": 2}, Conv((2, 2), "SAME")),
    "VALID, two strides": ({"padding": "VALID", "strides": (1, 2)}, Conv((1, 2), "VALID")),
    "groups": ({"feature_group_count": 2}, Conv((1, 1), "SAME", groups=2)),
    "dilation": ({"kernel_dilation": 2, "padding": 2}, Conv((1, 1), ((2, 2), (2, 2)), (2, 2))),
    "dilations": ({"kernel_dilation": (1, 3), "padding": "SAME"}, Conv((1, 1), "SAME", (1, 3))),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name: str) -> None:
    options, expected = GEOMETRIES[name]
    rng = np.random.default_rng(0)
    module = nnx.eval_shape(lambda: nnx.Conv(4, 6, (3, 3), use_bias=False, rngs=nnx.Rngs(0), **options))
    kernel = jnp.asarray(rng.normal(size=module.kernel.get_value().shape), jnp.float32)
    module.kernel.set_value(kernel)
    conv = form_of("c", module).conv
    assert conv == expected
    x = jnp.asarray(rng.normal(size=(2, 9, 8, 4)), jnp.float32)
    np.testing.assert_allclose(product(x, kernel, conv), module(x), atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Dense layers over several axes, and layer norms


class Attention(nnx.Module):
    """Flax's own attention, whose projections have kernels [8, 2, 4] and [2, 4, 8], a layer norm, two einsums."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.norm = nnx.LayerNorm(8, epsilon=1e-6, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.split = nnx.Einsum("...d, dab -> ...ab", (8, 2, 3), (2, 3), rngs=rngs)
        self.join = nnx.Einsum("bnac,acd->bnd", (2, 3, 8), rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x).reshape(len(x), -1, 8)
        x = x + self.attend(self.norm(x))
        return self.head(self.join(nnx.relu(self.split(x))).mean(1))


def network_of(build: Callable[[], nnx.Module]) -> Network:
    return network_from_module(build, name="mine", head="head", preprocess=PREPROCESS, image_size=12)


def test_attention_goes_through_the_dense_path() -> None:
    network = network_of(lambda: Attention(rngs=nnx.Rngs(0)))
    assert network.norms == ["norm"] and network.batch_norms == []
    projections = {f"attend/{name}" for name in ("query", "key", "value", "out")}
    assert set(network.kernels) == projections | {"stem", "split", "join", "head"}
    assert network.kernel_shape("attend/query") == network.kernel_shape("attend/out") == (8, 8)
    made = backbone(network, random_arrays(network))
    chip = program(made, IDEAL, jax.random.key(0))
    assert chip.stats == {} and set(chip.norms) == {"norm"}

    def exact(path: str, tiles: Any, x: jax.Array, *_: Any) -> jax.Array:
        return product(x, made.kernel(path), tiles.plan.conv)

    images = jnp.asarray(tiny_images(3))
    logits, _ = forward(chip, methods.head_only(), source_trained(chip), chip.stats, images, layer_read=exact)
    np.testing.assert_allclose(logits, made.logits(images), atol=1e-5)


class OneLayer(nnx.Module):
    """A layer of choice and a head."""

    def __init__(self, layer: nnx.Module, *, rngs: nnx.Rngs) -> None:
        self.layer = layer
        self.head = nnx.Linear(8, 3, rngs=rngs)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda rngs: nnx.BatchNorm(8, use_bias=False, rngs=rngs), "BatchNorm without scale or bias"),
        (lambda rngs: nnx.LayerNorm(8, reduction_axes=(-2, -1), rngs=rngs), "a LayerNorm over one axis"),
        (lambda rngs: nnx.Einsum("bhd,hdk->bhk", (2, 4, 3), rngs=rngs), "no letter in all three parts"),
        (lambda rngs: nnx.LinearGeneral(8, 3, batch_axis={0: 2}, rngs=rngs), "a kernel of its own"),
    ],
    ids=["no bias", "two axes", "per head", "batch axis"],
)
def test_layers_that_nothing_here_computes_are_refused(layer: Callable[[nnx.Rngs], nnx.Module], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        network_of(lambda: OneLayer(layer(nnx.Rngs(0)), rngs=nnx.Rngs(0)))
    assert caught.value.field == "layer"


# ---------------------------------------------------------------------------------------------------------------------
# Arrays that are no float parameters


class Indexed(nnx.Module):
    """Channels in an order, a half-precision factor, dropout."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.order = nnx.Variable(jnp.arange(3))
        self.factor = nnx.Param(jnp.ones(3, jnp.bfloat16))
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop(x.mean((1, 2))[:, self.order[...]] * self.factor[...]))


def test_state_keeps_its_dtype_and_random_state_is_left_alone() -> None:
    network = network_of(lambda: Indexed(rngs=nnx.Rngs(0)))
    assert set(network.shapes) == {"order", "factor", "head/kernel", "head/bias"}
    own = nnx.to_flat_state(nnx.state(Indexed(rngs=nnx.Rngs(0))))
    given = {"/".join(map(str, path)): v.get_value() for path, v in own} | {"order": np.array([2, 0, 1])}
    assert "drop/rngs/key" in given
    made = backbone(network, given)
    assert made.arrays["order"].dtype == jnp.int32 and made.arrays["factor"].dtype == jnp.float32
    assert made.num_parameters == 3 + 3 * 2 + 2
    chip = program(made, IDEAL, jax.random.key(0))
    images = tiny_images(3)
    logits, _ = forward(chip, methods.head_only(), source_trained(chip), chip.stats, jnp.asarray(images))
    x = np.asarray(network.prepared(jnp.asarray(images))).mean((1, 2))[:, [2, 0, 1]]
    np.testing.assert_allclose(logits, x @ np.asarray(made.arrays["head/kernel"]), atol=1e-5)
    np.testing.assert_allclose(made.logits(images), logits, atol=1e-6)


def test_an_index_of_fractions_is_refused() -> None:
    network = network_of(lambda: Indexed(rngs=nnx.Rngs(0)))
    with pytest.raises(WeightsError, match="order is float32, not int32"):
        backbone(network, random_arrays(network))


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


def no_module() -> Any:
    return linen.Dense(3)


def broken() -> nnx.Module:
    raise RuntimeError("no such size")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (no_module, "build = 'Dense': a function that makes an nnx.Module"),
        (broken, "build = 'RuntimeError: no such size'"),
        (lambda: None, "build = 'NoneType'"),
        (lambda rngs: Tiny(rngs=rngs), 'build = "TypeError'),
        (lambda: nnx.Linear(3, 3, rngs=nnx.Rngs(0)), "head = 'head': the path of a Linear layer: one of none"),
    ],
    ids=["Linen", "raises", "nothing", "takes rngs", "one layer"],
)
def test_what_makes_no_module_is_refused(build: Any, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        network_of(build)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"std": (0.5,)}, "std"),
        ({"mean": ()}, "std"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean"),
        ({"divisor": 0}, "divisor"),
    ],
    ids=str,
)
def test_preprocessing_that_divides_by_nothing_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelError) as caught:
        dataclasses.replace(PREPROCESS, **changes)
    assert caught.value.field == f"Preprocess.{field}"


def test_preprocessing_of_other_channels_is_refused() -> None:
    with pytest.raises(ModelError, match=r"a module that answers inputs \[2, 12, 12, 1\]"):
        tiny_network(preprocess=Preprocess((0.5,), (0.5,)))


@pytest.mark.parametrize(
    "changes", [{"name": ""}, {"image_size": 0}, {"image_size": "32"}, {"preprocess": None}], ids=str
)
def test_what_describes_a_network_is_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        tiny_network(**changes)
    assert caught.value.field == next(iter(changes))


@pytest.mark.parametrize("head", ["stem", "classifier", "", "bn"])
def test_the_head_is_a_dense_layer(head: str) -> None:
    with pytest.raises(ModelError, match="a Linear layer: one of head") as caught:
        tiny_network(head=head)
    assert (caught.value.field, caught.value.value) == ("head", head)


def test_all_mismatches_are_listed_at_once() -> None:
    network = tiny_network()
    arrays: dict[str, Any] = random_arrays(network)
    del arrays["bn/mean"], arrays["head/bias"]
    arrays["stem/kernel"] = arrays["stem/kernel"].transpose(3, 2, 0, 1)
    arrays["blocks/0/bn/var"] = np.full(8, np.inf)
    arrays["blocks/1/conv/kernel"][1, 2, 3, 4] = np.nan
    arrays["fc/kernel"] = np.zeros((2, 2))
    with pytest.raises(WeightsError) as caught:
        backbone(network, arrays)
    message = str(caught.value)
    assert caught.value.value == "6 mismatches"
    for line in (
        "bn/mean is missing",
        "head/bias is missing",
        "stem/kernel has shape (8, 3, 3, 3), not (3, 3, 3, 8)",
        "blocks/0/bn/var holds NaN or infinity",
        "blocks/1/conv/kernel holds NaN or infinity",
        "fc/kernel is unknown",
    ):
        assert f"\n  {line}" in message
    assert message.count("\n") == 6
