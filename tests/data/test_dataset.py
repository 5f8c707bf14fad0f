"""A Dataset refuses what cannot be learned from, by name."""

from typing import Any

import numpy as np
import pytest

from xbm_jax.data import Dataset
from xbm_jax.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    """Twelve grey 4x4 images of three classes, six of them for testing, with ``changes``."""
    rng = np.random.default_rng(0)
    good = {
        "name": "toy",
        "x_train": rng.integers(0, 256, (6, 4, 4, 1), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (6, 4, 4, 1), dtype=np.uint8),
        "y_test": np.array([2, 1, 0, 2, 1, 0]),
        "class_names": ("ant", "bee", "cat"),
    }
    return good | changes


def nan_images():
    images = np.zeros((6, 4, 4, 1), np.float32)
    images[1, 0, 0, 0], images[4] = np.nan, np.inf
    return images


BAD = {
    "nan": ({"x_train": nan_images()}, "x_train", "NaN or infinity in 2 of 6 images"),
    "float": ({"x_test": np.zeros((6, 4, 4, 1))}, "x_test.dtype", "np.round(x * 255)"),
    "int32": ({"x_train": np.zeros((6, 4, 4, 1), np.int32)}, "x_train.dtype", "uint8 images in 0..255"),
    "no channel axis": ({"x_train": np.zeros((6, 4, 4), np.uint8)}, "x_train.shape", "x[..., None]"),
    "flat": ({"x_train": np.zeros((6, 16), np.uint8)}, "x_train.shape", "[n, height, width, channels]"),
    "two channels": ({"x_train": np.zeros((6, 4, 4, 2), np.uint8)}, "x_train channels", "1 or 3 channels"),
    "channels first": ({"x_test": np.zeros((6, 3, 4, 4), np.uint8)}, "x_test channels", "transpose(0, 2, 3, 1)"),
    "no test images": (
        {"x_test": np.zeros((0, 4, 4, 1), np.uint8), "y_test": []},
        "x_test.shape",
        "at least one image",
    ),
    "no pixels": ({"x_train": np.zeros((6, 0, 4, 1), np.uint8)}, "x_train.shape", "at least one pixel"),
    "sizes differ": ({"x_test": np.zeros((6, 5, 4, 1), np.uint8)}, "x_test.shape[1:]", "(4, 4, 1)"),
    "length": ({"y_train": np.array([0, 1, 2])}, "len(y_train)", "6, the number of images in x_train"),
    "real labels": ({"y_train": np.array([0.0, 1, 2, 0, 1, 2])}, "y_train.dtype", "integer class numbers"),
    "one-hot": ({"y_train": np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]]}, "y_train.shape", "not one-hot"),
    "label too large": ({"y_test": np.array([2, 3, 0, 3, 1, 7])}, "y_test", "'3 (2 times), 7 (1 times)': 0..2"),
    "negative label": ({"y_train": np.array([0, 1, 2, -1, 1, 2])}, "y_train", "-1 (1 times)"),
    "empty classes": ({"y_train": np.zeros(6, int)}, "y_train", "['bee', 'cat']"),
    "no class": ({"class_names": ()}, "class_names", "at least one class"),
    "repeated name": ({"class_names": ("ant", "bee", "ant")}, "class_names", "['ant']"),
}


@pytest.mark.parametrize(("changes", "field", "says"), BAD.values(), ids=BAD.keys())
def test_bad_arrays_are_refused_by_field_and_value(changes, field, says):
    with pytest.raises(DataError) as caught:
        Dataset(**arrays(**changes))
    assert caught.value.field == field
    assert says in str(caught.value)


def test_good_arrays_are_kept_and_labels_widened():
    given = arrays(y_train=np.array([0, 1, 2, 0, 1, 2], np.uint8))
    data = Dataset(**given)
    assert data.num_classes == 3
    assert data.x_train is given["x_train"]
    assert data.y_train.dtype == np.int64
    assert (data.licence, data.attribution) == ("unknown", "unknown")


def test_test_split_may_lack_a_class():
    assert Dataset(**arrays(y_test=np.zeros(6, int))).num_classes == 3


def big(seed=0):
    """100 + 50 images whose pixels all equal their label; classes of very different size."""
    labels = np.repeat([0, 1, 2], [70, 29, 1])
    test = np.repeat([0, 1, 2], [30, 15, 5])
    images = [np.broadcast_to(y[:, None, None, None], (len(y), 2, 2, 1)).astype(np.uint8) for y in (labels, test)]
    return Dataset("big", images[0], labels, images[1], test, ("ant", "bee", "cat"), "MIT", "someone")


def test_subset_is_stratified_and_keeps_pairs():
    small = big().subset(20, 10, seed=3)
    assert np.bincount(small.y_train).tolist() == [14, 5, 1]
    assert np.bincount(small.y_test).tolist() == [6, 3, 1]
    assert (small.x_train[:, 0, 0, 0] == small.y_train).all()
    assert (small.x_test[:, 0, 0, 0] == small.y_test).all()
    assert (small.name, small.licence, small.attribution) == ("big", "MIT", "someone")


def test_subset_depends_on_the_seed_alone():
    pixels = np.arange(100, dtype=np.uint8)[:, None, None, None]
    data = Dataset("p", pixels, np.arange(100) % 4, pixels[:8], np.arange(8) % 4, tuple("abcd"))
    same, again, other = (data.subset(40, 4, seed=s).x_train.ravel().tolist() for s in (1, 1, 2))
    assert same == again
    assert same != other


@pytest.mark.parametrize(
    ("train", "test", "field"), [(101, 10, "subset.train"), (20, 51, "subset.test"), (2, 9, "size")]
)
def test_subset_beyond_what_there_is(train, test, field):
    with pytest.raises(DataError) as caught:
        big().subset(train, test)
    assert caught.value.field == field


def test_take_classes_relabels_in_the_order_given():
    data = big().take_classes(["cat", "ant"])
    assert data.class_names == ("cat", "ant")
    assert np.bincount(data.y_train).tolist() == [1, 70]
    assert set(zip(data.x_test.ravel().tolist(), np.repeat(data.y_test, 4).tolist(), strict=True)) == {(2, 0), (0, 1)}
    with pytest.raises(DataError, match="dog"):
        big().take_classes(["dog"])
