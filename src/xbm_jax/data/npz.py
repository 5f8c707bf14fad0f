"""A task in one ``.npz``: arrays of pixels with a train and a test split, or encoded images one behind the other.

pixels    ``x_train, y_train, x_test, y_test``, perhaps ``class_names`` and ``groups`` (int, one per training image)
encoded   ``jpeg`` uint8, all files concatenated; ``offsets`` int [n + 1], so that file i is
          ``jpeg[offsets[i]:offsets[i + 1]]``; ``labels`` int [n], ``is_test`` bool [n], ``class_names``.
          Any format that Pillow reads will do. Perhaps ``groups``, one per image.
"""

from __future__ import annotations

import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from xbm_jax.archives import DAMAGE, check_member, check_unpacked
from xbm_jax.data.dataset import Dataset, check_images, check_labels, class_text
from xbm_jax.data.decode import check_on_bad, decode_all
from xbm_jax.data.images import resize, stack
from xbm_jax.errors import DataError

__all__ = ["load_npz"]

_PIXELS = ("x_train", "y_train", "x_test", "y_test")
_ENCODED = ("jpeg", "offsets", "labels", "is_test", "class_names")


def load_npz(path: Path, image_size: int | None = None, on_bad: str = "raise") -> Dataset:
    """Read a task from ``path``; without ``class_names`` the classes are called "0", "1", ... up to the largest label.

    Names may be text or UTF-8 bytes. What a file may unpack to is bounded, see :mod:`xbm_jax.archives`.

    Args:
      path: the file, in either form.
      image_size: pixels a side to resize to (bilinear).
      on_bad: "raise" or "skip" for encoded images that cannot be decoded.

    Raises:
      DataError: no such file, not a (whole) ``.npz``, keys that are missing or unreadable (all listed), pickled arrays,
        images that cannot be decoded (counted, the first ones named), or arrays that no Dataset may hold.
    """
    check_on_bad(on_bad)
    arrays = _read(path)
    if "jpeg" in arrays:
        return _from_encoded(path, arrays, image_size, on_bad)
    splits = {}
    for split in ("train", "test"):
        x = check_images(f"x_{split}", arrays[f"x_{split}"])
        splits[f"y_{split}"] = check_labels(f"y_{split}", arrays[f"y_{split}"], f"x_{split}", len(x))
        splits[f"x_{split}"] = x if image_size is None else resize(x, image_size)
    names = arrays.get("class_names")
    if names is None:
        smallest = min(int(splits["y_train"].min()), int(splits["y_test"].min()))
        largest = max(int(splits["y_train"].max()), int(splits["y_test"].max()), 0)
        if smallest > 0:
            allowed = "class numbers from 0; use labels - 1" if smallest == 1 else "class numbers from 0"
            raise DataError("labels", f"{smallest}..{largest}", f"{allowed}; or give class_names")
        if largest >= len(splits["y_train"]):  # more classes than images to learn them from: do not even name them
            raise DataError("labels", largest, "0 up, every class with a training image; or give class_names")
        names = np.arange(largest + 1)
    return Dataset(name=path.stem, class_names=_class_names(names), groups=arrays.get("groups"), **splits)


def _from_encoded(path: Path, arrays: dict[str, np.ndarray], image_size: int | None, on_bad: str) -> Dataset:
    data, offsets = arrays["jpeg"], arrays["offsets"]
    count = len(offsets) - 1 if offsets.ndim == 1 else 0
    rising = np.issubdtype(offsets.dtype, np.integer) and count > 0 and bool((np.diff(offsets) > 0).all())
    if data.dtype != np.uint8 or data.ndim != 1 or not rising or offsets[0] != 0 or offsets[-1] != len(data):
        value = f"{offsets.dtype}{list(offsets.shape)} into {data.dtype}{list(data.shape)}"
        raise DataError("offsets", value, "rising integers from 0 to the number of bytes in jpeg, uint8 [bytes]")
    labels, is_test = check_labels("labels", arrays["labels"], "jpeg", count), arrays["is_test"]
    if is_test.dtype != np.bool_ or is_test.shape != (count,) or is_test.all() or not is_test.any():
        value = f"{is_test.dtype}{list(is_test.shape)}, true for {int(np.count_nonzero(is_test))}"
        raise DataError("is_test", value, f"bool [{count}], true for some images and false for others")
    content = data.tobytes()
    files = [content[start:stop] for start, stop in pairwise(offsets)]
    kept, images = decode_all(files, [f"image {i}" for i in range(count)], image_size, f"npz:{path}", on_bad)
    x, y, test = stack(images, f"npz:{path}"), labels[kept], is_test[kept]
    groups = arrays.get("groups")
    if groups is not None:
        if groups.shape != (count,):
            raise DataError("groups.shape", groups.shape, f"one group per image, [{count}]")
        groups = groups[kept][~test]
    names = _class_names(arrays["class_names"])
    return Dataset(path.stem, x[~test], y[~test], x[test], y[test], names, groups=groups)


def _class_names(names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1:
        raise DataError("class_names.shape", names.shape, "one name per class, [num_classes]")
    return tuple(map(class_text, names.tolist()))


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays that make a task, every fault of the file reported in one error."""
    field = f"npz:{path}"
    if not path.is_file():
        raise DataError(field, "no such file", "the path of an .npz file")
    if not zipfile.is_zipfile(path):
        value = f"{path.stat().st_size} bytes that are no zip archive; cut off in copying?"
        raise DataError(field, value, f"a whole .npz with {_list(_PIXELS)}")
    try:
        arrays, missing, faults = _read_whole(path)
    except DAMAGE as error:
        raise DataError(field, _reason(error), f"a whole .npz with {_list(_PIXELS)}") from error
    keys = _ENCODED if "jpeg" in (*arrays, *faults) else _PIXELS
    if missing or faults:
        found = [f"missing: {_list(missing)}"] * bool(missing) + [
            f"unreadable: {_list([f'{key} ({why})' for key, why in faults.items()])}"
        ] * bool(faults)
        wanted = f"{_list(keys)}, optionally {'groups' if keys is _ENCODED else 'class_names and groups'}"
        raise DataError(field, "; ".join(found), f"the arrays {wanted}; none pickled")
    return arrays


def _read_whole(path: Path) -> tuple[dict[str, np.ndarray], list[str], dict[str, str]]:
    """The task's arrays, the names of those that are missing, and why those that cannot be read cannot."""
    arrays, faults = {}, {}
    # NumPy leaves a file that it opened itself open where the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        check_unpacked(archive.zip, path.stat().st_size)
        keys = _ENCODED if "jpeg" in archive.files else _PIXELS
        for key in dict.fromkeys((*keys, "class_names", "groups")):
            if key not in archive.files:
                continue
            try:
                check_member(archive.zip, key)
                arrays[key] = archive[key]
            except DAMAGE as error:
                faults[key] = _reason(error)
        return arrays, [key for key in keys if key not in archive.files], faults


def _reason(error: Exception) -> str:
    return "pickled objects, save plain arrays instead" if "allow_pickle" in str(error) else str(error) or "damaged"


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
