"""What is done to images before a network sees them: decoding, channels and size, nothing else."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from xbm_jax.errors import DataError

__all__ = ["center_crop", "check_size", "pixels", "resize", "stack", "to_rgb"]

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
# What Pillow turns into 8-bit grey or RGB without loss of depth.
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def to_rgb(images: np.ndarray) -> np.ndarray:
    """Grey ``[..., H, W, 1]`` repeated to three channels; ``[..., H, W, 3]`` is returned as it is.

    Raises:
      DataError: any other channel count.
    """
    channels = images.shape[-1] if images.ndim else 0
    if channels not in (1, 3):
        raise DataError("channels", channels, "1 (grey) or 3 (RGB)")
    return images if channels == 3 else np.repeat(images, 3, axis=-1)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resampling of uint8 ``[n, H, W, C]``, C = 1 or 3, to ``[n, size, size, C]``.

    Shrinking averages over the pixels that fall together (Pillow's antialiased bilinear filter). Images that are not
    square are squeezed, not cropped. Images of that size already are returned as they are.

    Raises:
      DataError: an impossible size, or images that are not uint8 with 1 or 3 channels.
    """
    check_size(size)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError("images", f"{images.dtype}{list(images.shape)}", "uint8 [n, height, width, 1 or 3]")
    if images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, images.shape[-1]), np.uint8)
    for source, target in zip(images, resized, strict=True):
        # Pillow has no one-channel arrays of rank 3.
        picture = Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
        target[...] = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).reshape(target.shape)
    return resized


def center_crop(images: np.ndarray, size: int) -> np.ndarray:
    """The middle ``[n, size, size, C]`` of images; an odd border leaves its extra pixel below and to the right.

    Raises:
      DataError: images smaller than that.
    """
    height, width = images.shape[1:3]
    if min(height, width) < size:
        raise DataError("images.shape", images.shape, f"at least {size} pixels a side")
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]


def pixels(picture: Image.Image, channels: int, size: int | None = None) -> np.ndarray:
    """Decode a picture into uint8 ``[H, W, channels]``, resized (bilinear) to ``size`` if given.

    A photograph that says how the camera was held (EXIF orientation) is turned upright.

    Raises OSError for damaged data and ValueError for more than 8 bits, which Pillow would clip without a word.
    """
    if picture.mode not in _EIGHT_BIT:
        raise ValueError(f"pixels of mode {picture.mode}, more than 8 bits")
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # as Pillow's warning asks for
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def stack(images: list[np.ndarray], field: str) -> np.ndarray:
    """One ``[n, H, W, C]`` array of ``[H, W, 1 or 3]`` images: grey if all are grey, else RGB.

    Raises:
      DataError: images of several sizes; ``field`` says whose.
    """
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) > 1:
        value = f"{len(sizes)} image sizes (height, width), from {sizes[0]} to {sizes[-1]}"
        raise DataError(field, value, "one size for all images, or pass image_size to resize them")
    channels = max(image.shape[-1] for image in images)
    return np.stack([np.broadcast_to(image, (*sizes[0], channels)) for image in images])


def check_size(size: int | None) -> None:
    """Raise DataError unless ``size`` is None or a whole number of pixels from 1 to 4096."""
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= 4096:
        raise DataError("image_size", size, "a whole number of pixels, 1..4096")
