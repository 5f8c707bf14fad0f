"""Bottleneck residual networks (He 2016): ResNet-50 in its two forms, which halve the pixels in different layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.models.zoo.pooling import max_pool

__all__ = ["ResNet50"]


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolution to four times ``width``, and a shortcut, projected where the shape changes."""

    def __init__(
        self, width_in: int, width: int, strides: tuple[int, int, int], epsilon: float, *, rngs: nnx.Rngs
    ) -> None:
        def conv(inputs: int, outputs: int, size: int, stride: int) -> nnx.Conv:
            kernel, pad = (size, size), size // 2
            return nnx.Conv(inputs, outputs, kernel, strides=stride, padding=pad, use_bias=False, rngs=rngs)

        def norm(channels: int) -> nnx.BatchNorm:
            return nnx.BatchNorm(channels, momentum=0.9, epsilon=epsilon, rngs=rngs)

        self.conv1, self.bn1 = conv(width_in, width, 1, strides[0]), norm(width)
        self.conv2, self.bn2 = conv(width, width, 3, strides[1]), norm(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1, 1), norm(4 * width)
        self.projects = width_in != 4 * width or max(strides) > 1
        if self.projects:
            self.proj, self.proj_bn = conv(width_in, 4 * width, 1, strides[2]), norm(4 * width)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nnx.relu(y + (self.proj_bn(self.proj(x)) if self.projects else x))


class ResNet50(nnx.Module):
    """ResNet-50 for 224-pixel images and others: [batch, H, W, 3] to [batch, num_classes].

    Args:
        stride_at: layer of a stage's first block that halves the pixels. ``"conv1"``, the 1x1 convolution: the original
            form (v1: Caffe, Keras). ``"conv2"``, the 3x3 one: torchvision's, timm's and NVIDIA's form (v1.5).
        epsilon: of the batch norms: 1e-5 in torchvision, 1e-3 in Keras.
        blocks: blocks per stage. width: channels of the first stage's 3x3 convolutions, doubled stage by stage.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        stride_at: Literal["conv1", "conv2"] = "conv2",
        epsilon: float = 1e-5,
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv1 = nnx.Conv(3, width, (7, 7), strides=2, padding=3, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(width, momentum=0.9, epsilon=epsilon, rngs=rngs)
        self.names = tuple(f"layer{stage + 1}_{i}" for stage, count in enumerate(blocks) for i in range(count))
        channels = width
        for name in self.names:
            stage, index = (int(part) for part in name.removeprefix("layer").split("_"))
            stride = 2 if index == 0 and stage > 1 else 1
            strides = (stride, 1, stride) if stride_at == "conv1" else (1, stride, stride)
            inner = width * 2 ** (stage - 1)
            setattr(self, name, Bottleneck(channels, inner, strides, epsilon, rngs=rngs))
            channels = 4 * inner
        self.fc = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = max_pool(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return self.fc(jnp.mean(x, axis=(1, 2)))
