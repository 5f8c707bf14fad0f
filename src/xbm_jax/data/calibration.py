"""Which images a chip is calibrated on."""

from __future__ import annotations

import numpy as np

from xbm_jax.data.dataset import Dataset
from xbm_jax.errors import DataError
from xbm_jax.streams import Host, generator

__all__ = ["calibration_images"]


def calibration_images(data: Dataset, count: int = 256, seed: int = 0) -> np.ndarray:
    """``count`` training images, uint8 [count, H, W, C], for ``calibrate``; all of them where there are fewer.

    Seeded and stratified: a class has its share of the images, rounded up or down, whatever order they are stored in.
    They come in random order, so that every batch of them is mixed too.

    Raises:
        DataError: ``count`` below 1.
    """
    if count < 1:
        raise DataError("count", count, "at least 1")
    rng, images = generator(seed, Host.CALIBRATION), len(data.y_train)
    count = min(count, images)
    order = rng.permutation(images)
    by_class = order[np.argsort(data.y_train[order], kind="stable")]
    chosen = by_class[np.arange(count) * images // count]
    return data.x_train[rng.permutation(chosen)]
