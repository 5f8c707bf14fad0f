"""The ImageNet-to-Sketch sets from folders: what is checked before anything is written, and that it reads back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xbm_jax.data import load, prepare_published, published
from xbm_jax.data.published import PUBLISHED_SETS, PublishedSet
from xbm_jax.errors import DataError

CLASSES = ("1.ant", "2.bee", "3.cow")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of three classes, two training images and one test image each, under a published name."""
    one = PublishedSet(6, 3, 3, "https://example.org", "A. Nobody.")
    monkeypatch.setattr(published, "PUBLISHED_SETS", {"flowers": one})


def tree(root: Path, classes: tuple[str, ...] = CLASSES, train: int = 2, test: int = 1) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for label in classes:
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(8, 20, 2)
                pixels = np.full((height, width, 3), 20 * int(label[0]) + i, np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.{'png' if i else 'jpg'}")
    return root


def refused(folder: Path, out: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare_published("flowers", folder, out)
    assert not (out / "flowers").exists()
    return str(caught.value)


def test_published_counts() -> None:
    """FACTS of the papers: training images, test images, classes."""
    counts = {name: (s.train, s.test, s.classes) for name, s in PUBLISHED_SETS.items()}
    assert counts == {
        "cubs_cropped": (5994, 5794, 200),
        "cars_cropped": (8144, 8041, 196),
        "flowers": (2040, 6149, 102),
        "wikiart": (42129, 10628, 195),
        "sketch": (16000, 4000, 250),
    }


@pytest.mark.usefixtures("small")
def test_folders_read_back_through_tfds(tmp_path: Path) -> None:
    made = prepare_published("flowers", tree(tmp_path / "in"), tmp_path / "out")
    assert made == tmp_path / "out" / "flowers" / "1.0.0"
    data = load("tfds:flowers", data_dir=tmp_path / "out", image_size=8)
    assert data.class_names == CLASSES
    assert data.y_train.tolist() == [0, 0, 1, 1, 2, 2] and data.y_test.tolist() == [0, 1, 2]
    expected = np.array([20, 21, 40, 41, 60, 61])
    assert (np.abs(data.x_train - expected[:, None, None, None].astype(int)) <= 1).all()  # half of them are JPEG
    assert "Nobody" in data.attribution
    # A second call finds it and reads nothing.
    assert prepare_published("flowers", tmp_path / "absent", tmp_path / "out") == made


@pytest.mark.usefixtures("small")
def test_every_missing_class_is_named(tmp_path: Path) -> None:
    message = refused(tree(tmp_path / "in", classes=("1.ant", "3.cow")), tmp_path / "out")
    assert "2 of 3 classes, missing 2; 4 train images, not 6; 2 test images, not 3" in message
    assert "6 training and 3 test images of 3 classes, as published" in message


@pytest.mark.usefixtures("small")
def test_classes_without_images_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    for file in [*(root / "train" / "2.bee").iterdir(), *(root / "test" / "3.cow").iterdir()]:
        file.unlink()
    message = refused(root, tmp_path / "out")
    assert "no train image of 2.bee; 4 train images, not 6; no test image of 3.cow; 2 test images" in message


@pytest.mark.usefixtures("small")
def test_undecodable_files_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "in")
    (root / "train" / "2.bee" / "1.png").write_bytes(b"no image")
    assert "1 of 9 files cannot be decoded: train/2.bee/1.png (Unidentified" in refused(root, tmp_path / "out")


@pytest.mark.usefixtures("small")
def test_other_folders_are_refused(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "in", tmp_path / "out")
    root = tree(tmp_path / "in")
    assert "train/ and test/, the published split" in refused(root / "train", tmp_path / "out")
    with pytest.raises(DataError, match="one of flowers"):
        prepare_published("imagenet", root, tmp_path / "out")


def test_names_without_numbers_are_only_counted() -> None:
    assert published._missing_numbers(["ant", "2.bee"], 3) == ""
    assert published._missing_numbers(["0", "2"], 4) == "1, 3"
    assert published._missing_numbers(["002.a", "003.b"], 3) == "1"
