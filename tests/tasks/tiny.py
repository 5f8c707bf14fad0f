"""A network, chips and a task so small that a test can afford to train. Built once each, by name."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xbm_jax.crossbar import Adc, CrossbarSpec, Gaussian
from xbm_jax.data import Dataset
from xbm_jax.masks import Masked, Method, methods
from xbm_jax.models import (
    Backbone,
    Calibration,
    Chip,
    Network,
    Preprocess,
    backbone,
    calibrate,
    initial_trained,
    network_from_module,
    program,
)
from xbm_jax.tasks import ChipMark, Task, chip_mark

SIZE = 12
WIDTH = 8
LAYERS = ("conv1", "conv2", "conv3")

# With 24 rows every column stands on two tiles or more: batch statistics undo any common gain of a column's tiles, so
# that the mask of a column on one tile has no gradient but rounding errors.
SPECS = {
    "ideal": CrossbarSpec(rows=24, adc=Adc(bits=None)),
    "adc": CrossbarSpec(rows=24, adc=Adc(bits=8, per="tile")),
    "noisy": CrossbarSpec(rows=24, adc=Adc(bits=None), device=Gaussian(read_noise=0.02)),
}

# Digital layers by kind. One noisy read is as good as three, and compiles in a third of the time.
RULES: dict[str, dict[str, None]] = {"noisy": {"conv[13]": None}}

RATES = {"mask_lr": 3e-3, "norm_lr": 2e-3, "head_lr": 1e-2}

METHODS: dict[str, Method] = {
    name: dataclasses.replace(method, **RATES)
    for name, method in {
        "head_only": methods.head_only(),
        "norm_only-affine": methods.norm_only("affine"),
        "norm_only-full": methods.norm_only("full"),
        "xbm": methods.xbm(estimator="identity"),
        "xbm_levels": methods.xbm_levels(),
        "piggyback": methods.piggyback(),
        "finetune": methods.finetune(),
        "lora": methods.lora(rank=2),
        "xma2": methods.xma2(share=0.25),
    }.items()
}


class TinyNet(nnx.Module):
    """Three 3x3 convolutions (2, 3 and 3 row tiles of 24), batch norms, a linear head."""

    def __init__(self, num_classes: int = 5, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, WIDTH, (3, 3), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.conv2 = nnx.Conv(WIDTH, WIDTH, (3, 3), strides=2, padding=1, use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.conv3 = nnx.Conv(WIDTH, WIDTH, (3, 3), use_bias=False, rngs=rngs)
        self.bn3 = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.linear = nnx.Linear(WIDTH, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        x = nnx.relu(self.bn3(self.conv3(x)))
        return self.linear(jnp.mean(x, axis=(1, 2)))


@cache
def network(name: str = "tiny") -> Network:
    return network_from_module(
        lambda: TinyNet(rngs=nnx.Rngs(0)),
        name=name,
        head="linear",
        preprocess=Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3),
        image_size=SIZE,
    )


@cache
def weights(seed: int = 0) -> Backbone:
    """Random weights; every array differs from its default, so that one mistaken for another shows."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for path, shape in network().shapes.items():
        draw = rng.standard_normal(shape).astype(np.float32)
        kind = path.rsplit("/", 1)[-1]
        if kind == "kernel":
            arrays[path] = draw * np.sqrt(2.0 / np.prod(shape[:-1]), dtype=np.float32)
        elif kind in ("scale", "var"):
            arrays[path] = np.exp(0.2 * draw)
        else:
            arrays[path] = 0.1 * draw
    return backbone(network(), arrays)


@cache
def chip(kind: str, key: int = 0, seed: int = 0) -> Chip:
    """A calibrated chip of ``SPECS[kind]``."""
    chip = program(weights(seed), SPECS[kind], jax.random.key(key), rules=RULES.get(kind))
    return calibrate(chip, stripes().x_train[:64])


@cache
def measured_weights() -> Backbone:
    """The weights with input scales that come along, so that chips of them need no calibration."""
    layers = chip("ideal").tiles
    peaks = {
        path: np.asarray(t.input_scale).item() * (127 if t.plan.signed_inputs else 255) for path, t in layers.items()
    }
    signed = frozenset(path for path, t in layers.items() if t.plan.signed_inputs)
    return dataclasses.replace(weights(), calibration=Calibration(peaks, signed, {}, {}, "stripes"))


@cache
def stripes(train: int = 320, test: int = 160, noise: float = 60.0) -> Dataset:
    """Four classes that no colour tells apart: stripes of four orientations, random phase and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    splits: list[np.ndarray] = []
    for count in (train, test):
        labels = np.arange(count) % 4
        angle = labels * np.pi / 4
        along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
        wave = np.sign(np.sin(along * 2 * np.pi / 4 + rng.uniform(0, 2 * np.pi, (count, 1, 1))))
        images = 128 + 50 * wave[..., None] + noise * rng.standard_normal((count, SIZE, SIZE, 3))
        splits += [np.clip(images, 0, 255).astype(np.uint8), labels]
    return Dataset("stripes", *splits, class_names=("east", "north-east", "north", "north-west"))


def made_up_task(chip: Chip, method: Method, num_classes: int = 4, seed: int = 0) -> Task:
    """A task with random mask values, norms, statistics and head, as if it had been learned."""
    start = initial_trained(chip, method, num_classes, jax.random.key(seed))
    if isinstance(method.rule, Masked) and method.rule.estimator.soft_until:  # far from where it turns: all would be on
        start["masks"] = jax.tree.map(jnp.zeros_like, start["masks"])
    rng = np.random.default_rng(seed)

    def moved(values: jax.Array) -> jax.Array:
        return values + jnp.asarray(0.1 * rng.standard_normal(values.shape), values.dtype)

    trained = jax.tree.map(moved, start)
    state = jax.tree.map(lambda a: jnp.abs(moved(a)), chip.stats) if method.norms == "full" else {}
    return Task(trained, state, method, {"task": f"made up {seed}", "accuracy": 0.5})


def mark(chip: Chip) -> ChipMark:
    """The mark of a chip that is not traced."""
    found = chip_mark(chip)
    assert found is not None
    return found


class Leaves(dict[str, np.ndarray]):
    """What :func:`leaves` found."""


def leaves(tree: Any) -> Leaves:
    """All arrays of a pytree by path, copied to the host; what was found before passes unchanged."""
    if isinstance(tree, Leaves):
        return tree
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return Leaves({jax.tree_util.keystr(path): np.array(leaf) for path, leaf in found})


def assert_same_bits(got: Any, wanted: Any) -> None:
    """Same names, shapes, dtypes and bits (so that NaN equals itself and 0.0 is not -0.0)."""
    got, wanted = leaves(got), leaves(wanted)
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype, name
        assert got[name].tobytes() == array.tobytes(), name
