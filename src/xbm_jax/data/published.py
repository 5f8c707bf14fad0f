"""The five ImageNet-to-Sketch sets as TFDS files, made once from the folders that their users already have.

They are those of Piggyback (Mallya 2018) and of the papers that compare with it: CUBS and Cars cropped to their
bounding boxes, Flowers, WikiArt and Sketch. Nothing is downloaded and TensorFlow is not needed.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbm_jax.data.decode import check_decodable
from xbm_jax.data.folder import class_trees
from xbm_jax.errors import DataError
from xbm_jax.paths import as_path

__all__ = ["PUBLISHED_SETS", "PublishedSet", "prepare_published"]

_VERSION = "1.0.0"


@dataclass(frozen=True)
class PublishedSet:
    """What a published set holds.

    Attributes:
      train: training images. test: test images. classes: number of classes.
      homepage: where its makers describe it. citation: the paper.
    """

    train: int
    test: int
    classes: int
    homepage: str
    citation: str


PUBLISHED_SETS: Mapping[str, PublishedSet] = {
    "cubs_cropped": PublishedSet(
        *(5_994, 5_794, 200),
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie. The Caltech-UCSD Birds-200-2011 Dataset. 2011.",
    ),
    "cars_cropped": PublishedSet(
        *(8_144, 8_041, 196),
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        "J. Krause, M. Stark, J. Deng, L. Fei-Fei. 3D Object Representations for Fine-Grained Categorization. 2013.",
    ),
    "flowers": PublishedSet(
        *(2_040, 6_149, 102),
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        "M.-E. Nilsback, A. Zisserman. Automated Flower Classification over a Large Number of Classes. 2008.",
    ),
    "wikiart": PublishedSet(
        *(42_129, 10_628, 195),
        "https://arxiv.org/abs/1505.00855",
        "B. Saleh, A. Elgammal. Large-scale Classification of Fine-Art Paintings. 2015.",
    ),
    "sketch": PublishedSet(
        *(16_000, 4_000, 250),
        "https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch/",
        "M. Eitz, J. Hays, M. Alexa. How Do Humans Sketch Objects? 2012.",
    ),
}


def prepare_published(name: str, folder: str | Path, data_dir: str | Path | None = None) -> Path:
    """Write ``folder/train/CLASS/*`` and ``folder/test/CLASS/*`` as the TFDS set ``name``; then ``load("tfds:NAME")``.

    Image files are stored as they are. A set that is prepared already is left alone.

    Args:
      name: one of :data:`PUBLISHED_SETS`.
      folder: images by split and class.
      data_dir: where TFDS looks for prepared sets; None is TFDS' own folder.

    Returns:
      The folder of the prepared set.

    Raises:
      DataError: an unknown name; classes that are missing or have no image in a split (each named); other counts than
        those published; files that cannot be decoded (counted, the first ones named). Nothing is written then.
    """
    from tensorflow_datasets.core import constants

    if name not in PUBLISHED_SETS:
        raise DataError("name", name, "one of " + ", ".join(PUBLISHED_SETS))
    data_dir = as_path(data_dir if data_dir is not None else str(constants.DATA_DIR))
    made = data_dir / name / _VERSION
    if (made / "features.json").is_file():
        return made
    root = as_path(folder)
    trees = class_trees(root)
    _check(name, PUBLISHED_SETS[name], trees)
    files = [file for tree in trees.values() for paths in tree.values() for file in paths]
    check_decodable(files, [str(file.relative_to(root)) for file in files], f"folder:{root}")
    with tempfile.TemporaryDirectory() as empty:  # TFDS makes a folder for downloads even where there are none
        _builder(name, trees, data_dir).download_and_prepare(download_dir=empty)
    return made


def _check(name: str, published: PublishedSet, trees: Mapping[str, Mapping[str, list[Path]]]) -> None:
    """Raise one error with all that differs from what was published."""
    if "test" not in trees:
        raise DataError(f"{name} splits", "one tree of classes", "train/ and test/, the published split")
    found = sorted(set(trees["train"]) | set(trees["test"]))
    faults = []
    if len(found) != published.classes:
        named = _missing_numbers(found, published.classes)
        faults.append(f"{len(found)} of {published.classes} classes{f', missing {named}' if named else ''}")
    for split in ("train", "test"):
        empty = [label for label in found if not trees[split].get(label)]
        if empty:
            faults.append(f"no {split} image of {', '.join(empty)}")
        count, wanted = sum(map(len, trees[split].values())), getattr(published, split)
        if count != wanted:
            faults.append(f"{count} {split} images, not {wanted}")
    if faults:
        allowed = f"{published.train} training and {published.test} test images of {published.classes} classes"
        raise DataError(name, "; ".join(faults), f"{allowed}, as published")


def _missing_numbers(found: list[str], classes: int) -> str:
    """Numbers that no class folder has, where all start with one (``017.Cardinal``, ``17``), counted from 0 or 1."""
    heads = [re.match(r"\d+", label) for label in found]
    numbers = {int(head[0]) for head in heads if head}
    if not found or None in heads or len(numbers) != len(found):
        return ""
    first = min(min(numbers), 1)
    return ", ".join(str(n) for n in range(first, first + classes) if n not in numbers)


def _builder(name: str, trees: Mapping[str, Mapping[str, list[Path]]], data_dir: Path) -> Any:
    """A TFDS builder of these files; the class is made here, since TFDS is imported inside functions only."""
    import tensorflow_datasets as tfds

    published, classes = PUBLISHED_SETS[name], sorted(trees["train"])

    class Folders(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Image files by split and class."""

        VERSION = tfds.core.Version(_VERSION)

        def _info(self) -> tfds.core.DatasetInfo:
            label = tfds.features.ClassLabel(names=classes)
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"{name}, one of the five ImageNet-to-Sketch sets.",
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                homepage=published.homepage,
                citation=published.citation,
                disable_shuffling=True,  # TFDS' shuffle depends on the output path
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
            return {split: self._generate_examples(trees[split]) for split in ("train", "test")}

        def _generate_examples(self, tree: Mapping[str, list[Path]]) -> Iterator[tuple[int, dict[str, Any]]]:
            files = [(file, label) for label, label_files in tree.items() for file in label_files]
            for i, (file, label) in enumerate(files):
                # Bytes: from a path or an array TFDS would go through TensorFlow.
                yield i, {"image": io.BytesIO(file.read_bytes()), "label": label}

    Folders.name = name
    return Folders(data_dir=data_dir, file_format="array_record")
