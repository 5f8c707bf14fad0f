"""Write the image sets that ship with the package, as TFDS array_record folders. Needs no TensorFlow.

    python tools/build_datasets.py --source DIR --out src/xbm_jax/assets/datasets

DIR holds ``fashion_mnist.npz`` and ``quickdraw100.npz`` (``x_train, y_train, x_test, y_test`` uint8/int64,
``class_names``) and ``omniglot8.npz`` (``images``, ``alphabet`` and ``drawer`` per image, ``alphabet_names``). What is
written is a function of these files and of the constants below: a second run gives the same bytes.

Each record is a group of its own, as Grain asks for; the padding that this leaves (a third) vanishes in a wheel.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from xbm_jax.data import Dataset

SEED = 0
FASHION_IMAGES = (2400, 1000)
OMNIGLOT_IMAGES = (1600, 600)
OMNIGLOT_LAST_TRAIN_DRAWER = 15
QUICKDRAW_CLASSES = (
    "bicycle", "castle", "crab", "envelope", "eyeglasses", "flower", "ice cream", "palm tree", "sailboat", "snowflake",
)  # fmt: skip

MIT = """The MIT License (MIT)

{copyright}

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

QUICKDRAW_LICENCE = """The Quick, Draw! Dataset by Google, Inc., CC BY 4.0

https://github.com/googlecreativelab/quickdraw-dataset

The data is made available by Google, Inc. under the Creative Commons
Attribution 4.0 International licence:
https://creativecommons.org/licenses/by/4.0/
Legal text: https://creativecommons.org/licenses/by/4.0/legalcode

Changes: this is a subset (10 of 345 classes, 100 drawings of each), rendered
as grey images and resized to 28 x 28 pixels, stored as PNG and divided into
80 training and 20 test drawings of each class. It comes as it is, without
warranties, as section 5 of the licence says. Google does not endorse this use.
"""


@dataclass(frozen=True)
class Terms:
    """What must travel with a set: SPDX licence expression, attribution, full licence text, and where it comes from."""

    licence: str
    attribution: str
    text: str
    homepage: str
    citation: str
    description: str


TERMS = {
    "fashion_mnist": Terms(
        licence="MIT",
        attribution="Fashion-MNIST, Copyright (c) 2017 Zalando SE, https://tech.zalando.com; a subset",
        text=MIT.format(copyright="Copyright (c) 2017 Zalando SE, https://tech.zalando.com"),
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="Han Xiao, Kashif Rasul, Roland Vollgraf. Fashion-MNIST: a Novel Image Dataset for Benchmarking "
        "Machine Learning Algorithms. arXiv:1708.07747, 2017.",
        description="A stratified subset of Fashion-MNIST: 2,400 training and 1,000 test images of ten kinds of "
        "clothing, 28 x 28 pixels, grey.",
    ),
    "quickdraw": Terms(
        licence="CC-BY-4.0",
        attribution="The Quick, Draw! Dataset by Google, Inc., CC BY 4.0 "
        "(https://creativecommons.org/licenses/by/4.0/); subset and resized",
        text=QUICKDRAW_LICENCE,
        homepage="https://github.com/googlecreativelab/quickdraw-dataset",
        citation="David Ha, Douglas Eck. A Neural Representation of Sketch Drawings. arXiv:1704.03477, 2017.",
        description="Sketches of ten things from the Quick, Draw! Dataset: 80 training and 20 test drawings of each, "
        "rendered as grey images of 28 x 28 pixels.",
    ),
    "omniglot": Terms(
        licence="MIT",
        attribution="Omniglot, Copyright (c) 2015 Brenden Lake; a subset, resized",
        text=MIT.format(copyright="Copyright (c) 2015 Brenden Lake"),
        homepage="https://github.com/brendenlake/omniglot",
        citation="Brenden M. Lake, Ruslan Salakhutdinov, Joshua B. Tenenbaum. Human-level concept learning "
        "through probabilistic program induction. Science 350(6266):1332-1338, 2015.",
        description="Handwritten characters of eight alphabets from Omniglot; the label is the alphabet. 1,600 "
        "training images by drawers 1 to 15 and 600 test images by drawers 16 to 20, 28 x 28 pixels, grey, ink bright.",
    ),
}


class BundledSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One Dataset as TFDS files: PNG images and a ClassLabel, terms in ``metadata.json`` and ``LICENSE``."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, dataset: Dataset, terms: Terms, data_dir: Path) -> None:
        self._dataset, self._terms = dataset, terms
        # TFDS takes the name from the class; here one class writes three sets.
        self.name = dataset.name  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        data, terms = self._dataset, self._terms
        image = tfds.features.Image(shape=data.x_train.shape[1:])
        label = tfds.features.ClassLabel(names=data.class_names)
        return tfds.core.DatasetInfo(
            builder=self,
            description=terms.description,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            homepage=terms.homepage,
            citation=terms.citation,
            license=terms.text,
            # TFDS' shuffle depends on the output path; without it the files are the same everywhere.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(licence=terms.licence, attribution=terms.attribution),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        data = self._dataset
        return {
            "train": self._generate_examples(data.x_train, data.y_train),
            "test": self._generate_examples(data.x_test, data.y_test),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": png(image), "label": int(label)}


def png(image: np.ndarray) -> io.BytesIO:
    """A grey uint8 ``[H, W, 1]`` image as PNG bytes; arrays TFDS would encode with TensorFlow."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, format="PNG", optimize=True)
    buffer.seek(0)
    return buffer


def fashion_mnist(source: Path) -> Dataset:
    """The stratified subset of Fashion-MNIST."""
    return _subset(_from_npz("fashion_mnist", source / "fashion_mnist.npz"), *FASHION_IMAGES)


def quickdraw(source: Path) -> Dataset:
    """Ten visually distinct classes of QuickDraw, all their drawings."""
    return _from_npz("quickdraw", source / "quickdraw100.npz").take_classes(QUICKDRAW_CLASSES)


def omniglot(source: Path) -> Dataset:
    """Characters labelled by alphabet; people who drew test images drew no training image."""
    with np.load(source / "omniglot8.npz", allow_pickle=False) as data:
        images, labels, is_test = data["images"], data["alphabet"], data["drawer"] > OMNIGLOT_LAST_TRAIN_DRAWER
        names = tuple(str(name).replace("_", " ") for name in data["alphabet_names"])
    full = Dataset("omniglot", images[~is_test], labels[~is_test], images[is_test], labels[is_test], names)
    return _subset(full, *OMNIGLOT_IMAGES)


def _subset(data: Dataset, train: int, test: int) -> Dataset:
    """A stratified sample of each split, drawn as it was for the first release: the shipped sets never change."""
    rows, test_rows = _sample(data.y_train, train), _sample(data.y_test, test)
    return dataclasses.replace(
        data,
        x_train=data.x_train[rows],
        y_train=data.y_train[rows],
        x_test=data.x_test[test_rows],
        y_test=data.y_test[test_rows],
    )


def _sample(labels: np.ndarray, size: int) -> np.ndarray:
    """Ascending rows, the classes' shares by largest remainder."""
    share = size * np.bincount(labels) / len(labels)
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind="stable")[: size - quota.sum()]] += 1
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(SEED)))
    rows = [rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(quota)]
    return np.sort(np.concatenate(rows))


def _from_npz(name: str, path: Path) -> Dataset:
    with np.load(path, allow_pickle=False) as data:
        arrays = {key: data[key] for key in ("x_train", "y_train", "x_test", "y_test")}
        return Dataset(name, **arrays, class_names=tuple(data["class_names"].tolist()))


def build(source: Path, out: Path) -> None:
    """Write every set to ``out/NAME/VERSION`` and its licence to ``out/NAME/LICENSE``; what was there is replaced."""
    tfds.disable_progress_bar()
    for make in (fashion_mnist, quickdraw, omniglot):
        dataset = make(source)
        terms = TERMS[dataset.name]
        shutil.rmtree(out / dataset.name, ignore_errors=True)
        with tempfile.TemporaryDirectory() as empty:  # TFDS makes a folder for downloads even where there are none
            BundledSet(dataset, terms, out).download_and_prepare(download_dir=empty)
        (out / dataset.name / "LICENSE").write_text(terms.text)
        size = sum(path.stat().st_size for path in (out / dataset.name).rglob("*") if path.is_file())
        print(f"{dataset.name}: {len(dataset.y_train)} + {len(dataset.y_test)} images, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with the .npz files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the sets to")
    arguments = parser.parse_args()
    build(arguments.source, arguments.out)


if __name__ == "__main__":
    main()
