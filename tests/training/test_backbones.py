"""Every kind of backbone, small and with random weights, from programming to serving."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cost import slow_but
from models.tiny import random_arrays
from xbm_jax.banks import MaskBank
from xbm_jax.crossbar import Adc, CrossbarSpec, nominal_weights
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.data import Dataset
from xbm_jax.masks import methods
from xbm_jax.models import Chip, Preprocess, backbone, calibrate, forward, network_from_module, program, source_trained
from xbm_jax.models.zoo.densenet import DenseNet
from xbm_jax.models.zoo.mobilenet import MobileNetV2
from xbm_jax.models.zoo.resnet50 import ResNet50
from xbm_jax.models.zoo.vgg import VggBn
from xbm_jax.models.zoo.vit import VisionTransformer
from xbm_jax.serving import serve
from xbm_jax.tasks import predict
from xbm_jax.training import TrainConfig, adapt

SIZE = 32
SPEC = CrossbarSpec(rows=32, cols=32, adc=Adc(bits=None))

SMALL: dict[str, tuple[Callable[..., nnx.Module], str]] = {
    "resnet50": (partial(ResNet50, blocks=(1, 1), width=4), "fc"),
    "resnet50-v1": (partial(ResNet50, blocks=(1, 1), width=4, stride_at="conv1"), "fc"),
    "mobilenet-v2": (partial(MobileNetV2, stages=((1, 4, 1, 2), (4, 8, 2, 2)), stem=4, last=16), "head"),
    "vgg16-bn": (partial(VggBn, stages=((4,), (4, 8)), hidden=8, pool=2), "fc3"),
    "densenet121": (partial(DenseNet, blocks=(1, 1), growth=4, stem=8), "classifier"),
    "vit-s16": (partial(VisionTransformer, image_size=SIZE, patch=8, width=16, depth=1, heads=2), "head"),
}
# Layers whose inputs go below zero: images, and what no ReLU has cut.
SIGNED = {
    "resnet50": {"conv1"},
    "resnet50-v1": {"conv1"},
    "mobilenet-v2": {"stem", "block2/expand", "block3/expand", "last"},
    "vgg16-bn": {"conv1_1"},
    "densenet121": {"conv0"},
    "vit-s16": {"patch_embed", "block0/qkv", "block0/proj", "block0/fc1", "block0/fc2"},
}


@cache
def small_data() -> Dataset:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, SIZE, SIZE, 3), np.uint8), np.arange(40) % 2
    return Dataset("small", x[:24], y[:24], x[24:], y[24:], ("ant", "bee"))


@cache
def small_chip(name: str) -> Chip:
    build, head = SMALL[name]
    half = Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
    network = network_from_module(
        lambda: build(num_classes=3, rngs=nnx.Rngs(0)), name=name, head=head, preprocess=half, image_size=SIZE
    )
    made = backbone(network, random_arrays(network))
    return calibrate(program(made, SPEC, jax.random.key(0)), small_data().x_train, batch_size=24)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.slow
def test_exact_reads_are_the_float_network(name: str) -> None:
    """All kinds of layers found, called in order, with their biases and norms; and the calibrated signs."""
    chip, images = small_chip(name), jnp.asarray(small_data().x_test[:4])
    assert set(chip.tiles) == {path for path in chip.network.kernels if path != chip.network.head}
    assert {path for path, tiles in chip.tiles.items() if tiles.plan.signed_inputs} == SIGNED[name]
    logits, _ = forward(
        chip,
        methods.head_only(),
        source_trained(chip),
        chip.stats,
        images,
        layer_read=lambda path, tiles, x, *_: product(x, nominal_weights(tiles), tiles.plan.conv),
    )
    arrays = {f"{path}/kernel": nominal_weights(tiles) for path, tiles in chip.tiles.items()} | chip.digital
    for group in (chip.norms, chip.stats, {chip.network.head: chip.head}):
        arrays |= {f"{path}/{name}": array for path, layer in group.items() for name, array in layer.items()}
    expected = backbone(chip.network, arrays).logits(images)
    np.testing.assert_allclose(logits, expected, atol=2e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("name", slow_but(["mobilenet-v2"], (name for name in SMALL if name != "resnet50-v1")))
def test_from_programming_to_serving(name: str, tmp_path: Path) -> None:
    """Two steps of XBM with trained norms change nothing of the chip, and are served as they were learned."""
    chip, data = small_chip(name), small_data()
    before = jax.tree.map(np.asarray, chip)
    config = TrainConfig(epochs=1, batch_size=8, eval_batch_size=16)
    task = adapt(chip, data, method=methods.xbm(), key=jax.random.key(1), config=config)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, chip), before)
    assert set(task.trained["norms"]) == set(chip.network.norms)
    assert set(task.state) == set(chip.network.batch_norms)
    moved = [
        bool((task.trained["norms"][p][k] != chip.norms[p][k]).any())
        for p in chip.network.norms
        for k in ("scale", "bias")
    ]
    assert np.mean(moved) > 0.9  # a norm before another may have a gradient of zero
    bank = MaskBank.create(tmp_path / "bank", chip)
    bank.put("small", task, compact=False)
    served = serve(chip, bank, batch_size=16).logits(data.x_test, "small")
    np.testing.assert_allclose(served, predict(chip, task, data.x_test, batch_size=16), rtol=1e-4, atol=1e-4)
