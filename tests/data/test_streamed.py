"""Images that stay on disk: the same examples, trained on bit for bit, without ever being one array."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from tasks import tiny
from xbm_jax.data import Augment, Streamed, load, records
from xbm_jax.errors import DataError, OutputError
from xbm_jax.training import Recipe, adapt, for_chip


@pytest.fixture
def folder(tmp_path):
    """Stripes as files, in folders of classes."""
    data = tiny.stripes()
    for split, images, labels in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        for i, (image, label) in enumerate(zip(images[:96], labels[:96], strict=True)):
            path = tmp_path / "pictures" / split / data.class_names[label] / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return tmp_path / "pictures"


def streamed(folder, **options):
    return load(f"folder:{folder}", stream=True, cache=folder.parent / "cache", **options)


def test_a_folder_is_decoded_once_and_read_as_it_is(folder, monkeypatch):
    whole, lazy = load(f"folder:{folder}"), streamed(folder)
    assert isinstance(lazy.x_train, Streamed) and lazy.x_train.shape == whole.x_train.shape
    np.testing.assert_array_equal(lazy.x_train[np.arange(96)[::-1]], whole.x_train[::-1])
    np.testing.assert_array_equal(lazy.x_test[3:5], whole.x_test[3:5])
    np.testing.assert_array_equal(lazy.x_train[7], whole.x_train[7])
    assert lazy.x_train[:0].shape == (0, 12, 12, 3)
    assert lazy.class_names == whole.class_names and np.array_equal(lazy.y_train, whole.y_train)
    monkeypatch.setattr("xbm_jax.data.cache.decode_all", None)  # nothing is decoded again
    again = streamed(folder)
    np.testing.assert_array_equal(again.x_test[:9], whole.x_test[:9])
    assert again.x_train.digest == lazy.x_train.digest != lazy.x_test.digest


def test_what_is_streamed_is_trained_on_bit_for_bit(folder):
    config = Recipe(epochs=1, batch_size=16, augment=Augment(size=12))
    whole, lazy = (
        adapt(tiny.chip("ideal"), data, method=tiny.METHODS["xbm"], key=jax.random.key(2), config=config)
        for data in (load(f"folder:{folder}"), streamed(folder))
    )
    tiny.assert_same_bits(lazy.trained, whole.trained)
    assert lazy.meta["accuracy"] == whole.meta["accuracy"]


def test_parts_and_other_sizes_stay_on_disk(folder):
    whole, lazy = load(f"folder:{folder}"), streamed(folder)
    for change in (
        lambda data: data.subset(40, 20),
        lambda data: data.take_classes(["north", "east"]),
        lambda data: for_chip(tiny.chip("ideal"), data, 8),
    ):
        got, wanted = change(lazy), change(whole)
        assert isinstance(got.x_train, Streamed) and got.x_train.shape == wanted.x_train.shape
        np.testing.assert_array_equal(got.x_train[:], wanted.x_train)
        np.testing.assert_array_equal(got.y_test, wanted.y_test)
        assert got.x_train.digest != lazy.x_train.digest


def test_a_changed_file_is_decoded_anew(folder):
    before = streamed(folder)
    changed = min((folder / "train" / "east").iterdir())
    Image.new("RGB", (12, 12), (1, 2, 3)).save(changed)
    after = streamed(folder)
    assert (after.x_train[0] == (1, 2, 3)).all() and not (before.x_train[0] == (1, 2, 3)).all()


def test_a_prepared_set_is_streamed_too():
    import tensorflow_datasets as tfds

    from xbm_jax.data.records import _ASSETS, _VERSION

    builder = tfds.builder_from_directory(_ASSETS / "omniglot" / _VERSION)
    whole, lazy = records.read_builder(builder), records.read_builder(builder, stream=True)
    rows = np.array([5, 1200, 3])
    np.testing.assert_array_equal(lazy.x_train[rows], whole.x_train[rows])
    assert isinstance(lazy.x_test, Streamed) and np.array_equal(lazy.y_train, whole.y_train)
    smaller = records.read_builder(builder, stream=True, image_size=14)
    assert smaller.x_train[rows].shape == (3, 14, 14, 1)


def test_no_array_of_everything(folder):
    with pytest.raises(DataError, match="96 images on disk"):
        np.asarray(streamed(folder).x_train)


def test_a_damaged_cache_is_named(folder):
    streamed(folder)
    (cache,) = (folder.parent / "cache").glob("*.array_record")
    content = cache.read_bytes()
    cache.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=cache.name):
        streamed(folder).x_train[:]
    described = cache.with_suffix(".json")
    described.write_text("{")
    with pytest.raises(DataError, match=described.name):
        streamed(folder)


def test_a_cache_that_was_cut_short_is_not_there(folder, monkeypatch):
    monkeypatch.setattr("xbm_jax.data.cache.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OutputError, match=r"cache = .*No space left"):
        streamed(folder)
    assert list((folder.parent / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("fashion_mnist", {}, "stream = True: False for fashion_mnist"),
        ("npz:x.npz", {}, "stream = True: False for npz"),
        ("folder", {}, "one size for all images"),
    ],
)
def test_what_cannot_be_streamed(folder, source, options, message):
    Image.new("RGB", (5, 9)).save(folder / "train" / "east" / "odd.png")
    with pytest.raises(DataError, match=message):
        load(f"folder:{folder}" if source == "folder" else source, stream=True, cache=folder.parent / "c", **options)


def test_a_mapped_set_knows_its_shape(folder):
    images = streamed(folder).x_train.mapped(lambda x: x[:, ::2, :6], "thinned")
    assert images.shape == (96, 6, 6, 3) and images[:2].shape == (2, 6, 6, 3)
    assert dataclasses.replace(images).digest == images.digest
