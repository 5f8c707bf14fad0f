"""Networks that many tests share: the bundled ResNet-20, and a tiny one with all that others have.

Strides, a list of blocks, nested paths, a bias.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from flax import nnx

from xbm_jax.crossbar import Adc, CrossbarSpec, Gaussian
from xbm_jax.models import (
    Backbone,
    Chip,
    Network,
    Preprocess,
    backbone,
    calibrate,
    load_backbone,
    named_network,
    network_from_module,
    program,
)

CLASSES = 4
IMAGE = 12
CONVS = ["blocks/0/conv", "blocks/1/conv", "stem"]
NORMS = ["blocks/0/bn", "blocks/1/bn", "bn"]
PREPROCESS = Preprocess(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
IDEAL = CrossbarSpec(rows=24, cols=16, adc=Adc(bits=None))
CONVERTED = CrossbarSpec(rows=24, cols=16)
NOISY = IDEAL.replace(device=Gaussian(0.02, read_noise=0.02))


class Block(nnx.Module):
    """Convolution with a bias, norm, ReLU."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(8, 8, (3, 3), strides=2, padding=1, rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.bn(self.conv(x)))


class Tiny(nnx.Module):
    """12x12x3 images; kernels of 27, 72 and 72 rows by 8 columns; a dense head."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, padding=1, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-3, rngs=rngs)
        self.blocks = nnx.List([Block(rngs=rngs), Block(rngs=rngs)])
        self.head = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def tiny_network(**changes: Any) -> Network:
    """The structure, built anew at each call."""
    options = {"name": "tiny", "head": "head", "preprocess": PREPROCESS, "image_size": IMAGE} | changes
    return network_from_module(lambda: Tiny(rngs=nnx.Rngs(0)), **options)


def random_arrays(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of every kind that differ from what a fresh module holds, so that a layer left out shows."""
    rng = np.random.default_rng(seed)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        match path.rsplit("/", 1)[-1]:
            case "kernel":
                return rng.normal(size=shape) * np.prod(shape[:-1]) ** -0.5
            case "scale" | "var":
                return rng.uniform(0.5, 1.5, shape)
        return rng.normal(size=shape) * 0.2

    return {path: draw(path, shape).astype(np.float32) for path, shape in network.shapes.items()}


@cache
def tiny_backbone() -> Backbone:
    """The network with random weights; no measurements came with it."""
    network = tiny_network()
    return backbone(network, random_arrays(network))


def tiny_images(count: int = 16, seed: int = 1) -> np.ndarray:
    """uint8 [count, 12, 12, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, IMAGE, IMAGE, 3), np.uint8)


@cache
def tiny_chip(spec: CrossbarSpec = IDEAL, seed: int = 0) -> Chip:
    """The backbone on arrays, calibrated on 32 images."""
    return calibrate(program(tiny_backbone(), spec, jax.random.key(seed)), tiny_images(32, seed=2))


structure = cache(named_network)
"""A registered backbone's structure; a large one takes seconds to trace."""


@cache
def resnet20() -> Backbone:
    """The bundled backbone."""
    return load_backbone("cifar-resnet20")


@cache
def resnet20_chip() -> Chip:
    """It on a chip of the default spec, calibrated by the measurements that ship with it."""
    return program(resnet20(), CrossbarSpec(), jax.random.key(0))
