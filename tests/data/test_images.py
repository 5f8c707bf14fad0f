"""Channels and size."""

import numpy as np
import pytest
from PIL import Image

from xbm_jax.data import resize, to_rgb
from xbm_jax.errors import DataError


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def test_grey_is_repeated_and_rgb_is_left_alone():
    grey, colour = noise(2, 3, 4, 1), noise(2, 3, 4, 3)
    rgb = to_rgb(grey)
    assert rgb.shape == (2, 3, 4, 3)
    assert all(np.array_equal(rgb[..., c], grey[..., 0]) for c in range(3))
    assert to_rgb(colour) is colour


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (2, 3, 4, 4), ()])
def test_other_channel_counts_are_refused(shape):
    with pytest.raises(DataError, match=r"1 \(grey\) or 3 \(RGB\)"):
        to_rgb(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows_bilinear_filter(channels):
    images = noise(3, 9, 7, channels)
    small = resize(images, 5)
    assert small.shape == (3, 5, 5, channels)
    assert small.dtype == np.uint8
    for c in range(channels):
        expected = Image.fromarray(images[2, ..., c]).resize((5, 5), Image.Resampling.BILINEAR)
        assert np.array_equal(small[2, ..., c], np.asarray(expected))


def test_resize_to_the_same_size_is_no_copy():
    images = noise(2, 6, 6, 1)
    assert resize(images, 6) is images


def test_resize_keeps_flat_images_flat():
    assert (resize(np.full((1, 28, 28, 1), 77, np.uint8), 32) == 77).all()


@pytest.mark.parametrize("size", [0, -3, 2.0, True, 5000, "32"])
def test_impossible_sizes(size):
    with pytest.raises(DataError, match="image_size"):
        resize(noise(1, 4, 4, 1), size)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 4, 4, 1)), np.zeros((4, 4, 1), np.uint8), np.zeros((1, 4, 4, 2), np.uint8)]
)
def test_resize_refuses_other_arrays(images):
    with pytest.raises(DataError, match="uint8"):
        resize(images, 8)
