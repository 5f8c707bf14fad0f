"""A contact sheet: small images in rows, under each what was said of it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xbm_jax.storage.files import replace_file

__all__ = ["draw_sheet"]

_THUMBNAIL, _GAP, _TEXT = 112, 12, 14
"""Pixels of an image's side, between images, and of the text's height."""


def draw_sheet(images: Sequence[np.ndarray], captions: Sequence[str], path: str | Path) -> None:
    """Write images uint8 [H, W, 1 or 3] with their captions as one PNG, in about as many rows as columns.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    columns = min(10, math.ceil(math.sqrt(len(images)) * 1.2))
    rows, cell = math.ceil(len(images) / columns), (_THUMBNAIL + _GAP, _THUMBNAIL + _TEXT + 2 * _GAP)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT - 2)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = _GAP + (i % columns) * cell[0], _GAP + (i // columns) * cell[1]
        sheet.paste(_thumbnail(image), (left, top))
        pen.text((left, top + _THUMBNAIL + 3), _shortened(caption, pen, font), fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    replace_file(path, buffer.getvalue())


def _thumbnail(image: np.ndarray) -> Image.Image:
    """Small images stay sharp: each pixel becomes a square."""
    picture = Image.fromarray(np.repeat(image, 3, -1) if image.shape[-1] == 1 else image)
    sharp = max(picture.size) < _THUMBNAIL
    return picture.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.NEAREST if sharp else Image.Resampling.BILINEAR)


def _shortened(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text in one line as wide as an image; of a caption that ends in a number the number stays."""
    text = " ".join(text.split())
    name, _, number = text.rpartition(" ")
    while pen.textlength(text, font) > _THUMBNAIL and name:
        name = name[:-1]
        text = f"{name}... {number}"
    return text
