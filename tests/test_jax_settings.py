"""The whole way under settings of JAX's that users switch on to find mistakes in their own code, or for float64.

The other tests run on eight devices (`conftest.py`); these are what else can be set.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import xbm_jax as xbm
from cost import slow_but
from xbm_jax.crossbar import Conv, at_time, clip_rate, plan, program, read, reprogram, with_signed_inputs
from xbm_jax.data import Dataset
from xbm_jax.models import Backbone, Preprocess, backbone, network_from_module

SETTINGS = {
    "promotion": lambda: [jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict")],
    "float64": lambda: [jax.enable_x64(True)],
}
SIZE = 6


def under(setting: str) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for context in SETTINGS[setting]():
        stack.enter_context(context)
    return stack


class Small(nnx.Module):
    """One convolution of two row tiles, a batch norm, a head."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), padding=0, rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.mean(nnx.relu(self.bn(self.conv(x))), axis=(1, 2)))


@cache
def small() -> Backbone:
    preprocess = Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3)
    network = network_from_module(
        lambda: Small(rngs=nnx.Rngs(0)), name="small", head="head", preprocess=preprocess, image_size=SIZE
    )
    rng = np.random.default_rng(0)
    return backbone(network, {p: rng.uniform(0.5, 1.5, s).astype(np.float32) for p, s in network.shapes.items()})


def no_float64(*trees: Any) -> None:
    wide = [a for a in jax.tree.leaves(trees) if getattr(a, "dtype", None) == np.float64]
    assert not wide


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.slow
def test_a_task_is_learned_stored_and_served(setting: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (24, SIZE, SIZE, 3), np.uint8), np.arange(24) % 3
    data = Dataset("small", images, labels, images[:6], labels[:6], ("a", "b", "c"))
    spec = xbm.CrossbarSpec(rows=16, adc=xbm.Adc(8, noise_lsb=0.1), device=xbm.Gaussian(0.01), faults=xbm.Faults(0.01))
    with under(setting):
        chip = xbm.calibrate(xbm.program(small(), spec, jax.random.key(0)), images)
        config = xbm.TrainConfig(epochs=1, batch_size=8)
        task = xbm.adapt(chip, data, method=xbm.methods.xbm(), key=jax.random.key(1), config=config)
        before = xbm.predict(chip, task, images, key=jax.random.key(2))
        xbm.save_chip(chip, tmp_path / "chip")
        xbm.MaskBank.create(tmp_path / "bank", chip).put("task", task)
        loaded = xbm.load_chip(tmp_path / "chip", small().network)
        bank = xbm.MaskBank.open(tmp_path / "bank", loaded)
        after = xbm.predict(loaded, bank.get("task"), images, key=jax.random.key(2))
        np.testing.assert_array_equal(after, before)
        assert before.dtype == np.float32
        no_float64(chip, loaded, task.trained, task.state, bank.get("task").trained)
        served = xbm.serve(loaded, bank)
        assert served.logits(images, "task", key=jax.random.key(2)).dtype == np.float32
        assert xbm.inspect(chip, images[:4], task, key=jax.random.key(3)).layers
        no_float64(chip.at(60.0, compensate=True), xbm.measure_norms(chip, images, batch_size=8, key=jax.random.key(4)))


LAYERS = {
    "converters": ({"adc": xbm.Adc(6, "max", "tile", gain_mismatch=0.1, noise_lsb=0.1), "dac_bits": 4}, None),
    "offset": ({"adc": xbm.Adc(6, (0.0, 1e4), clip_gradient="zero"), "encoding": "offset"}, Conv(padding="SAME")),
    "depthwise": ({"adc": xbm.Adc(None), "device": xbm.crossbar.PcmJoshi()}, Conv(padding="SAME", groups=3)),
    "wires": ({"adc": xbm.Adc(6, "granular"), "subtract": "digital", "wires": xbm.Wires(1.0, 0.0)}, None),
}


@pytest.mark.parametrize(
    ("setting", "name"),
    slow_but([("float64", "converters"), ("promotion", "wires")], [(s, n) for s in SETTINGS for n in LAYERS]),
)
def test_a_layer_is_read_and_differentiated(setting: str, name: str) -> None:
    """Gradients through a read that the user compiles: JAX calls its rules back outside of any call of ours."""
    changes, conv = LAYERS[name]
    rng = np.random.default_rng(0)
    shape = (20, 3) if conv is None else (3, 3, 3 // conv.groups, 3)
    kernel = np.asarray(rng.normal(size=shape), np.float32)
    x = np.asarray(rng.normal(size=(4, 20) if conv is None else (2, 4, 4, 3)), np.float32)
    with under(setting):
        spec = xbm.CrossbarSpec(rows=8, cell=xbm.Cell(4, 10.0), **changes)
        planned = plan(kernel, spec, conv, signed_inputs=True)
        tiles = program(jnp.asarray(kernel), planned, jax.random.key(0), input_scale=0.1)
        gain = jnp.ones((planned.row_tiles, 3), jnp.float32)
        answer = jax.jit(lambda x, gain: read(tiles, x, gain, jax.random.key(1)))
        y = answer(jnp.asarray(x), gain)
        grads = jax.grad(lambda x, gain: answer(x, gain).sum(), (0, 1))(jnp.asarray(x), gain)
        rewritten = reprogram(with_signed_inputs(tiles, False), jnp.asarray(kernel * 2))
        aged = at_time(tiles, 60.0, compensate=True)
        no_float64(tiles, y, grads, rewritten, aged, clip_rate(tiles, jnp.asarray(x)))
        assert all(np.isfinite(a).all() for a in (y, *grads))
