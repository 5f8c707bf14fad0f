"""Random changes of training images, batch by batch on the host; every draw follows from the seeds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from xbm_jax.data.images import center_crop, check_size
from xbm_jax.errors import DataError
from xbm_jax.streams import Host, generator

__all__ = ["Augment", "made_ahead"]

_TRIES = 10
_AHEAD = 2
_T = TypeVar("_T")


@dataclass(frozen=True)
class Augment:
    """Mirror images and cut a random patch out of each; the published recipes are two of its settings.

    ``Augment()`` mirrors alone: images that were cropped beforehand (CUBS, Cars at 224 pixels).
    ``Augment(size=224)`` on images of 256 pixels: random-resized crops, mirrored (Flowers, WikiArt, Sketch).

    Args:
      flip: mirror every image left to right with probability 1/2.
      size: pixels a side of what a network sees. In training it is a patch of random area and aspect ratio, resized
        (Szegedy 2015, torchvision's RandomResizedCrop); in evaluation the centre. None takes whole images.
      scale: smallest and largest area of the patch, as a share of the image's.
      ratio: smallest and largest width by height of the patch; its logarithm is uniform.

    Raises:
      DataError: a size that is no number of pixels, or ranges that are not 0 < low <= high (and scale <= 1).
    """

    flip: bool = True
    size: int | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_size(self.size)
        for name, top in (("scale", 1.0), ("ratio", np.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                raise DataError(f"Augment.{name}", (low, high), f"0 < low <= high{' <= 1' if top == 1 else ''}")

    def check_fits(self, images: np.ndarray) -> None:
        """Raise DataError unless images [n, H, W, C] are at least ``size`` pixels a side; asked before training."""
        shortest = min(images.shape[1:3])
        if self.size is not None and shortest < self.size:
            raise DataError("Augment.size", self.size, f"at most {shortest}, the images' shorter side in pixels")

    def train(
        self, images: np.ndarray, seed: int, *numbers: int, rows: slice = slice(None), batch: int | None = None
    ) -> np.ndarray:
        """Changed copies of uint8 images [n, H, W, C]: [n, size, size, C]; equal seed and numbers give equal images.

        Args:
          rows: which of a batch these images are, where others hold the rest; ``batch``: how many it has in all.
        """
        rng, count = generator(seed, Host.AUGMENT, *numbers), len(images) if batch is None else batch
        flipped = (rng.random(count) < 0.5 if self.flip else np.zeros(count, bool))[rows]
        if self.size is None:
            out = images.copy()
            out[flipped] = images[flipped, :, ::-1]
            return out
        patches = random_patches(rng, count, images.shape[1:3], self.scale, self.ratio)[rows]
        out = np.empty((len(images), self.size, self.size, images.shape[-1]), np.uint8)

        def cut(i: int) -> None:
            top, left, height, width = patches[i]
            picture = Image.fromarray(images[i].squeeze(-1) if images.shape[-1] == 1 else images[i])
            picture = picture.crop((left, top, left + width, top + height))
            resized = np.asarray(picture.resize(out.shape[1:3], Image.Resampling.BILINEAR)).reshape(out.shape[1:])
            out[i] = resized[:, ::-1] if flipped[i] else resized

        with ThreadPoolExecutor() as pool:  # Pillow works outside Python's lock
            deque(pool.map(cut, range(len(images))), maxlen=0)
        return out

    def evaluate(self, images: np.ndarray) -> np.ndarray:
        """The centres [n, size, size, C] of images, without any draw."""
        return images if self.size is None else center_crop(images, self.size)


def random_patches(
    rng: np.random.Generator,
    count: int,
    shape: tuple[int, ...],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> np.ndarray:
    """Top, left, height and width of ``count`` patches of an image of ``shape`` pixels, int [count, 4].

    Area and aspect ratio are drawn anew, ten times at most, until the patch fits; else it is the largest one in the
    centre whose aspect ratio is allowed.
    """
    rows, columns = shape
    area = rows * columns * rng.uniform(*scale, (count, _TRIES))
    aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), (count, _TRIES)))
    width, height = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    fits = (width > 0) & (height > 0) & (width <= columns) & (height <= rows)
    first, every = fits.argmax(1), np.arange(count)
    height, width, found = height[every, first], width[every, first], fits[every, first]
    limit = np.clip(columns / rows, *ratio)
    height = np.where(found, height, min(rows, round(columns / limit)))
    width = np.where(found, width, min(columns, round(rows * limit)))
    top, left = (rng.random((2, count)) * np.stack([rows - height + 1, columns - width + 1])).astype(int)
    top, left = np.where(found, top, (rows - height) // 2), np.where(found, left, (columns - width) // 2)
    return np.stack([top, left, height, width], axis=1)


def made_ahead(make: Callable[[int], _T], count: int) -> Iterator[_T]:
    """``make(0)`` to ``make(count - 1)`` in order; the next two are made in a thread while the caller works."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: deque[Future[_T]] = deque(pool.submit(make, i) for i in range(min(_AHEAD, count)))
        for i in range(count):
            value = pending.popleft().result()
            if i + _AHEAD < count:
                pending.append(pool.submit(make, i + _AHEAD))
            yield value
