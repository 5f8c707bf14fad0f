"""What an image's values have to be, said in one place for data sets and for all that reads images on a chip."""

from __future__ import annotations

import numpy as np

from xbm_jax.errors import DataError, warn

__all__ = ["IMAGES", "check_uint8", "warn_if_binary"]

IMAGES = "uint8 images in 0..255 of shape [n, height, width, channels] with 1 or 3 channels"
_FEW = 64


def check_uint8(field: str, images: np.ndarray) -> None:
    """Raise DataError unless ``images`` are uint8: values of another type or range are not rescaled by guess."""
    if np.issubdtype(images.dtype, np.inexact):
        _refuse_real(field, images)
    if images.dtype != np.uint8:
        raise DataError(f"{field}.dtype", str(images.dtype), IMAGES)


def warn_if_binary(field: str, images: np.ndarray) -> None:
    """Warn of uint8 images whose largest value is 1: black and nearly black to a network that expects 0..255."""
    # The first images nearly always settle it.
    if images.size and images[:_FEW].max() <= 1 and images.max() == 1:
        text = "has no value above 1 of 255, all is nearly black; x * 255 makes binary images black and white"
        warn(f"{field} {text}")


def _refuse_real(field: str, images: np.ndarray) -> None:
    broken = ~np.isfinite(images)
    if broken.any():
        count = int(broken.reshape(len(images), -1).any(axis=1).sum()) if images.ndim else 1
        value = f"{images.dtype} with NaN or infinity in {count} of {len(images) if images.ndim else 1} images"
        raise DataError(field, value, f"{IMAGES}; repair the source of these values first")
    hint = "for pixels in 0..1 use np.round(x * 255).astype(np.uint8)"
    allowed = f"{IMAGES}; real-valued pixels are not rescaled by guess, {hint}"
    raise DataError(f"{field}.dtype", str(images.dtype), allowed)
