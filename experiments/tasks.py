"""The tasks of the comparisons, from a folder of ``.npz`` files: by name, at one size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

import xbm_jax as xbm

OMNIGLOT_LAST_TRAIN_DRAWER = 15


def local_task(name: str, folder: str | Path, image_size: int | None = None) -> xbm.Dataset:
    """The task in ``folder/NAME.npz``: pixels, encoded images, or Omniglot's own form, whose label is the alphabet."""
    path = Path(folder) / f"{name}.npz"
    if name.startswith("gtsrb"):
        return _without_near_copies(path, image_size)
    if name != "omniglot8":
        return xbm.load(f"npz:{path}", image_size=image_size)
    if not path.is_file():
        raise xbm.DataError("task", str(path), "an existing file")
    with np.load(path, allow_pickle=False) as data:
        images, labels, is_test = data["images"], data["alphabet"], data["drawer"] > OMNIGLOT_LAST_TRAIN_DRAWER
        names = tuple(str(alphabet) for alphabet in data["alphabet_names"])
    if image_size is not None:
        images = xbm.data.resize(images, image_size)
    return xbm.Dataset(name, images[~is_test], labels[~is_test], images[is_test], labels[is_test], names)


def _without_near_copies(path: Path, image_size: int | None) -> xbm.Dataset:
    """Traffic signs were filmed: frames of one track do not stand on both sides of a validation split."""
    data = xbm.load(f"npz:{path}")
    data = dataclasses.replace(data, groups=xbm.data.near_copies(data.x_train, data.y_train))
    if image_size is None:
        return data
    x_train, x_test = (xbm.data.resize(x, image_size) for x in (data.x_train, data.x_test))
    return dataclasses.replace(data, x_train=x_train, x_test=x_test)
