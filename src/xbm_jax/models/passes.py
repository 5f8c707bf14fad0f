"""The forward pass: a pure function of a chip, what a task trained, its running statistics and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.crossbar import Tiles, read
from xbm_jax.masks import Method
from xbm_jax.models.chip import Chip
from xbm_jax.models.inputs import call
from xbm_jax.models.modules.layers import FLAX_NORMS
from xbm_jax.models.norm import batch_norm, layer_norm
from xbm_jax.models.structure import stand_in
from xbm_jax.promotion import numpy_promotion

__all__ = ["LayerRead", "forward", "initial_trained"]

LayerRead = Callable[[str, Tiles, jax.Array, jax.Array | None, jax.Array | None], jax.Array]
"""``(path, tiles, x, gain, key) -> y``: how a crossbar layer answers; replaced to observe or calibrate a chip."""


@numpy_promotion
def initial_trained(chip: Chip, method: Method, outputs: int, key: jax.Array) -> dict[str, Any]:
    """What training starts from: mask values and norm parameters by layer path, and the method's head."""
    head = method.head.init(chip.num_features, outputs, key)
    rule = method.rule
    keys = {path: jax.random.fold_in(key, i + 1) for i, path in enumerate(chip.tiles)}
    masks = {} if rule is None else {path: rule.init(tiles, keys[path]) for path, tiles in chip.tiles.items()}
    norms = {} if method.norms == "frozen" else chip.norms
    # Copies: what is trained must never share a buffer with the chip (a training step may donate its arguments).
    return jax.tree.map(jnp.array, {"masks": masks, "norms": norms, "head": head})


@numpy_promotion
def forward(
    chip: Chip,
    method: Method,
    trained: dict[str, Any],
    stats: dict[str, dict[str, jax.Array]],
    inputs: Any,
    *,
    train: bool = False,
    progress: jax.Array | None = None,
    key: jax.Array | None = None,
    gain_at: Literal["weights", "columns"] = "weights",
    features: bool = False,
    layer_read: LayerRead | None = None,
) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
    """The head's outputs [batch, outputs] for a batch of what the network takes, and the running statistics afterwards.

    Args:
        trained: ``{"masks": {path: values}, "norms": {path: {scale, bias}}, "head": {kernel, bias}}``; mask values
            are real logits or stored integer codes.
        stats: ``{path: {mean, var}}``.
        inputs: uint8 NHWC images, or the pytree of arrays that the network's ``inputs`` describes.
        train: batch statistics in norms where the method's norm policy is ``"full"``.
        progress: share of the training done, for what changes in the course of it; ``None`` outside of training.
        key: draws read noise.
        gain_at: see :func:`xbm_jax.crossbar.read`.
        features: return the head's inputs instead of its outputs.
        layer_read: replaces the crossbar read.
    """
    network = chip.network
    pass_ = _Pass(chip, method, trained, dict(stats), train, progress, key, layer_read or _reader(gain_at))
    module = network.module(chip.digital)
    module.eval()  # what stays in the module, dropout say, belongs to the frozen backbone
    answers = {path: _bind(pass_.crossbar, path) for path in chip.tiles}
    answers |= {path: _bind(pass_.norm, path) for path in network.norms}
    answers |= {path: partial(pass_.flax_norm, path) for path in network.norms if network.kinds[path] in FLAX_NORMS}
    answers[network.head] = _bind(pass_.features if features else pass_.head, network.head)
    stand_in(module, answers)
    return call(module, network.prepared(inputs)), pass_.stats


@dataclass
class _Pass:
    """One forward pass: what its layers read, and the running statistics that it leaves behind."""

    chip: Chip
    method: Method
    trained: dict[str, Any]
    stats: dict[str, dict[str, jax.Array]]
    train: bool
    progress: jax.Array | None
    key: jax.Array | None
    layer_read: LayerRead
    reads: int = field(default=0)

    def crossbar(self, path: str, x: jax.Array) -> jax.Array:
        bias = self.chip.digital.get(f"{path}/bias")
        return self.chip.network.forms[path].answer(partial(self.answer, path), jnp.asarray(x, jnp.float32), bias)

    def answer(self, path: str, x: jax.Array) -> jax.Array:
        """What a layer's arrays, as the task has them, and the task's digital part beside them make of ``x``."""
        key = None if self.key is None else jax.random.fold_in(self.key, self.reads)
        self.reads += 1
        tiles, rule = self.chip.tiles[path], self.method.rule
        if rule is None:
            return self.layer_read(path, tiles, x, None, key)
        values = self.trained["masks"][path]
        changed, gain = rule.apply(tiles, values, self.progress)
        y = self.layer_read(path, changed, x, gain, key)
        beside = rule.beside(tiles, values, x)
        return y if beside is None else y + beside

    def norm(self, path: str, x: jax.Array) -> jax.Array:
        axis = self.chip.network.norm_axes[path]
        if axis in (-1, x.ndim - 1):
            return self.last_axis_norm(path, x)
        return jnp.moveaxis(self.last_axis_norm(path, jnp.moveaxis(x, axis, -1)), -1, axis)

    def last_axis_norm(self, path: str, x: jax.Array) -> jax.Array:
        affine = self.trained["norms"].get(path, self.chip.norms[path])
        epsilon = self.chip.network.epsilons[path]
        if path not in self.stats:
            return layer_norm(x, affine, epsilon)
        follow = {"use_batch": self.train and self.method.norms == "full", "momentum": self.chip.network.momenta[path]}
        y, self.stats[path] = batch_norm(x, affine, self.stats[path], epsilon, **follow)
        return y

    def flax_norm(self, path: str, layer: Any, x: jax.Array) -> jax.Array:
        """What the module's own norm answers, with the task's arrays in it."""
        for name, array in self.trained["norms"].get(path, self.chip.norms[path]).items():
            getattr(layer, name).set_value(array.astype(jnp.float32))
        return FLAX_NORMS[self.chip.network.kinds[path]].__call__(layer, x)

    def features(self, path: str, x: jax.Array) -> jax.Array:
        return x

    def head(self, path: str, x: jax.Array) -> jax.Array:
        return self.method.head.apply(self.trained["head"], x)


def _reader(gain_at: Literal["weights", "columns"]) -> LayerRead:
    return lambda path, tiles, x, gain, key: read(tiles, x, gain, key, gain_at=gain_at)


def _bind(layer: Callable[[str, jax.Array], jax.Array], path: str) -> Callable[..., jax.Array]:
    """What stands in for the layer at ``path``; the network's trial saw to it that its input is all it needs."""

    def answer(_: nnx.Module, *args: jax.Array, **kwargs: jax.Array) -> jax.Array:
        return layer(path, args[0] if args else kwargs["inputs" if "inputs" in kwargs else "x"])

    return answer
