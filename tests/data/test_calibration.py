"""Calibration images stand for the whole training set, in whatever order it is stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.data import Dataset, calibration_images
from xbm_jax.errors import DataError


def numbered(counts: list[int]) -> Dataset:
    """Sorted by class; an image's first three pixels say its number and its class, the last is white."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.full((len(labels), 1, 4, 1), 255, np.uint8)
    images[:, 0, :3, 0] = np.stack([np.arange(len(labels)) // 256, np.arange(len(labels)) % 256, labels], axis=1)
    names = tuple(f"class {i}" for i in range(len(counts)))
    return Dataset("numbered", images, labels, images[:1], labels[:1], names)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=12), st.integers(1, 300), st.integers(0, 2**32))
def test_every_class_has_its_share(counts, count, seed):
    chosen = calibration_images(numbered(counts), count, seed)
    total, drawn = sum(counts), min(count, sum(counts))
    assert chosen.shape == (drawn, 1, 4, 1) and chosen.dtype == np.uint8
    assert len(np.unique(chosen.reshape(drawn, -1), axis=0)) == drawn  # none twice
    found = np.bincount(chosen[:, 0, 2, 0], minlength=len(counts))
    assert (np.abs(found - drawn * np.array(counts) / total) < 1).all()


def test_batches_of_a_sorted_set_are_mixed():
    classes = calibration_images(numbered([100] * 8))[:, 0, 2, 0]
    assert len(classes) == 256
    for start in range(0, 256, 64):
        assert len(set(classes[start : start + 64].tolist())) == 8


def test_the_seed_decides():
    data = numbered([40, 50])
    same, other = (calibration_images(data, 20, seed) for seed in (0, 1))
    np.testing.assert_array_equal(calibration_images(data, 20), same)
    assert not np.array_equal(same, other)


@pytest.mark.parametrize("count", [0, -3])
def test_none_are_refused(count):
    with pytest.raises(DataError, match=rf"count = {count}: at least 1"):
        calibration_images(numbered([3, 3]), count)
