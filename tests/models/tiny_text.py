"""A text backbone so small that a test can afford it, and sentences of token ids."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from flax import nnx

from models.tiny import random_arrays
from xbm_jax.crossbar import CrossbarSpec
from xbm_jax.models import Backbone, Chip, InputSpec, Network, backbone, calibrate, network_from_module, program
from xbm_jax.models.zoo.bert import Bert

VOCABULARY, POSITIONS, WIDTH, HEADS, HIDDEN, CLASSES = 30, 24, 16, 2, 24, 3
TOKENS = InputSpec.of(
    {"ids": jax.ShapeDtypeStruct((1,), np.int32), "mask": jax.ShapeDtypeStruct((1,), np.bool_)}, free=(0,), mask="mask"
)
LAYERS = [f"block0/{name}" for name in ("fc1", "fc2", "key", "proj", "query", "value")]
NORMS = ["block0/norm1", "block0/norm2", "norm"]


def build(num_classes: int = CLASSES) -> Bert:
    sizes = {"vocabulary": VOCABULARY, "positions": POSITIONS, "width": WIDTH, "heads": HEADS, "hidden": HIDDEN}
    return Bert(num_classes, **sizes, depth=1, rngs=nnx.Rngs(0))


@cache
def text_network() -> Network:
    return network_from_module(build, name="tiny-text", head="head", inputs=TOKENS)


@cache
def text_backbone() -> Backbone:
    arrays = random_arrays(text_network())
    arrays |= {path: 5 * array for path, array in arrays.items() if path.endswith("/embedding")}
    return backbone(text_network(), arrays)


@cache
def text_chip(spec: CrossbarSpec, seed: int = 0) -> Chip:
    return calibrate(program(text_backbone(), spec, jax.random.key(seed)), sentences(24))


def sentences(count: int = 8, real: int = 7, length: int | None = None, seed: int = 1, fill: int = 0) -> dict[str, Any]:
    """``count`` sentences of ``real`` tokens, padded to ``length``."""
    ids = np.random.default_rng(seed).integers(1, VOCABULARY - 1, (count, real)).astype(np.int32)
    spare = (length or real) - real
    ids = np.pad(ids, ((0, 0), (0, spare)), constant_values=fill)
    return {"ids": ids, "mask": np.arange(real + spare)[None].repeat(count, 0) < real}
