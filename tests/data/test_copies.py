"""Near copies are found by their distance, within a class; of a set with tracks they make validation honest."""

from __future__ import annotations

import numpy as np
import pytest

from xbm_jax.data import load, near_copies, split_validation
from xbm_jax.errors import DataError


def flat(*values: int, shape: tuple[int, int, int] = (8, 8, 3)) -> np.ndarray:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones(shape, np.uint8)


def test_chains_within_a_class_are_groups() -> None:
    """Flat images differ by ln((8 + a) / (8 + b)): 100 and 110 by 0.09, 110 and 121 by 0.09, 100 and 121 by 0.18."""
    images = flat(100, 200, 110, 121, 100, 30)
    groups = near_copies(images, np.array([0, 0, 0, 0, 1, 1]), distance=0.1)
    assert groups.tolist() == [0, 1, 0, 0, 2, 3]
    assert near_copies(images, np.zeros(6, int), distance=0.05).tolist() == [0, 1, 2, 3, 0, 4]


@pytest.mark.parametrize("shape", [(9, 7, 1), (3, 2, 3), (1, 1, 1)])
def test_the_distance_is_the_one_stated(shape: tuple[int, int, int]) -> None:
    """Against the formula, cell by cell, on images of any size."""
    a, b = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)

    def cells(image: np.ndarray) -> np.ndarray:
        rows, columns = (np.array_split(np.arange(n)[::-1], min(4, n)) for n in image.shape[:2])
        return np.array([image[np.ix_(r, c)].mean((0, 1)) for r in rows for c in columns])

    d = np.sqrt(np.mean((np.log(8 + cells(a)) - np.log(8 + cells(b))) ** 2))
    for distance, groups in ((0.999 * d, 2), (1.001 * d, 1)):
        assert len(set(near_copies(np.stack([a, b]), np.zeros(2, int), distance).tolist())) == groups


@pytest.mark.parametrize("distance", [0.0, -1.0, float("nan")])
def test_impossible_distances(distance: float) -> None:
    with pytest.raises(DataError, match="distance = "):
        near_copies(flat(1, 2), np.zeros(2, int), distance)


def nearest_is_right(x: np.ndarray, y: np.ndarray, x_other: np.ndarray, y_other: np.ndarray) -> float:
    """Share of other images whose nearest neighbour has their label: in contrast-free thumbnails of 16 pixels."""

    def features(images: np.ndarray) -> np.ndarray:
        small = images.reshape(len(images), 16, 2, 16, 2, 3).mean((2, 4)).reshape(len(images), -1)
        small -= small.mean(1, keepdims=True)
        return small / np.linalg.norm(small, axis=1, keepdims=True)

    return float(np.mean(y[np.argmax(features(x_other) @ features(x).T, 1)] == y_other))


def test_traffic_signs(shared_data) -> None:
    """Test tracks are not among the training tracks: a split by groups foretells the test, one by images does not."""
    data = load(f"npz:{shared_data('gtsrb43_32px')}")
    groups = near_copies(data.x_train, data.y_train)
    assert groups.max() + 1 == 1212
    test = nearest_is_right(data.x_train, data.y_train, data.x_test, data.y_test)
    by_images, by_groups = (split_validation(data.y_train, 0.15, 0, given) for given in (None, groups))
    share = [
        nearest_is_right(data.x_train[t], data.y_train[t], data.x_train[v], data.y_train[v])
        for t, v in (by_images, by_groups)
    ]
    assert share[0] > test + 0.2
    assert abs(share[1] - test) < 0.05  # two standard deviations of 400 images
