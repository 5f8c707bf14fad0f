"""Images that stay on disk and are read when they are asked for: sets larger than memory.

Training asks for the examples of a step by their numbers, and the order of an epoch follows from its number: nothing
has to be kept of a stream's position but epoch and step, and of several processes each reads its own devices' rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xbm_jax.errors import DataError

__all__ = ["Streamed", "each"]


@dataclass(frozen=True, eq=False)
class Streamed:
    """uint8 images [n, H, W, C] on disk. ``images[index]`` reads some of them into an array; nothing reads all.

    Attributes:
        read: numbers of images on disk, int [m], to images uint8 [m, H, W, C].
        index: which images of those on disk these are, int [n].
        shape: [n, H, W, C].
        source: what tells these images from others: a digest that is part of a saved run.
    """

    read: Callable[[np.ndarray], np.ndarray]
    index: np.ndarray
    image_shape: tuple[int, int, int]
    source: str

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[n, H, W, C]."""
        return (len(self.index), *self.image_shape)

    @property
    def digest(self) -> str:
        """SHA-256 of which images these are, not of their values."""
        return hashlib.sha256(self.source.encode() + np.asarray(self.index, np.int64).tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = self.index[index]
        images = self.read(np.atleast_1d(rows)) if np.size(rows) else np.zeros((0, *self.image_shape), np.uint8)
        return images[0] if np.ndim(rows) == 0 else images

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        allowed = "some of them, images[index]: streamed images are not held in memory all at once"
        raise DataError("images", f"{len(self)} images on disk", allowed)

    def only(self, index: Any) -> Streamed:
        """Those of an index, a mask or a slice, still on disk."""
        return replace(self, index=self.index[index])

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], name: str) -> Streamed:
        """The images as ``function`` makes them of those that are read; ``name`` says what it does."""
        made = function(np.zeros((1, *self.image_shape), np.uint8)).shape[1:]
        read = self.read
        return replace(self, read=lambda rows: function(read(rows)), image_shape=made, source=f"{self.source} {name}")


def each(images: Any, function: Callable[[np.ndarray], np.ndarray], name: str) -> Any:
    """What ``function`` makes of images: at once of arrays, when they are read of streamed ones."""
    return images.mapped(function, name) if isinstance(images, Streamed) else function(images)
