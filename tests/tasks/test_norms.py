"""Norms of every kind as a task's own: root mean square and groups, with a scale, a bias or both."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import xbm_jax as xbm
from models.tiny import CONVERTED, random_arrays
from tasks import tiny
from xbm_jax.errors import ModelError
from xbm_jax.masks import methods
from xbm_jax.models import Chip, Network, backbone, calibrate, network_from_module, program
from xbm_jax.tasks import compact

NORMS = {"group": ("scale", "bias"), "layer": ("scale",), "rms": ("scale",), "shift": ("bias",), "tokens": ("scale",)}


class Mixed(nnx.Module):
    """A dense layer between norms of every kind; the last one reduces two axes."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.group, self.rms = nnx.GroupNorm(8, group_size=2, num_groups=None, rngs=rngs), nnx.RMSNorm(8, rngs=rngs)
        self.layer = nnx.LayerNorm(8, use_bias=False, rngs=rngs)
        self.shift = nnx.GroupNorm(8, 4, use_scale=False, rngs=rngs)
        self.tokens = nnx.RMSNorm(8, reduction_axes=(-2, -1), rngs=rngs)
        self.dense, self.head = nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layer(x + self.dense(self.rms(self.group(x))))
        return self.head(self.tokens(nnx.relu(self.shift(x))).mean(1))


@cache
def network() -> Network:
    return network_from_module(lambda: Mixed(nnx.Rngs(0)), name="mixed", inputs=jax.ShapeDtypeStruct((5, 8), "float32"))


@cache
def chip() -> Chip:
    return calibrate(program(backbone(network(), random_arrays(network())), CONVERTED, jax.random.key(0)), inputs())


def inputs(count: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 5, 8)).astype(np.float32)


def test_a_chip_knows_what_each_norm_has() -> None:
    assert {path: network().norm_arrays(path) for path in network().norms} == NORMS
    assert {path: tuple(affine) for path, affine in chip().norms.items()} == NORMS
    assert not any(path.startswith(tuple(NORMS)) for path in chip().digital)


@pytest.mark.parametrize("in_bank", [False, True], ids=["learned", "stored"])
def test_a_tasks_norms_are_what_the_module_computes_with(in_bank: bool, tmp_path: Path) -> None:
    task = tiny.made_up_task(chip(), methods.xbm(norms="affine"), 3)
    if in_bank:
        bank = xbm.MaskBank.create(tmp_path, chip())
        bank.put("made", task)
        task = bank.get("made")
        tiny.assert_same_bits(task.trained["norms"], compact(chip(), task).trained["norms"])
    module = Mixed(nnx.Rngs(0))
    ideal = program(backbone(network(), random_arrays(network())), CONVERTED, jax.random.key(0))
    nnx.update(module, xbm.flax_variables(ideal, task.replace(chip=None)))
    for path, names in NORMS.items():
        for name in names:
            own = getattr(getattr(module, path), name)[...]
            np.testing.assert_array_equal(own, task.trained["norms"][path][name].astype(jnp.float32))
    found, wanted = xbm.predict(chip(), task, inputs()), np.asarray(module(jnp.asarray(inputs())))
    assert np.abs(found - wanted).max() < 0.06 * np.abs(wanted).max()  # 8-bit inputs and converters
    moved = {**task.trained, "norms": chip().norms}
    assert np.abs(xbm.predict(chip(), task.replace(trained=moved), inputs()) - found).max() > 0.1 * np.abs(found).max()


def test_they_are_served_each_example_with_its_own(tmp_path: Path) -> None:
    bank = xbm.MaskBank.create(tmp_path, chip())
    for seed, name in enumerate(("one", "two")):
        bank.put(name, tiny.made_up_task(chip(), methods.xbm(norms="affine"), 3, seed))
    mixed = xbm.serve(chip(), bank).logits(inputs(), ["one", "two"] * 4)
    for at, name in enumerate(("one", "two")):
        wanted = xbm.predict(chip(), bank.get(name), inputs()[at::2])
        np.testing.assert_allclose(mixed[at::2], wanted, atol=1e-4 * np.abs(wanted).max())


def test_they_are_learned(tmp_path: Path) -> None:
    y = np.arange(48) % 3
    x = inputs(48) + y[:, None, None].astype(np.float32)
    data = xbm.Dataset("mine", x, y, x, y, ("a", "b", "c"), kind="arrays")
    recipe = xbm.Recipe(epochs=1, batch_size=8)
    task = xbm.adapt(chip(), data, method=methods.norm_only("affine"), key=jax.random.key(0), config=recipe)
    for path, names in NORMS.items():
        for name in names:
            assert not np.allclose(task.trained["norms"][path][name], chip().norms[path][name])
    xbm.save_chip(chip(), tmp_path / "chip")
    again = xbm.load_chip(tmp_path / "chip", network())
    tiny.assert_same_bits(again.norms, chip().norms)


class Shared(nnx.Module):
    """A norm that an example shares with others."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm, self.head = nnx.RMSNorm(8, reduction_axes=(0, -1), rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.norm(x))


def test_a_norm_over_the_batch_is_refused() -> None:
    made: Any = lambda: Shared(nnx.Rngs(0))  # noqa: E731
    with pytest.raises(ModelError, match="a norm over features, not over the batch"):
        network_from_module(made, name="shared", inputs=jax.ShapeDtypeStruct((8,), "float32"))
