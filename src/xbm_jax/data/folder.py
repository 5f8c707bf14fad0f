"""A task as a folder of image files, one sub-folder per class."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.data.cache import cached_images
from xbm_jax.data.dataset import Dataset
from xbm_jax.data.decode import check_on_bad, decode_all
from xbm_jax.data.images import check_size, stack
from xbm_jax.data.split import split_test
from xbm_jax.errors import DataError, warn
from xbm_jax.examples import chosen

__all__ = ["class_trees", "image_files", "load_folder"]

SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
_TEST_FRACTION = 0.2
_FORMS = "either train/ and test/, each with one folder per class, or one folder per class"
# What file managers and archive programs leave behind; hidden files and folders are left out too.
_LITTER_FOLDERS, _LITTER_FILES = ("@eaDir", "__MACOSX"), ("Thumbs.db", "desktop.ini")
_SHOWN = 5

_Trees = dict[str, dict[str, list[Path]]]


def load_folder(
    root: Path,
    *,
    seed: int = 0,
    image_size: int | None = None,
    on_bad: str = "raise",
    cache: Path | None = None,
) -> Dataset:
    """Read ``root/train/CLASS/*`` and ``root/test/CLASS/*``, or ``root/CLASS/*`` with a seeded stratified 80/20 split.

    Images become grey ``[n, H, W, 1]`` if every file is grey, else RGB. ``image_size`` resizes each to a square
    (bilinear); without it all must have one size. ``on_bad="skip"`` leaves undecodable files out with a warning.

    With ``cache`` images are RGB, decoded once into a file there and read from it when they are asked for.

    Other files are left out with a warning that counts them: images in deeper folders, beside the class folders or in
    folders that programs leave behind (``@eaDir``, hidden ones), and files of a class that have another suffix.

    Raises:
      DataError: no images, files that cannot be decoded (named and counted), images of several sizes without
        ``image_size``, test classes that training lacks, a class without images, fewer than two classes or, without a
        test folder, two images in no class.
    """
    check_size(image_size)
    check_on_bad(on_bad)
    trees = class_trees(root)
    classes = _class_names(trees)
    label = {name: i for i, name in enumerate(classes)}
    files = [(split, label[name], file) for split, tree in trees.items() for name in tree for file in tree[name]]
    if not files:
        raise DataError(f"folder:{root}", "no images", f"{_FORMS}, with files ending in {', '.join(SUFFIXES)}")
    paths = [file for *_, file in files]
    names = [str(file.relative_to(root)) for file in paths]
    name, field = root.resolve().name, f"folder:{root}"
    images: Any
    if cache is None:
        kept, decoded = decode_all(paths, names, image_size, field, on_bad)
        images = stack(decoded, field)
    else:
        kept, images = cached_images(name, paths, root, image_size, cache, field, on_bad)
    labels = np.array([files[i][1] for i in kept], np.int64)
    if "test" in trees:
        is_test = np.array([files[i][0] == "test" for i in kept])
        train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    elif np.bincount(labels).max() < 2:
        raise DataError(f"folder:{root}", "one image a class", "two images of a class at least: one is for testing")
    else:
        train, test = split_test(labels, _TEST_FRACTION, seed)
    x_train, x_test = chosen(images, train), chosen(images, test)
    return Dataset(name, x_train, labels[train], x_test, labels[test], tuple(classes))


def image_files(given: str) -> list[Path]:
    """The files that a name stands for: itself, all images in a folder, however deep, or what a pattern matches.

    A name of nothing that is there is returned as it is, for whoever reads it to say so.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        inside = (p for p in path.rglob("*") if _is_image(p) and not _is_litter(p.relative_to(path)))
        return sorted(inside)
    matched = [] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    return [p for p in matched if p.is_file()] or [path]


def _is_litter(path: Path) -> bool:
    return any(part.startswith(".") or part in _LITTER_FOLDERS for part in path.parts)


def class_trees(root: Path) -> _Trees:
    """``{"train": {class: files}, "test": ...}``, or ``{"all": {class: files}}`` for one tree of class folders.

    Warns of what it leaves out; class names are in Unicode's composed form.

    Raises:
      DataError: no such folder, half a split, two folders whose names look alike, or images in deeper folders alone.
    """
    if not root.is_dir():
        raise DataError(f"folder:{root}", "no such folder", _FORMS)
    names = {folder.name for folder in _folders(root)}
    if {"train", "test"} <= names:
        trees = {split: _tree(root / split) for split in ("train", "test")}
    else:
        _check_half(root, names)
        trees = {"all": _tree(root)}
    left_out = _left_out(root, trees)
    if left_out:
        told = _told(left_out)
        if not any(files for tree in trees.values() for files in tree.values()):
            raise DataError(f"folder:{root}", f"no images in class folders; left out {told}", _FORMS)
        warn(f"folder:{root}: left out {told}")
    return trees


def _check_half(root: Path, names: set[str]) -> None:
    for name in {"train", "test"} & names:
        # A class may be called "train" (QuickDraw has one); a folder of folders of images is a split.
        if any(_tree(root / name).values()):
            other = ({"train", "test"} - {name}).pop()
            like = next((found for found in ("val", "valid", "validation") if found in names), None)
            hint = f"; rename {like}/ if its images are to measure accuracy on" if like and other == "test" else ""
            raise DataError(f"folder:{root}", f"{name}/ alone", f"{_FORMS}; add {other}/{hint}")


def _folders(root: Path) -> list[Path]:
    found = (path for path in root.iterdir() if path.is_dir())
    return sorted(path for path in found if not path.name.startswith(".") and path.name not in _LITTER_FOLDERS)


def _tree(root: Path) -> dict[str, list[Path]]:
    tree: dict[str, list[Path]] = {}
    for folder in _folders(root):
        name = unicodedata.normalize("NFC", folder.name)
        if name in tree:
            raise DataError(f"folder:{root}", f"two folders called {name}", "one folder per class")
        tree[name] = sorted(path for path in folder.iterdir() if _is_image(path))
    return tree


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _left_out(root: Path, trees: _Trees) -> Counter[str]:
    """How many files no class takes, by where they lie (images) or by their suffix (in a class's folder)."""
    taken = {str(file) for tree in trees.values() for files in tree.values() for file in files}
    roots = [root] if "all" in trees else [root / split for split in trees]
    class_folders = {str(folder) for top in roots for folder in _folders(top)}
    found: Counter[str] = Counter()
    for place, _, names in os.walk(root):
        folder = Path(place)
        where = folder.relative_to(root).as_posix()
        for name in names:
            if name.startswith(".") or name in _LITTER_FILES or str(folder / name) in taken:
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                found[f"{where}/"] += 1
            elif str(folder) in class_folders:
                found[f"*{suffix}"] += 1
    return found


def _told(left_out: Mapping[str, int]) -> str:
    places = [f"{count} in {where}" if where.endswith("/") else f"{count} {where}" for where, count in left_out.items()]
    more = f", ... ({len(places)} kinds in all)" if len(places) > _SHOWN else ""
    total = sum(left_out.values())
    return f"{total} file{'s' * (total > 1)}: {', '.join(places[:_SHOWN])}{more}"


def _class_names(trees: _Trees) -> list[str]:
    if "test" not in trees:
        return sorted(trees["all"])
    extra = sorted(set(trees["test"]) - set(trees["train"]))
    if extra:
        raise DataError("test classes", extra, f"classes that train/ has: {', '.join(sorted(trees['train']))}")
    return sorted(trees["train"])
