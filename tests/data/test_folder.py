"""A folder of images: both forms, and every way in which it can be wrong."""

import numpy as np
import pytest
from PIL import Image

from xbm_jax.data import load
from xbm_jax.errors import DataError


def write(path, value=0, size=(6, 6), mode="RGB"):
    """One flat picture of ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value, 0, 255 - value)).save(path)


def tree(root, classes=("ant", "bee"), count=10, **options):
    for label, name in enumerate(classes):
        for i in range(count):
            write(root / name / f"{i}.png", 20 * i + label, **options)


def refused(root, **options):
    with pytest.raises(DataError) as caught:
        load(f"folder:{root}", **options)
    return str(caught.value)


def test_train_and_test_folders(tmp_path):
    tree(tmp_path / "train", ("bee", "ant", "cat"), 4)
    tree(tmp_path / "test", ("ant", "cat"), 2)
    (tmp_path / "train" / "ant" / ".hidden.png").write_text("no image")
    (tmp_path / "train" / "ant" / "Thumbs.db").write_text("no image")
    (tmp_path / "labels.csv").write_text("beside the classes")
    data = load(f"folder:{tmp_path}")
    assert data.class_names == ("ant", "bee", "cat")
    assert data.x_train.shape == (12, 6, 6, 3)
    assert data.y_train.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.y_test.tolist() == [0, 0, 2, 2]
    # `write` puts the number of the file and of the class into the red channel: ant was written second, bee first.
    assert data.x_train[:, 0, 0, 0].tolist() == [1, 21, 41, 61, 0, 20, 40, 60, 2, 22, 42, 62]


def test_one_tree_is_split_by_the_seed(tmp_path):
    tree(tmp_path)
    first, again, other = (load(f"folder:{tmp_path}", seed=seed) for seed in (0, 0, 1))
    assert np.bincount(first.y_train).tolist() == [8, 8]
    assert np.bincount(first.y_test).tolist() == [2, 2]
    assert np.array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    seen = np.concatenate([first.x_train, first.x_test])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == sorted(20 * i + label for i in range(10) for label in range(2))


def test_a_class_may_be_called_train(tmp_path):
    tree(tmp_path, ("train", "boat"))
    assert load(f"folder:{tmp_path}").class_names == ("boat", "train")


def test_grey_stays_grey_unless_one_is_coloured(tmp_path):
    tree(tmp_path, mode="L")
    assert load(f"folder:{tmp_path}").x_train.shape == (16, 6, 6, 1)
    write(tmp_path / "ant" / "colour.png", 9)
    assert load(f"folder:{tmp_path}").x_train.shape[1:] == (6, 6, 3)


def test_transparent_palette_images_are_read(tmp_path):
    tree(tmp_path)
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "ant" / "p.png", transparency=b"\x10\x80")  # Pillow warns of bytes
    data = load(f"folder:{tmp_path}")
    images = np.concatenate([data.x_train, data.x_test])
    assert (images == np.array([10, 20, 30], np.uint8)).all(axis=(1, 2, 3)).sum() == 1


def test_several_sizes_need_image_size(tmp_path):
    tree(tmp_path)
    write(tmp_path / "ant" / "wide.png", 9, size=(12, 5))
    message = refused(tmp_path)
    assert "2 image sizes (height, width), from (5, 12) to (6, 6)" in message
    assert "image_size" in message
    assert load(f"folder:{tmp_path}", image_size=8).x_train.shape[1:] == (8, 8, 3)


@pytest.fixture
def damaged(tmp_path):
    """Twenty good files and three that cannot be decoded: no image, cut off, 16 bits deep."""
    tree(tmp_path)
    (tmp_path / "ant" / "text.png").write_text("no image")
    cut = tmp_path / "bee" / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    write(tmp_path / "bee" / "deep.png", 40_000, mode="I;16")
    return tmp_path


def test_undecodable_files_are_named_and_counted(damaged):
    with pytest.raises(DataError) as caught:
        load(f"folder:{damaged}")
    assert 'on_bad="skip"' in caught.value.allowed
    for words in ("3 of 23 files cannot be decoded", "text.png", "cut.jpg", "deep.png", "more than 8 bits"):
        assert words in caught.value.value


def test_undecodable_files_can_be_left_out(damaged):
    with pytest.warns(UserWarning, match="left out 3 of 23 files"):
        data = load(f"folder:{damaged}", on_bad="skip")
    assert len(data.y_train) + len(data.y_test) == 20


def test_nothing_left_after_leaving_out(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "text.png").write_text("no image")
    assert "1 of 1 files" in refused(tmp_path, on_bad="skip")


def test_test_classes_must_be_trained(tmp_path):
    tree(tmp_path / "train", ("ant", "bee"), 2)
    tree(tmp_path / "test", ("ant", "cow", "dog"), 2)
    assert "test classes = ['cow', 'dog']: classes that train/ has: ant, bee" in refused(tmp_path)


@pytest.mark.parametrize(("present", "absent"), [("train", "test"), ("test", "train")])
def test_half_a_split(tmp_path, present, absent):
    tree(tmp_path / present, count=2)
    message = refused(tmp_path)
    assert f"{present}/ alone" in message
    assert f"add {absent}/" in message


def test_empty_class_folder(tmp_path):
    tree(tmp_path / "train", count=2)
    tree(tmp_path / "test", count=2)
    (tmp_path / "train" / "cow").mkdir()
    assert "y_train = ['cow']" in refused(tmp_path)


def test_what_is_left_out_is_counted(tmp_path):
    tree(tmp_path)
    for name in ("@eaDir", ".ipynb_checkpoints", "ant/more/deep"):
        tree(tmp_path, (name,), 3)
    write(tmp_path / "loose.png")
    (tmp_path / "bee" / "notes.txt").write_text("no image")
    (tmp_path / "__MACOSX" / "ant").mkdir(parents=True)
    with pytest.warns(UserWarning, match="left out 11 files") as told:
        data = load(f"folder:{tmp_path}")
    assert data.class_names == ("ant", "bee") and len(data.y_train) + len(data.y_test) == 20
    text = str(told[0].message)
    assert len(told) == 1
    for words in ("3 in @eaDir/", "3 in .ipynb_checkpoints/", "3 in ant/more/deep/", "1 in ./", "1 *.txt"):
        assert words in text


def test_a_third_split_is_left_out_with_a_warning(tmp_path):
    for split in ("train", "test", "val"):
        tree(tmp_path / split, count=2)
    with pytest.warns(UserWarning, match="left out 4 files: 2 in val/(ant|bee)/, 2 in val/"):
        assert len(load(f"folder:{tmp_path}").y_train) == 4


def test_images_in_deeper_folders_alone(tmp_path):
    tree(tmp_path, ("ant/images", "bee/images"), 2)
    message = refused(tmp_path)
    assert "no images in class folders; left out 4 files" in message and "2 in ant/images/" in message


def test_a_validation_folder_is_no_test_folder(tmp_path):
    tree(tmp_path / "train", count=2)
    tree(tmp_path / "val", count=2)
    assert "add test/; rename val/" in refused(tmp_path)


def test_names_that_look_alike_are_one_class(tmp_path):
    tree(tmp_path / "train", ("caf\u00e9", "bee"), 2)
    tree(tmp_path / "test", ("cafe\u0301", "bee"), 2)
    data = load(f"folder:{tmp_path}")
    assert data.class_names == ("bee", "caf\u00e9") and data.y_test.tolist() == [0, 0, 1, 1]
    tree(tmp_path / "train", ("cafe\u0301",), 2)
    if len(list((tmp_path / "train").iterdir())) == 3:  # some file systems compose names themselves
        assert "two folders called caf\u00e9" in refused(tmp_path)


def test_usual_suffixes_are_taken(tmp_path):
    tree(tmp_path)
    (tmp_path / "ant" / "0.png").rename(tmp_path / "ant" / "0.PNG")
    Image.new("RGB", (6, 6), (7, 7, 7)).save(tmp_path / "ant" / "x.jfif", format="JPEG")
    data = load(f"folder:{tmp_path}")
    assert len(data.y_train) + len(data.y_test) == 21


@pytest.mark.parametrize(
    ("classes", "count", "says"), [(("ant", "bee"), 1, "one image a class"), (("ant",), 5, "at least two classes")]
)
def test_too_little_to_learn_from(tmp_path, classes, count, says):
    tree(tmp_path, classes, count)
    assert says in refused(tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Photographs


SCENE = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation):
    """All eight ways to hold a camera: what the tag says undoes what was done to the pixels."""
    stored = {
        1: SCENE,
        2: SCENE[:, ::-1],
        3: SCENE[::-1, ::-1],
        4: SCENE[::-1],
        5: SCENE.transpose(1, 0, 2),
        6: np.rot90(SCENE),
        7: SCENE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(SCENE, -1),
    }[orientation]
    tag = Image.Exif()
    tag[0x0112] = orientation
    for name in ("train/a", "train/b", "test/a"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name / "0.png", exif=tag)
    data = load(f"folder:{tmp_path}")
    assert all(np.array_equal(image, SCENE) for image in (*data.x_train, *data.x_test))


@pytest.mark.parametrize("limit", [99, 60])  # Pillow warns of more pixels than these, and raises beyond twice as many
def test_a_very_large_picture_is_named(tmp_path, monkeypatch, limit):
    tree(tmp_path)
    write(tmp_path / "ant" / "scan.png", 9, size=(14, 10))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    message = refused(tmp_path, image_size=6)
    assert "1 of 21 files cannot be decoded: ant/scan.png (DecompressionBomb" in message
    with pytest.warns(UserWarning, match="left out 1 of 21 files"):
        data = load(f"folder:{tmp_path}", image_size=6, on_bad="skip")
    assert len(data.y_train) + len(data.y_test) == 20


def test_folder_without_images(tmp_path):
    assert "no images" in refused(tmp_path)
    write(tmp_path / "loose.png")
    (tmp_path / "ant").mkdir()
    assert "no images" in refused(tmp_path)


def test_no_such_folder_and_bad_options(tmp_path):
    assert "no such folder" in refused(tmp_path / "none")
    assert "on_bad = 'ignore'" in refused(tmp_path, on_bad="ignore")
    assert "image_size = 0" in refused(tmp_path, image_size=0)
