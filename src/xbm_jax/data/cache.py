"""A folder of images, decoded once: an array_record file of pixels, read at random as often as one likes.

    <cache>/<name>-<digest>.array_record   an image's pixels a record, uint8 [H, W, C], compressed without loss
    <cache>/<name>-<digest>.json           shape, number and the names of what could not be decoded

The digest is of every file's name, size and time of change, and of the size that images are brought to: where one of
these changes another cache is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.data.decode import decode_all
from xbm_jax.data.streamed import Streamed
from xbm_jax.errors import DataError, OutputError
from xbm_jax.storage.files import replace_file

__all__ = ["cached_images"]

_FORM = 1
_CHUNK = 256
_OPTIONS = "group_size:1,zstd:1"


def cached_images(
    name: str, files: Sequence[Path], root: Path, size: int | None, cache: Path, field: str, on_bad: str
) -> tuple[list[int], Streamed]:
    """Positions of the files that can be decoded, and their images as a cache keeps them; it is written if need be.

    Raises:
        DataError: files that cannot be decoded, images of several sizes, or a damaged cache. OutputError: a cache that
            cannot be written.
    """
    stats = [(file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    text = json.dumps([_FORM, size, on_bad, stats])
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = cache / f"{name}-{digest[:16]}.array_record"
    described = path.with_suffix(".json")
    if not described.is_file():
        names = [stat[0] for stat in stats]
        _write(path, described, files, names, size, field, on_bad)
    kept, shape = _described(described)
    return kept, Streamed(_Reader(path, shape, len(kept)), np.arange(len(kept)), shape, digest)


def _write(
    path: Path, described: Path, files: Sequence[Path], names: Sequence[str], size: int | None, field: str, on_bad: str
) -> None:
    """The pixels, whole, then what says that they are."""
    from array_record.python import array_record_module  # type: ignore[attr-defined]  # compiled

    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = array_record_module.ArrayRecordWriter(str(part), _OPTIONS)
        try:
            kept, shape = _decoded_into(writer, files, names, size, field, on_bad)
        finally:
            writer.close()
        os.replace(part, path)
    except OSError as error:
        raise OutputError("cache", str(path.parent), f"a folder with room for the images ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    replace_file(described, json.dumps({"shape": shape, "kept": kept}))


def _decoded_into(
    writer: Any, files: Sequence[Path], names: Sequence[str], size: int | None, field: str, on_bad: str
) -> tuple[list[int], tuple[int, ...]]:
    """Write every image that can be decoded; RGB, since that a later one is grey is not known before."""
    kept: list[int] = []
    shapes: dict[tuple[int, ...], str] = {}
    for start in range(0, len(files), _CHUNK):
        block = files[start : start + _CHUNK]
        found, images = decode_all(block, names[start : start + _CHUNK], size, field, on_bad, channels=3)
        for i, image in zip(found, images, strict=True):
            shapes.setdefault(image.shape, names[start + i])
            writer.write(image.tobytes())
        kept += [start + i for i in found]
    if len(shapes) > 1:
        value = ", ".join(f"{shape[0]} x {shape[1]} ({name})" for shape, name in list(shapes.items())[:3])
        raise DataError(field, value, "one size for all images, or pass image_size to resize them")
    return kept, next(iter(shapes))


def _described(path: Path) -> tuple[list[int], tuple[int, int, int]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        # Three numbers, as they were written.
        return [int(i) for i in known["kept"]], tuple(map(int, known["shape"]))  # type: ignore[return-value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("cache", str(path), f"an undamaged cache; remove it, it is made again ({error})") from error


class _Reader:
    """Images of a cache by their numbers. The file is opened when it is first read, by every process for itself."""

    def __init__(self, path: Path, shape: tuple[int, int, int], count: int) -> None:
        self.path, self.shape, self.count = path, shape, count
        self.source: Any = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        try:
            records = self._opened().__getitems__([int(row) for row in rows])
            return np.stack([np.frombuffer(record, np.uint8).reshape(self.shape) for record in records])
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            allowed = f"a file with {self.count} images of {self.shape}, as it was written ({error})"
            raise DataError("cache", str(self.path), allowed) from error

    def _opened(self) -> Any:
        if self.source is None:
            from array_record.python import array_record_data_source

            self.source = array_record_data_source.ArrayRecordDataSource([str(self.path)])
            if len(self.source) != self.count:
                raise ValueError(f"{len(self.source)} records")
        return self.source
