"""Which images a chip is calibrated on."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbm_jax.data.dataset import Dataset
from xbm_jax.errors import DataError
from xbm_jax.examples import take
from xbm_jax.streams import Host, generator

__all__ = ["calibration_images"]


def calibration_images(data: Dataset, count: int = 256, seed: int = 0) -> Any:
    """``count`` training images, uint8 [count, H, W, C], for ``calibrate``; all of them where there are fewer.

    Of data of another kind so many examples, as they are.

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
    by_class = order[np.argsort(data.strata[order], kind="stable")]
    chosen = by_class[np.arange(count) * images // count]
    return take(data.x_train, rng.permutation(chosen))
