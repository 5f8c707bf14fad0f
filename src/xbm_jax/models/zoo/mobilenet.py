"""MobileNetV2 (Sandler 2018): inverted residual blocks around depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

__all__ = ["STAGES", "MobileNetV2"]

STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, output channels, blocks and first stride of every stage (table 2 of the paper)."""


class InvertedResidual(nnx.Module):
    """1x1 expansion (none at factor 1), 3x3 depthwise convolution, linear 1x1 projection; a shortcut where it fits."""

    def __init__(self, width_in: int, width: int, expansion: int, stride: int, *, rngs: nnx.Rngs) -> None:
        inner = expansion * width_in
        self.expands, self.adds = expansion != 1, stride == 1 and width_in == width
        if self.expands:
            self.expand = nnx.Conv(width_in, inner, (1, 1), use_bias=False, rngs=rngs)
            self.expand_bn = _norm(inner, rngs)
        self.depthwise = nnx.Conv(
            inner, inner, (3, 3), strides=stride, padding=1, feature_group_count=inner, use_bias=False, rngs=rngs
        )
        self.depthwise_bn = _norm(inner, rngs)
        self.project = nnx.Conv(inner, width, (1, 1), use_bias=False, rngs=rngs)
        self.project_bn = _norm(width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu6(self.expand_bn(self.expand(x))) if self.expands else x
        y = nnx.relu6(self.depthwise_bn(self.depthwise(y)))
        y = self.project_bn(self.project(y))
        return x + y if self.adds else y


class MobileNetV2(nnx.Module):
    """MobileNetV2 for 224-pixel images and others: [batch, H, W, 3] to [batch, num_classes].

    Args:
        stages: expansion, output channels, blocks and first stride of every stage.
        stem: channels of the first convolution. last: channels of the last one, the head's inputs.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        stages: Sequence[tuple[int, int, int, int]] = STAGES,
        stem: int = 32,
        last: int = 1280,
        rngs: nnx.Rngs,
    ) -> None:
        self.stem = nnx.Conv(3, stem, (3, 3), strides=2, padding=1, use_bias=False, rngs=rngs)
        self.stem_bn = _norm(stem, rngs)
        self.names = tuple(f"block{i + 1}" for i in range(sum(count for _, _, count, _ in stages)))
        names, channels = iter(self.names), stem
        for expansion, width, count, stride in stages:
            for i in range(count):
                block = InvertedResidual(channels, width, expansion, stride if i == 0 else 1, rngs=rngs)
                setattr(self, next(names), block)
                channels = width
        self.last = nnx.Conv(channels, last, (1, 1), use_bias=False, rngs=rngs)
        self.last_bn = _norm(last, rngs)
        self.head = nnx.Linear(last, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu6(self.stem_bn(self.stem(x)))
        for name in self.names:
            x = getattr(self, name)(x)
        x = nnx.relu6(self.last_bn(self.last(x)))
        return self.head(jnp.mean(x, axis=(1, 2)))


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
