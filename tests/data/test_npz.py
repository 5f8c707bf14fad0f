"""A user's own .npz: what is read, and what is said when it cannot be."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from xbm_jax.data import load
from xbm_jax.errors import DataError


def toy():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.int32),
        "x_test": rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8),
        "y_test": np.array([2, 1, 0], np.uint8),
    }


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return path

    return write


def refused(source, **options):
    with pytest.raises(DataError) as caught:
        load(source, **options)
    return str(caught.value)


def test_npz_round_trip(save):
    arrays = toy()
    data = load(f"npz:{save(**arrays, class_names=np.array(['ant', 'bee', 'cat']))}")
    assert (data.name, data.class_names, data.licence) == ("mine", ("ant", "bee", "cat"), "unknown")
    for key, array in arrays.items():
        assert np.array_equal(getattr(data, key), array)
    assert data.y_test.dtype == np.int64


def test_names_are_optional_and_images_can_be_resized(save):
    data = load(f"npz:{save(**toy())}", image_size=4)
    assert data.class_names == ("0", "1", "2")
    assert data.x_train.shape == (6, 4, 4, 3)
    assert data.x_test.shape == (3, 4, 4, 3)


def test_missing_keys_are_all_listed(save):
    arrays = toy()
    del arrays["y_train"], arrays["x_test"]
    assert "missing: y_train, x_test" in refused(f"npz:{save(**arrays)}")


def test_pickled_arrays_are_named(save):
    names = np.array(["ant", "bee", None], dtype=object)
    message = refused(f"npz:{save(**toy(), class_names=names)}")
    assert "unreadable: class_names (pickled objects" in message


def test_missing_and_pickled_are_reported_together(save):
    arrays = toy() | {"x_train": np.array([None, 1], dtype=object)}
    del arrays["y_test"]
    message = refused(f"npz:{save(**arrays)}")
    assert "missing: y_test; unreadable: x_train" in message


def test_names_may_be_bytes(save):
    assert load(f"npz:{save(**toy(), class_names=np.array([b'ant', b'bee', b'cat']))}").class_names[2] == "cat"


def test_groups_are_read(save):
    groups = np.array([4, 4, 7, 4, 4, 7])
    assert np.array_equal(np.asarray(load(f"npz:{save(**toy(), groups=groups)}").groups), groups)
    assert np.array_equal(np.asarray(load(f"npz:{save(**encoded()[1], groups=groups)}").groups), groups[:4])
    assert "groups.shape = (5,)" in refused(f"npz:{save(**encoded()[1], groups=groups[:5])}")


def test_a_path_says_what_to_write(save):
    path = save(**toy())
    with pytest.raises(DataError, match=f"for this file write npz:{path}"):
        load(path)
    upper = path.rename(path.with_name("MY TASK.NPZ"))
    assert load(f"npz:{upper}").num_classes == 3


def test_a_damaged_directory_is_named(save):
    path = save(**toy())
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at : at + 4] = b"\0\0\0\0"
    path.write_bytes(content)
    assert f"npz:{path} = 'Bad magic number for central directory'" in refused(f"npz:{path}")


def lying_header(shape, dtype):
    """The bytes of an ``.npy`` whose header promises more than follows."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(100)


@pytest.mark.parametrize(("shape", "dtype"), [((10**6, 10**3, 10**3, 3), "|u1"), ((2**60,), "<U0"), ((3, 4), "<i8")])
def test_a_header_that_claims_more_than_there_is(save, shape, dtype):
    path = save(**{key: array for key, array in toy().items() if key != "x_train"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", lying_header(shape, dtype))
    message = refused(f"npz:{path}")
    assert "unreadable: x_train (a header of" in message and "before 100 bytes" in message


def test_a_small_file_may_not_unpack_without_bound(save, monkeypatch):
    """A megabyte of nothing in a kilobyte, with a smaller bound than the true one."""
    path = save(**toy())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("y.npy", bytes(2**20))
    load(f"npz:{path}")
    monkeypatch.setattr("xbm_jax.archives._ALWAYS", 2**19)
    message = refused(f"npz:{path}")
    assert "unpacks to 105" in message and "store it without compression" in message


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_file(save, keep):
    path = save(**toy())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    assert "no zip archive" in refused(f"npz:{path}")


def test_damaged_member_is_named(save):
    path = save(**toy())
    content = bytearray(path.read_bytes())
    at = content.index(b"NUMPY", content.index(b"x_test.npy")) + 200
    content[at : at + 8] = b"\0\1\2\3\4\5\6\7"
    path.write_bytes(content)
    message = refused(f"npz:{path}")
    assert "unreadable: x_test (" in message
    assert "x_train (" not in message


def test_a_bare_array_is_no_npz(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros(3))
    assert "no zip archive" in refused(f"npz:{path}")


def test_no_such_file(tmp_path):
    assert "no such file" in refused(f"npz:{tmp_path / 'none.npz'}")
    assert "no such file" in refused(f"npz:{tmp_path}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x_train": np.full((6, 8, 8, 3), np.nan)}, "x_train = 'float64 with NaN or infinity in 6 of 6 images'"),
        ({"y_test": np.array([2, 1])}, "len(y_test) = 2"),
        ({"y_test": np.array([2, 1, 5])}, "y_train = ['3', '4', '5']"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, "-1 (1 times)"),
        (
            {"y_train": np.array([1, 2, 3, 1, 2, 3]), "y_test": np.array([1, 2, 3])},
            "labels = '1..3': class numbers from 0",
        ),
        ({"groups": np.arange(5)}, "groups = 'int64[5]'"),
        ({"class_names": np.array([["ant", "bee", "cat"]])}, "class_names.shape = (1, 3)"),
        ({"class_names": np.array(["ant", "bee"])}, "y_train = '2 (2 times)'"),
    ],
)
def test_arrays_are_checked_like_any_other(save, changes, says):
    assert says in refused(f"npz:{save(**toy() | changes)}")


