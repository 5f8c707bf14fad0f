"""What a chip holds, as plain Flax variables: the user's own module answers with them as the chip does."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import xbm_jax as xbm
from models.tiny import IDEAL, PREPROCESS, Tiny, tiny_backbone, tiny_images
from xbm_jax.crossbar import Cell, Conv, CrossbarSpec, Faults, Gaussian, PcmJoshi, Wires, plan, read
from xbm_jax.crossbar import program as program_kernel
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.models import backbone_from_module, calibrate, flax_variables, held_weights, program

SPECS: dict[str, CrossbarSpec] = {
    "levels": IDEAL,
    "slices": IDEAL.replace(cell=Cell(bits=2), weight_bits=6),
    "offset": IDEAL.replace(encoding="offset"),
    "digital pairs": IDEAL.replace(subtract="digital", cell=Cell(bits=4)),
    "errors, faults and wires": IDEAL.replace(device=Gaussian(0.02), faults=Faults(0.02, 0.01), wires=Wires(2.0)),
}


@pytest.mark.parametrize("name", SPECS)
def test_held_weights_are_what_a_read_multiplies_by(name: str) -> None:
    """A dense kernel read one row at a time, each input the largest code."""
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((40, 6)), jnp.float32)
    tiles = program_kernel(kernel, plan(kernel, SPECS[name]), jax.random.key(1), input_scale=1 / 255)
    top = float(jnp.abs(kernel).max())
    np.testing.assert_allclose(read(tiles, jnp.eye(40)), held_weights(tiles), rtol=0, atol=1e-5 * top)


@pytest.mark.parametrize("lines", [False, True], ids=["columns", "lines"])
@pytest.mark.parametrize("name", SPECS)
def test_gains_are_in_the_weights_where_converters_are_ideal(name: str, lines: bool) -> None:
    """Tile by tile a column counts once, half or not at all; of a grouped convolution too."""
    if lines and SPECS[name].encoding != "differential":
        return
    rng = np.random.default_rng(0)
    for shape, conv in (((40, 6), None), ((3, 3, 4, 6), Conv((1, 1), "SAME", (1, 1), 2))):
        kernel = jnp.asarray(rng.standard_normal(shape), jnp.float32)
        made = plan(kernel, SPECS[name], conv)
        tiles = program_kernel(kernel, made, jax.random.key(1), input_scale=1 / 255)
        gain = rng.choice([0.0, 0.5, 1.0], (made.row_tiles, *(2,) * lines, made.columns)).astype(np.float32)
        x = jnp.asarray(rng.integers(0, 256, (5, 40) if conv is None else (2, 5, 5, 8)) / 255, jnp.float32)
        got, wanted = read(tiles, x, jnp.asarray(gain)), product(x, held_weights(tiles, jnp.asarray(gain)), conv)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * float(jnp.abs(wanted).max()))


def test_drift_and_its_compensation_are_in_them() -> None:
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((40, 6)), jnp.float32)
    tiles = program_kernel(kernel, plan(kernel, IDEAL.replace(device=PcmJoshi())), jax.random.key(1), input_scale=1.0)

    def size(aged: Any) -> float:
        return float(jnp.abs(held_weights(aged)).sum())

    later = xbm.crossbar.at_time(tiles, 1e7)
    assert size(later) < 0.8 * size(tiles)
    assert 0.9 < size(xbm.crossbar.at_time(tiles, 1e7, compensate=True)) / size(tiles) < 1.1


class Turned(nn.Module):
    """Layers of every form, in Linen."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.ConvTranspose(6, (3, 2), strides=(2, 1), transpose_kernel=True)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3), feature_group_count=2)(x)))
        x = nn.Conv(4, (2, 2, 2))(x.reshape(len(x), 2, -1, 6, 6))
        x = nn.relu(nn.Einsum((4, 2, 3), "...a,abc->...cb")(x))
        return nn.Dense(3)(nn.DenseGeneral(5, axis=(-2, -1))(x).mean((1, 2, 3)))


def test_a_linen_module_answers_as_its_chip_does() -> None:
    module, example = Turned(), jax.ShapeDtypeStruct((6, 6, 4), "float32")
    variables = module.init(jax.random.key(0), jnp.zeros((1, 6, 6, 4)))
    spec = IDEAL.replace(device=Gaussian(0.02), faults=Faults(0.02, 0.01), input_bits=8)
    x = np.random.default_rng(1).standard_normal((16, 6, 6, 4)).astype(np.float32)
    chip = calibrate(program(module, spec, jax.random.key(0), variables=variables, inputs=example), x)
    held = flax_variables(chip)
    assert jax.tree.map(jnp.shape, held) == jax.tree.map(jnp.shape, variables)
    check(xbm.predict(chip, xbm.source_task(chip), x), module.apply(held, x), module.apply(variables, x))
    again = backbone_from_module(module, variables=held, inputs=example)
    np.testing.assert_allclose(again.logits(x), np.asarray(module.apply(held, x)), rtol=1e-4, atol=1e-6)


def test_an_nnx_module_answers_as_its_chip_does() -> None:
    made, images = tiny_backbone(), tiny_images(16)
    chip = calibrate(program(made, IDEAL.replace(device=Gaussian(0.02)), jax.random.key(0)), images)
    module = Tiny(rngs=nnx.Rngs(0))
    nnx.update(module, flax_variables(chip))
    module.eval()
    answer = module(PREPROCESS(jnp.asarray(images)))
    check(xbm.predict(chip, xbm.source_task(chip), images), answer, made.logits(images))


def check(of_chip: Any, held: Any, float_weights: Any) -> None:
    """As the chip up to its 8-bit inputs; the weights that were written differ by several times that."""
    top = np.abs(np.asarray(held)).max()
    error = np.abs(np.asarray(of_chip) - held).max() / top
    assert error < 0.03
    assert np.abs(np.asarray(float_weights) - held).max() / top > 2 * error


def test_random_state_is_left_out_and_dtypes_are_the_modules() -> None:
    class Dropping(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.first = nnx.Linear(4, 4, param_dtype=jnp.bfloat16, rngs=rngs)
            self.drop, self.last = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.last(self.drop(self.first(x)))

    module = Dropping(nnx.Rngs(0))
    chip = program(module, IDEAL, jax.random.key(0), inputs=jax.ShapeDtypeStruct((4,), "float32"))
    held = dict(nnx.to_flat_state(flax_variables(chip)))
    assert set(held) == {(layer, name) for layer in ("first", "last") for name in ("kernel", "bias")}
    assert held["first", "kernel"].get_value().dtype == jnp.bfloat16
    before = nnx.state(module, nnx.RngState)
    nnx.update(module, flax_variables(chip))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, nnx.state(module, nnx.RngState)))
