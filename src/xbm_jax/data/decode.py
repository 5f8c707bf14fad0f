"""Many encoded images to arrays, once: in threads, with those that cannot be decoded named and counted."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from xbm_jax.data.images import pixels
from xbm_jax.errors import DataError, warn

__all__ = ["check_decodable", "check_on_bad", "decode_all", "decoded"]

_SHOWN = 5


def decode_all(
    files: Sequence[Path | bytes],
    names: Sequence[str],
    size: int | None,
    field: str,
    on_bad: str,
    channels: int | None = None,
) -> tuple[list[int], list[np.ndarray]]:
    """Decoded images uint8 [H, W, 1 or 3] and their positions in ``files``.

    Pillow decodes and resizes outside Python's lock, so threads share the work.

    Args:
      files: paths, or the encoded bytes themselves. names: what errors call them.
      size: pixels a side to resize to (bilinear), or None.
      field: what errors call the whole. on_bad: "raise" or "skip".
      channels: of every image; None keeps grey ones grey.

    Raises:
      DataError: with "raise", images that cannot be decoded; with "skip", if there is no other one.
    """
    found = list(decoded(files, size, channels))
    bad = [f"{name} ({image})" for name, image in zip(names, found, strict=True) if isinstance(image, str)]
    if bad:
        message = _counted(bad, len(files))
        if on_bad == "raise" or len(bad) == len(files):
            raise DataError(field, message, 'repair or remove them, or pass on_bad="skip"')
        warn(f"{field}: left out {message}")
    kept = [i for i, image in enumerate(found) if not isinstance(image, str)]
    return kept, [image for image in found if not isinstance(image, str)]


def check_decodable(files: Sequence[Path], names: Sequence[str], field: str) -> None:
    """Raise DataError unless every file can be decoded; nothing is kept, however many there are."""
    found = decoded(files, 1, None)
    bad = [f"{name} ({image})" for name, image in zip(names, found, strict=True) if isinstance(image, str)]
    if bad:
        raise DataError(field, _counted(bad, len(files)), "files that can all be decoded; repair or replace them")


def check_on_bad(on_bad: str) -> None:
    """Raise DataError unless it is "raise" or "skip"."""
    if on_bad not in ("raise", "skip"):
        raise DataError("on_bad", on_bad, '"raise" or "skip"')


def _counted(bad: Sequence[str], count: int) -> str:
    shown = "; ".join(bad[:_SHOWN]) + ("; ..." if len(bad) > _SHOWN else "")
    return f"{len(bad)} of {count} files cannot be decoded: {shown}"


def decoded(files: Sequence[Path | bytes], size: int | None, channels: int | None) -> Iterator[np.ndarray | str]:
    """Every image, or why there is none, in order.

    A picture of more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` (89 million unless it was raised) is not decoded.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # up to twice as many Pillow but warns
        yield from pool.map(lambda file: _decode(file, size, channels), files)


def _decode(file: Path | bytes, size: int | None, channels: int | None) -> np.ndarray | str:
    """The image, or why there is none."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
            return pixels(picture, channels or (1 if picture.mode in ("1", "L", "LA") else 3), size)
    except Exception as error:  # on damaged bytes Pillow's many parsers raise nearly anything
        # Pillow ends its message with the path, or with the object that held the bytes.
        text = str(error).split(str(file) if isinstance(file, Path) else "<_io")[0]
        return f"{type(error).__name__}: {text.rstrip(chr(39)).strip()}"