def test_unknown_sources_list_what_is_allowed(save, tmp_path):
    for source in ("imagenet", "npz:", "csv:a.csv", ""):
        message = refused(source)
        assert all(word in message for word in ("fashion_mnist", "quickdraw", "omniglot", "npz:PATH", "folder:DIR"))
    path = save(**toy())
    assert f"npz:{path}" in refused(str(path))
    assert f"folder:{tmp_path}" in refused(str(tmp_path))


def test_size_is_checked_before_reading():
    assert "image_size = -1" in refused("npz:nowhere.npz", image_size=-1)


# ---------------------------------------------------------------------------------------------------------------------
# Encoded images, one behind the other


def encoded(count=6, size=8, spoil=()):
    """PNG files, so that pixels come back exactly; those in ``spoil`` are cut to ten bytes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    files = []
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        files.append(buffer.getvalue()[: 10 if i in spoil else None])
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": np.arange(count) % 2,
        "is_test": np.arange(count) >= count - 2,
        "class_names": np.array(["ant", "bee"]),
    }
    return images, arrays


def test_encoded_round_trip(save):
    images, arrays = encoded()
    data = load(f"npz:{save(**arrays)}")
    assert data.class_names == ("ant", "bee")
    assert np.array_equal(data.x_train, images[:4]) and np.array_equal(data.x_test, images[4:])
    assert data.y_train.tolist() == [0, 1, 0, 1] and data.y_test.tolist() == [0, 1]
    assert load(f"npz:{save(**arrays)}", image_size=5).x_test.shape == (2, 5, 5, 3)


def test_undecodable_images_are_named_and_may_be_left_out(save):
    images, arrays = encoded(8, spoil=(1, 3))
    path = save(**arrays)
    message = refused(f"npz:{path}")
    assert "2 of 8 files cannot be decoded: image 1 (UnidentifiedImageError: cannot identify image file); " in message
    with pytest.warns(UserWarning, match="left out 2 of 8 files"):
        data = load(f"npz:{save(**arrays | {'labels': np.array([0, 1, 1, 0, 0, 1, 1, 0])})}", on_bad="skip")
    assert np.array_equal(data.x_train, images[[0, 2, 4, 5]])
    assert data.y_train.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"offsets": np.array([0, 5, 3])}, "offsets = 'int64[3] into uint8["),
        ({"offsets": np.zeros((2, 2), int)}, "rising integers from 0"),
        ({"offsets": np.array([0.0, 1.0])}, "offsets = 'float64[2]"),
        ({"labels": np.array([0, 1])}, "len(labels) = 2"),
        ({"is_test": np.ones(6, bool)}, "is_test = 'bool[6], true for 6'"),
        ({"is_test": np.arange(6)}, "is_test = 'int64[6], true for 5'"),
        ({"class_names": np.array([["ant", "bee"]])}, "class_names.shape = (1, 2)"),
        ({"class_names": np.array(["ant", "bee", "cow"])}, "y_train = ['cow']"),
    ],
)
def test_encoded_arrays_are_checked(save, changes, says):
    assert says in refused(f"npz:{save(**encoded()[1] | changes)}")


def test_missing_encoded_arrays_are_listed(save):
    arrays = encoded()[1]
    del arrays["labels"], arrays["class_names"]
    message = refused(f"npz:{save(**arrays)}")
    assert "missing: labels, class_names" in message and "the arrays jpeg, offsets" in message


@pytest.mark.parametrize(("name", "train", "test", "classes"), [("flowers102_64px", 3060, 1020, 102)])
def test_reference_sets(shared_data, name, train, test, classes):
    """Counts that their makers state."""
    data = load(f"npz:{shared_data(name)}", image_size=32)
    assert (len(data.y_train), len(data.y_test), data.num_classes) == (train, test, classes)
    assert data.x_train.shape[1:] == (32, 32, 3)
