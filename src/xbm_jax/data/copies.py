"""Near copies: images so alike that one of them in training makes the other one worthless for validation."""

from __future__ import annotations

import numpy as np

from xbm_jax.data.dataset import check_images, check_labels
from xbm_jax.errors import DataError

__all__ = ["near_copies"]

_CELLS = 4
_DARK = 8.0


def near_copies(images: np.ndarray, labels: np.ndarray, distance: float = 0.2) -> np.ndarray:
    """A group number per image, int64 [n]: chains of near copies of one class share one, for ``Dataset(groups=...)``.

        t = ln(8 + m),   d(a, b) = sqrt(mean((t_a - t_b)^2)) < distance

    with m the means of 4 x 4 cells of each channel, 0..255. Two images are thus near where corresponding cells differ
    in brightness by some ``distance`` of it, whatever the detail. Groups are the connected components within a class,
    numbered by their first image. Takes time in proportion to the square of a class's images.

    The default is set by traffic signs, whose frames of one track are near and where the test tracks are others: with
    it, the nearest neighbour is as often right in validation as in the test (see ``docs/methods.md``).

    Raises:
      DataError: images or labels that no data set may hold, or a distance that is not above 0.
    """
    images = check_images("images", images)
    labels = check_labels("labels", labels, "images", len(images))
    if not distance > 0:
        raise DataError("distance", distance, "a number above 0")
    thumbnails, groups = _thumbnails(images), np.full(len(images), -1, np.int64)
    for label in np.unique(labels):
        unseen = np.flatnonzero(labels == label)
        while len(unseen):
            first, reached, unseen = unseen[0], unseen[:1], unseen[1:]
            while len(reached):
                groups[reached] = first
                near = _near(thumbnails[reached], thumbnails[unseen], distance)
                reached, unseen = unseen[near], unseen[~near]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """``t`` of every image, [n, values]; fewer cells where there are fewer pixels."""
    cells = images
    for axis in (1, 2):
        size = images.shape[axis]
        starts = np.arange(min(_CELLS, size)) * size // min(_CELLS, size)
        shape = [-1 if i == axis else 1 for i in range(4)]
        cells = np.add.reduceat(cells, starts, axis, dtype=np.float64) / np.diff([*starts, size]).reshape(shape)
    return np.log(_DARK + cells.reshape(len(images), -1))


def _near(some: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which of ``others`` are nearer than ``distance`` to any of ``some``, bool."""
    near = np.zeros(len(others), bool)
    for one in some:
        near |= np.mean((others - one) ** 2, axis=1) < distance**2
    return near
