"""A task as a folder of image files, one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xbm_jax.data.dataset import Dataset
from xbm_jax.data.decode import check_on_bad, decode_all
from xbm_jax.data.images import check_size, stack
from xbm_jax.data.split import split_validation
from xbm_jax.errors import DataError

__all__ = ["class_trees", "load_folder"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TEST_FRACTION = 0.2
_FORMS = "either train/ and test/, each with one folder per class, or one folder per class"


def load_folder(root: Path, *, seed: int = 0, image_size: int | None = None, on_bad: str = "raise") -> Dataset:
    """Read ``root/train/CLASS/*`` and ``root/test/CLASS/*``, or ``root/CLASS/*`` with a seeded stratified 80/20 split.

    Images become grey ``[n, H, W, 1]`` if every file is grey, else RGB. ``image_size`` resizes each to a square
    (bilinear); without it all must have one size. ``on_bad="skip"`` leaves undecodable files out with a warning.

    Raises:
      DataError: no images, files that cannot be decoded (named and counted), images of several sizes without
        ``image_size``, test classes that training lacks, a class without images.
    """
    check_size(image_size)
    check_on_bad(on_bad)
    trees = class_trees(root)
    classes = _class_names(trees)
    files = [
        (split, classes.index(name), file) for split, tree in trees.items() for name in tree for file in tree[name]
    ]
    if not files:
        raise DataError(f"folder:{root}", "no images", f"{_FORMS}, with files ending in {', '.join(SUFFIXES)}")
    paths = [file for *_, file in files]
    names = [str(file.relative_to(root)) for file in paths]
    kept, images = decode_all(paths, names, image_size, f"folder:{root}", on_bad)
    stacked = stack(images, f"folder:{root}")
    labels = np.array([files[i][1] for i in kept], np.int64)
    if "test" in trees:
        is_test = np.array([files[i][0] == "test" for i in kept])
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    else:
        train, test = split_validation(labels, _TEST_FRACTION, seed)
    return Dataset(root.resolve().name, stacked[train], labels[train], stacked[test], labels[test], tuple(classes))


def class_trees(root: Path) -> dict[str, dict[str, list[Path]]]:
    """``{"train": {class: files}, "test": ...}``, or ``{"all": {class: files}}`` for one tree of class folders.

    Raises:
      DataError: no such folder, or half a split.
    """
    if not root.is_dir():
        raise DataError(f"folder:{root}", "no such folder", _FORMS)
    names = {folder.name for folder in _folders(root)}
    split_folders = {"train", "test"} & names
    if len(split_folders) == 2:
        return {split: _tree(root / split) for split in ("train", "test")}
    for name in split_folders:
        # A class may be called "train" (QuickDraw has one); a folder of folders of images is a split.
        if any(_tree(root / name).values()):
            raise DataError(f"folder:{root}", f"{name}/ alone", f"{_FORMS}; add {({'train', 'test'} - {name}).pop()}/")
    return {"all": _tree(root)}


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _tree(root: Path) -> dict[str, list[Path]]:
    return {folder.name: sorted(path for path in folder.iterdir() if _is_image(path)) for folder in _folders(root)}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _class_names(trees: dict[str, dict[str, list[Path]]]) -> list[str]:
    if "test" not in trees:
        return sorted(trees["all"])
    extra = sorted(set(trees["test"]) - set(trees["train"]))
    if extra:
        raise DataError("test classes", extra, f"classes that train/ has: {', '.join(sorted(trees['train']))}")
    return sorted(trees["train"])
