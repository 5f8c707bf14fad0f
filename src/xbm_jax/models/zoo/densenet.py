"""DenseNet-121 (Huang 2017, DenseNet-BC): every layer reads the outputs of all layers before it in its block."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.models.zoo.pooling import max_pool

__all__ = ["DenseNet"]


class DenseLayer(nnx.Module):
    """Norm, ReLU, 1x1 convolution to ``bottleneck`` channels; norm, ReLU, 3x3 convolution to ``growth`` channels."""

    def __init__(self, channels: int, growth: int, bottleneck: int, *, rngs: nnx.Rngs) -> None:
        self.norm1 = _norm(channels, rngs)
        self.conv1 = nnx.Conv(channels, bottleneck, (1, 1), use_bias=False, rngs=rngs)
        self.norm2 = _norm(bottleneck, rngs)
        self.conv2 = nnx.Conv(bottleneck, growth, (3, 3), padding=1, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=-1)


class Transition(nnx.Module):
    """Norm, ReLU, 1x1 convolution to half the channels, 2x2 mean pooling."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        self.norm = _norm(channels, rngs)
        self.conv = nnx.Conv(channels, channels // 2, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.avg_pool(self.conv(nnx.relu(self.norm(x))), (2, 2), strides=(2, 2))


class DenseNet(nnx.Module):
    """DenseNet-121 for 224-pixel images and others: [batch, H, W, 3] to [batch, num_classes].

    Args:
        blocks: layers per dense block. growth: channels that a layer adds. stem: channels of the first convolution.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        stem: int = 64,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv0 = nnx.Conv(3, stem, (7, 7), strides=2, padding=3, use_bias=False, rngs=rngs)
        self.norm0 = _norm(stem, rngs)
        channels, names = stem, []
        for block, count in enumerate(blocks, start=1):
            for i in range(1, count + 1):
                names.append(f"block{block}_layer{i}")
                setattr(self, names[-1], DenseLayer(channels, growth, 4 * growth, rngs=rngs))
                channels += growth
            if block < len(blocks):
                names.append(f"transition{block}")
                setattr(self, names[-1], Transition(channels, rngs=rngs))
                channels //= 2
        self.names = tuple(names)
        self.norm5 = _norm(channels, rngs)
        self.classifier = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm0(self.conv0(x)))
        x = max_pool(x)
        for name in self.names:
            x = getattr(self, name)(x)
        x = nnx.relu(self.norm5(x))
        return self.classifier(jnp.mean(x, axis=(1, 2)))


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
