"""A Dataset refuses what cannot be learned from, by name."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xbm_jax.data import Dataset, split_validation
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
    "no class": ({"class_names": ()}, "class_names", "at least two classes"),
    "one class": (
        {"class_names": ("ant",), "y_train": np.zeros(6, int), "y_test": np.zeros(6, int)},
        "class_names",
        "two",
    ),
    "names that look alike": (
        {"class_names": ("caf\u00e9", "cafe\u0301", "thé")},
        "class_names",
        "['café']: every name once",
    ),
    "Latin-1 bytes": ({"class_names": (b"caf\xe9", b"bee", b"cat")}, "class_names", "UTF-8"),
    "labels from 1": ({"y_train": np.array([1, 2, 3, 1, 2, 3])}, "y_train", "these start at 1: use labels - 1"),
    "a column of labels": ({"y_train": np.array([[0], [1], [2], [0], [1], [2]])}, "y_train.shape", "use labels[:, 0]"),
    "labels as text": ({"y_train": np.array(list("abcabc"))}, "y_train.dtype", "return_inverse=True"),
    "labels as bool": ({"y_train": np.zeros(6, bool)}, "y_train.dtype", "labels.astype(int)"),
    "huge labels": ({"y_train": np.full(6, 2**63, np.uint64)}, "y_train", f"{2**63}: 0..num_classes - 1"),
    "groups of another length": ({"groups": np.arange(5)}, "groups", "int64[5]': one integer per training image, [6]"),
    "groups as text": ({"groups": np.array(list("abcdef"))}, "groups", "one integer per training image"),
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


def test_names_may_be_bytes_and_are_composed():
    data = Dataset(**arrays(class_names=np.array([b"ant", "thé".encode(), b"cat"])))
    assert data.class_names == ("ant", "thé", "cat")
    assert Dataset(**arrays(class_names=("cafe\u0301", "bee", "cat"))).class_names[0] == "caf\u00e9"
    assert data.take_classes(["cat", "the\u0301"]).class_names == ("cat", "thé")


@pytest.mark.parametrize("split", ["train", "test"])
def test_binary_images_are_warned_of(split):
    ones = np.zeros((70, 4, 4, 1), np.uint8)
    ones[69, 2] = 1  # beyond the images that are looked at first
    changes = {f"x_{split}": ones, f"y_{split}": np.arange(70) % 3}
    with pytest.warns(UserWarning, match=f"toy: x_{split} has no value above 1 of 255"):
        Dataset(**arrays(**changes))
    Dataset(**arrays(**changes | {f"x_{split}": 2 * ones}))  # dark, not binary


def test_many_classes_take_time_in_proportion():
    """Twenty thousand: what was quadratic took seven seconds and more."""
    count = 20_000
    labels = np.arange(count)
    began = time.process_time()
    data = Dataset(
        "many",
        np.zeros((count, 1, 1, 1), np.uint8),
        labels,
        np.zeros((count, 1, 1, 1), np.uint8),
        labels,
        tuple(map(str, range(count))),
    )
    assert data.subset(count, 10).num_classes == count
    assert data.take_classes([str(i) for i in reversed(range(count))]).y_train[0] == count - 1
    split_validation(np.repeat(labels, 3), 0.3, 0, groups=np.arange(3 * count) // 2)
    assert time.process_time() - began < 4


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


def test_groups_stay_with_their_images():
    data = replace(big(), groups=np.arange(100, dtype=np.int16) // 3)
    pixels = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    data = replace(data, x_train=pixels, x_test=2 + data.x_test)
    for taken in (
        data.subset(40, 10),
        data.take_classes(["bee", "cat"]),
        data.take_classes(["bee", "ant"]).subset(9, 9),
    ):
        assert taken.groups is not None and taken.groups.dtype == np.int64
        assert (taken.groups == taken.x_train[:, 0, 0, 0] // 3).all()


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


def test_printed_it_says_what_there_is_and_none_of_the_numbers() -> None:
    x, y = np.full((4, 2, 2, 1), 9, np.uint8), np.array([0, 1, 0, 1])
    images = Dataset("mine", x, y, x[:2], y[:2], class_names=("a", "b"))
    assert repr(images) == "Dataset(mine: 4 to learn from, 2 to test, [2, 2, 1], 2 classes)"
    tree = {"ids": np.zeros((4, 3), np.int32), "mask": np.ones((4, 3), bool)}
    arrays = Dataset("tokens", tree, np.zeros((4, 5)), tree, np.zeros((4, 5)), kind="arrays")
    assert repr(arrays) == "Dataset(tokens: 4 to learn from, 4 to test, {'ids': [3], 'mask': [3]}, targets [5])"
