"""A task in a user's own ``.npz``: ``x_train, y_train, x_test, y_test`` perhaps ``class_names``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from xbm_jax.data.dataset import Dataset, check_images, check_labels
from xbm_jax.data.images import resize
from xbm_jax.errors import DataError

__all__ = ["load_npz"]

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_BROKEN = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def load_npz(path: Path, image_size: int | None = None) -> Dataset:
    """Read a task from ``path``; without ``class_names`` the classes are called "0", "1", ... up to the largest label.

    Raises:
      DataError: no such file, not a (whole) ``.npz``, keys that are missing or unreadable (all listed), pickled arrays,
        or arrays that no Dataset may hold.
    """
    arrays = _read(path)
    splits = {}
    for split in ("train", "test"):
        x = check_images(f"x_{split}", arrays[f"x_{split}"])
        splits[f"y_{split}"] = check_labels(f"y_{split}", arrays[f"y_{split}"], f"x_{split}", len(x))
        splits[f"x_{split}"] = x if image_size is None else resize(x, image_size)
    names = arrays.get("class_names")
    if names is None:
        largest = max(int(splits["y_train"].max()), int(splits["y_test"].max()), 0)
        if largest >= len(splits["y_train"]):  # more classes than images to learn them from: do not even name them
            raise DataError("labels", largest, "0 up, every class with a training image; or give class_names")
        names = np.arange(largest + 1)
    elif names.ndim != 1:
        raise DataError("class_names.shape", names.shape, "one name per class, [num_classes]")
    return Dataset(name=path.stem, class_names=tuple(str(name) for name in names), **splits)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays that make a task, every fault of the file reported in one error."""
    field = f"npz:{path}"
    if not path.is_file():
        raise DataError(field, "no such file", "the path of an .npz file")
    if not zipfile.is_zipfile(path):
        value = f"{path.stat().st_size} bytes that are no zip archive; cut off in copying?"
        raise DataError(field, value, f"a whole .npz with {_list(_KEYS)}")
    arrays, faults = {}, []
    with np.load(path, allow_pickle=False) as archive:
        missing = [key for key in _KEYS if key not in archive.files]
        for key in (*_KEYS, "class_names"):
            if key not in archive.files:
                continue
            try:
                arrays[key] = archive[key]
            except _BROKEN as error:
                faults.append(f"{key} ({_reason(error)})")
    if missing or faults:
        found = [f"missing: {_list(missing)}"] * bool(missing) + [f"unreadable: {_list(faults)}"] * bool(faults)
        raise DataError(field, "; ".join(found), f"the arrays {_list(_KEYS)}, optionally class_names; none pickled")
    return arrays


def _reason(error: Exception) -> str:
    return "pickled objects, save plain arrays instead" if "allow_pickle" in str(error) else str(error) or "damaged"


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
