"""CIFAR residual networks (He 2016, section 4.2): depth 6n + 2, parameter-free shortcuts (option A)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

__all__ = ["CifarResNet"]

_PAD = ((1, 1), (1, 1))


class CifarBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut that subsamples pixels and pads channels with zeros."""

    def __init__(self, width_in: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.stride = 1 if width_in == width else 2
        stride = (self.stride, self.stride)
        self.conv1 = nnx.Conv(width_in, width, (3, 3), strides=stride, padding=_PAD, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv2 = nnx.Conv(width, width, (3, 3), padding=_PAD, use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.pad = (width - width_in) // 2

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (self.pad, self.pad)))
        return nnx.relu(x + y)


class CifarResNet(nnx.Module):
    """ResNet-20, -56, ... for 32-pixel images: [batch, H, W, 3] to [batch, num_classes]."""

    def __init__(self, depth: int, num_classes: int = 10, *, rngs: nnx.Rngs) -> None:
        blocks, width = (depth - 2) // 6, 16
        self.conv1 = nnx.Conv(3, width, (3, 3), padding=_PAD, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.names = tuple(f"layer{stage}_{i}" for stage in (1, 2, 3) for i in range(blocks))
        for name in self.names:
            wider = 16 * 2 ** (int(name[5]) - 1)
            setattr(self, name, CifarBlock(width, wider, rngs=rngs))
            width = wider
        self.linear = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.linear(jnp.mean(x, axis=(1, 2)))
