"""Reads of each column per example, against counts made by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.tiny import CONVERTED, IDEAL
from tasks import tiny
from xbm_jax.crossbar import CrossbarSpec
from xbm_jax.errors import ModelError
from xbm_jax.hardware import workload
from xbm_jax.models import (
    Preprocess,
    backbone,
    driven_lines,
    load_backbone,
    network_from_module,
    program,
    reads_per_example,
)


def images(count: int, size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, size, size, 3), jnp.uint8)


CHIP = program(load_backbone("cifar-resnet20"), CrossbarSpec(rows=64), jax.random.key(0))


@pytest.mark.parametrize("size", [32, 48])
def test_resnet20_reads_once_per_output_pixel(size: int) -> None:
    """Of 32-pixel images 1024 times in the first stage, 256 in the second, whose first convolution has stride 2, 64."""
    found = reads_per_example(CHIP, images(3, size))
    pixels = {"conv1": size**2, "layer1": size**2, "layer2": size**2 // 4, "layer3": size**2 // 16}
    assert len(found) == 19 and found.keys() == CHIP.tiles.keys()
    assert found == {path: pixels[path.split("_")[0].split("/")[0]] for path in found}
    if size == 32:
        assert (found["conv1"], found["layer2_0/conv1"], found["layer3_2/conv2"]) == (1024, 256, 64)


class Tokens(nnx.Module):
    """A convolution of stride 3 without padding, and a projection of its pixels that is called twice."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), strides=3, padding="VALID", rngs=rngs)
        self.mix = nnx.Linear(4, 4, rngs=rngs)
        self.linear = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        tokens = self.conv(x).reshape(x.shape[0], -1, 4)
        return self.linear(jnp.mean(self.mix(nnx.relu(self.mix(tokens))), axis=1))


def test_calls_add_up_and_tokens_count() -> None:
    preprocess = Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3)
    made = network_from_module(
        lambda: Tokens(rngs=nnx.Rngs(0)), name="tokens", head="linear", preprocess=preprocess, image_size=8
    )
    arrays = {path: np.zeros(shape, np.float32) for path, shape in made.shapes.items()}
    chip = program(backbone(made, arrays), IDEAL, jax.random.key(0))
    assert reads_per_example(chip, images(5, 8)) == {"conv": 4, "mix": 8}
    assert reads_per_example(chip, images(1, 9)) == {"conv": 9, "mix": 18}


class Upwards(nnx.Module):
    """A transposed convolution of stride 2, and one whose stride is beyond its taps."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.up = nnx.ConvTranspose(3, 4, (4, 4), strides=(2, 2), rngs=rngs)
        self.apart = nnx.ConvTranspose(4, 4, (1, 1), strides=(2, 2), rngs=rngs)
        self.linear = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(self.apart(nnx.relu(self.up(x))).mean((1, 2)))


def test_zeros_between_inputs_are_no_reads_and_no_products() -> None:
    """Images of 5 pixels: each of the 100 answers meets 2 x 2 of 16 taps; of the next layer's 400 a quarter is read."""
    preprocess = Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3)
    made = network_from_module(
        lambda: Upwards(rngs=nnx.Rngs(0)), head="linear", preprocess=preprocess, image_size=5, name="up"
    )
    arrays = {path: np.ones(shape, np.float32) for path, shape in made.shapes.items()}
    chip = program(backbone(made, arrays), CONVERTED, jax.random.key(0))
    assert reads_per_example(chip, images(3, 5)) == {"apart": 100, "up": 100}
    assert driven_lines(chip, images(3, 5)) == {"apart": 1.0, "up": 0.25}
    load = workload(chip, images(1, 5))
    macs = dict(zip(load.inventory.layers, load.inventory.per_layer["macs"], strict=True))
    assert macs == {"apart": 100 * 4 * 4, "up": 25 * 16 * 3 * 4}  # what an input pixel sends to its 4 x 4 answers
    np.testing.assert_array_equal(load.nonzero, [1.0, 0.25])


def test_digital_layers_are_not_counted() -> None:
    chip = program(tiny.weights(), tiny.SPECS["ideal"], jax.random.key(0), rules={"conv1": None})
    assert reads_per_example(chip, tiny.stripes().x_test[:2]) == {"conv2": 36, "conv3": 36}


@pytest.mark.parametrize("inputs", [jax.ShapeDtypeStruct((0, 32, 32, 3), jnp.uint8), np.uint8(3), ()])
def test_no_example_is_refused(inputs: object) -> None:
    with pytest.raises(ModelError, match="at least one example"):
        reads_per_example(CHIP, inputs)
