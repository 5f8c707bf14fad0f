"""VGG-16 with batch norms (Simonyan 2015; configuration D), digital biases and three dense layers."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx

from xbm_jax.models.zoo.pooling import adaptive_mean

__all__ = ["STAGES", "VggBn"]

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions between two poolings."""


class VggBn(nnx.Module):
    """VGG-16-BN for 224-pixel images and others: [batch, H, W, 3] to [batch, num_classes].

    ``fc1`` and ``fc2`` sit on crossbars like the convolutions; ``fc3`` is the head.

    Args:
        stages: channels of the convolutions, pooling by pooling.
        hidden: width of ``fc1`` and ``fc2``.
        pool: pixels a side that the last feature map is brought to, by adaptive mean pooling.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        stages: Sequence[Sequence[int]] = STAGES,
        hidden: int = 4096,
        pool: int = 7,
        rngs: nnx.Rngs,
    ) -> None:
        self.pool, channels = pool, 3
        self.names = tuple(tuple(f"{s + 1}_{i + 1}" for i in range(len(stage))) for s, stage in enumerate(stages))
        for names, widths in zip(self.names, stages, strict=True):
            for name, width in zip(names, widths, strict=True):
                setattr(self, f"conv{name}", nnx.Conv(channels, width, (3, 3), padding=1, rngs=rngs))
                setattr(self, f"bn{name}", nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs))
                channels = width
        self.fc1 = nnx.Linear(pool * pool * channels, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, hidden, rngs=rngs)
        self.fc3 = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for names in self.names:
            for name in names:
                x = nnx.relu(getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x)))
            x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = adaptive_mean(x, self.pool)
        x = nnx.relu(self.fc1(x.reshape(len(x), -1)))
        return self.fc3(nnx.relu(self.fc2(x)))
