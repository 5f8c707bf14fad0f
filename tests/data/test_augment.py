"""Random changes of images: what they may be, how often, and that they follow from the seeds."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xbm_jax.data import Augment, center_crop, made_ahead
from xbm_jax.data.augment import random_patches
from xbm_jax.errors import DataError

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def noise(count: int = 4, size: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)


@pytest.mark.parametrize("augment", [Augment(), Augment(size=8)])
def test_draws_follow_from_the_seeds(augment: Augment) -> None:
    images = noise(32)
    kept = images.copy()
    first = augment.train(images, 1, 2, 3)
    np.testing.assert_array_equal(first, augment.train(images, 1, 2, 3))
    assert (first != augment.train(images, 1, 2, 4)).any()
    np.testing.assert_array_equal(images, kept)


def test_half_of_the_images_are_mirrored_and_nothing_else() -> None:
    images = noise(1000, size=4)
    changed = Augment().train(images, 0)
    mirrored = (changed == images[:, :, ::-1]).all((1, 2, 3))
    plain = (changed == images).all((1, 2, 3))
    assert (mirrored ^ plain).all()
    assert abs(mirrored.sum() - 500) < 4 * 1000**0.5 / 2  # four standard deviations of a fair coin


def test_nothing_asked_nothing_done() -> None:
    images = noise()
    np.testing.assert_array_equal(Augment(flip=False).train(images, 0), images)
    np.testing.assert_array_equal(Augment().evaluate(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_cut_and_resized(channels: int) -> None:
    """Each against Pillow's crop and resize of the patch that the same generator gives."""
    images = noise(8, channels=channels)
    augment = Augment(flip=False, size=6)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(5, spawn_key=(5, 1))))
    patches = random_patches(rng, 8, (16, 16), SCALE, RATIO)
    out = augment.train(images, 5, 1)
    assert out.shape == (8, 6, 6, channels) and out.dtype == np.uint8
    for image, (top, left, height, width), got in zip(images, patches, out, strict=True):
        patch = image[top : top + height, left : left + width]
        picture = Image.fromarray(patch[..., 0] if channels == 1 else patch)
        expected = np.asarray(picture.resize((6, 6), Image.Resampling.BILINEAR)).reshape(got.shape)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [(200, 200), (120, 300), (300, 100)])
def test_patches_have_the_asked_area_and_aspect(shape: tuple[int, int]) -> None:
    rows, columns = shape
    top, left, height, width = random_patches(np.random.default_rng(0), 4000, shape, (0.2, 0.6), RATIO).T
    assert min(top.min(), left.min()) >= 0
    assert (top + height <= rows).all() and (left + width <= columns).all()
    aspect = width / height
    assert 0.98 * RATIO[0] < aspect.min() and aspect.max() < 1.02 * RATIO[1]  # whole pixels
    if shape == (200, 200):
        share = height * width / (rows * columns)
        assert abs(share.mean() - 0.4) < 0.01  # uniform in area: all sizes fit a square of this kind but a few
        assert share.min() > 0.19 and share.max() < 0.61
        assert abs(np.log(aspect).mean()) < 0.02  # wide as often as high
        assert top.max() > 0 and top.min() == 0


def test_a_patch_that_never_fits_is_the_largest_allowed_one_in_the_centre() -> None:
    """An image three times as wide as high, whole area asked: 4/3 as wide as high."""
    patches = random_patches(np.random.default_rng(0), 3, (60, 180), (1.0, 1.0), RATIO)
    np.testing.assert_array_equal(patches, [[0, 50, 60, 80]] * 3)


def test_evaluation_takes_the_centre() -> None:
    images = noise(2, size=9)
    np.testing.assert_array_equal(Augment(size=4).evaluate(images), images[:, 2:6, 2:6])
    np.testing.assert_array_equal(center_crop(images, 9), images)
    with pytest.raises(DataError, match="at least 10 pixels a side"):
        center_crop(images, 10)


@pytest.mark.parametrize("shape", [(2, 15, 16, 3), (2, 16, 15, 1)])
def test_patches_larger_than_the_images_are_refused_beforehand(shape: tuple[int, ...]) -> None:
    Augment(size=15).check_fits(np.zeros(shape, np.uint8))
    Augment().check_fits(np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"Augment.size = 16: at most 15"):
        Augment(size=16).check_fits(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "image_size = 0"),
        ({"scale": (0.0, 1.0)}, r"Augment.scale = \(0.0, 1.0\)"),
        ({"scale": (0.5, 1.5)}, "<= 1"),
        ({"ratio": (2.0, 1.0)}, "Augment.ratio"),
    ],
)
def test_impossible_settings(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Augment(**options)


def test_batches_are_made_ahead_in_order() -> None:
    """Two beyond the one in use, in another thread; an error shows where it belongs."""
    made, both = [], threading.Event()

    def make(i: int) -> int:
        made.append(i)
        if i == 2:
            both.set()
        if i == 4:
            raise ValueError("four")
        return i

    batches = made_ahead(make, 6)
    assert next(batches) == 0
    assert both.wait(10)  # batch 2 is made though only 0 was asked for
    assert [next(batches) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="four"):
        next(batches)
    assert made[:5] == [0, 1, 2, 3, 4]
    assert list(made_ahead(lambda i: i, 0)) == []
