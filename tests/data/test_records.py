"""The sets that ship with the package, and TFDS sets that a user has prepared; all without TensorFlow."""

import importlib.util
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xbm_jax.data
from xbm_jax.data import BUNDLED, load, records
from xbm_jax.errors import DataError

ASSETS = Path(xbm_jax.data.__file__).parent.parent / "assets" / "datasets"
TOOL = Path(__file__).parents[2] / "tools" / "build_datasets.py"
EXPECTED = {
    # name: training images, test images, classes, licence, in the attribution, a class
    "fashion_mnist": (2400, 1000, 10, "MIT", "Zalando", "Ankle boot"),
    "quickdraw": (800, 200, 10, "CC-BY-4.0", "Google, Inc., CC BY 4.0", "palm tree"),
    "omniglot": (1600, 600, 8, "MIT", "Brenden Lake", "Korean"),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_set(name):
    train, test, classes, licence, attribution, class_name = EXPECTED[name]
    data = load(name)
    assert data.name == name
    assert data.x_train.shape == (train, 28, 28, 1)
    assert data.x_test.shape == (test, 28, 28, 1)
    assert data.x_train.dtype == np.uint8
    assert data.num_classes == classes
    assert class_name in data.class_names
    assert data.licence == licence
    assert attribution in data.attribution
    assert data.x_train.std() > 40
    assert not {image.tobytes() for image in data.x_train} & {image.tobytes() for image in data.x_test}


def test_bundled_sets_are_balanced_as_stated():
    for name in ("fashion_mnist", "quickdraw"):
        data = load(name)
        assert len(set(np.bincount(data.y_train))) == len(set(np.bincount(data.y_test))) == 1


@pytest.mark.parametrize("name", BUNDLED)
def test_terms_travel_with_the_set(name):
    text = (ASSETS / name / "LICENSE").read_text()
    assert {"MIT": "Permission is hereby granted", "CC-BY-4.0": "creativecommons.org/licenses/by/4.0"}[
        EXPECTED[name][3]
    ] in text
    stored = json.loads((ASSETS / name / "1.0.0" / "dataset_info.json").read_text())
    assert stored["redistributionInfo"]["license"].strip() == text.strip()
    assert stored["citation"] and stored["description"]


def test_no_absolute_path_is_stored():
    files = [path for path in ASSETS.rglob("*") if path.suffix in (".json", ".txt")]
    assert len(files) >= 9
    for path in files:
        assert not re.search(r"(?<![:/\w.])/[a-z]+/|file:|[A-Z]:\\", path.read_text()), path


def test_bundled_sets_stay_small():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 4.0e6


def test_bundled_sets_can_be_resized():
    assert load("quickdraw", image_size=32).x_test.shape == (200, 32, 32, 1)


def test_reading_imports_no_tensorflow_and_says_nothing():
    code = (
        "import sys, xbm_jax.data as d; assert 'tensorflow_datasets' not in sys.modules; "
        "[d.load(name) for name in d.BUNDLED]; "
        "assert 'tensorflow_datasets' in sys.modules; assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_missing_assets_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "_ASSETS", tmp_path)
    with pytest.raises(DataError, match=r"fashion_mnist/1.0.0 is missing"):
        load("fashion_mnist")


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    buffer.seek(0)
    return buffer


def prepare(data_dir, splits, features=None, file_format="array_record"):
    """Write a TFDS set called ``tiny``; ``splits`` maps a split to (images or other examples, labels)."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    spec = features or {"image": tfds.features.Image(shape=(None, None, 3))}

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["ant", "bee"])
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({**spec, "label": label}), citation="Somebody, 2020"
            )

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(*pair) for name, pair in splits.items()}

        def _generate_examples(self, images, labels):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                encoded = image if features else png(image)
                yield i, {**dict.fromkeys(spec, encoded), "label": int(label)}

    Tiny(data_dir=data_dir, file_format=file_format).download_and_prepare()


def colour(n, height=5, width=5):
    """Images whose red value is 10 and their number, and alternating labels."""
    images = np.zeros((n, height, width, 3), np.uint8)
    images[..., 0] = 10 + np.arange(n)[:, None, None]
    return images, np.arange(n) % 2


def test_prepared_set_with_test_split(tmp_path):
    prepare(tmp_path, {"train": colour(8), "test": colour(4), "validation": colour(2)})
    for source in ("tfds:tiny", "tfds:tiny:1.2.0", "tfds:tiny:1.*.*"):
        data = load(source, data_dir=tmp_path)
        assert (data.name, data.class_names) == ("tiny", ("ant", "bee"))
        assert (data.x_train.shape, data.x_test.shape) == ((8, 5, 5, 3), (4, 5, 5, 3))
        assert sorted(data.x_train[:, 0, 0, 0].tolist()) == list(range(10, 18))
        assert (data.x_train[:, 0, 0, 0] % 2 == data.y_train).all()
        assert (data.licence, data.attribution) == ("unknown", "Somebody, 2020")


def test_validation_stands_in_for_test_and_else_a_fifth_of_train(tmp_path):
    prepare(tmp_path / "a", {"train": colour(8), "validation": colour(2)})
    assert len(load("tfds:tiny", data_dir=tmp_path / "a").y_test) == 2
    prepare(tmp_path / "b", {"train": colour(20)})
    one, two = (load("tfds:tiny", data_dir=tmp_path / "b", seed=seed) for seed in (0, 1))
    assert np.bincount(one.y_test).tolist() == [2, 2]
    assert not np.array_equal(one.x_test, two.x_test)


def test_images_of_several_sizes_need_image_size(tmp_path):
    images = [*colour(2)[0], *colour(2, height=7)[0]]
    prepare(tmp_path, {"train": (images, [0, 1, 0, 1]), "test": colour(2)})
    with pytest.raises(DataError, match="image_size"):
        load("tfds:tiny", data_dir=tmp_path)
    assert load("tfds:tiny", data_dir=tmp_path, image_size=6).x_train.shape == (4, 6, 6, 3)


def test_images_stored_as_tensors(tmp_path):
    import tensorflow_datasets as tfds

    features = {"pixels": tfds.features.Tensor(shape=(5, 5, 3), dtype=np.uint8)}
    prepare(tmp_path, {"train": colour(4), "test": colour(2)}, features)
    assert load("tfds:tiny", data_dir=tmp_path, image_size=4).x_train.shape == (4, 4, 4, 3)


def test_real_valued_tensors_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    features = {"pixels": tfds.features.Tensor(shape=(5, 5, 3), dtype=np.float32)}
    images, labels = colour(4)
    prepare(
        tmp_path, {"train": (images / np.float32(255), labels), "test": (images / np.float32(255), labels)}, features
    )
    for size in (None, 8):
        with pytest.raises(DataError, match="uint8"):
            load("tfds:tiny", data_dir=tmp_path, image_size=size)


def test_sets_that_are_no_image_classification(tmp_path):
    import tensorflow_datasets as tfds

    prepare(tmp_path / "a", {"train": ([1.0], [0])}, {"weight": tfds.features.Scalar(np.float32)})
    with pytest.raises(DataError, match="one image and one ClassLabel"):
        load("tfds:tiny", data_dir=tmp_path / "a")
    prepare(tmp_path / "b", {"test": colour(2)})
    with pytest.raises(DataError, match="a split called train"):
        load("tfds:tiny", data_dir=tmp_path / "b")


def test_unprepared_set_says_how_to_prepare_it(tmp_path):
    with pytest.raises(DataError) as caught:
        load("tfds:mnist", data_dir=tmp_path)
    assert "pip install 'xbm_jax[tf]'" in str(caught.value)
    assert f"tfds build mnist --file_format=array_record --data_dir={tmp_path}" in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_set", "a/b/c:x", "../x"])
def test_unknown_set(tmp_path, name):
    with pytest.raises(DataError) as caught:
        load(f"tfds:{name}", data_dir=tmp_path)
    assert f"tfds:{name}" in str(caught.value)
    assert "NAME" in str(caught.value)


def test_other_file_formats_say_how_to_convert(tmp_path):
    prepare(tmp_path, {"train": colour(4), "test": colour(2)})
    info = tmp_path / "tiny" / "1.2.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DataError, match="--file_format=array_record"):
        load("tfds:tiny", data_dir=tmp_path)


def test_bundled_sets_are_what_the_tool_writes(shared, tmp_path, capfd):
    spec = importlib.util.spec_from_file_location("build_datasets", TOOL)
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    sys.modules["build_datasets"] = tool  # dataclasses look their module up there
    spec.loader.exec_module(tool)
    tool.build(shared / "data", tmp_path)
    assert "omniglot: 1600 + 600 images" in capfd.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == set(BUNDLED)
    for name in BUNDLED:
        for file in ("metadata.json", "features.json", "label.labels.txt", "LICENSE"):
            assert (tmp_path / name / "1.0.0" / file).read_text() == (ASSETS / name / "1.0.0" / file).read_text()
        shipped, rebuilt = load(name), load(f"tfds:{name}", data_dir=tmp_path)
        for key in ("x_train", "y_train", "x_test", "y_test"):
            assert np.array_equal(getattr(shipped, key), getattr(rebuilt, key))
